import assert from 'node:assert/strict';
import { chmodSync, cpSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { daemonFile, type Daemon } from '../support/daemon.js';
import { NETWORK, countLines } from '../support/overlay.js';
import { PROTOCOL, buildPacket, buildUdp, ipv4Text, referenceChecksum } from '../support/packets.js';
import { type Container, Rig } from '../support/rig.js';
import { tcpTransfer, ping } from '../support/traffic.js';
import { inNamespace } from '../support/in-namespace.js';
import { ForeignPeer, PORT } from '../support/tunnel-rig.js';
import { waitFor } from '../support/wait.js';

const FOREIGN_SUBNET = '10.5.222.0';
const FOREIGN = '10.5.222.9';

/** Sends `question` from port 4711 to an address's port 4712 until an answer comes, and prints that. */
const ASK = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('message', (data, { address, port }) => {
    console.log('answer ' + data + ' from ' + address + ':' + port);
    process.exit();
  });
  socket.bind(4711, () => {
    const send = () => socket.send('question', 4712, process.argv[1]);
    send();
    setInterval(send, 200);
  });`;

for (const datapath of ['native', 'portable']) {
  describe(`a host with another program on the UDP port: ${datapath}`, () => {
    let rig: Rig;
    let daemon: Daemon;
    let container: Container;
    const sockets: ForeignPeer[] = [];

    before(async () => {
      rig = await Rig.create({ hosts: 3 });
      await rig.putConfig({ ...NETWORK, SubnetMax: '10.5.200.0' });
      await rig.etcd.put(
        `${rig.etcdPrefix}/subnets/${FOREIGN_SUBNET}-24`,
        JSON.stringify({ PublicIP: rig.host(2).publicIp }),
      );
      daemon = await rig.host(1).startDaemon({ args: ['--datapath', datapath] });
      await daemon.waitForLog(/peer joined subnet=10\.5\.222\.0\/24/);
      await daemon.waitForLog(/ ready /);
      container = await rig.host(1).addContainer();
    });
    after(async () => {
      for (const socket of sockets) socket.close();
      await rig.close();
    });

    /** A bare UDP socket on a host that runs no daemon. */
    function socketOn(number: number): ForeignPeer {
      const { netns, publicIp } = rig.host(number);
      const socket = inNamespace(netns.file, () => new ForeignPeer(publicIp, PORT));
      sockets.push(socket);
      return socket;
    }

    const answer = (text: string): Buffer =>
      buildPacket({
        source: FOREIGN,
        destination: container.address,
        payload: buildUdp(FOREIGN, container.address, 4712, 4711, Buffer.from(text)),
      });

    async function dropsBy(reason: string): Promise<number> {
      const metrics = await daemon.get('/metrics');
      const line = metrics
        .split('\n')
        .find((text) => text.startsWith('tsflannel_tunnel_drops_total{') && text.includes(`reason="${reason}"`));
      return Number(/ (\d+)$/.exec(line ?? '')?.[1] ?? Number.NaN);
    }

    it('exchanges bare packets with it when it holds a lease', async () => {
      const peer = socketOn(2);
      const asking = container.netns.start([process.execPath, '-e', ASK, FOREIGN]);
      try {
        const { data, address, port } = await peer.next();
        assert.deepEqual([address, port], [rig.host(1).publicIp, PORT]);
        assert.equal(data.readUInt16BE(2), data.length, 'one packet and nothing else');
        assert.equal(referenceChecksum(data.subarray(0, 20)), 0);
        assert.deepEqual([data[8], data[9]], [62, PROTOCOL.udp], 'TTL less the kernel and the tunnel');
        assert.deepEqual(
          [ipv4Text(data.readUInt32BE(12)), ipv4Text(data.readUInt32BE(16))],
          [container.address, FOREIGN],
        );
        assert.equal(data.subarray(28).toString(), 'question');
        peer.send(answer('forty-two'), rig.host(1).publicIp);
        await asking.waitForLine(/^answer forty-two from 10\.5\.222\.9:4712$/);
      } finally {
        await asking.kill();
      }
    });

    it('refuses and counts what comes from a host without a lease', async () => {
      const stranger = socketOn(3);
      const before = await dropsBy('source-unknown');
      assert.equal(before, 0);
      const listening = container.netns.start([process.execPath, '-e', ASK, '10.5.222.8']);
      try {
        for (let i = 0; i < 5; i++) stranger.send(answer('intruder'), rig.host(1).publicIp);
        await waitFor(async () => (await dropsBy('source-unknown')) === 5, { what: 'five counted refusals' });
        assert.doesNotMatch(listening.output, /intruder/);
      } finally {
        await listening.kill();
      }
    });
  });
}

describe('the daemon where the native packet path is not built', () => {
  it('falls back to the portable tunnel with a warning, unless it was asked for the native one', async () => {
    const rig = await Rig.create({ hosts: 2 });
    try {
      const home = path.join(rig.directory, 'package');
      const root = path.resolve(path.dirname(daemonFile()), '../..');
      cpSync(path.join(root, 'dist'), path.join(home, 'dist'), { recursive: true });
      cpSync(path.join(root, 'package.json'), path.join(home, 'package.json'));
      symlinkSync(path.join(root, 'node_modules'), path.join(home, 'node_modules'));
      const program = path.join(home, 'dist/bin/tsflanneld.js');
      chmodSync(program, 0o755);
      const own = [`--state-dir=${home}/state`, `--status-socket=${home}/status.sock`];

      await rig.putConfig(NETWORK);
      const near = await rig.host(1).startDaemon({ stock: program, args: own });
      const far = await rig.host(2).startDaemon();
      await Promise.all([near, far].map((daemon) => daemon.waitForLog(/ ready /)));
      assert.equal(
        countLines(near.log, / warn {2}native packet path missing.*code=ERR_ADDON_MISSING hint=/),
        1,
        near.log,
      );
      const [a, b] = [await rig.host(1).addContainer(), await rig.host(2).addContainer()];
      await waitFor(async () => (await ping(a.netns, b.address, { count: 1, waitSeconds: 1 })).received === 1, {
        what: 'a ping',
      });
      assert.equal((await tcpTransfer(a.netns, b.netns, b.address, { bytes: 1_000_000 })).bytes, 1_000_000);
      await near.stop();

      near.start(['--datapath=native']);
      await near.waitForLog(/ (error|warn ) .*code=ERR_ADDON_MISSING hint=/);
      assert.doesNotMatch(near.log, / ready /);
    } finally {
      await rig.close();
    }
  });
});
