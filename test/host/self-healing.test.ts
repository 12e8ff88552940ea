import assert from 'node:assert/strict';
import { netChange } from '../support/net-change.js';
import { type NetState, netState } from '../support/net-state.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { type PingResult, ping, startPing } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';
import type { DaemonStatus } from '../../src/observe/status.js';

const PEERS = 6;
const ACTS = 110;
const REPAIR_MS = 1000;
/** `--iptables-resync=1` */
const RESYNC_MS = 1000;

/** One thing that somebody does to an object of ours. */
interface Act {
  readonly name: string;
  /** Whose drift counter tells of it; `firewall` for the packet filter. */
  readonly kind: keyof DaemonStatus['reconcile']['drift'] | 'firewall';
  readonly commands: readonly (readonly string[])[];
  /** Default {@link REPAIR_MS}. */
  readonly limitMs?: number;
}

/** The same sequence for the same seed (mulberry32). */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

const ip = (text: string): string[] => ['ip', ...text.split(' ')];

/**
 * Acts on what every backend has: rules. The daemon looks at them every second (`--iptables-resync=1`). nftables also
 * tells it of changes, unless they follow each other so fast that it takes them for a quarrel with another program.
 */
function firewallActs(isNft: boolean): Act[] {
  const limitMs = RESYNC_MS + REPAIR_MS;
  if (isNft) {
    const nft = (name: string, command: string): Act => {
      return { name, kind: 'firewall', commands: [['nft', command]], limitMs };
    };
    return [
      nft('table deleted', 'delete table ip flannel-ipv4'),
      nft('chain flushed', 'flush chain ip flannel-ipv4 postrtg'),
      nft('rule added', 'insert rule ip flannel-ipv4 forward counter drop'),
    ];
  }
  const iptables = (name: string, command: string): Act => ({
    name,
    kind: 'firewall',
    commands: [['iptables', ...command.split(' ')]],
    limitMs,
  });
  return [
    iptables('rule deleted', '-t nat -D FLANNEL-POSTRTG 2'),
    iptables('chain flushed', '-t nat -F FLANNEL-POSTRTG'),
    iptables('forward chain flushed', '-F FLANNEL-FWD'),
    {
      name: 'jump and chain removed',
      kind: 'firewall',
      // In one transaction: the daemon may look between two.
      commands: [
        [
          'sh',
          '-c',
          `printf '${['*nat', '-F POSTROUTING', '-F FLANNEL-POSTRTG', '-X FLANNEL-POSTRTG', 'COMMIT'].join('\\n')}\\n' | iptables-restore --noflush`,
        ],
      ],
      limitMs,
    },
  ];
}

type Random = (below: number) => number;

/** Makes acts on the objects of the vxlan backend. */
function vxlanActs(random: Random, macs: ReadonlyMap<number, string>): Act[] {
  const peer = 2 + random(PEERS);
  const subnet = `10.5.${peer}.0`;
  const mac = macs.get(peer) ?? '';
  const fdb = (text: string): string[] => ['bridge', 'fdb', ...text.split(' ')];
  const act = (kind: Act['kind'], name: string, ...commands: string[][]): Act => ({ kind, name, commands });
  return [
    act('link', 'device deleted', ip('link del flannel.1')),
    act('link', 'device down', ip('link set flannel.1 down')),
    act('link', 'MTU altered', ip(`link set flannel.1 mtu ${1000 + random(400)}`)),
    act('link', 'MAC altered', ip(`link set flannel.1 address 02:00:00:00:00:${(16 + random(200)).toString(16)}`)),
    act('link', 'learning switched on', ip('link set flannel.1 type vxlan learning')),
    act('link', 'device renamed', ip('link set flannel.1 name stolen')),
    act('address', 'address removed', ip('addr del 10.5.1.0/32 dev flannel.1')),
    act('address', 'address added', ip(`addr add 10.5.1.${1 + random(200)}/32 dev flannel.1`)),
    act('route', 'route deleted', ip(`route del ${subnet}/24`)),
    act('route', 'route replaced', ip(`route replace ${subnet}/24 dev flannel.1`)),
    act('route', 'route added', ip(`route add 10.5.${100 + random(100)}.0/24 dev flannel.1`)),
    act('neighbour', 'neighbour deleted', ip(`neigh del ${subnet} dev flannel.1`)),
    act(
      'neighbour',
      'neighbour altered',
      ip(`neigh replace ${subnet} lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent`),
    ),
    act('fdb', 'forwarding entry deleted', fdb(`del ${mac} dev flannel.1`)),
    act('fdb', 'forwarding entry altered', fdb(`replace ${mac} dev flannel.1 dst 192.0.2.99 self permanent`)),
  ];
}

/** The same for the udp backend, whose TUN device is gone with its tunnel when it is deleted. */
function udpActs(random: Random): Act[] {
  const act = (kind: Act['kind'], name: string, ...commands: string[][]): Act => ({ kind, name, commands });
  return [
    act('tunnel', 'device deleted', ip('link del flannel0')),
    act('link', 'device down', ip('link set flannel0 down')),
    act('link', 'MTU altered', ip(`link set flannel0 mtu ${1000 + random(400)}`)),
    act('link', 'queue length altered', ip(`link set flannel0 txqueuelen ${100 + random(400)}`)),
    act('address', 'address removed', ip('addr del 10.5.1.0/32 dev flannel0')),
    act('address', 'address added', ip(`addr add 10.5.1.${1 + random(200)}/32 dev flannel0`)),
    act('route', 'route deleted', ip('route del 10.5.0.0/16')),
    act('route', 'route replaced', ip('route replace 10.5.0.0/16 dev flannel0 mtu 700')),
    act('route', 'route added', ip(`route add 10.5.${100 + random(100)}.0/24 dev flannel0`)),
  ];
}

for (const { type, isNft } of [
  { type: 'vxlan', isNft: false },
  { type: 'udp', isNft: true },
]) {
  describe(`self-healing with ${type} and rules in ${isNft ? 'nftables' : 'iptables'}`, function () {
    this.timeout(300_000);
    let rig: Rig;
    let host: Host;
    let near: Container;
    let far: Container;

    before(async () => {
      rig = await Rig.create({ hosts: 2 });
      host = rig.host(1);
      await rig.putConfig({ Network: '10.5.0.0/16', EnableNFTables: isNft, Backend: { Type: type } });
      const put = async (n: number, value: object): Promise<void> =>
        rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.${n}.0-24`, JSON.stringify(value));
      await put(1, { PublicIP: rig.host(1).publicIp, BackendType: 'host-gw' });
      await put(2, { PublicIP: rig.host(2).publicIp, BackendType: 'host-gw' });
      // More peers, which exist as leases only.
      for (let n = 3; n < 2 + PEERS; n++) {
        await put(n, {
          PublicIP: `192.0.2.${100 + n}`,
          PublicIPv6: null,
          ...(type === 'vxlan' ? { BackendType: type, BackendData: { VNI: 1, VtepMAC: `02:00:00:00:01:0${n}` } } : {}),
        });
      }
      for (const each of rig.hosts) await each.startDaemon({ args: ['--ip-masq', '--iptables-resync=1'] });
      near = await host.addContainer();
      far = await rig.host(2).addContainer();
      await waitFor(async () => (await ping(near.netns, far.address, { count: 1, waitSeconds: 1 })).received === 1, {
        what: 'the first ping',
      });
    });

    after(() => rig.close());

    const status = async (): Promise<DaemonStatus> =>
      JSON.parse((await host.daemon?.get('/status')) ?? '') as DaemonStatus;

    /** The kernel gives new link-local addresses to a TUN device that is made anew. */
    const state = async (): Promise<NetState> => {
      const found = await netState(host.netns);
      return { ...found, addresses: found.addresses.filter((address) => !address.includes(' fe80::')) };
    };

    const drifts = async (): Promise<Record<string, number>> => {
      const { reconcile, firewall } = await status();
      return {
        ...reconcile.drift,
        firewall: Object.values(firewall?.repaired ?? {}).reduce((sum, count) => sum + count, 0),
      };
    };

    it(`repairs each of ${ACTS} random acts within a second, rules at the next look`, async () => {
      const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
      const random = randomFrom(seed);
      console.log(`      seed ${seed}`);
      // Until the other host has published its backend, its reservation makes it a peer of host-gw.
      await eventually('a converged daemon that knows its peers', async () => {
        const { peers, reconcile } = await status();
        assert.deepEqual([...new Set(peers.map(({ backend }) => backend))], [type]);
        assert.equal(reconcile.isConverged, true);
        const { routes } = await state();
        assert.ok(!routes.some((route) => /dev eth0 proto 173/.test(route)), routes.join('\n'));
      });
      const reference = await state();
      const macs = new Map(
        reference.neighbours.map((line) => [Number(line.split('.')[2]), line.split(' ')[4] ?? ''] as const),
      );
      const before = await drifts();
      const expected = new Map<string, number>();
      const times = new Map<string, number[]>();
      const pings = startPing(near.netns, far.address, { intervalMs: 20 });
      let stopped: PingResult | undefined;
      try {
        for (let count = 0; count < ACTS; count++) {
          const acts = [...(type === 'vxlan' ? vxlanActs(random, macs) : udpActs(random)), ...firewallActs(isNft)];
          const act = acts[random(acts.length)] as Act;
          // From before the act to after the look that finds it undone: an upper bound, since both take a while.
          const startMs = performance.now();
          for (const command of act.commands) await host.netns.run(command);
          const tookMs = await repairTime(reference, state, startMs, act, seed);
          times.set(act.name, [...(times.get(act.name) ?? []), tookMs]);
          expected.set(act.kind, (expected.get(act.kind) ?? 0) + 1);
        }
      } finally {
        stopped = await pings.stop();
      }
      report(times, stopped);
      const after = await drifts();
      for (const [kind, count] of expected) {
        const grew = (after[kind] ?? 0) - (before[kind] ?? 0);
        assert.ok(grew >= count, `drift of kind ${kind} grew by ${grew}, after ${count} acts`);
      }
      assert.equal((await ping(near.netns, far.address)).received, 3);
      assert.deepEqual((await status()).reconcile.failures, []);
    });
  });
}

/**
 * Looks until everything is as it was.
 *
 * @remarks On a busy machine acts and looks themselves take longer than the repair. Late is therefore only what is
 * still wrong in a look that begins when the time since the act is up.
 * @returns milliseconds until the end of the first look that found everything as it was.
 */
async function repairTime(
  reference: NetState,
  look: () => Promise<NetState>,
  startMs: number,
  act: Act,
  seed: number,
): Promise<number> {
  const limitMs = act.limitMs ?? REPAIR_MS;
  const actedMs = performance.now();
  for (;;) {
    const sinceActMs = performance.now() - actedMs;
    const change = netChange(reference, await look());
    const isRepaired = Object.keys(change.added).length === 0 && Object.keys(change.removed).length === 0;
    if (isRepaired) return performance.now() - startMs;
    const what = `${act.name}, not repaired in ${limitMs} ms (seed ${seed})`;
    assert.ok(sinceActMs <= limitMs, `${what}: ${JSON.stringify(change)}`);
  }
}

function report(times: ReadonlyMap<string, readonly number[]>, pings: PingResult): void {
  const describeTimes = (values: readonly number[]): string => {
    const sorted = [...values].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
    return `${values.length} times, median ${median.toFixed(0)} ms, worst ${(sorted.at(-1) ?? Number.NaN).toFixed(0)} ms`;
  };
  for (const [name, values] of [...times].sort(([a], [b]) => (a < b ? -1 : 1))) {
    console.log(`      ${name}: ${describeTimes(values)}`);
  }
  console.log(`      all: ${describeTimes([...times.values()].flat())}`);
  console.log(`      pings: ${pings.received} of ${pings.sent} answered`);
}
