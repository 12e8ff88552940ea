import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type { DropReason } from '../../src/dataplane/tunnel.js';
import {
  PROTOCOL,
  type PacketFields,
  buildPacket,
  buildUdp,
  ipv4Number,
  referenceChecksum,
} from '../support/packets.js';
import { skipBecause } from '../support/skip.js';
import {
  AgentError,
  type ForeignPeer,
  PORT,
  type PlainSpec,
  type RemoteTunnel,
  TUNNEL_KINDS,
  TUNNEL_MTU,
  TunnelRig,
  type TunTap,
} from '../support/tunnel-rig.js';
import { waitFor } from '../support/wait.js';

const LOCAL = '10.5.1.2';
const REMOTE = '10.5.2.2';
/** In nobody's lease. */
const UNLEASED = '10.5.99.1';
const PEER = '192.0.2.2';
const OTHER_PEER = '192.0.2.3';
const STRANGER = '192.0.2.99';
const DF = 0x4000;
const MF = 0x2000;

/** A packet that leaves this host: UDP from here to the first peer, unless said otherwise. */
const outbound = (fields: PacketFields = {}): Buffer =>
  buildPacket({ source: LOCAL, destination: REMOTE, payload: udp('data'), ...fields });

/** A packet as a peer puts it on the wire. */
const inbound = (fields: PacketFields = {}): Buffer =>
  buildPacket({ source: REMOTE, destination: LOCAL, ttl: 63, payload: udp('data'), ...fields });

/** UDP without a checksum, so that the payload does not depend on the addresses. */
function udp(data: string | Uint8Array, sourcePort = 1024): Buffer {
  const segment = Buffer.concat([Buffer.alloc(8), Buffer.from(data)]);
  segment.writeUInt16BE(sourcePort, 0);
  segment.writeUInt16BE(5353, 2);
  segment.writeUInt16BE(segment.length, 4);
  return segment;
}

/** The same packet one hop further, computed from scratch. */
function hop(packet: Buffer): Buffer {
  const result = Buffer.from(packet);
  result[8] = packet[8]! - 1;
  result.writeUInt16BE(0, 10);
  result.writeUInt16BE(referenceChecksum(result.subarray(0, (packet[0]! & 15) * 4)), 10);
  return result;
}

/** The ICMP error that the tunnel must send about a packet, computed from scratch. */
function icmpError(offender: Buffer, type: number, code: number, ttl: number, mtu = 0): Buffer {
  const quoted = offender.subarray(0, (offender[0]! & 15) * 4 + 8);
  const payload = Buffer.concat([Buffer.alloc(8), quoted]);
  payload[0] = type;
  payload[1] = code;
  payload.writeUInt16BE(mtu, 6);
  payload.writeUInt16BE(referenceChecksum(payload), 2);
  const source = '10.5.1.0';
  const destination = [...offender.subarray(12, 16)].join('.');
  return buildPacket({ source, destination, ttl, protocol: PROTOCOL.icmp, payload });
}

for (const kind of TUNNEL_KINDS) {
  describe(`${kind} tunnel`, () => {
    let rig: TunnelRig;
    let tunnel: RemoteTunnel;
    let tap: TunTap;
    /** Where the tunnel's ICMP errors arrive. */
    let answers: TunTap;
    let peer: ForeignPeer;
    let otherPeer: ForeignPeer;
    let stranger: ForeignPeer;
    const sockets: ForeignPeer[] = [];
    const closeables: { close(): void }[] = [];

    before(async function () {
      rig = await TunnelRig.create();
      if (kind === 'native' && !(await rig.hasNative())) skipBecause(this, 'the addon is not built');
      peer = rig.far.socket(PEER);
      otherPeer = rig.far.socket(OTHER_PEER);
      stranger = rig.far.socket(STRANGER);
      sockets.push(peer, otherPeer, stranger);
      answers = rig.near.containers();
    });
    after(async () => {
      for (const socket of sockets) socket.close();
      answers.close();
      await rig.close();
    });
    beforeEach(() => openTunnel());
    afterEach(async () => {
      tap.close();
      for (const each of closeables.splice(0)) each.close();
      await tunnel.close();
      assert.deepEqual(
        [peer.pending, otherPeer.pending, stranger.pending, answers.pending],
        [0, 0, 0, 0],
        'nobody got what nobody expected',
      );
    });

    const openTunnel = async (changes: Partial<PlainSpec> = {}): Promise<void> => {
      tunnel = await rig.near.open(kind, changes);
      tap = rig.near.tap();
    };
    const reopen = async (changes: Partial<PlainSpec>): Promise<void> => {
      tap.close();
      await tunnel.close();
      await openTunnel(changes);
    };

    /** Changes the tunnel and waits until its workers have noticed. */
    const update = async (changes: Partial<PlainSpec>): Promise<void> => {
      const { generation } = await tunnel.state();
      assert.equal(await tunnel.update(changes), true);
      const isAdopted = async (): Promise<boolean> => (await tunnel.state()).generation > generation;
      await waitFor(isAdopted, { what: 'the update to be adopted' });
    };

    /** Shows that everything sent before was dealt with: packets do not overtake each other within a direction. */
    const flushOut = async (): Promise<void> => {
      const marker = outbound({ payload: udp('marker out') });
      tap.send(marker);
      assert.deepEqual((await peer.next()).data, hop(marker));
    };
    const flushIn = async (): Promise<void> => {
      const marker = inbound({ payload: udp('marker in') });
      peer.send(marker);
      assert.deepEqual(await tap.next(), hop(marker));
    };
    const flush = async (): Promise<void> => {
      await flushOut();
      await flushIn();
      assert.equal(tap.pending, 0);
    };

    /** The next ICMP error, with the identification taken out that the kernel chose. */
    const nextAnswer = async (): Promise<Buffer> => {
      const answer = await answers.next();
      assert.equal(referenceChecksum(answer.subarray(0, 20)), 0);
      answer.writeUInt16BE(0, 4);
      answer.writeUInt16BE(0, 10);
      answer.writeUInt16BE(referenceChecksum(answer.subarray(0, 20)), 10);
      return answer;
    };

    /** Everything dropped so far, by reason, zeros left out. */
    const drops = async (): Promise<Partial<Record<DropReason, number>>> =>
      nonZero((await tunnel.state()).counters.drops);
    const icmpSent = async (): Promise<Record<string, number | undefined>> =>
      nonZero((await tunnel.state()).counters.icmpSent);

    describe('forwarding', () => {
      it('takes one from the TTL on the way out and one on the way in, and changes nothing else', async () => {
        const out = outbound({ ttl: 64, tos: 0xb8, id: 4711, flags: DF });
        tap.send(out);
        const datagram = await peer.next();
        assert.equal(datagram.data[8], 63);
        assert.deepEqual(datagram.data, hop(out));
        assert.deepEqual([datagram.address, datagram.port], ['192.0.2.1', PORT]);

        const back = inbound({ ttl: 63, tos: 0xb8, id: 4711, flags: DF });
        peer.send(back);
        const delivered = await tap.next();
        assert.equal(delivered[8], 62);
        assert.deepEqual(delivered, hop(back));
        assert.deepEqual(await drops(), {});
      });

      it('updates the header checksum as flannel does around the wrap', async () => {
        for (const [before, after] of [
          [0xfeff, 0x0000],
          [0xffff, 0x0100],
          [0xfefe, 0xfffe],
          [0x0000, 0x0100],
        ] as const) {
          const out = outbound();
          out.writeUInt16BE(before, 10);
          tap.send(out);
          assert.equal((await peer.next()).data.readUInt16BE(10), after);
          const back = inbound();
          back.writeUInt16BE(before, 10);
          peer.send(back);
          assert.equal((await tap.next()).readUInt16BE(10), after);
        }
      });

      it('keeps a wrong header checksum wrong, so that the receiver drops the packet', async () => {
        const out = outbound();
        out.writeUInt16BE(out.readUInt16BE(10) ^ 0x1234, 10);
        tap.send(out);
        assert.notEqual(referenceChecksum((await peer.next()).data.subarray(0, 20)), 0);
      });

      it('forwards IP options of every length untouched', async () => {
        for (let words = 1; words <= 10; words++) {
          const options = Buffer.alloc(words * 4, 0x01);
          const out = outbound({ options });
          tap.send(out);
          assert.deepEqual((await peer.next()).data, hop(out));
          const back = inbound({ options });
          peer.send(back);
          assert.deepEqual(await tap.next(), hop(back));
        }
      });

      it('forwards fragments untouched', async () => {
        const fragments = [
          { flags: MF, payload: Buffer.alloc(64, 1) },
          { flags: MF | 8, payload: Buffer.alloc(64, 2) },
          { flags: 16, payload: Buffer.alloc(5, 3) },
        ];
        for (const fields of fragments) {
          const out = outbound({ id: 99, ...fields });
          tap.send(out);
          assert.deepEqual((await peer.next()).data, hop(out));
          const back = inbound({ id: 99, ...fields });
          peer.send(back);
          assert.deepEqual(await tap.next(), hop(back));
        }
      });

      it('forwards protocols it knows nothing about', async () => {
        for (const protocol of [0, 2, 47, 132, 255]) {
          const out = outbound({ protocol, payload: Buffer.from('anything') });
          tap.send(out);
          assert.deepEqual((await peer.next()).data, hop(out));
          const back = inbound({ protocol, payload: Buffer.from('anything') });
          peer.send(back);
          assert.deepEqual(await tap.next(), hop(back));
        }
      });

      it('carries UDP payloads of every length up to the MTU both ways', async () => {
        const lengths = Array.from({ length: TUNNEL_MTU - 28 + 1 }, (_, length) => length);
        for (let start = 0; start < lengths.length; start += 64) {
          const window = lengths.slice(start, start + 64);
          // A source port of its own for each: packets of one flow may be joined before the TUN.
          const packets = window.map((length) => {
            const data = Buffer.from(Array.from({ length }, (_, i) => (i * 31 + length) & 0xff));
            return buildUdp(REMOTE, LOCAL, 2000 + length, 53, data);
          });
          for (const payload of packets) tap.send(outbound({ payload }));
          for (const payload of packets) assert.deepEqual((await peer.next()).data, hop(outbound({ payload })));
          for (const payload of packets) peer.send(inbound({ payload }));
          for (const payload of packets) assert.deepEqual(await tap.next(), hop(inbound({ payload })));
        }
        assert.deepEqual(await drops(), {});
      });

      it('keeps the order of packets', async () => {
        const COUNT = 400;
        const numbered = (i: number): Buffer => outbound({ payload: udp(`packet ${i}`.padEnd(20 + (i % 7))) });
        for (let i = 0; i < COUNT; i++) tap.send(numbered(i));
        for (let i = 0; i < COUNT; i++) assert.deepEqual((await peer.next()).data, hop(numbered(i)));
      });

      it('prefers the longest prefix', async () => {
        const peers = [
          ['10.5.0.0/16', OTHER_PEER],
          ['10.5.2.0/24', PEER],
          ['10.5.2.128/25', OTHER_PEER],
          ['10.5.2.200/32', PEER],
        ] as const;
        for (const each of [peers, [...peers].reverse()]) {
          await update({ peers: each });
          for (const [destination, receiver] of [
            ['10.5.77.1', otherPeer],
            ['10.5.2.127', peer],
            ['10.5.2.128', otherPeer],
            ['10.5.2.200', peer],
            ['10.5.2.201', otherPeer],
          ] as const) {
            const out = outbound({ destination });
            tap.send(out);
            assert.deepEqual((await receiver.next()).data, hop(out), destination);
          }
        }
      });
    });

    describe('TTL', () => {
      it('of 1 is not forwarded but answered with time exceeded', async () => {
        for (const ttl of [0, 1]) {
          const out = outbound({ ttl });
          tap.send(out);
          assert.deepEqual(await nextAnswer(), icmpError(out, 11, 0, 64));
        }
        await flush();
        assert.deepEqual(await drops(), { 'ttl-expired': 2 });
        assert.deepEqual(await icmpSent(), { 'time-exceeded': 2 });
      });

      it('of 2 reaches the other host and ends there, in silence', async () => {
        const out = outbound({ ttl: 2 });
        tap.send(out);
        const { data } = await peer.next();
        assert.equal(data[8], 1);
        peer.send(inbound({ ttl: 1 }));
        peer.send(inbound({ ttl: 0 }));
        await flush();
        assert.deepEqual(await drops(), { 'ttl-expired': 2 });
        assert.deepEqual(await icmpSent(), {});
      });

      it('is looked at after the route', async () => {
        const out = outbound({ ttl: 1, destination: UNLEASED });
        tap.send(out);
        assert.deepEqual(await nextAnswer(), icmpError(out, 3, 0, 8));
        assert.deepEqual(await drops(), { 'no-route': 1 });
      });
    });

    describe('destinations without a lease', () => {
      const unreachable = async (fields: PacketFields): Promise<void> => {
        const out = outbound({ destination: UNLEASED, ...fields });
        tap.send(out);
        assert.deepEqual(await nextAnswer(), icmpError(out, 3, 0, 8));
      };
      const silence = async (fields: PacketFields): Promise<void> => {
        tap.send(outbound({ destination: UNLEASED, ...fields }));
        await flush();
        assert.deepEqual(await icmpSent(), {});
        assert.deepEqual(await drops(), { 'no-route': 1 });
      };
      const icmp = (type: number): PacketFields => ({
        protocol: PROTOCOL.icmp,
        payload: Buffer.of(type, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4, 5),
      });

      it('are answered like flannel does: net unreachable, 56 bytes, TTL 8', async () => {
        const out = outbound({ destination: UNLEASED, payload: udp('longer than eight bytes') });
        tap.send(out);
        const answer = await nextAnswer();
        assert.equal(answer.length, 56);
        assert.equal(answer[8], 8);
        assert.deepEqual(answer, icmpError(out, 3, 0, 8));
        assert.deepEqual(await drops(), { 'no-route': 1 });
        assert.deepEqual(await icmpSent(), { 'unreachable-net': 1 });
      });

      it('are answered for TCP', () => unreachable({ protocol: PROTOCOL.tcp, payload: Buffer.alloc(40) }));
      it('are answered for an ICMP echo request, unlike flannel (RFC 1122 3.2.2)', () => unreachable(icmp(8)));
      it('are answered for a first fragment', () => unreachable({ flags: MF, payload: Buffer.alloc(64) }));
      it('are answered for payloads of less than eight bytes without inventing any', async () => {
        for (let length = 0; length < 9; length++) await unreachable({ payload: Buffer.alloc(length, 7) });
      });
      it('are answered with all options quoted, up to 36 bytes of them', async () => {
        for (let words = 1; words <= 9; words++) await unreachable({ options: Buffer.alloc(words * 4, 1) });
      });
      it('are not answered for a header of 60 bytes', () => silence({ options: Buffer.alloc(40, 1) }));
      it('are not answered for a later fragment', () => silence({ flags: MF | 8, payload: Buffer.alloc(64) }));
      it('are not answered for the last fragment', () => silence({ flags: 8, payload: Buffer.alloc(64) }));
      for (const type of [3, 4, 5, 11, 12]) {
        it(`are not answered for an ICMP error of type ${type}`, () => silence(icmp(type)));
      }
      for (const destination of ['224.0.0.251', '239.1.1.1', '255.255.255.255']) {
        it(`are not answered for ${destination}`, () => silence({ destination }));
      }
      for (const source of ['0.0.0.0', '224.0.0.1', '255.255.255.255', '127.0.0.1']) {
        it(`are not answered to ${source}`, () => silence({ source }));
      }

      it('are answered at a limited rate', async () => {
        const COUNT = 3000;
        for (let i = 0; i < COUNT; i++) tap.send(outbound({ destination: UNLEASED }));
        await flushOut();
        const { counters } = await tunnel.state();
        const sent = counters.icmpSent['unreachable-net'];
        assert.equal(counters.drops['no-route'], COUNT);
        assert.equal(sent + counters.icmpLimited, COUNT);
        assert.ok(sent >= 10 && sent < COUNT / 2, `${sent} answers`);
        for (let i = 0; i < sent; i++) assert.equal((await nextAnswer()).length, 56);
        await flushIn();
      });
    });

    describe('malformed input', () => {
      const whole = inbound({ payload: udp('some payload') });
      const altered = (offset: number, value: number): Buffer => {
        const packet = Buffer.from(whole);
        packet[offset] = value;
        return packet;
      };
      const fromPeer = (what: string, datagram: Buffer, reason: DropReason): void => {
        it(`from a peer is dropped: ${what}`, async () => {
          peer.send(datagram);
          await flush();
          assert.deepEqual(await drops(), { [reason]: 1 });
        });
      };
      fromPeer('an empty datagram', Buffer.alloc(0), 'short');
      fromPeer('19 bytes', whole.subarray(0, 19), 'short');
      fromPeer('IPv6', altered(0, 0x65), 'not-ipv4');
      fromPeer('version 0', altered(0, 0x05), 'not-ipv4');
      fromPeer('a header of 16 bytes', altered(0, 0x44), 'bad-header');
      fromPeer('a header longer than the packet', altered(0, 0x4f), 'bad-header');
      fromPeer('a byte too few', whole.subarray(0, -1), 'length-mismatch');
      fromPeer('a byte too many', Buffer.concat([whole, Buffer.alloc(1)]), 'length-mismatch');
      fromPeer('two packets in one datagram', Buffer.concat([whole, whole]), 'length-mismatch');

      it('ends at 20 bytes: a bare header is forwarded both ways', async () => {
        const out = outbound({ payload: Buffer.alloc(0) });
        tap.send(out);
        assert.deepEqual((await peer.next()).data, hop(out));
        const back = inbound({ payload: Buffer.alloc(0) });
        peer.send(back);
        assert.deepEqual(await tap.next(), hop(back));
      });

      const fromTun = (what: string, bytes: Buffer, reason: DropReason): void => {
        it(`from the TUN is dropped: ${what}`, async () => {
          tap.send(bytes);
          await flush();
          assert.deepEqual(await drops(), { [reason]: 1 });
        });
      };
      fromTun('19 bytes', outbound().subarray(0, 19), 'short');
      fromTun('IPv6', Buffer.concat([Buffer.of(0x60), Buffer.alloc(39)]), 'not-ipv4');
      fromTun('a header of 16 bytes', Buffer.concat([Buffer.of(0x44), outbound().subarray(1)]), 'bad-header');
      fromTun('a packet that was cut off', outbound().subarray(0, -1), 'bad-header');
    });

    describe('a datagram longer than the MTU of the device', () => {
      for (const length of [TUNNEL_MTU + 1, 8972, 65_507]) {
        it(`reaches the kernel whole, which knows what to do with it: ${length} bytes`, async () => {
          const large = inbound({ payload: Buffer.alloc(length - 20, 7) });
          peer.send(large);
          assert.deepEqual(await tap.next(), hop(large));
          await flush();
          assert.deepEqual(await drops(), {});
        });
      }
    });

    describe('source check', () => {
      const fromStranger = inbound({ payload: udp('from nobody') });
      const spoofed = inbound({ source: '10.5.3.9', payload: udp('spoofed') });
      const honest = inbound({ payload: udp('honest') });

      it('off takes datagrams from anybody', async () => {
        await reopen({ verifySource: 'off' });
        stranger.send(fromStranger);
        assert.deepEqual(await tap.next(), hop(fromStranger));
        peer.send(spoofed);
        assert.deepEqual(await tap.next(), hop(spoofed));
        assert.deepEqual(await drops(), {});
        assert.equal((await tunnel.state()).peerCounters[STRANGER], undefined);
      });

      it('outer takes them from lease holders, whatever is inside', async () => {
        stranger.send(fromStranger);
        await waitFor(async () => (await drops())['source-unknown'] === 1, { what: 'the stranger to be dropped' });
        peer.send(spoofed);
        assert.deepEqual(await tap.next(), hop(spoofed));
        await flush();
        assert.deepEqual(await drops(), { 'source-unknown': 1 });
      });

      it('strict takes from each lease holder what its own subnets sent', async () => {
        await reopen({ verifySource: 'strict' });
        stranger.send(fromStranger);
        await waitFor(async () => (await drops())['source-unknown'] === 1, { what: 'the stranger to be dropped' });
        peer.send(spoofed);
        peer.send(honest);
        assert.deepEqual(await tap.next(), hop(honest));
        otherPeer.send(spoofed);
        assert.deepEqual(await tap.next(), hop(spoofed));
        await flush();
        assert.deepEqual(await drops(), { 'source-unknown': 1, 'source-spoofed': 1 });
      });

      for (const [what, source] of [
        ['the device', '10.5.1.0'],
        ['the bridge', '10.5.1.1'],
        ['a container', '10.5.1.77'],
        ['the underlay', '192.0.2.1'],
      ] as const) {
        const claimed = inbound({ source, payload: udp('from yourself') });

        for (const verifySource of ['outer', 'strict'] as const) {
          it(`${verifySource} takes nothing that claims to come from this host: ${what}`, async () => {
            await reopen({ verifySource });
            peer.send(claimed);
            await flush();
            assert.deepEqual(await drops(), { 'source-spoofed': 1 });
          });
        }

        it(`off leaves what claims to come from this host to the kernel, as flannel does: ${what}`, async () => {
          await reopen({ verifySource: 'off' });
          peer.send(claimed);
          assert.deepEqual(await tap.next(), hop(claimed));
          assert.deepEqual(await drops(), {});
        });
      }

      it('follows the addresses of this host', async () => {
        await update({ ownPrefixes: ['10.5.3.0/24'] });
        peer.send(spoofed);
        await flush();
        assert.deepEqual(await drops(), { 'source-spoofed': 1 });
        await update({ ownPrefixes: [] });
        peer.send(spoofed);
        assert.deepEqual(await tap.next(), hop(spoofed));
      });

      it('changes without a new tunnel', async () => {
        await update({ verifySource: 'strict' });
        peer.send(spoofed);
        await flush();
        await update({ verifySource: 'off' });
        stranger.send(fromStranger);
        assert.deepEqual(await tap.next(), hop(fromStranger));
        assert.deepEqual(await drops(), { 'source-spoofed': 1 });
      });

      it("does not mind the sender's port", async () => {
        const elsewhere = rig.far.socket(PEER, 0);
        closeables.push(elsewhere);
        elsewhere.send(honest);
        assert.deepEqual(await tap.next(), hop(honest));
      });
    });

    describe('update', () => {
      it('counts generations that the workers have adopted', async () => {
        const { generation } = await tunnel.state();
        for (let i = 1; i <= 3; i++) {
          assert.equal(await tunnel.update({ mtu: 1400 + i }), true);
          await waitFor(async () => (await tunnel.state()).generation === generation + i, { what: 'adoption' });
        }
      });

      it('moves a subnet to another host, adds and removes subnets', async () => {
        await update({
          peers: [
            ['10.5.2.0/24', OTHER_PEER],
            ['10.5.99.0/24', PEER],
          ],
        });
        const moved = outbound();
        tap.send(moved);
        assert.deepEqual((await otherPeer.next()).data, hop(moved));
        const added = outbound({ destination: UNLEASED });
        tap.send(added);
        assert.deepEqual((await peer.next()).data, hop(added));
        await update({ peers: [] });
        tap.send(moved);
        assert.deepEqual(await nextAnswer(), icmpError(moved, 3, 0, 8));
        peer.send(inbound());
        await waitFor(async () => (await drops())['source-unknown'] === 1, { what: 'the former peer to be dropped' });
      });

      it('takes over MTU and ICMP source', async () => {
        await update({ mtu: 1000, icmpSource: '10.5.1.9' });
        const out = outbound({ destination: UNLEASED });
        tap.send(out);
        assert.equal((await nextAnswer()).readUInt32BE(12), ipv4Number('10.5.1.9'));
        tap.send(outbound({ payload: Buffer.alloc(981) }));
        tap.send(outbound({ payload: Buffer.alloc(980) }));
        assert.equal((await peer.next()).data.length, 1000);
        await flush();
        assert.deepEqual(await drops(), { 'no-route': 1, oversize: 1 });
      });

      it('loses and reorders nothing while packets flow', async () => {
        const COUNT = 2000;
        const filler = Array.from({ length: 300 }, (_, i) => [`10.6.${i & 255}.0/24`, OTHER_PEER] as const);
        const numbered = (i: number): Buffer => outbound({ id: i, payload: udp(String(i)) });
        let sent = 0;
        const progress = { isDone: false };
        const updates = (async () => {
          let rounds = 0;
          for (; !progress.isDone || rounds < 5; rounds++) {
            const spec = tunnel.spec.peers;
            assert.equal(await tunnel.update({ peers: rounds % 2 === 0 ? [...filler, ...spec] : spec }), true);
          }
          return rounds;
        })();
        while (sent < COUNT) {
          const end = sent + 25;
          const first = sent;
          for (; sent < end; sent++) tap.send(numbered(sent));
          for (let i = first; i < end; i++) assert.deepEqual((await peer.next()).data, hop(numbered(i)));
        }
        progress.isDone = true;
        assert.ok((await updates) >= 5);
        assert.deepEqual(await drops(), {});
        assert.equal((await tunnel.state()).counters.txPackets, COUNT);
      });

      it('declines another device, address or port', async () => {
        assert.equal(await tunnel.update({ device: 'flannel1' }), false);
        assert.equal(await tunnel.update({ bindAddress: '192.0.2.77' }), false);
        assert.equal(await tunnel.update({ port: 8286 }), false);
        await flush();
      });
    });

    describe('counters', () => {
      it('count packets and bytes in both directions, in total and for each peer', async () => {
        const toPeer = [outbound(), outbound({ payload: Buffer.alloc(1000) })];
        const toOther = outbound({ destination: '10.5.3.1' });
        for (const packet of toPeer) {
          tap.send(packet);
          await peer.next();
        }
        tap.send(toOther);
        await otherPeer.next();
        const back = inbound({ payload: Buffer.alloc(77) });
        peer.send(back);
        await tap.next();
        const bytesToPeer = toPeer.reduce((sum, packet) => sum + packet.length, 0);
        await waitFor(async () => (await tunnel.state()).counters.txPackets === 3, { what: 'sends to be counted' });
        const { counters, peerCounters } = await tunnel.state();
        assert.deepEqual(
          [counters.txPackets, counters.txBytes, counters.rxPackets, counters.rxBytes],
          [3, bytesToPeer + toOther.length, 1, back.length],
        );
        assert.deepEqual(peerCounters[PEER], {
          txPackets: 2,
          txBytes: bytesToPeer,
          rxPackets: 1,
          rxBytes: back.length,
        });
        assert.deepEqual(peerCounters[OTHER_PEER], { txPackets: 1, txBytes: toOther.length, rxPackets: 0, rxBytes: 0 });
      });

      it('agree with each other', async () => {
        for (let i = 0; i < 100; i++) tap.send(outbound({ payload: udp(`${i}`) }));
        for (let i = 0; i < 100; i++) await peer.next();
        for (let i = 0; i < 50; i++) peer.send(inbound({ payload: udp('x', 3000 + i) }));
        for (let i = 0; i < 50; i++) await tap.next();
        await waitFor(async () => (await tunnel.state()).counters.txPackets === 100, { what: 'sends to be counted' });
        const { counters } = await tunnel.state();
        assert.ok(counters.tunReads >= 100 && counters.tunWrites >= 50);
        assert.ok(counters.socketSends >= 1 && counters.socketSends <= 101);
        assert.ok(counters.socketReceives >= 1);
        assert.equal(sum(counters.packetsPerRead), 100, 'a packet at a time without segmentation offload in the stack');
        assert.ok(sum(counters.packetsPerSend) >= 1 && sum(counters.packetsPerSend) <= 100);
        assert.equal(sum(counters.packetsPerWrite), 50, 'different flows are never joined');
        assert.deepEqual(nonZero(counters.downgrades), {});
      });

      it('count datagrams that cannot be sent', async () => {
        await update({
          peers: [
            ['10.5.2.0/24', PEER],
            ['10.5.50.0/24', '198.51.100.1'],
          ],
        });
        tap.send(outbound({ destination: '10.5.50.1' }));
        await flush();
        assert.deepEqual(await drops(), { 'send-error': 1 });
      });

      it('count packets that the device refuses because it is down', async () => {
        await rig.near.netns.ip(['link set flannel0 down']);
        peer.send(inbound());
        await waitFor(async () => (await drops())['tun-error'] === 1, { what: 'the packet to be dropped' });
        assert.equal((await tunnel.state()).counters.rxPackets, 0);
        await rig.near.netns.ip(['link set flannel0 up']);
        tap.close(); // a packet socket does not come back with its device
        tap = rig.near.tap();
        await flush();
      });
    });

    describe('the queue of the socket', () => {
      it('is accounted for: what was sent has been received, or the kernel has discarded it', async () => {
        const COUNT = 40_000;
        const large = inbound({ payload: Buffer.alloc(1400) });
        process.kill(rig.near.pid, 'SIGSTOP');
        try {
          for (let i = 0; i < COUNT; i++) peer.send(large);
        } finally {
          process.kill(rig.near.pid, 'SIGCONT');
        }
        const received = async (): Promise<number> => {
          const { counters } = await tunnel.state();
          return counters.rxPackets + counters.drops['receive-overflow'];
        };
        await waitFor(async () => (await received()) >= COUNT, { what: 'all datagrams to be accounted for' });
        const { counters } = await tunnel.state();
        assert.equal(await received(), COUNT);
        assert.ok(counters.rxPackets > 0 && counters.drops['receive-overflow'] > 0);
        for (let i = 0; i < counters.rxPackets; i++) await tap.next();
      });
    });

    describe('a path narrower than the device', () => {
      const NARROW = 1000;
      before(() => rig.near.netns.ip([`route add ${PEER}/32 dev veth0 src 192.0.2.1 mtu lock ${NARROW}`]));
      after(() => rig.near.netns.ip([`route del ${PEER}/32 dev veth0`]));

      it('is told to senders that set DF', async () => {
        const out = outbound({ flags: DF, payload: Buffer.alloc(1200) });
        tap.send(out);
        const answer = await nextAnswer();
        assert.equal(answer.readUInt16BE(20), 0x0304);
        assert.equal(answer.readUInt16BE(26), NARROW - 28);
        assert.equal(answer.readUInt32BE(16), ipv4Number(LOCAL));
        await flush();
        assert.deepEqual(await icmpSent(), { 'frag-needed': 1 });
        assert.equal(sum(Object.values(await drops())), 1);
      });

      it('is told to them while a flood of what is unreachable is answered seldom', async () => {
        for (let i = 0; i < 3000; i++) tap.send(outbound({ destination: UNLEASED }));
        tap.send(outbound({ flags: DF, payload: Buffer.alloc(1200) }));
        await flush();
        const { counters } = await tunnel.state();
        assert.ok(counters.icmpLimited > 0);
        assert.equal(counters.icmpSent['frag-needed'], 1);
        const answered = counters.icmpSent['unreachable-net'] + 1;
        const kinds: number[] = [];
        for (let i = 0; i < answered; i++) kinds.push((await nextAnswer()).readUInt16BE(20));
        assert.equal(kinds.filter((kind) => kind === 0x0304).length, 1);
      });

      it('is crossed in outer fragments by packets without DF', async () => {
        const out = outbound({ payload: Buffer.alloc(1200, 9) });
        tap.send(out);
        assert.deepEqual((await peer.next()).data, hop(out));
        await flush();
        assert.deepEqual(await drops(), {});
        assert.equal((await tunnel.state()).counters.txPackets, 2);
      });
    });

    describe('opening and closing', () => {
      const refusal = async (attempt: Promise<RemoteTunnel>): Promise<AgentError> => {
        const error = await attempt.then(
          () => new Error('it was opened'),
          (reason: unknown) => reason,
        );
        assert.ok(error instanceof AgentError, String(error));
        return error;
      };
      const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

      it('removes the device, frees the port and may be done twice', async () => {
        await tunnel.close();
        await tunnel.close();
        assert.deepEqual(await devices(), ['cni0', 'container0', 'lo', 'veth0']);
        const socket = rig.near.socket('192.0.2.1');
        socket.close();
        await reopen({});
        await flush();
      });

      it('reports a port that another socket owns', async () => {
        const error = await refusal(rig.near.open(kind, { device: 'flannel1' }));
        assert.equal(error.code, 'ERR_PORT_IN_USE');
        assert.match(error.message, /^cannot bind UDP 192\.0\.2\.1:8285: EADDRINUSE/);
        assert.match(error.hint ?? '', /Backend\.Port/);
        assert.deepEqual(
          await devices(),
          ['cni0', 'container0', 'flannel0', 'lo', 'veth0'],
          'the device of the failed attempt is gone',
        );
      });

      it('does not share its port', () => {
        assert.throws(() => rig.near.socket('192.0.2.1'), { code: 'EADDRINUSE' });
        assert.throws(() => rig.near.socket('0.0.0.0'), { code: 'EADDRINUSE' });
      });

      it('reports an address that no interface has', async () => {
        const error = await refusal(rig.near.open(kind, { device: 'flannel1', bindAddress: '192.0.2.200' }));
        assert.equal(error.code, 'ERR_TUNNEL');
        assert.match(error.message, /EADDRNOTAVAIL/);
      });

      it('reports a device that another process holds', async () => {
        const second = await rig.near.another();
        try {
          const error = await refusal(second.open(kind, { port: 8286 }));
          assert.equal(error.code, 'ERR_DEVICE_TAKEN');
          assert.match(error.message, /flannel0/);
        } finally {
          await second.stop();
        }
        await flush();
      });

      it('reports a name that belongs to another kind of device or cannot be one', async () => {
        const taken = await refusal(rig.near.open(kind, { device: 'veth0', port: 8286 }));
        assert.equal(taken.code, 'ERR_DEVICE_TAKEN');
        const tooLong = await refusal(rig.near.open(kind, { device: 'flannel0123456789', port: 8286 }));
        assert.equal(tooLong.code, 'ERR_DEVICE_TAKEN');
      });

      it('reports missing privileges', async () => {
        const second = await rig.near.another();
        try {
          await second.call('dropPrivileges');
          const error = await refusal(second.open(kind, { device: 'flannel1', port: 8286 }));
          assert.equal(error.code, 'ERR_NOT_PRIVILEGED');
          assert.match(error.hint ?? '', /CAP_NET_ADMIN/);
        } finally {
          await second.stop();
        }
      });

      it('leaves no descriptors and threads behind, whether it worked or not', async () => {
        tap.close();
        await tunnel.close();
        const cycle = async (): Promise<void> => {
          const opened = await rig.near.open(kind);
          await refusal(rig.near.open(kind, { device: 'flannel1' }));
          await opened.close();
        };
        await cycle();
        const count = (): number[] => [descriptorsOf(rig.near.pid), readdirSync(`/proc/${rig.near.pid}/task`).length];
        const before = count();
        for (let i = 0; i < 20; i++) await cycle();
        assert.deepEqual(count(), before);
        await openTunnel();
      });

      it('gives the device the name it was asked for and tells what it is', async () => {
        const { device, kind: actualKind, offloads, workers, events } = await tunnel.state();
        assert.deepEqual([device, actualKind, events], ['flannel0', kind, []]);
        if (kind === 'portable') assert.ok(Object.values(offloads).every((isOn) => !isOn));
        else assert.ok(workers >= 1);
      });

      it('takes over descriptors that the service manager kept', async () => {
        await rig.near.netns.ip(['address add 10.5.1.0/32 dev flannel0', 'route add 10.5.0.0/16 dev flannel0']);
        await rig.near.call('keepDescriptors', tunnel.handle);
        const [before] = await rig.near.netns.ipJson(['link', 'show', 'dev', 'flannel0']);
        await tunnel.close();
        tunnel = await rig.near.open(kind, {}, { inherits: true });
        const [after] = await rig.near.netns.ipJson(['link', 'show', 'dev', 'flannel0']);
        assert.equal(after?.['ifindex'], before?.['ifindex']);
        assert.equal((await rig.near.netns.ipJson(['route', 'show', 'dev', 'flannel0'])).length, 1);
        await flush();
      });

      it('tells once that its device was deleted, and can still be closed', async () => {
        await rig.near.netns.ip(['link del flannel0']);
        const failed = await waitFor(async () => (await tunnel.state()).events[0], { what: 'the event' });
        assert.equal(failed.type, 'failed');
        peer.send(inbound());
        const state = await tunnel.state();
        assert.equal(state.events.length, 1);
        await tunnel.close();
        tunnel = await rig.near.open(kind);
        assert.deepEqual(await devices(), ['cni0', 'container0', 'flannel0', 'lo', 'veth0']);
      });

      const devices = async (): Promise<string[]> =>
        (await rig.near.netns.ipJson(['link'])).map((link) => String(link['ifname'])).sort();
    });
  });
}

function nonZero<K extends string>(counts: Readonly<Record<K, number>>): { [name in K]?: number } {
  const entries = Object.entries<number>(counts).filter(([, count]) => count > 0);
  return Object.fromEntries(entries) as { [name in K]?: number };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
