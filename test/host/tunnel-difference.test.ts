import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PROTOCOL, buildPacket } from '../support/packets.js';
import { skipBecause } from '../support/skip.js';
import {
  type ForeignPeer,
  type PlainSpec,
  type RemoteTunnel,
  TUNNEL_KINDS,
  TUNNEL_MTU,
  type TunnelKind,
  TunnelRig,
  type TunTap,
} from '../support/tunnel-rig.js';
import { waitFor } from '../support/wait.js';

const LOCAL = '10.5.1.2';
const REMOTE = '10.5.2.2';
const SENDERS = ['192.0.2.2', '192.0.2.3', '192.0.2.99'] as const;

/** Bytes for the tunnel to deal with, and from where they come. */
interface Input {
  readonly from: 'tun' | (typeof SENDERS)[number];
  readonly bytes: Buffer;
}

/** What came of a batch of inputs. */
interface Outcome {
  /** Datagrams by receiver, packets written to the TUN, each in order. */
  readonly datagrams: readonly (readonly string[])[];
  readonly packets: readonly string[];
  readonly icmpErrors: readonly string[];
  readonly drops: Readonly<Record<string, number>>;
  readonly counts: readonly number[];
  /** ICMP errors sent and held back together: how many are held back depends on time. */
  readonly answers: number;
  readonly held: number;
}

const ADDRESSES = [
  ...[LOCAL, REMOTE, '10.5.1.0', '10.5.2.255', '10.5.3.7', '10.5.99.1', '10.6.0.1'],
  ...['0.0.0.0', '127.0.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255'],
];

const packets = fc
  .record({
    source: fc.constantFrom(...ADDRESSES),
    destination: fc.constantFrom('192.0.2.1', ...ADDRESSES),
    ttl: fc.oneof(fc.constantFrom(0, 1, 2, 64, 255), fc.nat(255)),
    tos: fc.nat(255),
    id: fc.nat(0xffff),
    flags: fc.constantFrom(0, 0x4000, 0x2000, 0x2001, 0x00b9, 0x8000),
    protocol: fc.constantFrom(PROTOCOL.udp, PROTOCOL.tcp, PROTOCOL.icmp, 0, 47, 255),
    options: fc.integer({ min: 0, max: 10 }).chain((n) => fc.uint8Array({ minLength: 4 * n, maxLength: 4 * n })),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 64 }),
      fc.nat(255).map((type) => Buffer.of(type, 0, 0, 0, 0, 0, 0, 0)),
      fc.integer({ min: 1300, max: TUNNEL_MTU - 60 }).map((length) => Buffer.alloc(length, length)),
    ),
  })
  .map((fields) => buildPacket(fields));

/** Good packets, packets with some bytes changed, cut off or extended ones, and noise. */
const anyBytes = fc.oneof(
  { weight: 4, arbitrary: packets },
  {
    weight: 4,
    arbitrary: fc
      .tuple(packets, fc.array(fc.tuple(fc.nat(39), fc.nat(255)), { minLength: 1, maxLength: 3 }))
      .map(([packet, changes]) => {
        for (const [offset, value] of changes) if (offset < packet.length) packet[offset] = value;
        return packet;
      }),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(packets, fc.integer({ min: 1, max: 30 })).map(([packet, length]) => packet.subarray(0, length)),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(packets, fc.nat(8)).map(([packet, more]) => Buffer.concat([packet, Buffer.alloc(more)])),
  },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 80 }).map((noise) => Buffer.from(noise)) },
);

/** No longer than a device takes. */
const bytes = anyBytes.map((each) => each.subarray(0, TUNNEL_MTU));

const batches = fc.record({
  verifySource: fc.constantFrom('off', 'outer', 'strict'),
  mtu: fc.constantFrom(TUNNEL_MTU, 1400, 600),
  inputs: fc.array(fc.record({ from: fc.constantFrom('tun' as const, 'tun' as const, ...SENDERS), bytes }), {
    minLength: 1,
    maxLength: 30,
  }),
});

/** Source of the tunnel's own errors: the address of its device, 10.5.1.0. */
const ICMP_SOURCE = Buffer.from([10, 5, 1, 0]);

/** One tunnel with everything around it. */
class Subject {
  private constructor(
    private readonly rig: TunnelRig,
    private readonly tunnel: RemoteTunnel,
    private readonly tap: TunTap,
    private readonly answers: TunTap,
    private readonly senders: ReadonlyMap<string, ForeignPeer>,
  ) {}

  static async create(kind: TunnelKind): Promise<Subject> {
    const rig = await TunnelRig.create();
    const tunnel = await rig.near.open(kind);
    // Whoever an ICMP error is for, it arrives where it can be seen; 192.0.2.1 is nearer and therefore nobody's source.
    await rig.near.netns.ip(['route add default dev cni0']);
    return new Subject(
      rig,
      tunnel,
      rig.near.tap(),
      rig.near.containers(),
      new Map(SENDERS.map((address) => [address, rig.far.socket(address)])),
    );
  }

  async feed(changes: Partial<PlainSpec>, inputs: readonly Input[]): Promise<Outcome> {
    const { generation, counters: before } = await this.tunnel.state();
    await this.tunnel.update(changes);
    await waitFor(async () => (await this.tunnel.state()).generation > generation, { what: 'adoption' });

    for (const input of inputs) {
      if (input.from === 'tun') this.tap.send(input.bytes);
      else this.senders.get(input.from)?.send(input.bytes);
    }
    // The native tunnel keeps the order of TCP and of everything else, but not between them.
    // Two peers answer for themselves; the stranger has no subnet, so nothing can be on its way to it.
    const datagrams: string[][] = [];
    for (const [address, destination] of [
      [SENDERS[0], '10.5.2.77'],
      [SENDERS[1], '10.5.3.77'],
    ] as const) {
      const lanes = [PROTOCOL.udp, PROTOCOL.tcp];
      for (const protocol of lanes) this.tap.send(buildPacket({ source: LOCAL, destination, protocol, payload: END }));
      const socket = this.senders.get(address)!;
      const all = await collect(async () => (await socket.next()).data, lanes.length);
      const isTcp = (hex: string): boolean => hex.slice(18, 20) === '06';
      datagrams.push(
        all.filter(isTcp),
        all.filter((hex) => !isTcp(hex)),
      );
    }
    this.senders.get(SENDERS[0])!.send(buildPacket({ source: REMOTE, destination: LOCAL, payload: END }));
    const written = await collect(() => this.tap.next(), 1);
    const { counters: after } = await this.tunnel.state();
    const answered = (counters: typeof after): number => Object.values(counters.icmpSent).reduce((a, b) => a + b, 0);
    const drops = Object.entries(after.drops).map(
      ([reason, n]) => [reason, n - before.drops[reason as 'short']] as const,
    );
    const held = after.icmpLimited - before.icmpLimited;
    const icmpErrors: string[] = [];
    while (icmpErrors.length < answered(after) - answered(before)) {
      const error = await this.answers.next();
      // What the kernel has to say of a packet with bad options, at a rate of its own, comes from its own address.
      if (!error.subarray(12, 16).equals(ICMP_SOURCE)) continue;
      // The kernel chooses the identification, which the header checksum depends on.
      icmpErrors.push(error.fill(0, 4, 6).fill(0, 10, 12).toString('hex'));
    }
    return {
      datagrams,
      packets: written,
      icmpErrors: icmpErrors.sort(),
      drops: Object.fromEntries(drops),
      counts: (['txPackets', 'txBytes', 'rxPackets', 'rxBytes', 'icmpFailed'] as const).map(
        (name) => after[name] - before[name],
      ),
      answers: answered(after) - answered(before) + held,
      held,
    };
  }

  async close(): Promise<void> {
    this.tap.close();
    this.answers.close();
    for (const sender of this.senders.values()) sender.close();
    await this.rig.close();
  }
}

const END = Buffer.from('end of this batch');

/** Everything up to the last of the packets that end the batch. */
async function collect(next: () => Promise<Buffer>, ends: number): Promise<string[]> {
  const all: string[] = [];
  for (let seen = 0; seen < ends;) {
    const message = await next();
    if (message.subarray(20).equals(END)) seen += 1;
    else all.push(message.toString('hex'));
  }
  return all;
}

describe('native and portable tunnel', () => {
  const subjects: Subject[] = [];

  before(async function () {
    const probe = await TunnelRig.create();
    const hasNative = await probe.hasNative();
    await probe.close();
    if (!hasNative) skipBecause(this, 'the addon is not built');
    for (const kind of TUNNEL_KINDS) subjects.push(await Subject.create(kind));
  });
  after(async () => {
    for (const subject of subjects) await subject.close();
  });

  it('do the same with whatever comes from the TUN and from the network', async () => {
    let comparedErrors = 0;
    await fc.assert(
      fc.asyncProperty(batches, async ({ verifySource, mtu, inputs }) => {
        const [native, portable] = await Promise.all(
          subjects.map((subject) => subject.feed({ verifySource, mtu }, inputs)),
        );
        assert.ok(native !== undefined && portable !== undefined);
        const { icmpErrors, held, ...rest } = native;
        const { icmpErrors: otherErrors, held: otherHeld, ...otherRest } = portable;
        assert.deepEqual(rest, otherRest);
        if (held !== 0 || otherHeld !== 0) return;
        assert.deepEqual(icmpErrors, otherErrors);
        comparedErrors += icmpErrors.length;
      }),
      { numRuns: 600 },
    );
    assert.ok(comparedErrors > 30, `only ${comparedErrors} ICMP errors were compared`);
  });
});
