import assert from 'node:assert/strict';
import { macToBytes, parseMac } from '../../src/ip/mac.js';
import { inNamespace } from '../support/in-namespace.js';
import { BUILD_TIMEOUT_MS, buildKernelPath } from '../support/kernel-path.js';
import { DATAPATH, eventuallySends, kernelCounters } from '../support/kernel-overlay.js';
import { Netns } from '../support/netns.js';
import { Overlay } from '../support/overlay.js';
import { PROTOCOL, type PacketFields, buildPacket, buildUdp } from '../support/packets.js';
import type { Container } from '../support/rig.js';
import { TunTap } from '../support/tunnel-rig.js';
import { eventually, waitFor } from '../support/wait.js';

const ETHERNET_BYTES = 14;
const ETH_P_ALL = 3;
const OUTER_BYTES = 28;
const TUN_MTU = 1472;
/** Of the uplink, so that containers can send more than the tunnel carries. */
const UPLINK_MTU = 1500;
const PORT = 8285;
const FIRST_ID = 1000;
const DF = 0x4000;
const MF = 0x2000;
const RESERVED = 0x8000;

/** What a packet is, and how many pieces of it arrive if no answer comes back; 0: who drops it does not tell. */
interface Sent extends PacketFields {
  readonly what: string;
  readonly pieces?: number;
}

/** What became of a packet: datagrams on the link, packets in the other container, answers to the sender; in hex. */
interface Outcome {
  readonly wire: string[];
  readonly arrived: string[];
  readonly answers: string[];
}

describe(`the kernel path (${DATAPATH}) beside the native tunnel`, function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay;
  let near: Container;
  let far: Container;

  before(async function () {
    await buildKernelPath(this);
    overlay = await Overlay.create({ args: () => flagsOf('native') });
    [near, far] = [overlay.container(1), overlay.container(2)];
    for (const [index, { netns }] of [near, far].entries()) {
      const host = overlay.rig.host(index + 1).netns;
      await host.ip([`link set c1 mtu ${UPLINK_MTU}`]);
      await netns.ip([`link set eth0 mtu ${UPLINK_MTU}`]);
      // Neither containers nor limits add anything.
      host.setParameters({ 'net/ipv4/icmp_ratelimit': 0, 'net/ipv4/icmp_msgs_per_sec': 100_000 });
      const chain = 'chain in { type filter hook prerouting priority -300; policy drop; }';
      await netns.run(['nft', '-f', '-'], { input: `table ip sink {\n${chain}\n}` });
    }
  });
  // There is none if they were skipped.
  after(() => (overlay as Overlay | undefined)?.close());

  const restartWith = async (datapath: string): Promise<void> => {
    for (const number of [1, 2]) {
      await overlay.daemon(number).stop();
      await overlay.daemon(number).startAndWait(flagsOf(datapath));
    }
    await eventually('hosts to know each other', async () => {
      for (const number of [1, 2]) assert.equal((await overlay.daemon(number).status()).peers.length, 1);
    });
  };

  const udp = (payload: Buffer): Buffer => buildUdp(near.address, far.address, 4000, 53, payload);

  /** One after the other, each with an identification of its own by which all that comes of it is told. */
  const outcomesOf = async (packets: readonly Sent[]): Promise<Map<string, Outcome>> => {
    const theSwitch = new Netns(overlay.rig.host(1).netns.name.replace(/h1$/, 'sw'));
    const tapOf = (netns: Netns, device: string, protocol?: number): TunTap =>
      inNamespace(netns.file, () => new TunTap(device, ETHERNET_BYTES, protocol));
    const sender = inNamespace(near.netns.file, () => new TunTap('eth0'));
    const taps = {
      wire: tapOf(theSwitch, 'h1', ETH_P_ALL),
      arrived: tapOf(far.netns, 'eth0'),
      answers: tapOf(near.netns, 'eth0'),
    };
    const header = Buffer.concat([
      await macOf(overlay.rig.host(1).netns, 'docker0'),
      await macOf(near.netns, 'eth0'),
      Buffer.of(0x08, 0x00),
    ]);
    const outcomes = packets.map((): Outcome => ({ wire: [], arrived: [], answers: [] }));
    try {
      for (const [id, { what, pieces = 1, ...fields }] of packets.entries()) {
        const packet = buildPacket({ source: near.address, destination: far.address, ...fields, id: FIRST_ID + id });
        sender.send(Buffer.concat([header, packet]));
        const isOver = async (): Promise<boolean> => {
          for (const kind of ['wire', 'arrived', 'answers'] as const) {
            for (let left = taps[kind].pending; left > 0; left--) {
              const seen = SEEN[kind](await taps[kind].next());
              if (seen !== undefined) outcomes[seen.id - FIRST_ID]?.[kind].push(seen.bytes.toString('hex'));
            }
          }
          const { arrived = [], answers = [] } = outcomes[id] ?? {};
          return arrived.length >= pieces || answers.length > 0;
        };
        await waitFor(isOver, { what: `${what} to arrive, or an answer`, timeoutMs: 5000, intervalMs: 1 });
      }
    } finally {
      for (const tap of [sender, ...Object.values(taps)]) tap.close();
    }
    return new Map(packets.map(({ what }, id) => [what, outcomes[id] as Outcome]));
  };

  const packets = (): readonly Sent[] => {
    const all: Sent[] = [];
    const add = (what: string, fields: Omit<Sent, 'what'>): void => void all.push({ what, flags: DF, ...fields });
    const data = udp(Buffer.alloc(40, 7));
    for (let tos = 0; tos < 256; tos++) add(`TOS ${tos}`, { tos, payload: data });
    for (const ttl of [1, 2, 3, 4, 5, 6, 7, 8, 64, 255]) {
      // A tunnel that receives the last hop drops it; the kernels and a tunnel that sends answer.
      const pieces = ttl === 3 ? 0 : 1;
      add(`TTL ${ttl}, UDP`, { ttl, pieces, payload: data });
      add(`TTL ${ttl}, ECN`, { ttl, pieces, tos: 3, payload: data });
      add(`TTL ${ttl}, ICMP`, { ttl, pieces, protocol: PROTOCOL.icmp, payload: echo() });
      add(`TTL ${ttl}, options`, { ttl, pieces, options: Buffer.alloc(8, 1), payload: data });
      add(`TTL ${ttl}, a first fragment`, { ttl, pieces, flags: MF, payload: data });
      add(`TTL ${ttl}, another protocol`, { ttl, pieces, protocol: 47, payload: data });
    }
    for (let protocol = 0; protocol < 256; protocol++) add(`protocol ${protocol}`, { protocol, payload: data });
    for (const flags of [0, DF, RESERVED, RESERVED | DF, MF, MF | 100, 100])
      add(`flags ${flags}`, { flags, payload: data });
    for (let words = 1; words <= 10; words++) add(`${words} words of options`, { options: Buffer.alloc(4 * words, 1) });
    const noChecksum = Buffer.from(data);
    noChecksum.writeUInt16BE(0, 6);
    add('UDP without a checksum', { payload: noChecksum });
    const wrong = Buffer.from(data);
    wrong.writeUInt16BE(wrong.readUInt16BE(6) ^ 1, 6);
    add('UDP with a wrong checksum', { payload: wrong });
    for (const size of [28, 29, 30, 100, 1000, TUN_MTU - 1, TUN_MTU, TUN_MTU + 1, TUN_MTU + 8, UPLINK_MTU]) {
      const payload = udp(Buffer.alloc(size - OUTER_BYTES, size));
      add(`${size} bytes with DF`, { payload });
      add(`${size} bytes`, { flags: 0, payload, pieces: size > TUN_MTU ? 2 : 1 });
    }
    return all;
  };

  it('answers, marks, counts hops and cuts as the native tunnel does, packet by packet', async () => {
    const native = await outcomesOf(packets());
    await restartWith(DATAPATH);
    for (const number of [1, 2]) await eventuallySends(overlay, number, 1);
    const kernel = await outcomesOf(packets());
    assert.deepEqual(Object.fromEntries(kernel), Object.fromEntries(native));
    // The kernel carried what it is there for.
    const { sent, 'send-ttl': expired } = await kernelCounters(overlay.daemon(1));
    assert.ok(sent.packets > 256 && expired.packets > 0, `${sent.packets} sent, ${expired.packets} left`);
    const said = (what: string, kind: keyof Outcome): string | undefined => kernel.get(what)?.[kind][0];
    assert.match(said('1500 bytes with DF', 'answers') ?? '', /^0304/);
    assert.match(said('TTL 2, UDP', 'answers') ?? '', /^0b00/);
    assert.match(said('TOS 3', 'wire') ?? '', /^4500/);
  });

  it('tells of a narrower way to the peer, as the native tunnel does', async () => {
    const narrow = (): readonly Sent[] =>
      [TUN_MTU - 100, TUN_MTU - 99, TUN_MTU].map((size) => ({
        what: `${size} bytes with DF`,
        flags: DF,
        payload: udp(Buffer.alloc(size - OUTER_BYTES, size)),
      }));
    const host = overlay.rig.host(1).netns;
    await restartWith('native');
    await host.ip([`route add ${overlay.rig.host(2).publicIp}/32 dev eth0 mtu ${UPLINK_MTU - 100}`]);
    const native = await outcomesOf(narrow());
    await host.ip([`route del ${overlay.rig.host(2).publicIp}/32`]);
    await restartWith(DATAPATH);
    for (const number of [1, 2]) await eventuallySends(overlay, number, 1);
    await host.ip([`route add ${overlay.rig.host(2).publicIp}/32 dev eth0 mtu ${UPLINK_MTU - 100}`]);
    await eventuallySends(overlay, 1, 0);
    const kernel = await outcomesOf(narrow());
    assert.deepEqual(Object.fromEntries(kernel), Object.fromEntries(native));
    await host.ip([`route del ${overlay.rig.host(2).publicIp}/32`]);
    await eventuallySends(overlay, 1, 1);
  });
});

/** An echo request that a checksum protects. */
function echo(): Buffer {
  const message = Buffer.alloc(48);
  message.writeUInt16BE(0x0800);
  message.writeUInt16BE(0xf7ff, 2);
  return message;
}

/**
 * Finds the packet of ours in what was seen, and leaves out what its sender may choose: identification and checksums of
 * headers that were added, the UDP checksum among them.
 */
const SEEN: Readonly<
  Record<keyof Outcome, (packet: Buffer) => { readonly id: number; readonly bytes: Buffer } | undefined>
> = {
  wire: (packet) => {
    const isOurs = packet[0] === 0x45 && packet[9] === PROTOCOL.udp && packet.length > 2 * OUTER_BYTES;
    if (!isOurs || packet.readUInt16BE(22) !== PORT) return undefined;
    const bytes = Buffer.from(packet);
    for (const at of [4, 10, 26]) bytes.writeUInt16BE(0, at);
    return { id: packet.readUInt16BE(OUTER_BYTES + 4), bytes };
  },
  arrived: (packet) => ({ id: packet.readUInt16BE(4), bytes: packet }),
  answers: (packet) => {
    const message = packet.subarray(20);
    if (packet[9] !== PROTOCOL.icmp || message.length < OUTER_BYTES) return undefined;
    // Who answers, with which TTL, and all of what is said.
    const from = packet.subarray(12, 16);
    return { id: message.readUInt16BE(8 + 4), bytes: Buffer.concat([message, from, packet.subarray(8, 9)]) };
  },
};

async function macOf(netns: Netns, device: string): Promise<Buffer> {
  const [link] = await netns.ipJson(['link', 'show', 'dev', device]);
  return Buffer.from(macToBytes(parseMac(String(link?.['address']))));
}

/** Every datagram by itself: on this link two packets of one length would cross as one. */
function flagsOf(datapath: string): readonly string[] {
  return [`--datapath=${datapath}`, '--disable-offloads=udpSegment'];
}
