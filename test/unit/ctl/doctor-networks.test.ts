import assert from 'node:assert/strict';
import type { ContainerFacts, ParentFacts } from '../../../src/ctl/doctor/container-facts.js';
import { CHECKS } from '../../../src/ctl/doctor/diagnose.js';
import type { DoctorFacts, ProxiedFacts, UnansweredNeighbour } from '../../../src/ctl/doctor/facts.js';
import { parseMac } from '../../../src/ip/mac.js';
import type { ContainerNetworksStatus } from '../../../src/observe/container-status.js';
import type { ContainerReachStatus } from '../../../src/observe/container-reach-status.js';
import type { DaemonStatus, PeerStatus } from '../../../src/observe/status.js';
import type { WireguardPathStatus } from '../../../src/observe/wireguard-status.js';
import { ip, net } from '../../support/builders.js';
import { LINKS, daemon, found, link, only } from '../../support/doctor-facts.js';
import {
  sampleContainerNetworks,
  sampleCommands,
  sampleContainerReach,
  samplePeer,
  sampleStatus,
} from '../../support/sample-status.js';

describe('the checks of WireGuard', () => {
  const wireguard = { ...sampleStatus().wireguard } as NonNullable<DaemonStatus['wireguard']>;
  const [path] = samplePeer(5).wireguard;
  assert.ok(path);
  const at = (secondsAgo: number): string =>
    new Date(Date.parse(daemon.startedAt) + (daemon.uptimeSeconds - secondsAgo) * 1000).toISOString();
  const SILENT: Partial<WireguardPathStatus> = { lastHandshakeAt: null, txBytes: 148 };

  /** A peer with these paths; `states` are those of the probes to it. */
  function peer(
    number: number,
    paths: readonly Partial<WireguardPathStatus>[],
    states: readonly string[] = [],
  ): PeerStatus {
    const probes = states.map((state) => ({ state })) as unknown as PeerStatus['reachability'];
    return {
      ...samplePeer(number),
      skipped: null,
      wireguard: paths.map((changes) => ({ ...path, ...changes }) as WireguardPathStatus),
      reachability: probes,
    };
  }

  const having = (...peers: readonly PeerStatus[]): Pick<DoctorFacts, 'daemon'> => ({
    daemon: { ...daemon, wireguard, peers },
  });

  const isFound = (...args: Parameters<typeof peer>): boolean => found('wireguard', having(peer(...args))).length > 0;

  it('name one peer without handshakes, and count several', () => {
    const one = only('wireguard', having(peer(5, [SILENT])));
    assert.match(one.message, /^198\.51\.100\.6 answers no handshake: /);
    const two = only('wireguard', having(peer(5, [SILENT]), peer(6, [SILENT]), peer(7, [{}])));
    assert.match(two.message, /^2 hosts answer no handshake: /);
    const skipped = { cause: 'backend', reason: 'x', hint: 'y' } as PeerStatus['skipped'];
    assert.deepEqual(found('wireguard', having({ ...peer(5, [SILENT]), skipped })), [], 'nothing is sent there');
    assert.deepEqual(two.subnets, ['10.100.5.0/24', '10.100.6.0/24']);
  });

  it('name the ports of the devices', () => {
    const [device] = wireguard.devices;
    assert.ok(device);
    const devices = [
      { ...device, listenPort: 51999 },
      { ...device, listenPort: 52000 },
    ];
    const { message, command } = only('wireguard', {
      daemon: { ...daemon, wireguard: { ...wireguard, devices }, peers: [peer(5, [SILENT])] },
    });
    assert.match(message, /UDP port 51999 and 52000 is blocked/);
    assert.match(command, /^tcpdump -ni any udp port 51999 # here and on 198\.51\.100\.6: /);
    const none = { ...daemon, wireguard: { ...wireguard, devices: [] }, peers: [peer(5, [SILENT])] };
    assert.match(only('wireguard', { daemon: none }).command, /^tcpdump -ni any udp port 51820 /);
  });

  it('take an old handshake for a lost session only where packets are lost as well', () => {
    const [old, young] = [{ lastHandshakeAt: at(301) }, { lastHandshakeAt: at(300) }];
    assert.equal(isFound(5, [old], ['unreachable']), true);
    assert.equal(isFound(5, [old], ['reachable', 'unreachable']), true);
    assert.equal(isFound(5, [young, old], ['unreachable']), true);
    assert.equal(isFound(5, [old], ['reachable']), false);
    assert.equal(isFound(5, [young], ['unreachable']), false);
    assert.equal(isFound(5, [{ lastHandshakeAt: at(300.1) }], ['unreachable']), true);
    assert.equal(isFound(5, [{ lastHandshakeAt: null, txBytes: 0 }], ['unreachable']), false, 'nothing was sent');
  });

  it('tell of each path where it leads and what passed', () => {
    const paths = [
      { ...SILENT, endpoint: null },
      { lastHandshakeAt: at(60), endpoint: '192.0.2.5:51820' },
    ];
    assert.equal(
      only('wireguard', having(peer(5, paths))).evidence,
      `10.100.5.0/24 (flannel-wg to nowhere: no handshake, 148 bytes sent, 4096 received; ` +
        `flannel-wg to 192.0.2.5:51820: last handshake ${at(60)}, 2048 bytes sent, 4096 received)`,
    );
  });

  it('miss the module where the device of WireGuard cannot be made, and there alone', () => {
    const failing = (object: string, error: string): number => {
      const failures = [{ object, error }] as unknown as DaemonStatus['reconcile']['failures'];
      return found('wireguard-module', { daemon: { ...daemon, reconcile: { ...daemon.reconcile, failures } } }).length;
    };
    assert.equal(failing('link flannel-wg', 'cannot change link flannel-wg: EOPNOTSUPP'), 1);
    assert.equal(failing('link flannel-wg', 'cannot change link flannel-wg: EPERM'), 0);
    assert.equal(failing('link flannel.1', 'cannot change link flannel.1: EOPNOTSUPP'), 0);
  });
});

describe('the checks of proxied neighbours', () => {
  const neighbour = (address: string, bridge: string): UnansweredNeighbour => ({
    address: ip(address),
    device: 'eth0',
    bridge,
  });
  const proxied = (changes: Partial<ProxiedFacts>): Pick<DoctorFacts, 'proxied'> => ({
    proxied: { proxied: [], stale: [], missing: [], ...changes },
  });

  it('name each bridge with its own addresses', () => {
    const missing = [
      neighbour('2001:db8::2', 'docker0'),
      neighbour('2001:db8::3', 'br-1'),
      neighbour('2001:db8::4', 'docker0'),
    ];
    assert.deepEqual(
      found('ndp-missing', { ...proxied({ missing }), daemon: { ...daemon, ndpProxy: null } }).map(
        ({ evidence }) => evidence,
      ),
      ['no proxy entry for 2001:db8::2 dev eth0; 2001:db8::4 dev eth0', 'no proxy entry for 2001:db8::3 dev eth0'],
    );
  });

  it('tell what to do by whose bridge it is', () => {
    const sample = sampleContainerNetworks();
    const [network] = sample.networks;
    assert.ok(network);
    const networks = [
      { ...network, id: 'a'.repeat(64), parent: 'tsfb-1' },
      { ...network, id: 'b'.repeat(64), parent: 'tsfb-2' },
    ];
    const links = [...LINKS, link(8, 'tsfb-1', { alias: 'tsflannel:coreos.com/network' }), link(9, 'br-1')];
    const { ndpProxy } = sampleStatus();
    const command = (bridge: string, changes: Partial<DaemonStatus>): string =>
      only('ndp-missing', {
        ...proxied({ missing: [neighbour('2001:db8::2', bridge)] }),
        links,
        daemon: { ...daemon, containerNetworks: { ...sample, networks }, ...changes },
      }).command;
    assert.match(
      command('tsfb-1', { ndpProxy }),
      /network rm a{12}[^b]* # then create it again with -o ndp-proxy=true$/,
    );
    assert.match(command('br-1', { ndpProxy: null }), /^echo FLANNELD_NDP_PROXY=true >> /);
    assert.equal(command('br-1', { ndpProxy }), 'systemctl restart tsflanneld');
  });

  it('count the groups of each interface', () => {
    const many = (count: number, device: string, low = (n: number): bigint => BigInt(n)): ProxiedFacts['proxied'] =>
      Array.from({ length: count }, (_, n) => ({
        address: net(`2001:db8:0:${(n + 1).toString(16)}::/128`).address.add(low(n)),
        device,
      }));
    assert.deepEqual(found('mld-groups', proxied({ proxied: many(511, 'eth0') })), []);
    assert.deepEqual(found('mld-groups', proxied({ proxied: many(2000, 'eth0', () => 2n) })), []);
    const both = [...many(511, 'eth0'), ...many(512, 'eth1')];
    const { message, evidence } = only('mld-groups', proxied({ proxied: both }));
    assert.match(message, /^eth1 is in 512 multicast groups /);
    assert.match(evidence, /^512 proxy entries; /);
  });
});

describe('the checks of container networks and their ports', () => {
  const sample = sampleContainerNetworks();
  const [pool] = sample.pools;
  const [network] = sample.networks;
  assert.ok(pool && network);
  const use = { ...pool.uses[0], state: 'confirmed' } as (typeof pool.uses)[number];
  const around = (
    changes: Partial<ContainerFacts>,
    networks: Partial<ContainerNetworksStatus> = {},
  ): Partial<DoctorFacts> => ({
    daemon: { ...daemon, containerNetworks: { ...sample, ...networks } },
    containers: { parents: [], cluster: undefined, silentHosts: [], stranded: [], machine: '', ...changes },
  });

  it('say how much is left of a range without etcd', () => {
    const left = (free: number): readonly string[] =>
      found('address-range', around({}, { pools: [{ ...pool, uses: [use], free }] })).map(({ message }) => message);
    assert.deepEqual(left(1), []);
    assert.deepEqual(left(0), ['network lan has no address left for further containers of this host']);
  });

  it('say how much is left of a range, and who has it: blocks and single addresses', () => {
    const entry = { path: '', text: '', revision: 1n, etcdLeaseId: undefined };
    const blocks = Array.from({ length: 16 }, (_, n) => ({
      ...{ block: net(`192.0.2.${64 + 4 * n}/30`), host: n === 0 ? 'host-1' : 'host-2', own: 0n, used: [], entry },
    }));
    const says = (free: number, leased = blocks): readonly string[] => {
      const addresses = [{ address: ip('192.0.2.127'), holder: '', host: 'host-3', entry }];
      const cluster = [
        { name: 'lan', subnet: net('192.0.2.0/24'), record: undefined, hosts: [], blocks: leased, addresses },
      ] as unknown as ContainerFacts['cluster'];
      const pools = [{ ...pool, uses: [use], free, seen: [], shared: [] }];
      return found('address-range', around({ cluster }, { pools })).flatMap(({ message, evidence }) => [
        message,
        evidence,
      ]);
    };
    const holders = 'are in use or leased by host-1; host-2; host-3';
    assert.deepEqual(says(0), [
      'network lan has no address left for further containers of this host',
      `of the 64 addresses of 192.0.2.64/26, 64 ${holders}`,
    ]);
    assert.match(says(1)[0] ?? '', /has one address left/);
    assert.match(says(2)[0] ?? '', /has 2 addresses left/);
    assert.equal(says(6).length, 2, 'less than a tenth');
    assert.deepEqual(says(7), []);
  });

  it('name one container that could not start, and count several', () => {
    const stranded = ['web', 'db 1'].map((name) => ({ name, error: 'no such plugin' }));
    const one = only('container-start', around({ stranded: stranded.slice(0, 1) }));
    assert.match(one.message, /^a container is down that restarts by itself: Docker could not start it while /);
    const two = only('container-start', around({ stranded }));
    assert.match(two.message, /^2 containers are down that restart by themselves: Docker could not start them while /);
    assert.equal(two.command, "docker start web 'db 1'");
    assert.equal(two.evidence, 'web: no such plugin; db 1: no such plugin');
  });

  const parent: ParentFacts = {
    name: 'eth0',
    macs: [parseMac('02:00:00:00:00:01'), parseMac('02:42:c0:00:02:41')],
    isWireless: false,
    foreign: { address: '192.0.2.254', mac: parseMac('02:42:c0:00:02:41'), isAnswered: false },
  };

  it('say from which addresses a router answered, and from which it did not', () => {
    const evidence = (macs: ParentFacts['macs']): string =>
      only('foreign-mac', around({ parents: [{ ...parent, macs }] })).evidence;
    assert.equal(
      evidence(parent.macs),
      '192.0.2.254 answers 02:00:00:00:00:01, and not 02:42:c0:00:02:41 on the same interface',
    );
    const networks = [network, { ...network, parent: 'eth9', subnets: ['203.0.113.0/24'] }];
    const { message } = only('foreign-mac', around({ parents: [parent] }, { networks }));
    assert.match(message, /^containers of 192\.0\.2\.0\/24 reach nobody outside this host: the network behind eth0 /);
    assert.match(evidence([]), /^192\.0\.2\.254 answers its MAC address, and not /);
  });

  it('compare the addresses of a port with its limit', () => {
    const limit = (macLimit: number | undefined): readonly string[] =>
      found('mac-limit', { ...around({ parents: [parent] }), macLimit }).flatMap(({ severity, message, command }) => [
        severity,
        message,
        /end (\d+) here/.exec(command)?.[1] ?? '',
      ]);
    assert.deepEqual(limit(undefined), []);
    assert.deepEqual(limit(3), []);
    assert.deepEqual(limit(2), ['warning', 'the switch port of eth0 takes no further container', '1']);
    assert.deepEqual(limit(1), [
      'error',
      'the switch port of eth0 gets more MAC addresses than it takes; some containers reach nobody outside this host',
      '2',
    ]);
  });
});

describe('the checks of containers on other hosts', () => {
  const reach = sampleContainerReach();
  const [skip] = reach.skipped;
  assert.ok(skip);
  const says = (changes: Partial<ContainerReachStatus>): readonly string[] =>
    found('container-reach', { daemon: { ...daemon, containerReach: { ...reach, ...changes } } }).flatMap(
      ({ severity, message, command }) => [severity, message, command],
    );
  const other = { ...skip, cause: 'backend', hint: 'load the module' } as typeof skip;
  const ROUTER = 'packets to containers of hosts behind a router are left to that router, which needs routes to them';
  const ROUTES = 'tsflannelctl docker-networks routes # for the router';

  it('are a note where a router does it, and a warning where something else is wrong as well', () => {
    assert.deepEqual(says({ skipped: [skip, skip], unplaced: [] }), ['note', ROUTER, ROUTES]);
    assert.deepEqual(says({ skipped: [other, skip], unplaced: [] }), ['warning', ROUTER, ROUTES]);
    assert.deepEqual(says({ skipped: [other], unplaced: [] }), [
      'warning',
      'containers of other hosts cannot be reached',
      'tsflannelctl status # load the module',
    ]);
  });

  it('name hosts that nobody can find', () => {
    assert.deepEqual(says({ skipped: [] }).slice(0, 2), [
      'warning',
      'hosts have containers, and nobody knows where the hosts are',
    ]);
    assert.deepEqual(says({ skipped: [], unplaced: [] }), []);
  });
});

describe('what explains a finding', () => {
  const underlying = CHECKS.find(({ id }) => id === 'checksum')?.follows ?? [];

  /** What comes before it besides all that lies below the overlay. */
  const follows = (id: string): readonly string[] => {
    const all = CHECKS.find((check) => check.id === id)?.follows ?? assert.fail(id);
    assert.deepEqual(all.slice(0, underlying.length), underlying, id);
    return all.slice(underlying.length);
  };

  it('is what lies below it, the nearest last', () => {
    for (const id of ['daemon', 'vtep-mac', 'wireguard-module']) assert.ok(underlying.includes(id), id);
    assert.deepEqual(follows('wireguard'), []);
    assert.deepEqual(follows('overlay-blocked'), ['wireguard']);
    assert.deepEqual(follows('far-bridge'), ['peers', 'overlay-blocked', 'checksum']);
    assert.deepEqual(follows('far-forward'), ['peers', 'overlay-blocked', 'checksum', 'far-bridge']);
  });
});

describe('the check of the commands of backend extension', () => {
  it('counts the peers, of which some are named', () => {
    const says = (failingCount: number, peer: string | null = '10.5.2.0/24'): readonly string[] => {
      const failing = [{ command: 'SubnetAddCommand', peer, failure: 'exit status 1', lastLine: '', attempts: 3 }];
      const commandsStatus = { ...sampleCommands(), failing, failingCount } as NonNullable<DaemonStatus['commands']>;
      const { message, evidence } = only('extension-commands', { daemon: { ...daemon, commands: commandsStatus } });
      return [message, evidence];
    };
    const evidence = '10.5.2.0/24: SubnetAddCommand: exit status 1';
    assert.deepEqual(says(1), ['commands of backend extension for one peer fails', evidence]);
    assert.deepEqual(says(2), ['commands of backend extension for 2 peers fail', evidence]);
  });
});
