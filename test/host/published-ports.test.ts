import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.js';
import { ContainerFirewall, containerRulePlaces } from '../../src/firewall/containers/container-firewall.js';
import type { ContainerRuleInput } from '../../src/firewall/containers/container-rules.js';
import { silentLogger } from '../../src/log.js';
import { runCommand } from '../../src/sys/command.js';
import { ip, net } from '../support/builders.js';
import { onExit } from '../support/cleanup.js';
import { Netns, deleteNamespaces, run } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import type { Program } from '../support/program.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';

/*
 * The test process is the host; what it talks to are namespaces:
 *
 *   web1 198.51.100.2 fd00:1::2 ┐
 *   web2 198.51.100.3 fd00:1::3 ┴ tsfb-web (subnet addressing) ┐
 *   db1 198.51.100.130 2001:db8:d::2 ┐                         │           ┌ peer: another host, 198.18.9.0, with
 *   db2 198.51.100.131 2001:db8:d::3 ┴ tsfb-db (host addr.,    ├─ host ────┤ 198.51.100.9 (web), 198.51.100.140 (db),
 *                                       icc=false)             │  192.0.2.1│ 198.18.7.2 and 2001:db8:c::7 (others)
 *   in1 198.51.100.194 ─ tsfb-in (internal)                    │           └ outside: 192.0.2.9, 2001:db8:1::9
 *   dock 172.17.0.2 ──── docker0 ──────────────────────────────┘
 */
const ENDPOINT = fileURLToPath(new URL('../support/port-endpoint.mjs', import.meta.url));

const INPUT: ContainerRuleInput = {
  networks: [
    {
      bridge: 'tsfb-web',
      subnets: [net('198.51.100.0/25'), net('fd00:1::/64')],
      isInternal: false,
      isIccAllowed: true,
      ipv6Firewall: 'closed',
    },
    {
      bridge: 'tsfb-db',
      subnets: [net('198.51.100.128/26'), net('2001:db8:d::/64')],
      isInternal: false,
      isIccAllowed: false,
      ipv6Firewall: 'closed',
    },
    {
      bridge: 'tsfb-in',
      subnets: [net('198.51.100.192/27')],
      isInternal: true,
      isIccAllowed: true,
      ipv6Firewall: 'closed',
    },
  ],
  ports: [
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8080, address: ip('198.51.100.2'), port: 80 },
    { protocol: 'udp', hostAddress: undefined, hostPort: 8080, address: ip('198.51.100.2'), port: 80 },
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8080, address: ip('fd00:1::2'), port: 80 },
    { protocol: 'udp', hostAddress: undefined, hostPort: 8080, address: ip('fd00:1::2'), port: 80 },
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8090, address: ip('198.51.100.130'), port: 80 },
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8090, address: ip('2001:db8:d::2'), port: 80 },
    { protocol: 'tcp', hostAddress: ip('127.0.0.1'), hostPort: 8070, address: ip('198.51.100.2'), port: 80 },
    { protocol: 'tcp', hostAddress: ip('192.0.2.1'), hostPort: 8060, address: ip('198.51.100.2'), port: 80 },
  ],
  overlay: [net('198.18.0.0/16'), net('2001:db8:c::/48')],
  routed: [net('203.0.113.0/24')],
  hosts: [ip('198.18.9.0')],
  dockerBridges: ['docker0'],
};

const LABELS = ['web1', 'web2', 'db1', 'db2', 'in1', 'dock', 'peer', 'outside'] as const;
type Label = (typeof LABELS)[number];

/** Who calls, by which protocol, whom; what is answered: the caller's address as seen there, or nothing. */
type Call = readonly [
  from: Label | 'host',
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
  answer: string | null,
  source?: string,
];

/** What is refused is dropped; what is allowed takes as long as it takes. */
const NO_ANSWER_MS = 1500;
const ANSWER_MS = 20_000;

describe('the rules of routed container networks', function () {
  let host: OwnNetns;
  let names: string[] = [];
  let servers: Program[] = [];
  let withdraw = (): void => undefined;
  const namespaces = new Map<Label, Netns>();
  let firewall: ContainerFirewall;

  const of = (label: Label): Netns => {
    const found = namespaces.get(label);
    assert.ok(found);
    return found;
  };

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    for (const program of ['iptables', 'nft']) {
      if ((await runCommand(program, ['--version'])) === undefined) skipBecause(this, `no program ${program}`);
    }
    host = await OwnNetns.enter('ports');
    names = LABELS.map((label) => `${host.name}-${label}`);
    withdraw = onExit(() => {
      deleteNamespaces(names);
    });
    for (const [index, each] of (await Netns.create(names)).entries()) namespaces.set(LABELS[index] ?? 'web1', each);
    const link = (label: Label, device: string, bridge?: string): string[] => [
      `link add ${device} type veth peer name eth0 netns ${of(label).name}`,
      ...(bridge === undefined ? [] : [`link set ${device} master ${bridge}`]),
      `link set ${device} up`,
    ];
    await host.ip([
      ...['tsfb-web', 'tsfb-db', 'tsfb-in', 'docker0'].flatMap((bridge) => [
        `link add ${bridge} type bridge`,
        `link set ${bridge} up`,
      ]),
      ...link('web1', 'web1', 'tsfb-web'),
      ...link('web2', 'web2', 'tsfb-web'),
      ...link('db1', 'db1', 'tsfb-db'),
      ...link('db2', 'db2', 'tsfb-db'),
      ...link('in1', 'in1', 'tsfb-in'),
      ...link('dock', 'dock', 'docker0'),
      ...link('peer', 'tunnel'),
      ...link('outside', 'eth0'),
      'link set db1 type bridge_slave isolated on',
      'link set db2 type bridge_slave isolated on',
      // With br_netfilter the destination is translated on the bridge already, and back it may go through its own port.
      'link set web1 type bridge_slave hairpin on',
      'address add 198.51.100.1/25 dev tsfb-web',
      'address add fd00:1::1/64 dev tsfb-web',
      'address add 169.254.1.1/32 dev tsfb-db',
      'address add fe80::1/64 dev tsfb-db',
      'address add 198.51.100.193/27 dev tsfb-in',
      'address add 172.17.0.1/16 dev docker0',
      'address add 192.0.2.1/24 dev eth0',
      'address add 2001:db8:1::1/64 dev eth0',
      'address add 198.18.1.0/32 dev tunnel',
      'address add fd00:99::1/64 dev tunnel',
      ...['130', '131'].map((last) => `route add 198.51.100.${last} dev tsfb-db`),
      ...['2', '3'].map((last) => `route add 2001:db8:d::${last} dev tsfb-db`),
      ...['198.18.9.0', '198.51.100.9', '198.51.100.140', '198.18.7.2', '203.0.113.2'].map(
        (each) => `route add ${each} dev tunnel`,
      ),
      'route add 2001:db8:c::/48 via fd00:99::2',
    ]);
    await run(['sysctl', '-qw', ...['web', 'db'].map((each) => `net.ipv4.conf.tsfb-${each}.route_localnet=1`)]);
    await run(['sysctl', '-qw', 'net.ipv4.conf.tsfb-web.proxy_arp=1']);
    const container = (address4: string, gateway4: string, address6 = '', gateway6 = ''): string[] => [
      'link set eth0 up',
      `address add ${address4} dev eth0`,
      `route add default via ${gateway4} dev eth0 onlink`,
      ...(address6 === ''
        ? []
        : [`address add ${address6} dev eth0`, `route add ::/0 via ${gateway6} dev eth0 onlink`]),
    ];
    await of('web1').ip(container('198.51.100.2/25', '198.51.100.1', 'fd00:1::2/64', 'fd00:1::1'));
    await of('web2').ip(container('198.51.100.3/25', '198.51.100.1', 'fd00:1::3/64', 'fd00:1::1'));
    await of('db1').ip(container('198.51.100.130/32', '169.254.1.1', '2001:db8:d::2/128', 'fe80::1'));
    await of('db2').ip(container('198.51.100.131/32', '169.254.1.1', '2001:db8:d::3/128', 'fe80::1'));
    await of('in1').ip(container('198.51.100.194/27', '198.51.100.193'));
    await of('dock').ip(container('172.17.0.2/16', '172.17.0.1'));
    await of('peer').ip([
      ...container('198.18.9.0/32', '198.18.1.0', 'fd00:99::2/64', 'fd00:99::1'),
      ...['198.51.100.9', '198.51.100.140', '198.18.7.2', '203.0.113.2'].map((each) => `address add ${each}/32 dev lo`),
      'address add 2001:db8:c::7/128 dev lo',
    ]);
    // Routes to the containers, so that what should be closed or hidden is seen and not lost.
    await of('outside').ip([
      ...['link set eth0 up', 'address add 192.0.2.9/24 dev eth0', 'address add 2001:db8:1::9/64 dev eth0'],
      ...['198.51.100.0/24', '172.17.0.0/16', '127.0.0.1/32'].map((each) => `route add ${each} via 192.0.2.1`),
      ...['fd00:1::/64', '2001:db8:d::/64'].map((each) => `route add ${each} via 2001:db8:1::1`),
    ]);
    servers = [...namespaces.values()].map((each) => each.start([process.execPath, ENDPOINT, 'serve', '80', '81']));
    await Promise.all(servers.map((each) => each.waitForLine(/serving/)));
    firewall = new ContainerFirewall({ log: silentLogger, clock: systemClock, instance: host.name, resyncMs: 500 });
    await firewall.apply(INPUT);
  });

  after(async () => {
    await firewall.close();
    await Promise.all(servers.map((each) => each.kill()));
    deleteNamespaces(names);
    withdraw();
    host.leave();
  });

  /** Has everybody call at once. */
  const expectAnswers = async (calls: readonly Call[]): Promise<void> => {
    const callers = [...new Set(calls.map(([from]) => from))];
    const results = await Promise.all(
      callers.map(async (caller) => {
        const own = calls.filter(([from]) => from === caller);
        const input = own.map(([, protocol, address, port, answer]) => {
          return { protocol, address, port, limitMs: answer === null ? NO_ANSWER_MS : ANSWER_MS };
        });
        const argv = [process.execPath, ENDPOINT, 'ask'];
        const options = { input: JSON.stringify(input) };
        const { stdout } = await (caller === 'host' ? run(argv, options) : of(caller).run(argv, options));
        const answers = JSON.parse(stdout) as readonly (string | null)[];
        return own.map((call, index) => [...call.slice(0, 4), answers[index]].join(' '));
      }),
    );
    const expected = callers.flatMap((caller) =>
      calls.filter(([from]) => from === caller).map((call) => call.join(' ')),
    );
    assert.deepEqual(results.flat(), expected);
  };

  it('keep networks apart, and containers with icc=false', () =>
    expectAnswers([
      ['web1', 'tcp', '198.51.100.3', 80, '198.51.100.2'],
      ['web1', 'tcp', 'fd00:1::3', 80, 'fd00:1::2'],
      ['web1', 'tcp', '198.51.100.9', 80, '198.51.100.2'],
      ['db1', 'tcp', '198.51.100.131', 80, null],
      ['db1', 'tcp', '2001:db8:d::3', 80, null],
      ['db1', 'tcp', '198.51.100.140', 80, null],
      ['web1', 'tcp', '198.51.100.130', 80, null],
      ['db1', 'tcp', '198.51.100.3', 80, null],
      ['db1', 'tcp', 'fd00:1::3', 80, null],
      ['web1', 'tcp', '198.18.7.2', 80, null],
      ['web1', 'udp', '2001:db8:c::7', 80, null],
      ['web1', 'tcp', '172.17.0.2', 80, null],
      ['dock', 'tcp', '198.51.100.3', 80, null],
      ['dock', 'tcp', '198.51.100.9', 80, null],
      ['dock', 'tcp', '203.0.113.2', 80, null],
      ['dock', 'tcp', '198.18.7.2', 80, '172.17.0.2'],
      ['web1', 'tcp', '203.0.113.2', 80, null],
      ['in1', 'tcp', '198.51.100.3', 80, null],
    ]));

  it('are closed for everybody but the network itself and the hosts', () =>
    expectAnswers([
      ['outside', 'tcp', '198.51.100.3', 80, null],
      ['outside', 'udp', '198.51.100.3', 80, null],
      ['outside', 'tcp', 'fd00:1::3', 80, null],
      ['outside', 'tcp', '2001:db8:d::2', 80, null],
      ['peer', 'tcp', '198.51.100.3', 80, '198.18.9.0'],
      ['host', 'tcp', '198.51.100.3', 80, '198.51.100.1'],
      ['host', 'tcp', '198.51.100.130', 80, '169.254.1.1'],
    ]));

  it('let nothing out of an internal network, and nothing in', () =>
    expectAnswers([
      ['in1', 'tcp', '192.0.2.9', 80, null],
      ['in1', 'tcp', '192.0.2.1', 8080, null],
      ['outside', 'tcp', '198.51.100.194', 80, null],
      ['peer', 'tcp', '198.51.100.194', 80, null],
      ['host', 'tcp', '198.51.100.194', 80, '198.51.100.193'],
    ]));

  it('hide containers behind the host outside, except global addresses', () =>
    expectAnswers([
      ['web1', 'tcp', '192.0.2.9', 80, '192.0.2.1'],
      ['web1', 'udp', '2001:db8:1::9', 80, '2001:db8:1::1'],
      ['db1', 'tcp', '192.0.2.9', 80, '192.0.2.1'],
      ['db1', 'tcp', '2001:db8:1::9', 80, '2001:db8:d::2'],
      ['web1', 'tcp', '198.18.9.0', 80, '198.18.1.0'],
    ]));

  it('publish ports to the outside, to the other containers and to the container itself', () =>
    expectAnswers([
      ['outside', 'tcp', '192.0.2.1', 8080, '192.0.2.9'],
      ['outside', 'udp', '192.0.2.1', 8080, '192.0.2.9'],
      ['outside', 'tcp', '2001:db8:1::1', 8080, '2001:db8:1::9'],
      ['outside', 'udp', '2001:db8:1::1', 8080, '2001:db8:1::9'],
      ['outside', 'tcp', '192.0.2.1', 8060, '192.0.2.9'],
      ['peer', 'tcp', '198.18.1.0', 8060, null],
      ['outside', 'tcp', '2001:db8:1::1', 8090, '2001:db8:1::9'],
      ['db1', 'tcp', '192.0.2.1', 8080, '198.51.100.130'],
      ['db2', 'tcp', '2001:db8:1::1', 8080, '2001:db8:d::3'],
      ['web1', 'tcp', '192.0.2.1', 8080, '198.51.100.1'],
      ['web2', 'udp', '192.0.2.1', 8080, '198.51.100.1'],
      ['web1', 'tcp', '2001:db8:1::1', 8080, 'fd00:1::1'],
      ['dock', 'tcp', '192.0.2.1', 8080, '172.17.0.2'],
    ]));

  it('publish ports to the host itself, also under loopback addresses, which nobody else reaches', () =>
    expectAnswers([
      ['host', 'tcp', '192.0.2.1', 8080, '192.0.2.1'],
      ['host', 'udp', '192.0.2.1', 8080, '192.0.2.1'],
      ['host', 'tcp', '127.0.0.1', 8080, '198.51.100.1'],
      ['host', 'udp', '127.0.0.1', 8080, '198.51.100.1'],
      ['host', 'tcp', '127.0.0.1', 8070, '198.51.100.1'],
      ['host', 'tcp', '127.0.0.1', 8090, '169.254.1.1'],
      ['host', 'tcp', '2001:db8:1::1', 8080, '2001:db8:1::1'],
      ['host', 'tcp', '::1', 8080, null],
      ['outside', 'tcp', '127.0.0.1', 8070, null],
      ['outside', 'tcp', '192.0.2.1', 8070, null],
    ]));

  it('come back when somebody removes or changes them, and the jump from FORWARD likewise', async () => {
    const { table, chain } = containerRulePlaces(host.name);
    const listing = async (): Promise<string> => {
      const { stdout: own } = await run(['nft', 'list', 'table', ...table.split(' ')], { mayFail: true });
      const { stdout: forward } = await run(['iptables', '-S', 'FORWARD']);
      return own + forward;
    };
    const before = await listing();
    assert.match(before, new RegExp(chain.chain));
    for (const harm of [
      ['nft', 'delete', 'table', ...table.split(' ')],
      ['nft', 'add', 'rule', ...table.split(' '), 'arriving', 'accept'],
      ['iptables', '-F', 'FORWARD'],
    ]) {
      await run(harm);
      await waitFor(async () => (await listing()) === before, { what: 'the rules' });
    }
    await waitFor(
      () => {
        const { repaired } = firewall.status();
        const counts = [repaired['table-missing'], repaired['table-changed'], repaired['jump-missing']];
        return counts.join() === '1,1,1';
      },
      { what: 'the count of repairs' },
    );
  });

  it('reach the outside although the policy of FORWARD is DROP, which goes on for others', async () => {
    for (const program of ['iptables', 'ip6tables']) await run([program, '-P', 'FORWARD', 'DROP']);
    await expectAnswers([
      ['web1', 'tcp', '192.0.2.9', 80, '192.0.2.1'],
      ['web1', 'tcp', '2001:db8:1::9', 80, '2001:db8:1::1'],
      ['outside', 'tcp', '192.0.2.1', 8080, '192.0.2.9'],
      ['outside', 'tcp', '2001:db8:1::1', 8080, '2001:db8:1::9'],
      ['outside', 'tcp', '198.51.100.3', 80, null],
      ['web1', 'tcp', '172.17.0.2', 80, null],
      ['outside', 'tcp', '172.17.0.2', 80, null],
    ]);
    for (const program of ['iptables', 'ip6tables']) await run([program, '-P', 'FORWARD', 'ACCEPT']);
  });

  it("keep Docker's own networks from those of other hosts, on a host that is in none of them", async () => {
    await firewall.apply({ ...INPUT, networks: [], ports: [] });
    await expectAnswers([
      ['dock', 'tcp', '203.0.113.2', 80, null],
      ['dock', 'tcp', '198.18.7.2', 80, '172.17.0.2'],
    ]);
    await firewall.apply(INPUT);
  });

  it('go without a trace', async () => {
    const other = new ContainerFirewall({ log: silentLogger, clock: systemClock, instance: host.name, resyncMs: 0 });
    await firewall.close();
    assert.match((await run(['nft', 'list', 'tables'])).stdout, /tsflannel/, 'they stay when the daemon ends');
    await other.cleanup();
    const { stdout: tables } = await run(['nft', 'list', 'tables']);
    const { stdout: rules } = await run(['iptables-save']);
    assert.doesNotMatch(tables + rules, /tsflannel/i);
  });
});
