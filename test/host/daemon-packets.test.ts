import assert from 'node:assert/strict';
import { capture } from '../support/capture.js';
import { NETWORK, Overlay } from '../support/overlay.js';
import { PROTOCOL, buildPacket, buildUdp, ipv4Text } from '../support/packets.js';
import type { Container } from '../support/rig.js';
import { ping, udpExchange } from '../support/traffic.js';
import { inNamespace } from '../support/in-namespace.js';
import { ForeignPeer } from '../support/tunnel-rig.js';
import { waitFor } from '../support/wait.js';

const ETHERNET = 14;

/** In the network, but in no host's subnet. */
const UNLEASED = '10.5.255.9';
const CONFIG = { ...NETWORK, SubnetMax: '10.5.200.0' };

/** Connects to an address and prints how the kernel judged it. */
const CONNECT = `
  const start = performance.now();
  const end = (code) => {
    console.log(JSON.stringify({ code, ms: performance.now() - start }));
    process.exit();
  };
  setTimeout(() => end('silence'), 3000);
  const socket = require('node:net').connect(80, process.argv[1]);
  socket.on('connect', () => end('connected'));
  socket.on('error', ({ code }) => end(code));`;

/** Sends one datagram of four bytes. */
const SEND = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.send('data', 9, process.argv[1], () => socket.close());`;

for (const datapath of ['native', 'portable']) {
  describe(`packets through two daemons: ${datapath}`, () => {
    let overlay: Overlay;
    let near: Container;
    let far: Container;

    before(async () => {
      overlay = await Overlay.create({ config: CONFIG, args: () => ['--datapath', datapath] });
      [near, far] = [overlay.container(1), overlay.container(2)];
      // The kernel and the tunnel limit how often they answer one host; here each answer is a result.
      for (const { netns } of overlay.rig.hosts) {
        await netns.run(['sysctl', '-qw', 'net.ipv4.icmp_ratelimit=0']);
      }
    });
    after(() => overlay.close());

    /** First address of a subnet: the bridge's, or with `.0` the tunnel device's. */
    const inSubnetOf = (container: Container, last: number): string => container.address.replace(/\d+$/, String(last));

    it('lets packets with IP options through', async () => {
      // Record route, with the hops that have room in it, and a timestamp request.
      for (const options of [['-R'], ['-T', 'tsonly'], ['-T', 'tsandaddr']]) {
        const { stdout } = await near.netns.run(
          ['ping', '-n', '-c', '3', '-i', '0.01', '-W', '2', ...options, far.address],
          { mayFail: true },
        );
        assert.match(stdout, /3 packets transmitted, 3 received/, stdout);
        assert.match(stdout, options[0] === '-R' ? /RR:/ : /TS:/, 'the options came back');
      }
    });

    it('ends the TTL where a router would, with an answer to the sender', async () => {
      // Container → kernel of its host → tunnel → tunnel of the other host → its kernel → container.
      const hops = [
        inSubnetOf(near, 1),
        inSubnetOf(near, 0),
        'silence', // the receiving tunnel, as in flannel
        inSubnetOf(far, 0),
      ];
      for (const [index, hop] of hops.entries()) {
        const { received, output } = await ping(near.netns, far.address, { count: 1, ttl: index + 1, waitSeconds: 1 });
        assert.equal(received, 0, output);
        const from = /From (\S+) icmp_seq=1 Time to live exceeded/.exec(output)?.[1] ?? 'silence';
        assert.equal(from, hop, `TTL ${index + 1}:\n${output}`);
      }
      const through = await ping(near.netns, far.address, { count: 1, ttl: hops.length + 1 });
      assert.equal(through.received, 1, through.output);
      assert.match(through.output, / ttl=60 /, 'two kernels and two tunnels took one each');
    });

    it('makes a connection to a subnet that nobody has leased fail at once', async () => {
      const { stdout } = await near.netns.run([process.execPath, '-e', CONNECT, UNLEASED]);
      const { code, ms } = JSON.parse(stdout) as { code: string; ms: number };
      assert.match(code, /^E(NET|HOST)UNREACH$/);
      assert.ok(ms < 1000, `${ms} ms`);
    });

    it('answers a datagram to a subnet that nobody has leased as flannel does', async () => {
      const running = await capture(near.netns, 'eth0', 'icmp');
      await near.netns.run([process.execPath, '-e', SEND, UNLEASED]);
      await ping(near.netns, far.address, { count: 1 });
      const { frames } = await running.stop();
      const packet = frames[0]?.data.subarray(ETHERNET) ?? Buffer.alloc(0);
      assert.equal(packet.length, 56, 'outer header, ICMP, quoted header and eight bytes');
      assert.equal(packet[8], 8, 'TTL: nobody is between the host and its container');
      assert.deepEqual([packet[20], packet[21]], [3, 0]);
      assert.deepEqual([packet[28 + 9], ipv4Text(packet.readUInt32BE(28 + 16))], [PROTOCOL.udp, UNLEASED]);
    });

    it('takes nothing that claims to come from the host it arrives at', async () => {
      const [host, sender] = [overlay.rig.host(1), overlay.rig.host(2)];
      const socket = inNamespace(sender.netns.file, () => new ForeignPeer(sender.publicIp, 0));
      try {
        const spoofed = async (): Promise<number> =>
          (await overlay.daemon(1).status()).tunnels[0]?.counters.drops['source-spoofed'] ?? NaN;
        const before = await spoofed();
        const claimed = [inSubnetOf(near, 0), inSubnetOf(near, 1), near.address, host.publicIp];
        const arrived = await capture(near.netns, 'eth0', 'udp dst port 4711');
        for (const source of claimed) {
          const payload = buildUdp(source, near.address, 4711, 4711, Buffer.from('from yourself'));
          socket.send(buildPacket({ source, destination: near.address, payload }), host.publicIp);
        }
        await waitFor(async () => (await spoofed()) === before + claimed.length, { what: 'all to be dropped' });
        // One from where it says, to see that they would have arrived.
        const payload = buildUdp(far.address, near.address, 4711, 4711, Buffer.from('from me'));
        socket.send(buildPacket({ source: far.address, destination: near.address, payload }), host.publicIp);
        await waitFor(async () => (await overlay.daemon(1).status()).tunnels[0]!.counters.rxPackets > 0, {
          what: 'the honest one',
        });
        await ping(near.netns, far.address, { count: 1 });
        const { frames } = await arrived.stop();
        assert.deepEqual(
          frames.map(({ data }) => ipv4Text(data.readUInt32BE(ETHERNET + 12))),
          [far.address],
        );
      } finally {
        socket.close();
      }
    });

    it('leaves other addresses of the host to the kernel, which takes nothing from them either', async () => {
      const { netns } = overlay.rig.host(1);
      const { stdout } = await netns.run(['sysctl', '-n', 'net.ipv4.conf.flannel0.accept_local']);
      assert.equal(stdout.trim(), '0');
    });

    it('answers a ping to a subnet that nobody has leased', async () => {
      const { output } = await ping(near.netns, UNLEASED, { count: 1 });
      assert.match(output, new RegExp(`From ${inSubnetOf(near, 0)} icmp_seq=1 Destination Net Unreachable`));
    });

    it('answers a ping to a subnet whose lease has no address', async () => {
      const { etcd, etcdPrefix } = overlay.rig;
      await etcd.put(`${etcdPrefix}/subnets/10.5.254.0-24`, '{}');
      await overlay.daemon(1).waitForLog(/not believed .*10\.5\.254\.0-24/);
      const { output } = await ping(near.netns, '10.5.254.9', { count: 3, intervalMs: 100 });
      assert.equal(output.match(/Destination Net Unreachable/g)?.length, 3, output);
    });

    it('says what fits when the path to the peer has a smaller MTU than the device', async () => {
      await overlay.rig.host(1).netns.ip([`route add ${overlay.rig.host(2).publicIp} dev eth0 mtu lock 1200`]);
      try {
        const { output } = await ping(near.netns, far.address, { count: 2, size: 1400, dontFragment: true });
        assert.match(output, /Frag needed and DF set \(mtu = 1172\)/);
        assert.deepEqual(await udpExchange(near.netns, far.netns, far.address, [100, 1144]), { lost: [], altered: [] });
      } finally {
        await overlay.rig.host(1).netns.ip([`route del ${overlay.rig.host(2).publicIp} dev eth0`]);
      }
    });
  });
}
