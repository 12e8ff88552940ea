import assert from 'node:assert/strict';
import { KERNEL_PATH_REASONS } from '../../../src/dataplane/kernel-path.js';
import type { DoctorFacts, Found, PolicyRule } from '../../../src/ctl/doctor/facts.js';
import { releaseCommand } from '../../../src/ctl/doctor/checks/leases.js';
import type { RouteInfo } from '../../../src/netlink/route.js';
import type { ContainerNetworksStatus } from '../../../src/observe/container-status.js';
import type { DaemonStatus } from '../../../src/observe/status.js';
import { ip, net, network } from '../../support/builders.js';
import {
  ADDRESSES,
  LINKS,
  SAVED,
  address,
  commands,
  daemon,
  found,
  link,
  only,
  ownLease,
  probe,
  route,
  row,
  rules,
  tunnel,
  way,
  refusedKernelPath,
} from '../../support/doctor-facts.js';
import { sampleContainerNetworks, samplePeer, sampleStatus } from '../../support/sample-status.js';

const SILENT = { underlay: false, underlayFull: false, overlay: false, bridge: undefined, forward: undefined } as const;
const CUT = { overlay: false, bridge: undefined, forward: undefined, tcp: undefined, udp: undefined } as const;
const three = (changes: Parameters<typeof probe>[0]): ReturnType<typeof probe>[] =>
  [2, 3, 4].map((n) => probe({ ...changes, lease: row(n) }));

function peerSet(changes: Partial<DaemonStatus['peerSet']>): Pick<DoctorFacts, 'daemon'> {
  return { daemon: { ...daemon, peerSet: { ...daemon.peerSet, ...changes } } };
}

const doubted = (...keys: readonly string[]): Partial<DaemonStatus['peerSet']> => ({
  quarantined: keys.map((key) => ({
    key,
    publicIp: '192.0.2.9',
    reason: 'outside-network',
    detail: 'it is outside',
  })) as unknown as DaemonStatus['peerSet']['quarantined'],
  quarantinedCounts: { 'outside-network': keys.length } as DaemonStatus['peerSet']['quarantinedCounts'],
});

describe('what a check says', () => {
  const bridges = (count: number): Pick<DoctorFacts, 'links' | 'addresses'> => ({
    links: [
      ...LINKS,
      ...Array.from({ length: count }, (_, n) => [
        link(20 + n, `br-00000000000${n}`, { kind: 'bridge' }),
        link(30 + n, `veth${n}`, { masterIndex: 20 + n }),
      ]).flat(),
    ],
    addresses: [...ADDRESSES, ...Array.from({ length: count }, (_, n) => address(20 + n, `172.${18 + n}.0.1`, 16))],
  });
  const many = [
    [
      'leases-believed',
      (n: number) => peerSet(doubted(...['a', 'b', 'c'].slice(0, n))),
      'a lease is not believed and not routed to',
      '3 leases are not believed and not routed to',
    ],
    [
      'leases-believed',
      (n: number) => peerSet({ badKeys: ['x'], badKeyCount: n }),
      'a key among the leases cannot be read',
      '3 keys among the leases cannot be read',
    ],
    [
      'lease-overlap',
      (n: number) => ({ daemon: { ...daemon, lease: { ...ownLease, rivals: ['a', 'b', 'c'].slice(0, n) } } }),
      'another key names addresses of the own subnet 10.5.1.0/24; hosts that believe them send its packets elsewhere',
      '3 other keys name addresses of the own subnet 10.5.1.0/24; hosts that believe them send its packets elsewhere',
    ],
    [
      'diverted',
      (n: number) => ({
        ways: [2, 3, 4].slice(0, n).map((each) => way({ subnet: net(`10.5.${each}.0/24`), taken: undefined })),
      }),
      'the kernel does not send packets for 10.5.2.0/24 into the overlay, although its routes are there',
      'the kernel does not send packets for 3 peers into the overlay, although its routes are there',
    ],
    [
      'docker-network',
      bridges,
      "containers in a network of Docker's own are not part of the overlay; other hosts do not reach them",
      "containers in 3 networks of Docker's own are not part of the overlay; other hosts do not reach them",
    ],
    [
      'far-bridge',
      (n: number) => ({ probes: three({ bridge: false }).slice(0, n) }),
      '192.0.2.2 can be reached, but not the bridge of the containers there: Docker there does not use the leased subnet, or does not run',
      '3 hosts can be reached, but not the bridge of the containers there: Docker there does not use the leased subnet, or does not run',
    ],
    [
      'far-forward',
      (n: number) => ({ probes: three({ forward: 'refused' }).slice(0, n) }),
      '192.0.2.2 does not let packets through to the containers there: a rule in FORWARD, or forwarding is off',
      '3 hosts do not let packets through to the containers there: a rule in FORWARD, or forwarding is off',
    ],
    [
      'peers',
      (n: number) => ({ probes: three(SILENT).slice(0, n) }),
      'the host with 10.5.2.0/24 does not answer, or something on the way drops ICMP',
      '3 hosts do not answer, or something on the way drops ICMP',
    ],
    [
      'peers',
      (n: number) => ({
        probes: three(SILENT)
          .slice(0, n)
          .map((each) => ({ ...each, lease: { ...each.lease, expiresInSeconds: 900 } })),
      }),
      'the host with 10.5.2.0/24 seems to be gone: it neither answers nor renews its lease',
      '3 hosts seem to be gone: they neither answer nor renew their leases',
    ],
    [
      'overlay-blocked',
      (n: number) => ({ probes: three(CUT).slice(0, n) }),
      '192.0.2.2 answers on the underlay but not through the overlay: UDP port 8472 is blocked there or on the way, or no daemon runs there',
      '3 hosts answer on the underlay but not through the overlay: UDP port 8472 is blocked there or on the way, or no daemon runs there',
    ],
    [
      'path-mtu',
      (n: number) => ({ probes: three({ underlayFull: false, pathMtu: 1400 }).slice(0, n) }),
      'the path to 192.0.2.2 carries less than the MTU of eth0; large packets to 10.5.2.0/24 are lost',
      'the path to 3 hosts carries less than the MTU of eth0; large packets to 10.5.2.0/24; 10.5.3.0/24; 10.5.4.0/24 are lost',
    ],
  ] as const;

  for (const [check, of, one, several] of many) {
    it(`${check}: is about one (${one.slice(0, 30)}…) or about several`, () => {
      assert.equal(only(check, of(1)).message, one);
      assert.equal(only(check, of(3)).message, several);
    });
  }

  it('names the subnets of the peers that it is about, and of no others', () => {
    const [, dead] = three({});
    const probes = [probe(), { ...(dead ?? probe()), ...SILENT }];
    assert.deepEqual(only('peers', { probes }).subnets, ['10.5.3.0/24']);
    const ways = [way(), way({ subnet: net('10.5.3.0/24'), taken: undefined })];
    assert.deepEqual(only('diverted', { ways }).subnets, ['10.5.3.0/24']);
    const skipped = { cause: 'vtep-mac', reason: 'x', hint: '' } as const;
    const peers = [
      { ...samplePeer(0), skipped: null },
      { ...samplePeer(1), skipped: { ...skipped, cause: 'address' } },
      { ...samplePeer(2), skipped },
    ] as unknown as DaemonStatus['peers'];
    assert.deepEqual(only('vtep-mac', { daemon: { ...daemon, peers, devices: [] } }).subnets, [samplePeer(2).subnet]);
  });
});

describe('the check of foreign routes', () => {
  const ways = [2, 3].map((n) => way({ subnet: net(`10.5.${n}.0/24`) }));
  const leases = [row(1), row(2), row(3), row(4)];
  const about = (destination: string): readonly string[] | undefined =>
    only('foreign-route', { routes: [route(destination)], ways, leases }).subnets;

  it('names the peers whose packets such a route takes, whole or in part', () => {
    assert.deepEqual(about('10.5.2.0/24'), ['10.5.2.0/24']);
    assert.deepEqual(about('10.5.2.128/25'), ['10.5.2.0/24']);
    assert.deepEqual(about('10.5.2.0/23'), ['10.5.2.0/24', '10.5.3.0/24']);
    assert.equal(about('10.5.4.0/24'), undefined, 'nobody knows the way to it');
    assert.equal(about('10.5.200.0/24'), undefined, 'no lease');
  });

  it('takes for ours what leads to a device of the overlay, by its mark or its name', () => {
    const links = [
      ...LINKS,
      link(7, 'tun7', { alias: 'tsflannel:/other' }),
      link(8, 'flannel0'),
      link(9, 'not-flannel0'),
    ];
    const routes = [7, 8, 9].map((index) => route(`10.5.${index}.0/24`, { index }));
    const hops = [2, 7].map((index) => ({ index })) as unknown as RouteInfo['multipath'];
    assert.deepEqual(commands('foreign-route', { links, routes }), [
      'ip route del 10.5.9.0/24 via 192.0.2.254 dev not-flannel0',
    ]);
    assert.deepEqual(commands('foreign-route', { links, routes: [route('10.5.9.0/24', { multipath: hops })] }), []);
  });

  it('looks at the main table alone, and at no route of ours or of the kernel', () => {
    const routes = [
      route('10.5.9.0/24', { table: 100 }),
      route('10.5.9.0/24', { protocol: 173 }),
      route('10.5.9.0/24', { protocol: 2 }),
    ];
    assert.deepEqual(commands('foreign-route', { routes }), []);
  });

  it('names the route as ip takes it', () => {
    const commandFor = (changes: Partial<RouteInfo>): string =>
      only('foreign-route', { routes: [route('10.5.9.0/24', changes)] }).command;
    assert.equal(commandFor({ metric: 50 }), 'ip route del 10.5.9.0/24 via 192.0.2.254 dev eth0 metric 50');
    assert.equal(commandFor({ gateway: undefined }), 'ip route del 10.5.9.0/24 dev eth0');
    assert.equal(
      commandFor({ type: 'blackhole', gateway: undefined, index: 2 }),
      'ip route del blackhole 10.5.9.0/24',
      'one without a way has no device',
    );
    assert.equal(commandFor({ index: 99, gateway: undefined }), 'ip route del 10.5.9.0/24');
  });

  describe('where this host is in the network of the route', () => {
    const links = [...LINKS, link(7, 'eth1')];
    const isSpared = (onDevice: string, changes: Partial<RouteInfo> = {}, addressIndex = 7): boolean => {
      const [own = '', length] = onDevice.split('/');
      const addresses = [...ADDRESSES, address(addressIndex, own, Number(length))];
      const routes = [route('10.5.77.0/24', { protocol: 4, index: 7, gateway: undefined, ...changes })];
      const { command } = only('foreign-route', { links, addresses, routes });
      assert.match(command, /^(ip route del|tsflannelctl config set FILE #) /);
      return !command.startsWith('ip route');
    };

    it('does not tell to remove the way to it', () => {
      assert.equal(isSpared('10.5.77.1/24'), true);
      assert.equal(isSpared('10.5.77.1/16'), true, 'a part of it');
      assert.equal(isSpared('10.5.77.1/32', { index: 2 }, 1), true, 'on the underlay device, by any address');
      assert.equal(isSpared('10.5.77.1/24', { index: 2 }), true);
    });

    it('tells to remove what only looks like it', () => {
      assert.equal(isSpared('10.5.77.1/24', { gateway: ip('192.0.2.254') }), false, 'by way of a router');
      assert.equal(isSpared('10.5.78.1/24'), false, 'to another network');
      assert.equal(isSpared('10.5.78.1/24', { index: 2 }), false, 'to another network, on the underlay device');
      assert.equal(isSpared('10.5.77.1/32'), false, 'the address is in no such network');
      assert.equal(isSpared('10.5.77.1/24', {}, 8), false, 'on another device');
      assert.equal(isSpared('10.5.77.1/24', { type: 'blackhole' }), false, 'it leads nowhere');
    });
  });
});

describe('the check of diverted peers', () => {
  const rule = (priority: number, changes: Partial<PolicyRule> = {}): PolicyRule => ({
    priority,
    destination: undefined,
    action: 'lookup',
    table: 'vpn',
    text: `rule ${priority}`,
    ...changes,
  });
  const lost = way({ taken: undefined });
  const blamed = (
    policyRules: readonly PolicyRule[],
    routed: readonly (string | undefined)[] = [undefined],
  ): string => {
    const policyRoutes = routed.map((each) => ({ table: 'vpn', destination: each === undefined ? each : net(each) }));
    const { evidence } = only('diverted', { ways: [lost], policyRules, policyRoutes });
    return evidence.replace(/^.*; /, '');
  };

  it('says where the packets go instead, and whose they are', () => {
    const other = route('10.5.0.0/17', { index: 99, gateway: undefined, metric: 5 });
    const evidence = (changes: Parameters<typeof way>[0]): string =>
      only('diverted', { ways: [way(changes)] }).evidence;
    assert.match(evidence({ taken: undefined }), /^packets for 10\.5\.2\.0\/24 go nowhere; rules: $/);
    assert.match(evidence({ taken: other }), /^packets for 10\.5\.2\.0\/24 take 10\.5\.0\.0\/17 metric 5; /);
    assert.match(evidence({ taken: undefined, isOfContainer: true }), /^packets of containers for 10\.5\.2\.0\/24 go/);
  });

  it('leaves a peer alone to which the daemon has no route, or of whose ways one is taken', () => {
    const hops = (...indexes: readonly number[]): RouteInfo =>
      route('10.5.2.0/24', { multipath: indexes.map((index) => ({ index })) as unknown as RouteInfo['multipath'] });
    assert.deepEqual(commands('diverted', { ways: [way({ expected: undefined, taken: undefined })] }), []);
    assert.deepEqual(commands('diverted', { ways: [way({ expected: hops(4, 5), taken: hops(5) })] }), []);
    assert.deepEqual(commands('diverted', { ways: [way({ expected: hops(4, 5), taken: hops(6) })] }), ['ip rule show']);
  });

  it('blames the first rule that speaks about the overlay and has an answer', () => {
    assert.equal(blamed([rule(200), rule(100)]), 'rule 100: rule 100');
    assert.equal(
      blamed([rule(100, { table: 'main' }), rule(150, { table: 'local' }), rule(200)]),
      'rule 200: rule 200',
    );
    assert.equal(blamed([rule(100, { destination: net('10.6.0.0/16') }), rule(200)]), 'rule 200: rule 200');
    assert.equal(blamed([rule(100, { destination: net('10.5.2.0/24') }), rule(200)]), 'rule 100: rule 100', 'a part');
    for (const table of ['', 'main']) {
      assert.equal(blamed([rule(100, { action: 'blackhole', table })], []), 'rule 100: rule 100', 'needs no table');
    }
    assert.equal(blamed([rule(100)], ['10.6.0.0/16', '10.5.2.0/24']), 'rule 100: rule 100');
  });

  it('blames none that has no answer, or comes after the main table', () => {
    const mainTable = {
      policyRules: [rule(100, { table: 'main' })],
      policyRoutes: [{ table: 'main', destination: undefined }],
    };
    assert.equal(only('diverted', { ways: [lost], ...mainTable }).command, 'ip rule show');
    for (const rules of [[rule(100, { table: 'other' })], [rule(32_766)], [rule(32_767)]]) {
      assert.match(blamed(rules), /^rules: /, JSON.stringify(rules));
    }
    assert.match(blamed([rule(100)], ['10.6.0.0/16']), /^rules: /);
    assert.equal(blamed([rule(32_765)]), 'rule 32765: rule 32765');
  });

  it('puts the rule for the overlay just before the one that it blames', () => {
    const command = (priority: number): string =>
      only('diverted', {
        ways: [lost],
        policyRules: [rule(priority)],
        policyRoutes: [{ table: 'vpn', destination: undefined }],
      }).command;
    assert.match(command(100), /^ip rule add pref 99 to 10\.5\.0\.0\/16 lookup main #/);
    assert.match(command(0), /^ip rule add pref 0 to /);
  });
});

describe('the check of leases', () => {
  const expiring = (expiresInSeconds: number | null): Partial<DoctorFacts> => ({ own: row(1, { expiresInSeconds }) });

  it('finds the own lease not renewed in its last hour, and one without an end in order', () => {
    assert.equal(found('own-lease', expiring(3599)).length, 1);
    assert.equal(found('own-lease', expiring(3600)).length, 0);
    assert.equal(found('own-lease', expiring(null)).length, 0);
  });

  it('names the subnet that others claim, also where etcd does not tell it', () => {
    const rivals = { daemon: { ...daemon, lease: { ...ownLease, rivals: ['10.5.1.128-25'] } } };
    const subnet = (changes: Partial<DoctorFacts>): string | undefined =>
      / of the own subnet (.*?); /.exec(only('lease-overlap', { ...rivals, ...changes }).message)?.[1];
    assert.equal(subnet({ own: row(9), leases: [row(9)] }), '10.5.9.0/24');
    assert.equal(subnet({ own: undefined, leases: [] }), '10.5.1.0/24');
  });

  it('says that there is none only where etcd answers and has a network', () => {
    const none = { own: undefined, leases: [] };
    const { message, command } = only('own-lease', none);
    assert.deepEqual([message, command], ['this host holds no lease', 'systemctl restart tsflanneld']);
    assert.deepEqual(found('own-lease', { ...none, storeError: 'no answer' }), []);
    assert.deepEqual(found('own-lease', { ...none, network: undefined }), []);
  });

  it('tells of a key inside the own subnet once', () => {
    const rivals = { ...daemon, lease: { ...ownLease, rivals: ['10.5.1.128-25'] } };
    const inside = row(9, { subnet: '10.5.1.128/25', key: '10.5.1.128-25' });
    const changes = {
      daemon: { ...rivals, peerSet: { ...daemon.peerSet, ...doubted('10.5.1.128-25', 'a', 'b') } },
      leases: [row(1), row(2), inside],
    };
    assert.equal(only('lease-overlap', changes).evidence, '10.5.1.128-25');
    const { message, evidence } = only('leases-believed', changes);
    assert.equal(message, '2 leases are not believed and not routed to');
    assert.equal(evidence, 'a: it is outside; b: it is outside');
  });

  it('tells apart one key that is read and one that is not', () => {
    assert.deepEqual(commands('leases-believed', peerSet({ ...doubted('a'), badKeys: ['b'], badKeyCount: 1 })), [
      'tsflannelctl leases release a',
      'tsflannelctl leases release b',
    ]);
  });

  it('releases sixteen keys with one command at most', () => {
    const keys = Array.from({ length: 17 }, (_, n) => `k${n}`);
    assert.equal(releaseCommand(['a', 'b']), 'tsflannelctl leases release a && tsflannelctl leases release b');
    assert.equal(releaseCommand(keys), releaseCommand(keys.slice(0, 16)));
    assert.match(releaseCommand(keys), /release k15$/);
  });

  it('finds one public address with several current leases, and has the oldest released', () => {
    const twice = row(3, { publicIp: '192.0.2.2', revision: '10' });
    const command = (...more: Parameters<typeof row>[1][]): string[] =>
      commands('duplicate-public-ip', { leases: [row(1), row(2), ...more.map((each) => ({ ...twice, ...each }))] });
    assert.deepEqual(command({}), ['tsflannelctl leases release 10.5.2.0/24']);
    assert.deepEqual(command({ revision: '1' }), ['tsflannelctl leases release 10.5.3.0/24']);
    assert.deepEqual(command({ isReservation: true }), []);
    assert.deepEqual(command({ subnet: '10.9.3.0/24' }), [], 'of an earlier network');
    const { message, evidence, subnets } = only('duplicate-public-ip', { leases: [row(1), row(2), twice] });
    assert.match(message, /^192\.0\.2\.2 holds 2 leases: /);
    assert.equal(evidence, '10.5.2.0/24 (revision 2), 10.5.3.0/24 (revision 10)');
    assert.deepEqual(subnets, ['10.5.2.0/24', '10.5.3.0/24']);
  });

  it('tells of another host with the public address while it is news, and as long as the lease is not back', () => {
    const overwritten = (secondsAgo: number, isPublished: boolean): number => {
      const nowMs = Date.parse('2026-01-01T00:00:00Z');
      const overwrittenAt = new Date(nowMs - secondsAgo * 1000).toISOString();
      const counters = { overwrites: 1 } as NonNullable<DaemonStatus['lease']>['counters'];
      const lease = { ...ownLease, overwrittenAt, isPublished, counters };
      return found('duplicate-public-ip', { nowMs, daemon: { ...daemon, lease } }).length;
    };
    assert.equal(overwritten(30, true), 1);
    assert.equal(overwritten(31, true), 0);
    assert.equal(overwritten(31, false), 1);
    const old = { ...ownLease, overwrittenAt: '2026-01-01T00:00:00.000Z', isPublished: false };
    const lease = { ...old, counters: { overwrites: 2 } } as NonNullable<DaemonStatus['lease']>;
    assert.match(
      only('duplicate-public-ip', { nowMs: Date.parse('2026-01-01T01:00:00Z'), daemon: { ...daemon, lease } }).evidence,
      /overwritten 2 times, last 1h ago$/,
    );
  });

  it('asks nothing about the public address of a host that has none', () => {
    const neighbour = { publicIpNeighbour: 'eth0' };
    assert.deepEqual(found('duplicate-public-ip', { ...neighbour, daemon: { ...daemon, lease: null } }), []);
    for (const underlay of [null, { ...daemon.underlay, address: null } as DaemonStatus['underlay']]) {
      assert.deepEqual(found('duplicate-public-ip', { ...neighbour, daemon: { ...daemon, underlay } }), []);
    }
  });

  it('has only VXLAN devices deleted that share a MAC', () => {
    const names = ['flannel.1', 'flannel-v6.12', 'flannel0', 'flannel.x', 'xflannel.1', 'flannel.1a'];
    const devices = names.map((name) => ({ name })) as unknown as DaemonStatus['devices'];
    const skipped = { cause: 'vtep-mac', reason: 'x', hint: '' };
    const peers = [{ ...samplePeer(0), skipped }] as unknown as DaemonStatus['peers'];
    const { command } = only('vtep-mac', { daemon: { ...daemon, peers, devices } });
    assert.match(
      command,
      /^ip link del flannel\.1 && ip link del flannel-v6\.12 && systemctl restart tsflanneld # on /,
    );
    assert.ok(command.includes(`# on ${samplePeer(0).publicIp},`));
  });
});

describe("the checks of Docker's bridges", () => {
  const on = (...texts: readonly string[]): DoctorFacts['addresses'] =>
    texts.map((text, at) => {
      const [own = '', length] = text.split('/');
      return address(at === 0 ? 3 : 9, own, Number(length));
    });
  const links = [...LINKS, link(9, 'br1', { kind: 'bridge' })];
  const said = (addresses: DoctorFacts['addresses']): string[] =>
    found('docker-bridge', { links, addresses }).map(({ message }) => message.replace(/[,;].*/, ''));

  it('tell which bridge is wrong, and how', () => {
    assert.deepEqual(said(on('10.5.1.1/24', '10.5.9.1/24')), ['br1 has an address in the subnet of another host']);
    assert.deepEqual(said(on('10.5.9.1/24')), ['docker0 has an address in the subnet of another host']);
    assert.deepEqual(said(on('10.5.1.1/23')), ['docker0 takes more than the leased subnet']);
    assert.deepEqual(said(on('172.17.0.1/16')), ['Docker does not use the leased subnet']);
    assert.deepEqual(said(on('172.17.0.1/16', '10.5.9.1/24')), ['br1 has an address in the subnet of another host']);
  });

  it('are content with any bridge in the subnet, and with parts of it', () => {
    assert.deepEqual(said(on('10.5.1.1/24')), []);
    assert.deepEqual(said(on('10.5.1.1/25')), []);
    assert.deepEqual(said(on('172.17.0.1/16', '10.5.1.1/24')), []);
    assert.deepEqual(said([address(9, '172.18.0.1', 16)]), [], 'a bridge that is not the one of dockerd');
  });

  it('take no notice of IPv6, of other devices, and where there is no lease', () => {
    assert.deepEqual(said([address(3, 'fd00::1', 64), address(2, '10.5.9.1', 24), address(9, '10.5.1.1', 24)]), []);
    assert.deepEqual(said([address(3, 'fd00::1', 64)]), []);
    assert.deepEqual(found('docker-bridge', { links, addresses: on('10.5.9.1/24'), leases: [], own: undefined }), []);
    const noNetwork = { network: undefined, addresses: on('10.5.9.1/24') };
    assert.deepEqual(found('docker-bridge', noNetwork), []);
  });

  it('say that Docker was started without a drop-in where it was', () => {
    const evidence = (settings: 'none' | 'subnet-env'): string =>
      only('docker-bridge', {
        addresses: on('10.5.9.1/24'),
        docker: { pid: 9, settings, bip: undefined, mtu: undefined },
      }).evidence;
    assert.match(evidence('none'), /, and Docker was started without a drop-in of tsflanneld$/);
    assert.match(evidence('subnet-env'), /, the lease of this host is 10\.5\.1\.0\/24$/);
  });

  describe('for the MTU', () => {
    const docker = (mtu: number | undefined): DoctorFacts['docker'] => ({
      pid: 9,
      settings: 'subnet-env',
      bip: undefined,
      mtu,
    });
    const veth = (mtu: number, masterIndex = 3): DoctorFacts['links'] => [
      ...LINKS,
      link(9, 'veth1', { masterIndex, mtu }),
    ];

    it('find what is one byte larger, and not what just fits', () => {
      assert.deepEqual(found('container-mtu', { docker: docker(1450), links: veth(1450) }), []);
      const { evidence, command } = only('container-mtu', { docker: docker(1451), links: veth(1451) });
      assert.equal(evidence, 'dockerd runs with --mtu=1451; MTU of veth1 1451');
      assert.match(command, /driver\.mtu=1450, and connect/);
      assert.equal(only('container-mtu', { links: veth(1451) }).evidence, 'MTU of veth1 1451');
      assert.equal(only('container-mtu', { docker: docker(1451) }).evidence, 'dockerd runs with --mtu=1451');
    });

    it('look at what hangs on the bridge in the subnet alone', () => {
      assert.deepEqual(found('container-mtu', { links: veth(9000, 8) }), []);
      assert.deepEqual(found('container-mtu', { links: veth(9000), addresses: on('172.17.0.1/16') }), []);
      assert.deepEqual(found('container-mtu', { links: veth(9000), own: undefined, leases: [] }), []);
    });

    it('take the MTU from the subnet file where no daemon runs', () => {
      const env = { network: net('10.5.0.0/16'), subnet: net('10.5.1.0/24'), mtu: 1400 } as DoctorFacts['env'];
      assert.match(only('container-mtu', { daemon: undefined, env, links: veth(1401) }).message, /\(1400 bytes\)/);
      assert.deepEqual(found('container-mtu', { daemon: undefined, links: veth(1401) }), []);
    });
  });

  describe('for networks of their own', () => {
    const own = (name: string, has: string, length: number, isUsed = true, kind = 'bridge'): Partial<DoctorFacts> => ({
      links: [...LINKS, link(8, name, { kind }), ...(isUsed ? [link(9, 'veth1', { masterIndex: 8 })] : [])],
      addresses: [...ADDRESSES, address(8, has, length)],
    });

    it('tell of those that Docker has made and containers use, outside of the overlay', () => {
      assert.match(only('docker-network', own('br-0123456789ab', '172.18.0.1', 16)).command, /network=0123456789ab\)/);
      assert.deepEqual(found('docker-network', own('br-0123456789ab', '172.18.0.1', 16, false)), []);
      assert.deepEqual(found('docker-network', own('br-0123456789ab', '10.5.1.129', 25)), []);
      assert.deepEqual(found('docker-network', own('br-0123456789', '172.18.0.1', 16)), []);
      assert.deepEqual(found('docker-network', own('br-0123456789ab', '172.18.0.1', 16, true, 'bond')), []);
      assert.deepEqual(found('docker-network', own('br-0123456789ab', 'fd00::1', 64)), []);
      assert.deepEqual(
        found('docker-network', { ...own('br-0123456789ab', '172.18.0.1', 16), own: undefined, leases: [] }),
        [],
      );
    });
  });
});

describe('the checks of the firewall', () => {
  const remedy = (changes: Partial<DoctorFacts>, check = 'forward-rules'): string => only(check, changes).command;

  it('say where the exception lasts, by who keeps the rules', () => {
    const ufw = rules(
      '*filter',
      ':FORWARD ACCEPT [0:0]',
      ':ufw-before-forward -',
      '-A FORWARD -j ufw-before-forward',
      '-A ufw-before-forward -s 10.5.0.0/16 -j DROP',
    );
    assert.match(remedy(ufw), /; for good in \/etc\/ufw\/before\.rules$/);
    const plain = rules('*filter', ':FORWARD ACCEPT [0:0]', '-A FORWARD -s 10.5.0.0/16 -j DROP');
    assert.match(remedy(plain), /; for good where they are kept$/);
    const { rulesets } = plain;
    const firewalld = rulesets.map((table) => ({ ...table, name: 'inet firewalld' }));
    assert.match(remedy({ rulesets: firewalld }), /; for good in a zone of firewalld$/);
    const raw = rules('*raw', ':PREROUTING ACCEPT [0:0]', '-A PREROUTING -d 10.5.1.0/24 ! -i docker0 -j DROP');
    assert.match(remedy(raw, 'overlay-rules'), /; with Docker 28\.2 and later for good by --allow-direct-routing$/);
    const mangle = rules('*mangle', ':PREROUTING ACCEPT [0:0]', '-A PREROUTING -d 10.5.1.0/24 ! -i docker0 -j DROP');
    assert.match(remedy(mangle, 'overlay-rules'), /; for good where they are kept$/);
    const output = rules('*raw', ':OUTPUT ACCEPT [0:0]', '-A OUTPUT -p udp -m udp --dport 8472 -j DROP');
    assert.match(remedy(output, 'overlay-rules'), /; for good where they are kept$/);
  });

  it("look for what drops the backend's own packets, by the backend of a peer", () => {
    const dropped = (port: number, changes: Partial<DoctorFacts> = {}): number =>
      found('overlay-rules', {
        ...rules('*filter', ':INPUT ACCEPT [0:0]', `-A INPUT -p udp -m udp --dport ${port} -j DROP`),
        ...changes,
      }).length;
    assert.equal(dropped(8472), 1);
    assert.equal(dropped(8285), 0);
    assert.equal(dropped(8285, { leases: [row(1), row(2, { backend: 'udp' })] }), 1);
    assert.equal(dropped(8472, { leases: [row(1)] }), 0, 'nobody sends any');
    assert.equal(dropped(8472, { own: undefined, leases: [row(2)] }), 0);
  });

  it('follow packets to the device that carries the overlay, or else to that of the underlay', () => {
    const blockedTo = (device: string, backend: string): number =>
      found('forward-rules', {
        ...rules('*filter', ':FORWARD ACCEPT [0:0]', `-A FORWARD -o ${device} -j DROP`),
        leases: [row(1), row(2, { backend })],
      }).length;
    assert.deepEqual([blockedTo('flannel.1', 'vxlan'), blockedTo('eth0', 'vxlan')], [1, 0]);
    assert.deepEqual([blockedTo('flannel.1', 'host-gw'), blockedTo('eth0', 'host-gw')], [0, 1]);
  });

  it('follow packets to any other part of the network while there is no peer', () => {
    const drop = (destination: string): number =>
      found('forward-rules', {
        ...rules('*filter', ':FORWARD ACCEPT [0:0]', `-A FORWARD -d ${destination} -j DROP`),
        leases: [row(1)],
      }).length;
    assert.equal(drop('10.5.255.0/24'), 1);
    assert.equal(drop('10.6.0.0/16'), 0);
  });

  it('do without a network, a lease and iptables', () => {
    const drop = rules('*filter', ':FORWARD ACCEPT [0:0]', '-A FORWARD -j DROP');
    assert.deepEqual(found('forward-rules', { ...drop, network: undefined }), []);
    assert.deepEqual(found('forward-rules', { ...drop, own: undefined, leases: [] }), []);
    const nat = rules('*nat', ':POSTROUTING ACCEPT [0:0]', '-A POSTROUTING -s 10.5.1.0/24 -j MASQUERADE');
    assert.equal(found('masquerade', nat).length, 1);
    assert.deepEqual(found('masquerade', { ...nat, own: undefined, leases: [] }), []);
    assert.deepEqual(found('masquerade', { ...nat, iptables: undefined }), []);
  });

  it('know that rules of nftables come before those of iptables, wherever these stand', () => {
    const nat = rules(
      '*nat',
      ':POSTROUTING ACCEPT [0:0]',
      '-A POSTROUTING -j FLANNEL-POSTRTG',
      '-A POSTROUTING -s 10.5.1.0/24 -j MASQUERADE',
    );
    const firewall = { mode: 'nftables', repaired: {} } as unknown as DaemonStatus['firewall'];
    assert.deepEqual(found('masquerade', nat), []);
    assert.equal(found('masquerade', { ...nat, daemon: { ...daemon, firewall } }).length, 1);
    assert.equal(found('masquerade', { ...nat, daemon: undefined }).length, 1);
  });
});

describe('the checks of peers', () => {
  it('hold a host for gone in the last hour of its lease, and never one whose lease does not end', () => {
    const command = (expiresInSeconds: number | null): string =>
      only('peers', { probes: [probe({ ...SILENT, lease: row(2, { expiresInSeconds }) })] }).command;
    assert.equal(command(3599), 'tsflannelctl leases release 10.5.2.0/24');
    assert.equal(command(3600), 'ping -c 3 192.0.2.2');
    assert.equal(command(null), 'ping -c 3 192.0.2.2');
  });

  it('say how long the lease of each silent host lasts', () => {
    const evidence = (expiresInSeconds: number | null): string =>
      only('peers', { probes: [probe({ ...SILENT, lease: row(2, { expiresInSeconds }) })] }).evidence;
    assert.equal(evidence(60), 'no echo from 192.0.2.2 (10.5.2.0/24, its lease ends in 1m)');
    assert.equal(evidence(null), 'no echo from 192.0.2.2 (10.5.2.0/24, its lease never ends)');
  });

  it('keep hosts that are gone apart from those that only keep silent', () => {
    const [a = probe(), b = probe(), c = probe()] = three(SILENT);
    const gone = { ...b, lease: { ...b.lease, expiresInSeconds: 60 } };
    assert.deepEqual(
      found('peers', { probes: [a, gone, c] }).map(({ subnets }) => subnets),
      [['10.5.2.0/24', '10.5.4.0/24'], ['10.5.3.0/24']],
    );
  });

  it('do not hold a host for dead whose overlay answers', () => {
    assert.deepEqual(found('peers', { probes: [probe({ underlay: false, underlayFull: false })] }), []);
    assert.equal(found('peers', { probes: [probe({ ...SILENT, overlay: undefined })] }).length, 1);
  });

  it('name the MTU of each path, or the least that every path has', () => {
    const [a = probe(), b = probe(), c = probe()] = three({ underlayFull: false, pathMtu: 1400 });
    const findings = found('path-mtu', { probes: [a, { ...b, pathMtu: undefined }, c] });
    assert.deepEqual(
      findings.map(({ command }) => command.replace(/ #.*/, '')),
      ['ip link set dev eth0 mtu 1400', 'ip link set dev eth0 mtu 1280'],
    );
    assert.deepEqual(
      findings.map(({ evidence }) => evidence),
      [
        'an echo of 1500 bytes does not arrive, one of 1400 does',
        'an echo of 1500 bytes does not arrive, a small one does',
      ],
    );
    assert.deepEqual(found('path-mtu', { probes: [a], underlay: undefined }), []);
    assert.deepEqual(found('path-mtu', { probes: [probe({ ...SILENT })] }), [], 'nothing arrives at all');
  });

  it('tell apart the backends of those whom the overlay does not reach', () => {
    const probes = [
      probe({ ...CUT }),
      probe({ ...CUT, lease: row(3, { backend: 'ipip' }) }),
      probe({ ...CUT, lease: row(4, { backend: 'host-gw' }) }),
      probe({ ...CUT, underlay: false, lease: row(5, { backend: 'udp' }) }),
    ];
    assert.deepEqual(
      commands('overlay-blocked', { probes }).map((command) => command.replace(/ #.*/, '')),
      ['iptables -I INPUT -p udp --dport 8472 -j ACCEPT', 'iptables -I INPUT -p 4 -j ACCEPT'],
    );
    assert.match(
      only('overlay-blocked', { probes: probes.slice(0, 1) }).evidence,
      /^no echo from 10\.5\.2\.0 \(vxlan, /,
    );
  });

  it('blame checksums only where echoes pass and neither TCP nor UDP does, through VXLAN', () => {
    const spoilt = { tcp: false, udp: false } as const;
    for (const changes of [
      { ...spoilt, tcp: true },
      { ...spoilt, udp: true },
      { ...spoilt, tcp: undefined },
      { ...spoilt, overlay: false },
      { ...spoilt, lease: row(2, { backend: 'udp' }) },
    ]) {
      assert.deepEqual(found('checksum', { probes: [probe(changes)] }), [], JSON.stringify(changes));
    }
    assert.deepEqual(only('checksum', { probes: [probe(spoilt), probe({ lease: row(3) })] }).subnets, ['10.5.2.0/24']);
  });

  it('name the VXLAN device of this daemon', () => {
    const device = (links: DoctorFacts['links']): string | undefined =>
      /^ethtool -K (\S+) /.exec(only('checksum', { links, probes: [probe({ tcp: false, udp: false })] }).command)?.[1];
    const mark = { alias: 'tsflannel:/a' };
    assert.equal(
      device([
        link(5, 'flannel.5', { kind: 'vxlan' }),
        link(6, 'tun6', mark),
        link(7, 'flannel.7', { kind: 'vxlan', ...mark }),
      ]),
      'flannel.7',
    );
    assert.equal(device([]), 'flannel.1');
  });

  it('look for containers behind hosts that can be reached, and whose bridge was asked', () => {
    for (const changes of [{ underlay: false }, { overlay: false }, { bridge: undefined }]) {
      assert.deepEqual(
        found('far-bridge', { probes: [probe({ bridge: false, ...changes })] }),
        [],
        JSON.stringify(changes),
      );
    }
    assert.equal(found('far-bridge', { probes: [probe({ bridge: false, overlay: undefined })] }).length, 1);
    for (const forward of ['absent', undefined] as const) {
      assert.deepEqual(found('far-forward', { probes: [probe({ forward })] }), []);
    }
    const [a, b] = three({ forward: 'silence' });
    const { command, evidence, subnets } = only('far-forward', { probes: [a ?? probe(), b ?? probe()] });
    assert.equal(command, 'tsflannelctl doctor # on 192.0.2.2');
    assert.deepEqual(subnets, ['10.5.2.0/24', '10.5.3.0/24']);
    assert.match(evidence, /: 10\.5\.2\.0\/24 at 192\.0\.2\.2; 10\.5\.3\.0\/24 at 192\.0\.2\.3$/);
  });
});

describe('the checks of the daemon', () => {
  const drift = (counts: Readonly<Record<string, number>>): Pick<DoctorFacts, 'daemon'> => ({
    daemon: { ...daemon, reconcile: { ...daemon.reconcile, drift: counts } },
  });

  it('take ten repairs for a program that alters things, and fewer for accidents', () => {
    assert.deepEqual(found('altered', drift({ link: 4, route: 5 })), []);
    assert.equal(
      only('altered', drift({ link: 1, address: 0, route: 9 })).evidence,
      'repaired in 10m: link 1, route 9',
    );
  });

  it('tell of what is in the way besides what is altered', () => {
    const reconcile = { ...daemon.reconcile, drift: { link: 10 }, conflicts: ['flannel.1 is a bridge'] };
    assert.deepEqual(
      found('altered', { daemon: { ...daemon, reconcile } as unknown as DaemonStatus }).map(({ severity }) => severity),
      ['error', 'warning'],
    );
  });

  it('name the devices of this program and how to keep a network manager off them', () => {
    const own = { alias: 'tsflannel:/a' };
    const links = [link(2, 'eth0'), link(4, 'flannel.1', own), link(5, 'flannel-v6.1', own)];
    const { message, command } = only('altered', { ...drift({ link: 10 }), links });
    assert.match(message, /^another program keeps altering flannel\.1, flannel-v6\.1, such/);
    assert.match(command, /^nmcli device set flannel\.1 managed no # or watch who it is: ip -timestamp monitor/);
    const none = only('altered', { ...drift({ link: 10 }), links: [] });
    assert.match(none.message, /keeps altering objects of the overlay, such/);
    assert.match(none.command, /^ip -timestamp monitor link address route$/);
  });

  it('ask nothing of a daemon that does not run', () => {
    for (const check of ['altered', 'rewritten-rules', 'receive-overflow', 'leases-believed', 'saved-state']) {
      assert.deepEqual(found(check, { daemon: undefined }), [], check);
    }
    assert.equal(only('daemon', { daemon: undefined }).evidence, 'nobody listens on /run/flannel/tsflanneld.sock');
    assert.equal(only('daemon', { daemon: undefined, daemonError: 'EACCES' }).evidence, 'EACCES');
  });

  it('count a loss that is more than one datagram of a thousand', () => {
    const lost = (count: number, of: number): readonly Found[] =>
      found('receive-overflow', {
        daemon: { ...daemon, tunnels: [tunnel({ rxPackets: of - count, lost: count, kind: 'portable' })] },
      });
    assert.deepEqual(lost(1, 1000), []);
    assert.equal(lost(2, 1000).length, 1);
    assert.deepEqual(lost(0, 0), []);
    assert.match(lost(2, 1000)[0]?.message ?? '', /flannel0 .* than the portable tunnel takes$/);
  });

  it('say who sends so much on the underlay, or anywhere where that is not known', () => {
    const tunnels = [tunnel({ rxPackets: 0, lost: 10 })];
    const look = (underlay: DoctorFacts['underlay']): string =>
      only('receive-overflow', { underlay, daemon: { ...daemon, tunnels } }).command;
    assert.match(look({ device: 'eth7', mtu: 1500 }), /^tcpdump -n -c 1000 -i eth7 udp /);
    assert.match(look(undefined), /^tcpdump -n -c 1000 -i any udp /);
    assert.match(only('receive-overflow', { daemon: { ...daemon, tunnels } }).message, /than its threads take$/);
  });

  it('say what would have the kernel carry packets, for every reason that it does not', () => {
    for (const reason of KERNEL_PATH_REASONS) {
      const refused = { ...tunnel({ rxPackets: 0, lost: 0 }), kernelPath: refusedKernelPath(reason) };
      const { message, command, severity } = only('kernel-path', { daemon: { ...daemon, tunnels: [refused] } });
      assert.equal(severity, 'warning');
      assert.match(message, /^the kernel carries no packets of flannel0, .*: do something$/);
      assert.notEqual(command, '');
      const unasked = { ...refused, kernelPath: refusedKernelPath(reason, false) };
      assert.equal(only('kernel-path', { daemon: { ...daemon, tunnels: [unasked] } }).severity, 'note');
    }
    const active = { isActive: true, receiver: 'xdp', refused: null, counters: null } as const;
    for (const kernelPath of [active, null]) {
      const tunnels = [{ ...tunnel({ rxPackets: 0, lost: 0 }), kernelPath }];
      assert.deepEqual(found('kernel-path', { daemon: { ...daemon, tunnels } }), []);
    }
  });

  it('say of a saved lease what is known of it', () => {
    const evidence = (changes: Partial<typeof SAVED>): string =>
      only('saved-state', { daemon: { ...daemon, savedState: { ...SAVED, ...changes } } }).evidence;
    assert.equal(evidence({ savedAt: null, leaseEndsAt: null }), 'the lease of 10.5.1.0/24');
    assert.match(evidence({ leaseEndsAt: null }), /^the lease of 10\.5\.1\.0\/24, saved at [^,]*$/);
    assert.match(evidence({ savedAt: null }), /^the lease of 10\.5\.1\.0\/24, which ends at [^,]*$/);
    const kept = only('saved-state', { daemon: { ...daemon, savedState: SAVED } });
    assert.deepEqual(
      [kept.severity, kept.message.slice(0, 39)],
      ['warning', 'the daemon works with its saved state, '],
    );
    const isolated = only('saved-state', { daemon: { ...daemon, savedState: { ...SAVED, isolatedBecause: 'x' } } });
    assert.deepEqual([isolated.severity, isolated.message.slice(0, 25)], ['error', 'the saved lease may be of']);
  });
});

describe('the check of the configuration', () => {
  it('says whether running daemons go on without it', () => {
    const message = (lastValidConfig: DoctorFacts['lastValidConfig']): string =>
      only('config', { configError: 'it is empty', lastValidConfig }).message;
    assert.equal(message(undefined), 'there is no network configuration that a daemon could use');
    assert.match(message({ text: '{}', revision: '7' }), /; running daemons go on with the one before, others do not/);
  });
});

describe('the checks of the host', () => {
  it('want forwarding of each family that the network has', () => {
    const off = {
      sysctls: new Map([
        ['net/ipv4/ip_forward', '1'],
        ['net/ipv6/conf/all/forwarding', '0'],
      ]),
    };
    assert.deepEqual(commands('ip-forward', off), []);
    assert.deepEqual(commands('ip-forward', { ...off, network: network('vxlan', {}, true) }), [
      'sysctl -w net.ipv6.conf.all.forwarding=1',
    ]);
    const containers = sampleContainerNetworks();
    const [sample] = containers.networks;
    assert.ok(sample);
    const routes = ['169.254.1.1/32', 'fe80::1/128'].map((destination) => ({ destination, gateway: null }));
    for (const [type, expected] of [
      ['overlay', ['sysctl -w net.ipv6.conf.all.forwarding=1']],
      ['macvlan', []],
    ] as const) {
      const containerNetworks: ContainerNetworksStatus = { ...containers, networks: [{ ...sample, type, routes }] };
      assert.deepEqual(commands('ip-forward', { ...off, daemon: { ...daemon, containerNetworks } }), expected, type);
    }
  });

  it('want router advertisements taken by a host that forwards IPv6, where it takes any', () => {
    const from = (
      forwarding: string,
      accepting: string,
      { ndpProxy }: Pick<DaemonStatus, 'ndpProxy'> = sampleStatus(),
    ): number =>
      found('accept-ra', {
        daemon: { ...daemon, ndpProxy },
        sysctls: new Map([
          ['net/ipv6/conf/all/forwarding', forwarding],
          ['net/ipv6/conf/eth0/accept_ra', accepting],
        ]),
      }).length;
    assert.deepEqual([from('1', '1'), from('0', '1'), from('1', '0'), from('1', '2')], [1, 0, 0, 0]);
    assert.equal(from('1', '1', { ndpProxy: null }), 0, 'for others');
  });

  it('let a clock be half a minute off', () => {
    for (const seconds of [-30, 0, 30, undefined]) {
      assert.deepEqual(found('clock', { clockAheadSeconds: seconds }), [], String(seconds));
    }
    assert.equal(only('clock', { clockAheadSeconds: 31 }).evidence, "it is 31s ahead of etcd's");
    assert.equal(only('clock', { clockAheadSeconds: -31 }).evidence, "it is 31s behind etcd's");
  });

  it('mind a strict reverse path filter alone, and only among several backends', () => {
    const leases = [row(1), row(2, { backend: 'udp' })];
    const strict = (all: string, device: string | undefined, changes: Partial<DoctorFacts> = {}): number => {
      const values: [string, string][] = [['net/ipv4/conf/all/rp_filter', all]];
      if (device !== undefined) values.push(['net/ipv4/conf/eth0/rp_filter', device]);
      return found('rp-filter', { leases, sysctls: new Map(values), ...changes }).length;
    };
    assert.deepEqual([strict('0', '1'), strict('1', '0'), strict('1', undefined)], [1, 1, 1]);
    assert.deepEqual([strict('2', '1'), strict('1', '2'), strict('0', '0')], [0, 0, 0]);
    assert.deepEqual(
      [strict('0', '1', { leases: [row(1), row(2)] }), strict('0', '1', { underlay: undefined })],
      [0, 0],
    );
    assert.equal(found('rp-filter', { leases, sysctls: new Map([['net/ipv4/conf/eth0/rp_filter', '1']]) }).length, 1);
    for (const name of ['all', 'eth0', 'eth1']) {
      const sysctls = new Map([[`net/ipv4/conf/${name}/rp_filter`, '0']]);
      assert.deepEqual(found('rp-filter', { leases, sysctls }), [], 'what is not known is off');
    }
  });

  it('tell to load br_netfilter, or to turn it on where it is loaded', () => {
    const command = (hint: string): string =>
      only('bridge-netfilter', { bridgeNetfilter: { message: 'x', hint } }).command;
    assert.equal(command('run modprobe br_netfilter'), 'modprobe br_netfilter');
    assert.equal(command('set it to 1'), 'sysctl -w net.bridge.bridge-nf-call-iptables=1');
  });
});

describe('the checks of container networks', () => {
  const sample = sampleContainerNetworks();
  const [pool] = sample.pools;
  const [first] = sample.networks;
  assert.ok(pool && first);
  const having = (changes: Partial<ContainerNetworksStatus>): Pick<DoctorFacts, 'daemon'> => ({
    daemon: { ...daemon, containerNetworks: { ...sample, ...changes } },
  });

  it('name the networks of an interface that is gone, and the interfaces that there are', () => {
    const networks = [
      { ...first, id: 'a'.repeat(64), parent: 'eth8' },
      { ...first, id: 'b'.repeat(64), parent: 'eth9', subnets: ['198.51.100.0/24'] },
      { ...first, id: 'c'.repeat(64), parent: 'eth9', subnets: ['203.0.113.0/24'] },
      { ...first, id: 'd'.repeat(64), parent: 'tsfb-dddddddddd', type: 'overlay' }, // comes back by itself
    ];
    const links = [link(1, 'lo', { isLoopback: true }), link(2, 'eth0'), link(8, 'eth8')];
    const { message, evidence, command } = only('network-parent', { ...having({ networks }), links });
    assert.match(
      message,
      /^containers of 198\.51\.100\.0\/24; 203\.0\.113\.0\/24 cannot start: .* eth9 does not exist$/,
    );
    assert.equal(evidence, 'there are eth0; eth8');
    assert.match(command, /network rm b{12};.* network rm c{12} # unless eth9 /);
  });

  it('need no interface for a network that leads nowhere', () => {
    const networks = [{ ...first, parent: 'eth9', isInternal: true }];
    assert.deepEqual(found('network-parent', having({ networks })), []);
  });

  it('say how an address is given up, by who has it', () => {
    const uses = (owner: string | null): ContainerNetworksStatus['pools'] => [
      {
        ...pool,
        uses: [
          {
            address: '192.0.2.66',
            mac: null,
            owner,
            since: '2026-01-02T03:06:00.000Z',
            abandonedSince: null,
            state: 'lost',
          },
        ],
      },
    ];
    const command = (owner: string | null): string => only('address-lost', having({ pools: uses(owner) })).command;
    assert.equal(command('web-1.a_b'), 'docker restart web-1.a_b');
    assert.equal(command('a b; rm'), 'docker ps # which one has 192.0.2.66');
    assert.equal(command(null), 'docker ps # which one has 192.0.2.66');
    assert.equal(command('netns /run/netns/a eth0'), 'tsflannelctl detach --netns /run/netns/a --ifname eth0');
    for (const [owner, name] of [
      [null, 'unknown'],
      ['web', 'web'],
    ] as const) {
      const { evidence } = only('address-lost', having({ pools: uses(owner) }));
      assert.ok(evidence.startsWith(`container ${name} has it here since `), evidence);
    }
  });

  it('find a range full that containers use up, and none that is merely empty', () => {
    const full = (changes: Partial<typeof pool>): number =>
      found('address-range', having({ pools: [{ ...pool, ...changes }] })).length;
    assert.deepEqual([full({ free: 0 }), full({ free: 1 }), full({ free: 0, uses: [] })], [1, 0, 0]);
  });

  it('tell of pools alone in which somebody was seen', () => {
    assert.equal(found('address-seen', having({ pools: [pool, { ...pool, seen: [] }] })).length, 1);
  });

  it('ask nothing where no networks are served', () => {
    const none = { daemon: { ...daemon, containerNetworks: null } };
    for (const check of ['network-parent', 'address-lost', 'address-range', 'address-seen', 'plugin-socket']) {
      assert.deepEqual(found(check, none), [], check);
      assert.deepEqual(found(check, { daemon: undefined }), [], check);
    }
  });
});
