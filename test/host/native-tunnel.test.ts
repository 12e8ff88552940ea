import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ADDON_FILES, isNativeAvailable } from '../../src/dataplane/native.js';
import { OFFLOADS, type Offload } from '../../src/dataplane/tunnel.js';
import { capture, type Frame } from '../support/capture.js';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { buildPacket, PROTOCOL, referenceChecksum } from '../support/packets.js';
import { skipBecause } from '../support/skip.js';
import { iperf, numberedFlows, ping, tcpTransfer, udpExchange } from '../support/traffic.js';
import { PORT, type RemoteTunnel, TUNNEL_MTU, type TunnelKind, TunnelRig } from '../support/tunnel-rig.js';
import { waitFor } from '../support/wait.js';

const NEAR = '10.5.1.0';
const FAR = '10.5.2.0';

/** What each side may be told. */
interface Side {
  readonly kind?: TunnelKind;
  readonly workers?: number;
  readonly disabledOffloads?: readonly Offload[];
}

describe('native tunnel with real traffic', () => {
  let rig: TunnelRig;
  let tunnels: RemoteTunnel[] = [];

  before(async function () {
    if (!isNativeAvailable()) skipBecause(this, 'the addon is not built');
    rig = await TunnelRig.create();
  });
  after(() => rig.close());
  afterEach(async () => {
    await Promise.all(tunnels.map((tunnel) => tunnel.close()));
    tunnels = [];
  });

  const openBoth = async (near: Side = {}, far: Side = {}): Promise<void> => {
    tunnels = await Promise.all([
      rig.near.open(near.kind ?? 'native', {}, near),
      rig.far.open(far.kind ?? 'native', {}, far),
    ]);
    for (const host of [rig.near, rig.far]) {
      await host.netns.ip([`address add ${host.overlayAddress}/32 dev flannel0`, 'route add 10.5.0.0/16 dev flannel0']);
    }
  };
  const setLink = async (features: Readonly<Record<string, 'on' | 'off'>>): Promise<void> => {
    const settings = Object.entries(features).flat();
    for (const host of [rig.near, rig.far]) await host.netns.run(['ethtool', '-K', 'veth0', ...settings]);
  };

  /** Moves data both ways and checks every byte of it. */
  const exchange = async (bytes = 8_000_001): Promise<void> => {
    await tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes });
    await tcpTransfer(rig.far.netns, rig.near.netns, NEAR, { bytes, seed: 2 });
    const sizes = [0, 1, 7, 512, 1443, 1444, 1445, 4000, 20_000, 60_000];
    assert.deepEqual(await udpExchange(rig.near.netns, rig.far.netns, FAR, sizes), { lost: [], altered: [] });
  };

  /** A link like a NIC without segmentation offloads: every frame fits the MTU and is joined again at the receiver. */
  const WIRE = { tso: 'off', gso: 'off', 'tx-udp-segmentation': 'off', gro: 'on' } as const;
  const VETH = { tx: 'on', rx: 'on', tso: 'on', gso: 'on', 'tx-udp-segmentation': 'on', gro: 'off' } as const;

  for (const [link, features] of Object.entries({ veth: VETH, 'wire-like': WIRE })) {
    describe(`over a ${link} link`, () => {
      before(() => setLink({ ...VETH, ...features }));

      it('delivers TCP streams and datagrams unchanged', async () => {
        await openBoth();
        await exchange(150_000_001);
        for (const tunnel of tunnels) {
          const { counters, events } = await tunnel.state();
          assert.deepEqual(events, []);
          assert.ok((counters.packetsPerWrite.at(-3) ?? 0) > 0, 'bulk was joined');
          const calls = counters.socketSends + counters.socketReceives;
          assert.ok(calls < (counters.txPackets + counters.rxPackets) / 4, 'bulk was sent in bulk');
        }
      });

      for (const offload of OFFLOADS) {
        it(`delivers them without ${offload} at the sender, the receiver and both`, async () => {
          const without: Side = { disabledOffloads: [offload] };
          for (const [near, far] of [
            [without, {}],
            [{}, without],
            [without, without],
          ] as const) {
            await openBoth(near, far);
            await exchange(10_000_001);
            const { offloads } = await (near === without ? tunnels[0]! : tunnels[1]!).state();
            assert.equal(offloads[offload], false);
            await Promise.all(tunnels.map((tunnel) => tunnel.close()));
          }
        });
      }

      it('delivers them without any offload', async () => {
        await openBoth({ disabledOffloads: OFFLOADS }, { disabledOffloads: OFFLOADS });
        await exchange(10_000_001);
      });

      it('understands the portable tunnel, both ways', async () => {
        await openBoth({ kind: 'portable' }, {});
        await exchange(10_000_001);
      });

      it('delivers several streams over several workers', async () => {
        await openBoth({ workers: 3 }, { workers: 2 });
        await exchange();
        const { bytes } = await iperf(rig.near.netns, rig.far.netns, FAR, { seconds: 1, streams: 8 });
        assert.ok(bytes > 1_000_000);
        assert.equal((await tunnels[0]!.state()).workers, 3);
      });

      for (const [near, far] of [
        [1, 1],
        [2, 2],
        [4, 4],
        [1, 4],
      ] as const) {
        it(`keeps the order within each flow, both ways at once, with ${near} and ${far} workers`, async () => {
          await openBoth({ workers: near }, { workers: far });
          const options = { flows: 16, datagrams: 2000 };
          const results = await Promise.all([
            numberedFlows(rig.near.netns, rig.far.netns, FAR, options),
            numberedFlows(rig.far.netns, rig.near.netns, NEAR, options),
          ]);
          for (const flows of results) {
            assert.equal(flows.length, options.flows);
            for (const { received, late } of flows) {
              assert.equal(late, 0);
              assert.ok(received > options.datagrams / 20, `${received} datagrams are enough to show their order`);
            }
          }
        });
      }

      it('spreads TCP connections over the workers', async () => {
        await openBoth({ workers: 3 }, { workers: 2 });
        const before = (await tunnels[0]!.state()).counters.workerCpuSeconds;
        const listener = rig.far.netns.start(['iperf3', '-s', '-1', '-B', FAR, '--forceflush']);
        await listener.waitForLine(/Server listening/);
        // Answers arrive at one worker whatever happens. That 32 connections miss one of three: twice in a million runs.
        await rig.near.netns.run(['iperf3', '-c', FAR, '-P', '32', '-b', '5M', '-t', '1', '-l', '500']);
        await listener.kill();
        const { counters } = await tunnels[0]!.state();
        const spent = counters.workerCpuSeconds.map((seconds, worker) => seconds - (before[worker] ?? 0));
        assert.ok(Math.min(...spent) > 0.002, spent.join(' '));
      });
    });
  }

  it('puts exactly one whole inner packet into each datagram, with DF and right checksums', async () => {
    await setLink({ ...VETH, tx: 'off', rx: 'off', tso: 'off', gso: 'off', 'tx-udp-segmentation': 'off' });
    await openBoth();
    const recording = await capture(rig.far.netns, 'veth0', `udp dst port ${PORT} and src host 192.0.2.1`);
    await tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes: 5_000_001 });
    await udpExchange(rig.near.netns, rig.far.netns, FAR, [0, 1, 1444, 5000, 30_000]);
    await ping(rig.near.netns, FAR, { count: 3, size: TUNNEL_MTU - 28 });
    const { frames, lost } = await recording.stop();
    await setLink(VETH);
    assert.equal(lost, 0);
    assert.ok(frames.length > 3000);
    for (const frame of frames) assert.deepEqual(faultsOf(frame), [], frame.data.toString('hex'));
  });

  it('lets what is not TCP pass the TCP that waits', async () => {
    tunnels = [await rig.near.open('native')];
    const [tap, peer] = [rig.near.tap(), rig.far.socket()];
    try {
      const packetOf = (protocol: number): Buffer =>
        buildPacket({ source: NEAR, destination: FAR, protocol, payload: Buffer.alloc(64) });
      const TCP_PACKETS = 200;
      process.kill(rig.near.pid, 'SIGSTOP');
      await waitFor(() => areThreadsStopped(rig.near.pid), { what: 'all threads to stand still' });
      for (let i = 0; i < TCP_PACKETS; i++) tap.send(packetOf(PROTOCOL.tcp));
      tap.send(packetOf(PROTOCOL.udp));
      process.kill(rig.near.pid, 'SIGCONT');
      const protocols: (number | undefined)[] = [];
      while (protocols.length <= TCP_PACKETS) protocols.push((await peer.next()).data[9]);
      // It has seen the first TCP packets at most before it stopped to look for others.
      assert.ok(protocols.indexOf(PROTOCOL.udp) < TCP_PACKETS / 4, protocols.join(' '));
      assert.equal(protocols.filter((protocol) => protocol === PROTOCOL.tcp).length, TCP_PACKETS);
    } finally {
      process.kill(rig.near.pid, 'SIGCONT');
      tap.close();
      peer.close();
    }
  });

  it('reports what the path learns about its MTU, and TCP goes on', async () => {
    await openBoth();
    await rig.near.netns.ip(['route add 192.0.2.2/32 dev veth0 src 192.0.2.1 mtu lock 1200']);
    try {
      await tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes: 1_000_001 });
      const { counters, events } = await tunnels[0]!.state();
      assert.ok(counters.icmpSent['frag-needed'] > 0);
      assert.deepEqual(events, []);
    } finally {
      await rig.near.netns.ip(['route del 192.0.2.2/32 dev veth0']);
    }
  });

  it('goes on sending in bulk when a peer could not be reached for a moment under load', async () => {
    await openBoth();
    const sending = tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes: 400_000_001 });
    const sendErrors = async (): Promise<number> => (await tunnels[0]!.state()).counters.drops['send-error'];
    await waitFor(async () => (await tunnels[0]!.state()).counters.txPackets > 1000, { what: 'the load' });
    // What a blackhole route answers is what UDP_SEGMENT answers when it does not work.
    await rig.near.netns.ip(['route add blackhole 192.0.2.2/32']);
    try {
      await waitFor(async () => (await sendErrors()) > 1, { what: 'packets to be refused' });
    } finally {
      await rig.near.netns.ip(['route del blackhole 192.0.2.2/32']);
    }
    await sending;
    const { counters, offloads, events } = await tunnels[0]!.state();
    assert.equal(offloads.udpSegment, true);
    assert.equal(counters.downgrades.udpSegment, 0);
    assert.deepEqual(events, []);
  });

  it('takes lone packets on the CPU they come on, and bulk wherever the scheduler wants', async function () {
    if (availableParallelism() < 2) skipBecause(this, 'there is one CPU');
    await openBoth({ kind: 'portable' }, { workers: 1 });
    const worker = threadNamed(rig.far.pid, 'tunnel/0');
    const anywhere = allowedCpus(worker);
    assert.notEqual(anywhere, '0');
    for (const cpu of ['0', '1', '0']) {
      await rig.near.netns.run(['taskset', '--all-tasks', '--cpu-list', '--pid', cpu, String(rig.near.pid)]);
      await ping(rig.near.netns, FAR, { count: 100, intervalMs: 5 });
      assert.equal(cpuOf(worker), cpu);
    }
    await tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes: 8_000_001 });
    assert.equal(allowedCpus(worker), anywhere);
  });

  describe('of the addon', () => {
    const script = fileURLToPath(new URL('../support/addon-lifecycle.mjs', import.meta.url));
    const addon = ADDON_FILES.find((file) => existsSync(file)) ?? '';
    const play = async (scenario: string): Promise<{ before: object; after: object; hasDevice: boolean }> => {
      const { stdout } = await rig.near.netns.run([
        ...[process.execPath, '--expose-gc', script],
        ...[addon, scenario, rig.near.publicIp],
      ]);
      return JSON.parse(stdout) as { before: object; after: object; hasDevice: boolean };
    };
    for (const [scenario, title] of [
      ['terminate', 'ends with the worker thread of Node that opened it, when that is terminated'],
      ['exit', 'ends with the worker thread of Node that opened it, when that exits'],
      ['collect', 'ends when nobody holds it any more'],
      ['closeUnderLoad', 'closes while packets flow, twice and while it is being asked'],
    ] as const) {
      it(`${title}, and leaves nothing behind`, async () => {
        const { before, after, hasDevice } = await play(scenario);
        assert.equal(hasDevice, false);
        assert.deepEqual(after, before);
      });
    }

    it('neither keeps the process alive nor outlives it', async () => {
      const { hasDevice } = await play('abandon');
      assert.equal(hasDevice, true);
      const isGone = async (): Promise<boolean> =>
        !(await rig.near.netns.run(['ip', '-o', 'link'])).stdout.includes('flannel0');
      await waitFor(isGone, { what: 'the device to disappear' });
    });
  });
});

/** The directory in /proc of the thread with this name. */
function threadNamed(pid: number, name: string): string {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}`);
  const found = threads.find((thread) => readFileSync(`${thread}/comm`, 'utf8').trim() === name);
  assert.ok(found !== undefined, `process ${pid} has no thread ${name}`);
  return found;
}

/** The CPU that a thread ran on last. */
function cpuOf(thread: string): string | undefined {
  // Field 39 of the line; the name, in parentheses, is the second and may hold spaces.
  return readFileSync(`${thread}/stat`, 'utf8').split(')').at(-1)?.trim().split(' ')[36];
}

/** The CPUs that a thread may be on, such as `0-1`. */
function allowedCpus(thread: string): string | undefined {
  return /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync(`${thread}/status`, 'utf8'))?.[1];
}

/** Whether SIGSTOP has reached every thread of a process. */
function areThreadsStopped(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) =>
    /^State:\s+T/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')),
  );
}

/** Everything that is wrong with an Ethernet frame that carries a datagram of the tunnel. */
function faultsOf({ data }: Frame): string[] {
  const ETHERNET = 14;
  const OUTER = 20;
  const outer = data.subarray(ETHERNET);
  const udp = outer.subarray(OUTER);
  const inner = udp.subarray(8);
  const faults: string[] = [];
  const expect = (condition: boolean, fault: string): void => {
    if (!condition) faults.push(fault);
  };
  expect(outer.length <= 1500, 'longer than the MTU');
  expect(outer.readUInt16BE(2) === outer.length, 'outer length');
  expect((outer.readUInt16BE(6) & 0x4000) !== 0, 'no DF');
  expect((outer.readUInt16BE(6) & 0x3fff) === 0, 'a fragment');
  expect(udp.readUInt16BE(0) === PORT && udp.readUInt16BE(2) === PORT, 'ports');
  expect(udp.readUInt16BE(4) === udp.length, 'UDP length');
  expect(udp.readUInt16BE(6) !== 0, 'no UDP checksum');
  expect(l4Sum(outer, udp, 17) === 0, 'UDP checksum');
  expect(inner[0] === 0x45, 'inner version');
  expect(inner.readUInt16BE(2) === inner.length, 'inner length');
  expect(inner[8] === 63, 'inner TTL');
  expect(referenceChecksum(inner.subarray(0, 20)) === 0, 'inner header checksum');
  const protocol = inner[9]!;
  const isFragment = (inner.readUInt16BE(6) & 0x3fff) !== 0;
  if (!isFragment && (protocol === 6 || protocol === 17)) {
    expect(l4Sum(inner, inner.subarray(20), protocol) === 0, 'inner TCP or UDP checksum');
  }
  return faults;
}

/** Checksum over pseudo header and segment; 0 if the field in it is right. */
function l4Sum(packet: Buffer, segment: Buffer, protocol: number): number {
  const pseudo = Buffer.concat([
    packet.subarray(12, 20),
    Buffer.of(0, protocol, segment.length >> 8, segment.length & 255),
  ]);
  return referenceChecksum(Buffer.concat([pseudo, segment]));
}
