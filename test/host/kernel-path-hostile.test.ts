import assert from 'node:assert/strict';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DROP_REASONS, type DropReason, type TunnelCounters } from '../../src/dataplane/tunnel.js';
import { DATAPATH, kernelCounters, startKernelOverlay } from '../support/kernel-overlay.js';
import { BUILD_TIMEOUT_MS, buildKernelPath, kernelPathCommand } from '../support/kernel-path.js';
import { type Netns, run } from '../support/netns.js';
import { NETWORK, type Overlay } from '../support/overlay.js';
import type { Container } from '../support/rig.js';
import { tcpTransfer, udpExchange } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const NATIVE_TESTS = fileURLToPath(new URL('../native', import.meta.url));
const PORT = 8285;
/** An address on the underlay that no host has. */
const STRANGER = '192.0.2.200';
/** Of the 16 MiB that the kernel makes of the socket's buffer. */
const WINDOW_BYTES = 2 << 20;
const DATAGRAMS = Number(process.env['TSFLANNEL_FLOOD_DATAGRAMS'] ?? 300_000);
/** Ten times what it takes on a machine with nothing else to do. */
const TIMEOUT_MS = BUILD_TIMEOUT_MS + DATAGRAMS / 10;

describe(`hostile datagrams and the kernel path (${DATAPATH})`, function () {
  this.timeout(TIMEOUT_MS);
  let overlay: Overlay | undefined;

  before(async function () {
    await buildKernelPath(this);
    await run(['make', '-s', '-C', NATIVE_TESTS, 'flood'], { timeoutMs: BUILD_TIMEOUT_MS });
  });
  after(() => overlay?.close());

  it('are taken only where the native core delivers the same, and else left as they were', async () => {
    await run(kernelPathCommand('mutations'), { timeoutMs: TIMEOUT_MS });
  });

  it('are all accounted for by the two ways together, while traffic beside them stays whole', async () => {
    const hosts = await startKernelOverlay({
      config: { ...NETWORK, Backend: { Type: 'udp', VerifySource: 'strict' } },
    });
    overlay = hosts;
    const { rig } = hosts;
    // What passes ends in a container that answers nothing.
    const sink = await rig.host(2).addContainer();
    await quiet(rig.host(2).netns, sink, hosts.container(2).address);
    const subnet = hosts.container(1).address.replace(/\d+$/, '0');
    const [near, far] = [hosts.container(1), hosts.container(2)];
    const victim = hosts.daemon(2);
    const totals = async (host: number): Promise<TunnelCounters> => {
      const counters = (await hosts.daemon(host).status()).tunnels[0]?.counters;
      assert.ok(counters);
      return counters;
    };
    const before = await totals(2);
    const takenBefore = (await kernelCounters(victim)).received.packets;
    const sentBefore = (await totals(1)).txPackets;
    // With XDP the ring of a veth is small, and without a queue in front of it drops what is too much (Linux 6.16).
    const theSwitch = rig.host(1).netns.name.replace(/h1$/, 'sw');
    await run(['tc', '-n', theSwitch, 'qdisc', 'add', 'dev', 'h2', 'root', 'pfifo', 'limit', '100000']);
    let isOver = false;
    const beside = async (): Promise<void> => {
      for (let seed = 0; !isOver || seed === 0; seed++) {
        await tcpTransfer(near.netns, far.netns, far.address, { bytes: 3_000_001, seed });
        const exchanged = await udpExchange(near.netns, far.netns, far.address, [0, 1, 512, 1443, 1445, 20_000]);
        assert.deepEqual(exchanged, { lost: [], altered: [] });
      }
    };
    const words = [
      ...[rig.host(2).publicIp, PORT, `/proc/${victim.program.pid}/net/udp`, DATAGRAMS, WINDOW_BYTES, 'strict'],
      ...[sink.address, subnet, rig.host(1).publicIp, STRANGER, 'bare'],
    ].map(String);
    const flood = rig.router.run([path.join(NATIVE_TESTS, 'build/release/flood/flood'), ...words], {
      timeoutMs: TIMEOUT_MS,
    });
    const [{ stdout }] = await Promise.all([flood.finally(() => (isOver = true)), beside()]);
    const expected = JSON.parse(stdout) as { sent: number; drops: Partial<Record<DropReason, number>> };
    assert.ok(expected.sent >= DATAGRAMS);

    await eventually('every datagram to be counted', async () => {
      const valid = (await totals(1)).txPackets - sentBefore;
      assert.equal(accounted(await totals(2)) - accounted(before), expected.sent + valid);
    });
    const after = await totals(2);
    for (const reason of DROP_REASONS) {
      assert.equal(after.drops[reason] - before.drops[reason], expected.drops[reason] ?? 0, reason);
    }
    const counters = await kernelCounters(victim);
    assert.ok(counters.received.packets - takenBefore > 0, 'the programs took none');
    assert.deepEqual([counters['receive-failed'].packets, counters['receive-other-host'].packets], [0, 0]);
    for (const reason of [
      'receive-tunnel',
      'receive-not-plain',
      'receive-length',
      'receive-source',
      'receive-ttl',
    ] as const) {
      assert.ok(counters[reason].packets > 0, reason);
    }
  });
});

/** Packets that a tunnel has delivered or dropped. */
function accounted({ rxPackets, drops }: TunnelCounters): number {
  return Object.values(drops).reduce((total, count) => total + count, rxPackets);
}

/** Has a container answer nothing, and its host let nothing but another container's packets out through the tunnel. */
async function quiet(host: Netns, sink: Container, other: string): Promise<void> {
  const drop = 'chain in { type filter hook prerouting priority -300; policy drop; }';
  await sink.netns.run(['nft', '-f', '-'], { input: `table ip sink {\n${drop}\n}` });
  const rule = `oifname "flannel*" ip saddr != ${other} drop`;
  const chain = (hook: string): string => `chain ${hook} { type filter hook ${hook} priority 300; ${rule}; }`;
  await host.run(['nft', '-f', '-'], { input: `table ip quiet {\n${chain('output')}\n${chain('forward')}\n}` });
  await host.run(['sysctl', '-eqw', 'net.ipv6.conf.all.disable_ipv6=1']);
}
