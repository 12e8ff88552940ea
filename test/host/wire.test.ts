import assert from 'node:assert/strict';
import { OFFLOADS } from '../../src/dataplane/tunnel.js';
import { capture } from '../support/capture.js';
import { PROTOCOL, buildPacket, buildUdp, ipv4Number, referenceChecksum } from '../support/packets.js';
import type { Output } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';
import { tcpTransfer, udpExchange } from '../support/traffic.js';
import {
  type ForeignPeer,
  PORT,
  type RemoteTunnel,
  TUNNEL_KINDS,
  TUNNEL_MTU,
  type TunnelHost,
  TunnelRig,
} from '../support/tunnel-rig.js';

const NEAR = '10.5.1.1';
const FAR = '10.5.2.1';
const CONTAINER = '10.5.1.2';
const ETHERNET = 14;

/** Gives a host's tunnel its route and the host an address in its subnet, where a container would be. */
async function configure(host: TunnelHost, address: string): Promise<void> {
  await host.netns.ip([
    `address add ${host.overlayAddress}/32 dev flannel0`,
    `address replace ${address}/32 dev lo`,
    `route replace 10.5.0.0/16 dev flannel0 src ${address}`,
  ]);
}

/** Everything the wire format says about one frame between the hosts; throws on the first thing that is wrong. */
function checkFrame(frame: Buffer): { readonly inner: Buffer; readonly isFromNear: boolean } {
  const outer = frame.subarray(ETHERNET);
  assert.equal(outer[0], 0x45, 'outer header without options');
  assert.ok(outer.length <= 1500, `outer packet of ${outer.length} bytes`);
  assert.equal(outer.readUInt16BE(2), outer.length, 'outer length');
  assert.equal(outer.readUInt16BE(6), 0x4000, 'outer DF, no fragment');
  assert.equal(outer[1], 0, 'outer TOS');
  assert.equal(outer[9], PROTOCOL.udp);
  assert.equal(referenceChecksum(outer.subarray(0, 20)), 0, 'outer header checksum');
  const isFromNear = outer.readUInt32BE(12) === ipv4Number('192.0.2.1');
  const udp = outer.subarray(20);
  assert.deepEqual([udp.readUInt16BE(0), udp.readUInt16BE(2)], [PORT, PORT], 'outer ports');
  assert.equal(udp.readUInt16BE(4), udp.length, 'outer UDP length');
  assert.notEqual(udp.readUInt16BE(6), 0, 'outer UDP checksum is present');
  assert.equal(layer4Checksum(outer, udp), 0, 'outer UDP checksum');

  const inner = udp.subarray(8);
  const headerLength = (inner[0]! & 15) * 4;
  assert.equal(inner[0]! >> 4, 4, 'inner version');
  assert.equal(inner.readUInt16BE(2), inner.length, 'exactly one inner packet');
  assert.ok(inner.length <= TUNNEL_MTU);
  assert.equal(referenceChecksum(inner.subarray(0, headerLength)), 0, 'inner header checksum');
  assert.equal(inner[8], 63, 'inner TTL');
  const segment = inner.subarray(headerLength);
  const isFragment = (inner.readUInt16BE(6) & 0x3fff) !== 0;
  if (!isFragment && inner[9] === PROTOCOL.tcp) assert.equal(layer4Checksum(inner, segment), 0, 'inner TCP checksum');
  if (!isFragment && inner[9] === PROTOCOL.udp && segment.readUInt16BE(6) !== 0) {
    assert.equal(layer4Checksum(inner, segment), 0, 'inner UDP checksum');
    assert.equal(segment.readUInt16BE(4), segment.length, 'inner UDP length');
  }
  if (inner[9] === PROTOCOL.icmp) assert.equal(referenceChecksum(segment), 0, 'inner ICMP checksum');
  return { inner, isFromNear };
}

/** 0 if the checksum over pseudo header and segment is right. */
function layer4Checksum(packet: Buffer, segment: Buffer): number {
  const pseudo = Buffer.alloc(12);
  packet.copy(pseudo, 0, 12, 20);
  pseudo[9] = packet[9]!;
  pseudo.writeUInt16BE(segment.length, 10);
  return referenceChecksum(Buffer.concat([pseudo, segment]));
}

/** Sends checked TCP data both ways and looks at every frame of it. */
async function checkTcpOnWire(rig: TunnelRig, near: RemoteTunnel, far: RemoteTunnel): Promise<void> {
  const wire = await capture(rig.far.netns, 'veth0', `udp port ${PORT}`);
  await tcpTransfer(rig.near.netns, rig.far.netns, FAR, { bytes: 6_000_000, seed: 7 });
  await tcpTransfer(rig.far.netns, rig.near.netns, NEAR, { bytes: 3_000_000, seed: 8 });
  const { frames, lost } = await wire.stop();
  assert.equal(lost, 0, 'the capture is complete');
  const totals = { near: { packets: 0, bytes: 0 }, far: { packets: 0, bytes: 0 } };
  for (const { data } of frames) {
    const { inner, isFromNear } = checkFrame(data);
    const side = totals[isFromNear ? 'near' : 'far'];
    side.packets += 1;
    side.bytes += inner.length;
  }
  assert.ok(totals.near.bytes > 6_000_000 && totals.far.bytes > 3_000_000);
  for (const [tunnel, sent] of [
    [near, totals.near],
    [far, totals.far],
  ] as const) {
    const { counters } = await tunnel.state();
    assert.deepEqual([counters.txPackets, counters.txBytes], [sent.packets, sent.bytes], 'counters tell the truth');
    assert.deepEqual(sum(Object.values(counters.drops)), 0);
  }
}

describe('tunnels on the wire', () => {
  let rig: TunnelRig;
  let hasNative = false;
  const open: RemoteTunnel[] = [];

  before(async () => {
    rig = await TunnelRig.create();
    hasNative = await rig.hasNative();
    // Every frame as a NIC without offloads would send it, so that the capture is what is on the wire.
    for (const { netns } of [rig.near, rig.far]) {
      const features = ['tx', 'tso', 'gso', 'gro', 'tx-udp-segmentation'].flatMap((name) => [name, 'off']);
      await netns.run(['ethtool', '-K', 'veth0', ...features]);
    }
  });
  after(() => rig.close());
  afterEach(async () => {
    for (const tunnel of open.splice(0)) await tunnel.close();
  });

  for (const nearKind of TUNNEL_KINDS) {
    for (const farKind of TUNNEL_KINDS) {
      describe(`${nearKind} to ${farKind}`, () => {
        let near: RemoteTunnel;
        let far: RemoteTunnel;
        beforeEach(async function () {
          if (!hasNative && [nearKind, farKind].includes('native')) skipBecause(this, 'the addon is not built');
          near = await rig.near.open(nearKind, { verifySource: 'strict' });
          open.push(near);
          far = await rig.far.open(farKind, { verifySource: 'strict' });
          open.push(far);
          await configure(rig.near, NEAR);
          await configure(rig.far, FAR);
        });

        it('carries TCP unaltered, each datagram holding exactly one correct packet', async () => {
          await checkTcpOnWire(rig, near, far);
          const { counters, offloads } = await near.state();
          // Otherwise the datagrams were cut by nobody and the test has seen less than it says.
          if (offloads.udpSegment) assert.ok(sum(counters.packetsPerSend) < counters.txPackets);
        });

        it('carries UDP of any size, fragmented inside where it must be', async () => {
          const wire = await capture(rig.far.netns, 'veth0', `udp port ${PORT}`);
          const sizes = [0, 1, 2, 7, 8, 100, 1443, 1444, 1445, 1471, 1472, 1473, 2888, 2889, 5000, 20_000, 60_000];
          assert.deepEqual(await udpExchange(rig.near.netns, rig.far.netns, FAR, sizes), { lost: [], altered: [] });
          const { frames, lost } = await wire.stop();
          assert.equal(lost, 0);
          const fragments = frames.filter(({ data }) => (checkFrame(data).inner.readUInt16BE(6) & 0x3fff) !== 0);
          assert.ok(fragments.length > 0);
        });

        it('carries pings of full size with DF, and none that is larger', async () => {
          const pingOf = (bytes: number): Promise<Output> =>
            rig.near.netns.run(
              ['ping', '-n', '-c', '3', '-i', '0.01', '-W', '1', '-M', 'do', '-s', String(bytes - 28), '-I', NEAR, FAR],
              { mayFail: true },
            );
          assert.match((await pingOf(TUNNEL_MTU)).stdout, /3 packets transmitted, 3 received/);
          const tooLarge = await pingOf(TUNNEL_MTU + 1);
          assert.match(tooLarge.stdout, / 0 received/);
          assert.match(tooLarge.stderr, new RegExp(`mtu=${TUNNEL_MTU}`), 'the kernel says so itself');
        });

        it('gives TCP to a network without a lease an error at once', async () => {
          const start = performance.now();
          const script = `require('net').connect({ host: '10.5.99.1', port: 80, localAddress: '${NEAR}' })
            .on('error', (error) => { console.log(error.code); process.exit(); })`;
          const { stdout } = await rig.near.netns.run([process.execPath, '-e', script], { timeoutMs: 8000 });
          assert.equal(stdout.trim(), 'ENETUNREACH');
          assert.ok(performance.now() - start < 5000);
        });
      });
    }
  }

  for (const offload of OFFLOADS) {
    it(`native to native without ${offload} carries TCP unaltered in the same form`, async function () {
      if (!hasNative) skipBecause(this, 'the addon is not built');
      const options = { disabledOffloads: [offload] };
      const near = await rig.near.open('native', {}, options);
      open.push(near);
      const far = await rig.far.open('native', {}, options);
      open.push(far);
      assert.equal((await near.state()).offloads[offload], false);
      await configure(rig.near, NEAR);
      await configure(rig.far, FAR);
      await checkTcpOnWire(rig, near, far);
    });
  }

  for (const kind of TUNNEL_KINDS) {
    describe(`${kind} and a foreign peer that sends bursts`, () => {
      let foreign: ForeignPeer;
      before(function () {
        if (kind === 'native' && !hasNative) skipBecause(this, 'the addon is not built');
        foreign = rig.far.socket();
      });
      after(() => foreign.close());

      it('has the kernel deal with packets longer than a container takes', async () => {
        const tunnel = await rig.near.open(kind);
        open.push(tunnel);
        await configure(rig.near, NEAR);
        await rig.near.netns.run(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
        await rig.near.netns.ip([`link set cni0 mtu ${TUNNEL_MTU}`]);
        const containers = rig.near.containers();
        try {
          const payload = buildUdp(FAR, CONTAINER, 7001, 7000, Buffer.alloc(2000, 5));
          foreign.send(buildPacket({ source: FAR, destination: CONTAINER, ttl: 63, flags: 0x4000, payload }));
          const inner = (await foreign.next()).data;
          assert.deepEqual([inner[9], inner.readUInt16BE(20)], [PROTOCOL.icmp, 0x0304], 'fragmentation needed');
          assert.equal(inner.readUInt16BE(26), TUNNEL_MTU);
          assert.equal(inner.readUInt32BE(16), ipv4Number(FAR));

          foreign.send(buildPacket({ source: FAR, destination: CONTAINER, ttl: 63, id: 9, payload }));
          const fragments = [await containers.next(), await containers.next()];
          assert.deepEqual(
            fragments.map((fragment) => fragment.length <= TUNNEL_MTU && fragment.readUInt16BE(4)),
            [9, 9],
          );
          const data = Buffer.concat(fragments.map((fragment) => fragment.subarray(20)));
          assert.deepEqual(data, payload);
          assert.equal(sum(Object.values((await tunnel.state()).counters.drops)), 0);
        } finally {
          containers.close();
          await rig.near.netns.run(['sysctl', '-qw', 'net.ipv4.ip_forward=0']);
        }
      });

      it('delivers datagrams of one flow one by one to a socket, in order and unaltered', async () => {
        const tunnel = await rig.near.open(kind);
        open.push(tunnel);
        await configure(rig.near, NEAR);
        const receiver = rig.near.socket(NEAR, 7000);
        try {
          const data = (i: number): Buffer => Buffer.from(`datagram ${i}`.padEnd(900 + (i % 50 === 49 ? -1 : 0), '.'));
          const COUNT = 600;
          for (let start = 0; start < COUNT; start += 50) {
            for (let i = start; i < start + 50; i++) {
              const payload = buildUdp(FAR, NEAR, 7001, 7000, data(i));
              foreign.send(buildPacket({ source: FAR, destination: NEAR, ttl: 63, id: i, payload }));
            }
            for (let i = start; i < start + 50; i++) {
              const got = await receiver.next();
              assert.deepEqual([got.data.toString(), got.address, got.port], [data(i).toString(), FAR, 7001]);
            }
          }
          assert.equal((await tunnel.state()).counters.rxPackets, COUNT);
        } finally {
          receiver.close();
        }
      });
    });
  }
});

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
