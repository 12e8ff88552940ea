import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { Firewall, type FirewallSpec } from '../../src/firewall/firewall.js';
import { type RunCommand, runCommand } from '../../src/sys/command.js';
import type { Family } from '../../src/ip/address.js';
import { IpAddress } from '../../src/ip/address.js';
import { silentLogger } from '../../src/log.js';
import {
  SYS,
  bind,
  close,
  errnoName,
  open,
  recvFrom,
  sendTo,
  setns,
  setsockoptInt,
  socket,
} from '../../src/sys/libc.js';
import { onExit } from '../support/cleanup.js';
import { ip, net } from '../support/builders.js';
import { dockerRules } from '../support/docker-rules.js';
import { Netns, deleteNamespaces, run } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

/*
 * The test process is the host; what it talks to are three more namespaces:
 *
 *   container             host (this process)              peer: another host and its container
 *  ┌────────────┐      ┌───────────────────────┐          ┌─────────────────────────┐
 *  │ 10.5.34.2  ├──────┤ br0 10.5.34.1         │          │                         │
 *  └────────────┘      │      flannel0 10.5.34.0├─────────┤ flannel0 10.5.9.0       │
 *                      │                       │          │ 10.5.9.2 (a container)  │
 *                      │ eth0 192.0.2.1        │          └─────────────────────────┘
 *                      └───────┬───────────────┘
 *                              │                          IPv6 likewise: 2001:db8:5:22::/64 here, 2001:db8:5:9::/64
 *                      ┌───────┴───────────────┐          there, 2001:db8:1::/64 outside
 *                      │ outside 192.0.2.9     │
 *                      └───────────────────────┘
 */
const ADDRESS = {
  4: { host: '192.0.2.1', tunnel: '10.5.34.0', container: '10.5.34.2', peer: '10.5.9.2', outside: '192.0.2.9' },
  6: {
    host: '2001:db8:1::1',
    tunnel: '2001:db8:5:22::',
    container: '2001:db8:5:22::2',
    peer: '2001:db8:5:9::2',
    outside: '2001:db8:1::9',
  },
} as const;

const SPEC: FirewallSpec = {
  mode: 'iptables',
  networks: [
    { network: net('10.5.0.0/16'), subnet: net('10.5.34.0/24') },
    { network: net('2001:db8:5::/48'), subnet: net('2001:db8:5:22::/64') },
  ],
  previousNetworks: [],
  ipMasq: true,
  forwardRules: true,
  isFullyRandom: true,
};

/** Rules of others, of the kind found on a host with Docker and a firewall manager. */
const FOREIGN: Readonly<Record<Family, string>> = {
  4: [
    '*nat',
    ':DOCKER - [0:0]',
    '-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER',
    '-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
    '-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -o eth9 -m comment --comment "flanneld masq" -j RETURN',
    '-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80',
    'COMMIT',
    '*filter',
    ':DOCKER-USER - [0:0]',
    '-A FORWARD -j DOCKER-USER',
    '-A FORWARD -s 10.5.0.0/16 -j ACCEPT',
    '-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "it\'s \\"ssh\\"" -j ACCEPT',
    '-A DOCKER-USER -j RETURN',
    'COMMIT',
    '',
  ].join('\n'),
  6: '*filter\n-A FORWARD -s 2001:db8:5::/48 -j ACCEPT\nCOMMIT\n',
};

const FOREIGN_NFT = 'table inet admin { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }\n';

type Variant = 'legacy' | 'nft';

/** The programs of one variant under the standard names, as the alternatives of a distribution set them up. */
const variantRunner =
  (variant: Variant): RunCommand =>
  (program, args, stdin) =>
    runCommand(program.replace(/^(ip6?tables)(?=$|-save|-restore)/, `$1-${variant}`), args, stdin);

describe('Firewall on a host', function () {
  let host: OwnNetns;
  let container: Netns;
  let peer: Netns;
  let outside: Netns;
  let withdraw = (): void => undefined;
  let names: string[] = [];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    for (const program of ['iptables-legacy', 'iptables-nft', 'nft']) {
      if ((await runCommand(program, ['--version'])) === undefined) skipBecause(this, `no program ${program}`);
    }
    host = await OwnNetns.enter('fw');
    names = ['container', 'peer', 'outside'].map((label) => `${host.name}-${label}`);
    withdraw = onExit(() => {
      deleteNamespaces(names);
    });
    [container, peer, outside] = (await Netns.create(names)) as [Netns, Netns, Netns];
    await host.ip([
      `link add br0 type veth peer name eth0 netns ${container.name}`,
      `link add flannel0 type veth peer name flannel0 netns ${peer.name}`,
      `link add eth0 type veth peer name eth0 netns ${outside.name}`,
      'link set br0 up',
      'link set flannel0 up',
      'link set eth0 up',
      'address add 10.5.34.1/24 dev br0',
      'address add 10.5.34.0/32 dev flannel0',
      'address add 192.0.2.1/24 dev eth0',
      'route add 10.5.9.0/24 dev flannel0',
      'address add 2001:db8:5:22::1/64 dev br0 nodad',
      'address add 2001:db8:5:22::/128 dev flannel0 nodad',
      'address add 2001:db8:1::1/64 dev eth0 nodad',
      'route add 2001:db8:5:9::/64 dev flannel0',
    ]);
    await container.ip([
      'link set eth0 up',
      'address add 10.5.34.2/24 dev eth0',
      'route add default via 10.5.34.1',
      'address add 2001:db8:5:22::2/64 dev eth0 nodad',
      'route add ::/0 via 2001:db8:5:22::1',
    ]);
    await peer.ip([
      'link set flannel0 up',
      'address add 10.5.9.0/32 dev flannel0',
      'address add 10.5.9.2/32 dev lo',
      'route add default via 10.5.34.0 dev flannel0 onlink',
      'address add 2001:db8:5:9::/128 dev flannel0 nodad',
      'address add 2001:db8:5:9::2/128 dev flannel0 nodad',
      'route add ::/0 via 2001:db8:5:22:: dev flannel0 onlink',
    ]);
    // Routes back for packets that should have been masqueraded, so that they are seen and not lost.
    await outside.ip([
      'link set eth0 up',
      'address add 192.0.2.9/24 dev eth0',
      'route add 10.5.0.0/16 via 192.0.2.1',
      'address add 2001:db8:1::9/64 dev eth0 nodad',
      'route add 2001:db8:5::/48 via 2001:db8:1::1',
    ]);
  });

  after(() => {
    deleteNamespaces(names);
    withdraw();
    host.leave();
  });

  let firewalls: Firewall[] = [];
  let sockets: number[] = [];

  afterEach(async () => {
    for (const firewall of firewalls) await firewall.close();
    for (const fd of sockets) close(fd);
    firewalls = [];
    sockets = [];
    await run(['nft', 'flush', 'ruleset']);
    for (const program of ['iptables-legacy', 'ip6tables-legacy']) {
      const reset =
        '*nat\n:FLANNEL-POSTRTG - [0:0]\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n:FLANNEL-FWD - [0:0]\nCOMMIT\n';
      await run([`${program}-restore`], { input: reset });
      for (const table of ['nat', 'filter']) await run([program, '-t', table, '-X']);
    }
  });

  function firewall(run: RunCommand = variantRunner('nft'), resyncMs = 0): Firewall {
    const made = new Firewall({ log: silentLogger, clock: systemClock, resyncMs, run });
    firewalls.push(made);
    return made;
  }

  /** A socket that belongs to another namespace. */
  function socketIn(netns: Netns, make: () => number): number {
    const home = open('/proc/thread-self/ns/net', SYS.O_RDONLY);
    const target = open(`/run/netns/${netns.name}`, SYS.O_RDONLY);
    assert(home >= 0 && target >= 0 && setns(target, SYS.CLONE_NEWNET) === 0, `enter ${netns.name}`);
    const fd = make();
    assert.equal(setns(home, SYS.CLONE_NEWNET), 0);
    close(home);
    close(target);
    assert(fd >= 0, `socket in ${netns.name}: ${errnoName(fd)}`);
    sockets.push(fd);
    return fd;
  }

  const domain = (family: Family): number => (family === 4 ? SYS.AF_INET : SYS.AF_INET6);

  const sender = (netns: Netns, family: Family, source?: string): number =>
    socketIn(netns, () => {
      const fd = socket(domain(family), SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0);
      const result = source === undefined ? 0 : bind(fd, socketAddress(source, 0));
      return result < 0 ? result : fd;
    });

  /** Sees every UDP packet that arrives in a namespace, whatever its port. */
  const receiver = (netns: Netns, family: Family): number =>
    socketIn(netns, () => {
      const fd = socket(domain(family), SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, SYS.IPPROTO_UDP);
      setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_RCVBUFFORCE, 32 * 1024 * 1024);
      return fd;
    });

  function receive(fd: number, family: Family): { source: string; port: number } | undefined {
    const packet = new Uint8Array(256);
    const address = new Uint8Array(28);
    const length = recvFrom(fd, packet, 0, address);
    if (length < 0) return undefined;
    const source = IpAddress.fromBytes(family === 4 ? address.subarray(4, 8) : address.subarray(8, 24)).toString();
    // The raw IPv4 socket gives the IP header too, the IPv6 one does not.
    const udp = family === 4 ? packet.subarray((packet[0]! & 0x0f) * 4) : packet;
    return { source, port: (udp[2]! << 8) | udp[3]! };
  }

  /** Under which source address a packet of a new flow arrives. */
  async function sourceSeen(from: number, to: { fd: number; address: string; family: Family }): Promise<string> {
    const port = nextPort++;
    return waitFor(
      () => {
        sendTo(from, Uint8Array.of(1), 0, socketAddress(to.address, port));
        for (let seen = receive(to.fd, to.family); seen !== undefined; seen = receive(to.fd, to.family)) {
          if (seen.port === port) return seen.source;
        }
        return undefined;
      },
      { what: `a packet at ${to.address}` },
    );
  }
  let nextPort = 20_000;

  async function saved(variant: Variant): Promise<string> {
    const saves = await Promise.all(['iptables', 'ip6tables'].map((program) => run([`${program}-${variant}-save`])));
    return saves.map(({ stdout }) => withoutComments(stdout)).join('\n');
  }

  async function dump(): Promise<string> {
    const { stdout: nft } = await run(['nft', 'list', 'ruleset']);
    return [await saved('legacy'), await saved('nft'), nft].join('\n');
  }

  const modes: [name: string, mode: FirewallSpec['mode'], run: RunCommand][] = [
    ['iptables-nft', 'iptables', variantRunner('nft')],
    ['iptables-legacy', 'iptables', variantRunner('legacy')],
    ['nftables', 'nftables', runCommand],
  ];

  for (const variant of ['nft', 'legacy'] as const) {
    it(`lists through iptables-${variant} exactly the rules of flannel`, async () => {
      await firewall(variantRunner(variant)).apply(SPEC);
      for (const [program, network, subnet, multicast] of [
        ['iptables', '10.5.0.0/16', '10.5.34.0/24', '224.0.0.0/4'],
        ['ip6tables', '2001:db8:5::/48', '2001:db8:5:22::/64', 'ff00::/8'],
      ] as const) {
        const { stdout } = await run([`${program}-${variant}-save`]);
        const masq = '-m comment --comment "flanneld masq"';
        const forward = '-m comment --comment "flanneld forward"';
        assert.deepEqual(rulesOf(stdout, 'nat'), natRules(masq, network, subnet, multicast));
        assert.deepEqual(rulesOf(stdout, 'filter'), filterRules(forward, network));
      }
    });
  }

  it('lists through nft exactly the tables of flannel with the fourth rule fixed', async () => {
    await firewall().apply({ ...SPEC, mode: 'nftables' });
    const { stdout } = await run(['nft', 'list', 'table', 'ip', 'flannel-ipv4']);
    assert.equal(
      stdout,
      `table ip flannel-ipv4 {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr 10.5.0.0/16 accept comment "from containers"
		ip daddr 10.5.0.0/16 accept comment "to containers"
	}

	chain postrtg {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return comment "masqueraded by kube-proxy"
		ip saddr 10.5.34.0/24 ip daddr 10.5.0.0/16 return comment "containers here to the overlay"
		ip saddr 10.5.0.0/16 ip daddr 10.5.34.0/24 return comment "overlay to containers here"
		ip saddr != 10.5.0.0/16 ip daddr 10.5.34.0/24 return comment "outside to containers here"
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random comment "containers to the outside"
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random comment "this host to the overlay"
	}
}
`,
    );
    const { stdout: v6 } = await run(['nft', 'list', 'table', 'ip6', 'flannel-ipv6']);
    assert.match(v6, /ip6 saddr 2001:db8:5::\/48 ip6 daddr != ff00::\/8 masquerade fully-random/);
  });

  for (const [name, mode, runner] of modes) {
    describe(`through ${name}`, () => {
      for (const family of [4, 6] as const) {
        const address = ADDRESS[family];

        it(`masquerades IPv${family} at the edges of the overlay and nowhere else`, async () => {
          await firewall(runner).apply({ ...SPEC, mode });
          const at = (netns: Netns, to: string) => ({ fd: receiver(netns, family), address: to, family });
          const [atPeer, atOutside] = [at(peer, address.peer), at(outside, address.outside)];
          const fromContainer = sender(container, family);

          assert.equal(await sourceSeen(fromContainer, atOutside), address.host, 'container to the outside');
          assert.equal(await sourceSeen(fromContainer, atPeer), address.container, 'container to container');
          assert.equal(
            await sourceSeen(sender(host, family, address.host), atPeer),
            address.tunnel,
            'host to container elsewhere',
          );
          assert.equal(
            await sourceSeen(sender(outside, family), at(container, address.container)),
            address.outside,
            'outside to container here',
          );
          assert.equal(
            await sourceSeen(sender(peer, family, address.peer), at(container, address.container)),
            address.peer,
          );
        });
      }

      it('lets no new flow out unmasqueraded while the rules are replaced fifty times', async function () {
        this.timeout(120_000);
        const rules = firewall(runner);
        await rules.apply({ ...SPEC, mode });
        const flows = startFlows();
        for (let round = 0; round < 50; round++) {
          await rules.apply({ ...SPEC, mode, isFullyRandom: round % 2 === 1 });
        }
        assertNoLeak(await flows.stop());
      });

      it('keeps packets flowing that only its accept rules let through', async () => {
        const input = '*filter\n:FORWARD DROP [0:0]\nCOMMIT\n';
        if (mode === 'iptables') await runner('iptables-restore', ['--noflush'], input);
        await firewall(runner).apply({ ...SPEC, mode, ipMasq: false });
        const to = { fd: receiver(peer, 4), address: ADDRESS[4].peer, family: 4 as const };
        assert.equal(await sourceSeen(sender(container, 4), to), ADDRESS[4].container);
      });

      it('leaves rules of others as they were, through installation, replacement and clean-up', async () => {
        for (const variant of ['nft', 'legacy'] as const) {
          await run([`iptables-${variant}-restore`], { input: FOREIGN[4] });
          await run([`ip6tables-${variant}-restore`], { input: FOREIGN[6] });
        }
        await run(['nft', '-f', '-'], { input: FOREIGN_NFT });
        const before = await dump();
        const rules = firewall(runner);
        await rules.apply({ ...SPEC, mode });
        await rules.apply({ ...SPEC, mode, isFullyRandom: false });
        assert.notEqual(await dump(), before);
        const removed = await rules.cleanup();
        assert(removed.length >= 2, removed.join('\n'));
        assert.equal(withoutEmptyTables(await dump()), withoutEmptyTables(before));
        assert.deepEqual(await rules.cleanup(), []);
      });
    });
  }

  it('would notice a leak: flushing and refilling separately, as flannel does at its start, lets packets out', async function () {
    this.timeout(120_000);
    await firewall(variantRunner('nft')).apply(SPEC);
    const lines = natRules('-m comment --comment "flanneld masq"', '10.5.0.0/16', '10.5.34.0/24', '224.0.0.0/4');
    const refill = ['*nat', ...lines.slice(1), 'COMMIT', ''].join('\n');
    const flows = startFlows();
    for (let round = 0; round < 20; round++) {
      await run(['iptables-nft', '-t', 'nat', '-F', 'FLANNEL-POSTRTG']);
      await run(['iptables-nft-restore', '--noflush'], { input: refill });
    }
    const { sources } = await flows.stop();
    assert((sources.get(ADDRESS[4].container) ?? 0) > 0, JSON.stringify([...sources]));
  });

  for (const variant of ['nft', 'legacy'] as const) {
    it(`repairs what is deleted, reordered, added and flushed through iptables-${variant}`, async () => {
      const rules = firewall(variantRunner(variant));
      await rules.apply(SPEC);
      const before = await saved(variant);
      const first = '-m mark --mark 0x4000/0x4000 -m comment --comment flanneld_masq -j RETURN'
        .split(' ')
        .map((word) => word.replace('_', ' '));
      const nat = (...args: string[]): string[] => [`iptables-${variant}`, '-w', '-t', 'nat', ...args];
      const damages: [commands: string[][], kinds: string[]][] = [
        [[nat('-D', 'FLANNEL-POSTRTG', '3')], ['chain-changed']],
        [[nat('-D', 'FLANNEL-POSTRTG', ...first), nat('-A', 'FLANNEL-POSTRTG', ...first)], ['chain-changed']],
        [[nat('-I', 'FLANNEL-POSTRTG', '-j', 'ACCEPT')], ['chain-changed']],
        [[nat('-F', 'FLANNEL-POSTRTG')], ['chain-changed']],
        [[nat('-F', 'POSTROUTING')], ['jump-missing']],
        [
          [nat('-F', 'POSTROUTING'), nat('-F', 'FLANNEL-POSTRTG'), nat('-X', 'FLANNEL-POSTRTG')],
          ['chain-missing', 'jump-missing'],
        ],
        [
          [nat('-A', 'POSTROUTING', '-m', 'comment', '--comment', 'flanneld masq', '-j', 'FLANNEL-POSTRTG')],
          ['jump-duplicate'],
        ],
        [[[`ip6tables-${variant}`, '-w', '-F', 'FLANNEL-FWD']], ['chain-changed']],
      ];
      for (const [commands, kinds] of damages) {
        for (const command of commands) await run(command);
        assert.notEqual(await saved(variant), before);
        assert.deepEqual(
          (await rules.check()).map(({ kind }) => kind),
          kinds,
        );
        assert.equal(await saved(variant), before, kinds.join());
        assert.deepEqual(await rules.check(), []);
      }
      assert.equal(rules.status().lastError, undefined);
    });
  }

  for (const variant of ['nft', 'legacy'] as const) {
    it(`brings packets past what Docker 28 drops, also after it has put its chains first again, iptables-${variant}`, async () => {
      const docker = dockerRules({ bridge: 'br0' });
      const restore = [`iptables-${variant}-restore`, '--noflush'];
      const answers = async (): Promise<boolean> =>
        (await ping(peer, ADDRESS[4].container, { count: 1, waitSeconds: 1, source: '10.5.9.2' })).received === 1;
      const rules = firewall(variantRunner(variant));
      await rules.apply(SPEC);
      await run(restore, { input: docker });
      assert.equal(await answers(), false, 'Docker stands first and drops');

      assert.deepEqual(await rules.check(), [{ kind: 'jump-missing', object: 'filter/DOCKER-USER' }]);
      assert.equal(await answers(), true);
      assert.deepEqual(await rules.check(), []);

      // What Docker does at its next start: its own two jumps go to the top again, its user chain stays as it is.
      const again = docker.split('\n').filter((line) => /^(?:\*filter|-I|COMMIT)/.test(line));
      const removed = again.map((line) => line.replace('-I', '-D'));
      await run(restore, { input: `${removed.join('\n')}\n` });
      await run(restore, { input: `${again.join('\n')}\n` });
      assert.equal(await answers(), true);
      assert.deepEqual(await rules.check(), []);
    });
  }

  it('puts nftables rules back as soon as the kernel tells of the change', async () => {
    const rules = firewall();
    await rules.apply({ ...SPEC, mode: 'nftables' });
    const before = await dump();
    let repaired = 0;
    for (const command of [
      'delete table ip flannel-ipv4',
      'flush chain ip6 flannel-ipv6 postrtg',
      'add rule ip flannel-ipv4 postrtg accept',
    ]) {
      await run(['nft', command]);
      repaired++;
      await waitFor(
        () => {
          const counts = rules.status().repaired;
          return counts['table-missing'] + counts['table-changed'] === repaired && rules.status().isInPlace;
        },
        { what: `the repair after ${command}` },
      );
      assert.equal(await dump(), before, command);
    }
  });

  it('looks again at every resync without being asked', async () => {
    const rules = firewall(variantRunner('nft'), 100);
    await rules.apply(SPEC);
    await run(['iptables-nft', '-t', 'nat', '-F', 'FLANNEL-POSTRTG']);
    await waitFor(() => rules.status().repaired['chain-changed'] === 1, { what: 'the resync' });
  });

  it('moves between the modes under traffic without a leak', async function () {
    this.timeout(120_000);
    const rules = firewall();
    await rules.apply(SPEC);
    const flows = startFlows();
    for (let round = 0; round < 10; round++) {
      await rules.apply({ ...SPEC, mode: 'nftables' });
      await rules.apply(SPEC);
    }
    assertNoLeak(await flows.stop());
    assert.doesNotMatch((await run(['nft', 'list', 'tables'])).stdout, /flannel/);
  });

  it('takes a host over from flannel in nftables mode, whose host-to-container masquerading is dead', async () => {
    const flannel = [
      'add table ip flannel-ipv4 { comment "rules for flannel-ipv4"; }',
      'add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100; }',
      'add rule ip flannel-ipv4 postrtg meta mark 0x4000 return',
      'add rule ip flannel-ipv4 postrtg ip saddr 10.5.34.0/24 ip daddr 10.5.0.0/16 return',
      'add rule ip flannel-ipv4 postrtg ip saddr 10.5.0.0/16 ip daddr 10.5.34.0/24 return',
      'add rule ip flannel-ipv4 postrtg ip saddr != 10.5.34.0/24 ip daddr 10.5.0.0/16 return',
      'add rule ip flannel-ipv4 postrtg ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade',
      'add rule ip flannel-ipv4 postrtg ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade',
      '',
    ];
    await run(['nft', '-f', '-'], { input: flannel.join('\n') });
    const to = { fd: receiver(peer, 4), address: ADDRESS[4].peer, family: 4 as const };
    const fromHost = sender(host, 4, ADDRESS[4].host);
    assert.equal(await sourceSeen(fromHost, to), ADDRESS[4].host);
    await firewall().apply({ ...SPEC, mode: 'nftables' });
    assert.equal(await sourceSeen(fromHost, to), ADDRESS[4].tunnel);
  });

  it('takes a host over from flannel 0.19, whose rules stand in the built-in chains of the other variant', async () => {
    const direct = [
      '*nat',
      '-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
      '-A POSTROUTING -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully',
      '-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.34.0/24 -m comment --comment "flanneld masq" -j RETURN',
      '-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully',
      'COMMIT',
      '*filter',
      '-A FORWARD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
      '-A FORWARD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT',
      'COMMIT',
      '',
    ];
    await run(['iptables-legacy-restore', '--noflush'], { input: direct.join('\n') });
    await firewall(variantRunner('nft')).apply(SPEC);
    assert.doesNotMatch((await run(['iptables-legacy-save'])).stdout, /^-A/m);
  });

  /** One new flow after another from the container to the outside, both families. */
  function startFlows(): { stop(): Promise<Flows> } {
    const from = { 4: sender(container, 4), 6: sender(container, 6) };
    const to = { 4: receiver(outside, 4), 6: receiver(outside, 6) };
    const flows: Flows = { sent: 0, sources: new Map() };
    // Every port makes a flow of its own; ports used by other tests are below.
    const drain = (): void => {
      for (const family of [4, 6] as const) {
        for (let seen = receive(to[family], family); seen !== undefined; seen = receive(to[family], family)) {
          flows.sources.set(seen.source, (flows.sources.get(seen.source) ?? 0) + 1);
        }
      }
    };
    const timer = setInterval(() => {
      for (const family of [4, 6] as const) {
        for (let burst = 0; burst < 4; burst++) {
          const port = 1 + (flows.sent % 65_000);
          if (sendTo(from[family], Uint8Array.of(1), 0, socketAddress(ADDRESS[family].outside, port)) > 0) flows.sent++;
        }
      }
      drain();
    }, 1);
    return {
      async stop() {
        clearInterval(timer);
        await systemClock.sleep(100);
        drain();
        return flows;
      },
    };
  }

  function assertNoLeak({ sent, sources }: Flows): void {
    const expected = [ADDRESS[4].host, ADDRESS[6].host];
    const seen = Object.fromEntries(sources);
    assert.deepEqual([...sources.keys()].sort(), [...expected].sort(), `sources: ${JSON.stringify(seen)}`);
    const received = [...sources.values()].reduce((sum, count) => sum + count, 0);
    assert(sent > 1000, `only ${sent} flows were started`);
    assert.equal(received, sent, 'packets lost');
  }
});

interface Flows {
  sent: number;
  /** Source address → packets. */
  readonly sources: Map<string, number>;
}

/** The rules of one table of `iptables-save`: built-in chains first, as both variants print them. */
function rulesOf(save: string, table: string): string[] {
  const section = new RegExp(`^\\*${table}\\n([^*]*)^COMMIT$`, 'm').exec(save)?.[1] ?? '';
  return section.split('\n').filter((line) => line.startsWith('-A'));
}

function natRules(comment: string, network: string, subnet: string, multicast: string): string[] {
  return [
    `-A POSTROUTING ${comment} -j FLANNEL-POSTRTG`,
    `-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${comment} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${subnet} -d ${network} ${comment} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${network} -d ${subnet} ${comment} -j RETURN`,
    `-A FLANNEL-POSTRTG ! -s ${network} -d ${subnet} ${comment} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${network} ! -d ${multicast} ${comment} -j MASQUERADE --random-fully`,
    `-A FLANNEL-POSTRTG ! -s ${network} -d ${network} ${comment} -j MASQUERADE --random-fully`,
  ];
}

function filterRules(comment: string, network: string): string[] {
  return [
    `-A FORWARD ${comment} -j FLANNEL-FWD`,
    `-A FLANNEL-FWD -s ${network} ${comment} -j ACCEPT`,
    `-A FLANNEL-FWD -d ${network} ${comment} -j ACCEPT`,
  ];
}

/** `struct sockaddr_in` or `struct sockaddr_in6`. */
function socketAddress(text: string, port: number): Uint8Array {
  const { family } = ip(text);
  const bytes = new Uint8Array(family === 4 ? 16 : 28);
  new Uint16Array(bytes.buffer, 0, 1)[0] = family === 4 ? SYS.AF_INET : SYS.AF_INET6;
  bytes.set([port >> 8, port & 0xff], 2);
  bytes.set(ip(text).toBytes(), family === 4 ? 4 : 8);
  return bytes;
}

/** Dates, and counters of policies. */
const withoutComments = (text: string): string => text.replaceAll(/^#.*\n/gm, '').replaceAll(/\[\d+:\d+\]/g, '[0:0]');

/** Tables of iptables in which nothing is set: they come into being when somebody looks, and stay. */
const withoutEmptyTables = (text: string): string =>
  text
    .replaceAll(/^\*\w+\n(:\w+ ACCEPT \[0:0\]\n)+COMMIT\n/gm, '')
    .replaceAll(
      /^table ip6? (nat|filter) \{\n(\tchain [A-Z]+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?)*\}\n/gm,
      '',
    );
