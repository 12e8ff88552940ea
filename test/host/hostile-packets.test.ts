import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DROP_REASONS, type DropReason, type TunnelCounters } from '../../src/dataplane/tunnel.js';
import type { Daemon } from '../support/daemon.js';
import type { Netns } from '../support/netns.js';
import { run } from '../support/netns.js';
import { NETWORK, Overlay } from '../support/overlay.js';
import type { Container } from '../support/rig.js';
import { tcpTransfer, udpExchange } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

const NATIVE_TESTS = fileURLToPath(new URL('../native', import.meta.url));
const FLOODS = path.join(NATIVE_TESTS, 'build/release/flood');
const PORT = 8285;
/** What is counted here is the tunnel's; the kernel path has tests of its own. */
const NATIVE = ['--datapath=native'];
/** An address on the underlay that no host has. */
const STRANGER = '192.0.2.200';
/** Of the 16 MiB that the kernel makes of the socket's buffer; the rest is for the traffic beside the flood. */
const WINDOW_BYTES = 2 << 20;
const DATAGRAMS = Number(process.env['TSFLANNEL_FLOOD_DATAGRAMS'] ?? 300_000);
/** Ten times what it takes on a machine with nothing else to do. */
const TIMEOUT_MS = 120_000 + DATAGRAMS / 10;

/** What the generator says about what it sent; see flood.cc. */
interface Flood {
  readonly sent: number;
  readonly delivered: number;
  readonly drops: Partial<Record<DropReason, number>>;
}

/** What a tunnel and its socket have counted. */
interface Totals {
  readonly counters: TunnelCounters;
  readonly socketDrops: number;
}

for (const verify of ['outer', 'strict'] as const) {
  describe(`hostile datagrams with VerifySource ${verify}`, function () {
    this.timeout(TIMEOUT_MS);
    let overlay: Overlay;
    let sink: Container;

    before(async () => {
      await buildFloods();
      overlay = await Overlay.create({
        args: () => NATIVE,
        config: { ...NETWORK, Backend: { Type: 'udp', VerifySource: verify } },
      });
      // What passes ends in a container that answers nothing, and the victim's kernel sends no answers of its own into
      // the tunnel: whatever its tunnel drops, it received.
      sink = await overlay.rig.host(2).addContainer();
      await dropAll(sink.netns);
      await answerNothing(overlay.rig.host(2).netns, overlay.container(2).address);
      await withoutIpv6(overlay.rig.host(2).netns);
    });
    after(() => overlay.close());

    const flood = async (options: { readonly datagrams: number; readonly windowBytes: number }): Promise<Flood> => {
      const { rig } = overlay;
      const victim = overlay.daemon(2);
      const subnet = overlay.container(1).address.replace(/\d+$/, '0');
      const { stdout } = await rig.router.run(
        [
          ...[
            path.join(FLOODS, 'flood'),
            rig.host(2).publicIp,
            PORT,
            queueFile(victim),
            options.datagrams,
            options.windowBytes,
            verify,
          ],
          ...[sink.address, subnet, rig.host(1).publicIp, STRANGER],
        ].map(String),
        { timeoutMs: TIMEOUT_MS },
      );
      return JSON.parse(stdout) as Flood;
    };

    it('are accounted for to the last one by delivery and reason, while traffic beside them stays whole', async () => {
      const victim = overlay.daemon(2);
      const before = await totals(victim);
      const sentBefore = (await totals(overlay.daemon(1))).counters.txPackets;
      let isOver = false;
      const beside = async (): Promise<number> => {
        let transfers = 0;
        for (; !isOver || transfers === 0; transfers++) {
          const { netns } = overlay.container(1);
          const target = overlay.container(2);
          await tcpTransfer(netns, target.netns, target.address, { bytes: 3_000_001, seed: transfers });
          const sizes = [0, 1, 512, 1443, 1445, 20_000];
          assert.deepEqual(await udpExchange(netns, target.netns, target.address, sizes), { lost: [], altered: [] });
        }
        return transfers;
      };
      const [expected] = await Promise.all([
        flood({ datagrams: DATAGRAMS, windowBytes: WINDOW_BYTES }).finally(() => (isOver = true)),
        beside(),
      ]);
      assert.ok(expected.sent >= DATAGRAMS);
      const isWhole = async (): Promise<boolean> => {
        const valid = (await totals(overlay.daemon(1))).counters.txPackets - sentBefore;
        return accounted(before, await totals(victim)) === expected.sent + valid;
      };
      await waitFor(isWhole, { what: 'every datagram to be counted' });
      const after = await totals(victim);
      assert.equal(after.socketDrops, before.socketDrops, 'the socket was never full');
      for (const reason of DROP_REASONS) {
        const count = after.counters.drops[reason] - before.counters.drops[reason];
        assert.equal(count, expected.drops[reason] ?? 0, reason);
      }
      // Each kind of damage was really there.
      const reasons: readonly DropReason[] = ['short', 'not-ipv4', 'bad-header', 'length-mismatch', 'ttl-expired'];
      for (const reason of [...reasons, 'source-unknown', 'source-spoofed'] as const) {
        assert.ok((expected.drops[reason] ?? 0) > 0, reason);
      }
    });

    it('cost the tunnel none of its offloads', async () => {
      const [tunnel] = (await overlay.daemon(2).status()).tunnels;
      assert.deepEqual(
        Object.values(tunnel?.counters.downgrades ?? {}).filter((count) => count > 0),
        [],
      );
    });

    it('that overrun the socket are accounted for, those included that the kernel discarded', async () => {
      const victim = overlay.daemon(2);
      const { netns } = overlay.rig.host(2);
      // The link loses some, too; what is promised begins where they arrive.
      await countArrivals(netns);
      const before = await totals(victim);
      const sentBefore = (await totals(overlay.daemon(1))).counters.txPackets;
      const expected = await flood({ datagrams: Math.min(DATAGRAMS, 1_000_000), windowBytes: 0 });
      const isWhole = async (): Promise<boolean> => {
        return accounted(before, await totals(victim)) === (await arrivals(netns));
      };
      await waitFor(isWhole, { what: 'every datagram to be counted' });
      const after = await totals(victim);
      const overflow = after.counters.drops['receive-overflow'] - before.counters.drops['receive-overflow'];
      assert.equal(overflow, after.socketDrops - before.socketDrops);
      const arrived = await arrivals(netns);
      // The other host probes this one meanwhile.
      const sent = expected.sent + (await totals(overlay.daemon(1))).counters.txPackets - sentBefore;
      assert.ok(arrived <= sent && arrived > sent / 2, `${arrived} of ${sent} arrived`);
    });
  });
}

describe('hostile packets in the queue of the tunnel device', function () {
  this.timeout(TIMEOUT_MS);
  let overlay: Overlay;
  let sink: Container;

  before(async () => {
    await buildFloods();
    overlay = await Overlay.create({ args: () => NATIVE });
    sink = await overlay.rig.host(2).addContainer();
    await dropAll(sink.netns);
    // The tunnel's own ICMP errors about forged sources would come back to it.
    await answerNothing(overlay.rig.host(1).netns, overlay.container(1).address);
    await withoutIpv6(overlay.rig.host(1).netns);
  });
  after(() => overlay.close());

  it('are sent as what they stand for or counted as dropped, while traffic beside them stays whole', async () => {
    const { rig } = overlay;
    const sender = overlay.daemon(1);
    const before = await totals(sender);
    const receivedBefore = (await totals(overlay.daemon(2))).counters;
    const subnet = sink.address.replace(/\d+$/, '0');
    const { stdout } = await rig
      .host(1)
      .netns.run(
        [
          ...[path.join(FLOODS, 'tun_flood'), 'flannel0', DATAGRAMS / 10, sender.subnetEnv()['FLANNEL_MTU'] ?? ''],
          ...[sink.address, subnet, rig.host(2).publicIp, overlay.container(1).address],
        ].map(String),
        { timeoutMs: TIMEOUT_MS },
      );
    const expected = JSON.parse(stdout) as { forwarded: number; drops: Partial<Record<DropReason, number>> };
    const isSent = async (): Promise<boolean> =>
      (await totals(sender)).counters.txPackets - before.counters.txPackets >= expected.forwarded;
    await waitFor(isSent, { what: 'every packet to be sent' });
    const after = await totals(sender);
    assert.equal(after.counters.txPackets - before.counters.txPackets, expected.forwarded);
    for (const reason of DROP_REASONS) {
      const count = after.counters.drops[reason] - before.counters.drops[reason];
      assert.equal(count, expected.drops[reason] ?? 0, reason);
    }
    const received = (await totals(overlay.daemon(2))).counters;
    const arrived = received.rxPackets - receivedBefore.rxPackets;
    assert.ok(arrived > expected.forwarded / 2, `${arrived} of ${expected.forwarded}`);
    assert.equal(received.drops['bad-header'] + received.drops['length-mismatch'], 0, 'all of it was well-formed');
    const { netns } = overlay.container(1);
    const target = overlay.container(2);
    await tcpTransfer(netns, target.netns, target.address, { bytes: 3_000_001 });
  });

  it('carries streams cut into hundreds of segments of 88 bytes, with ECN, both ways', async () => {
    const [near, far] = [overlay.container(1), overlay.container(2)];
    for (const { netns } of [near, far]) {
      const [route] = await netns.ipJson(['route', 'show', 'default']);
      await netns.ip([`route change default via ${String(route?.['gateway'])} advmss 88`]);
      await netns.run(['sysctl', '-qw', 'net.ipv4.tcp_ecn=1']);
    }
    const before = (await totals(overlay.daemon(1))).counters;
    await tcpTransfer(near.netns, far.netns, far.address, { bytes: 1_000_001 });
    await tcpTransfer(far.netns, near.netns, near.address, { bytes: 1_000_001 });
    const after = (await totals(overlay.daemon(1))).counters;
    assert.ok(after.txPackets - before.txPackets > 1_000_001 / 88, 'the segments were that small');
    assert.deepEqual(after.drops, before.drops);
  });
});

async function buildFloods(): Promise<void> {
  await run(['make', '-s', '-C', NATIVE_TESTS, 'flood'], { timeoutMs: 300_000 });
}

/** /proc/net/udp where the daemon runs. */
function queueFile(daemon: Daemon): string {
  return `/proc/${daemon.program.pid}/net/udp`;
}

async function totals(daemon: Daemon): Promise<Totals> {
  const [tunnel] = (await daemon.status()).tunnels;
  assert.ok(tunnel !== undefined && tunnel.kind === 'native');
  const port = PORT.toString(16).toUpperCase().padStart(4, '0');
  const sockets = readFileSync(queueFile(daemon), 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local]) => local?.endsWith(`:${port}`) === true);
  assert.ok(sockets.length > 0);
  const socketDrops = sockets.reduce((sum, columns) => sum + Number(columns.at(-1)), 0);
  return { counters: tunnel.counters, socketDrops };
}

/** Datagrams that a tunnel delivered or dropped between two moments. */
function accounted(before: Totals, after: Totals): number {
  const sum = ({ counters }: Totals): number =>
    counters.rxPackets + Object.values(counters.drops).reduce((total, count) => total + count, 0);
  return sum(after) - sum(before);
}

async function dropAll(netns: Netns): Promise<void> {
  const rules = ['table ip sink {', 'chain in { type filter hook prerouting priority -300; policy drop; }', '}'];
  await netns.run(['nft', '-f', '-'], { input: rules.join('\n') });
}

/** Counts the datagrams for the tunnel that reach a host from now on; see {@link arrivals}. */
async function countArrivals(netns: Netns): Promise<void> {
  const chain = `chain in { type filter hook prerouting priority -300; udp dport ${PORT} counter; }`;
  // Anew for a second attempt, or each would be counted twice.
  const anew = 'table ip arrivals\ndelete table ip arrivals\n';
  await netns.run(['nft', '-f', '-'], { input: `${anew}table ip arrivals {\n${chain}\n}` });
}

async function arrivals(netns: Netns): Promise<number> {
  const { stdout } = await netns.run(['nft', 'list', 'table', 'ip', 'arrivals']);
  return Number(/counter packets (\d+)/.exec(stdout)?.[1]);
}

/** Keeps the kernel from sending router solicitations through the tunnel, which would count as dropped, too. */
async function withoutIpv6(netns: Netns): Promise<void> {
  await netns.run(['sysctl', '-eqw', 'net.ipv6.conf.all.disable_ipv6=1']);
}

/** Lets nothing but a container's packets out through the tunnel. */
async function answerNothing(netns: Netns, container: string): Promise<void> {
  const rule = `oifname "flannel*" ip saddr != ${container} drop`;
  const chain = (hook: string): string => `chain ${hook} { type filter hook ${hook} priority 300; ${rule}; }`;
  await netns.run(['nft', '-f', '-'], { input: `table ip quiet {\n${chain('output')}\n${chain('forward')}\n}` });
}
