import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { capture } from '../support/capture.js';
import { netState } from '../support/net-state.js';
import { Rig, type Container } from '../support/rig.js';
import { SteadyPing } from '../support/steady-ping.js';
import { iperf, ping, startPing, tcpTransfer, udpExchange } from '../support/traffic.js';

const ourNamespaces = (pid: number | undefined): string[] =>
  existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => name.startsWith(`tsf${pid}-`)) : [];

describe('Rig', () => {
  let rig: Rig;
  let near: Container;
  let far: Container;

  before(async () => {
    rig = await Rig.create({ hosts: 2, link: 'wire', hasIpv6: true });
    // Plain routes stand in for a daemon.
    near = await rig.host(1).addContainer({ FLANNEL_SUBNET: '10.5.1.1/24', FLANNEL_MTU: '1450' });
    far = await rig.host(2).addContainer({ FLANNEL_SUBNET: '10.5.2.1/24', FLANNEL_MTU: '1450' });
    await rig.host(1).netns.ip([`route add 10.5.2.0/24 via ${rig.host(2).publicIp}`]);
    await rig.host(2).netns.ip([`route add 10.5.1.0/24 via ${rig.host(1).publicIp}`]);
  });

  after(async () => {
    await rig.close();
  });

  it('carries pings between containers and over an IPv6 underlay', async () => {
    const overlay = await ping(near.netns, far.address, { count: 5, size: 1422 - 8 });
    assert.equal(overlay.received, 5);
    assert.equal(overlay.timesMs.length, 5);
    assert.equal((await ping(rig.host(1).netns, rig.host(2).publicIpv6)).received, 3);
    assert.equal((await ping(rig.host(1).netns, '192.0.2.1')).received, 3, 'router');
  });

  it('reports lost pings as a result', async () => {
    const result = await ping(near.netns, '10.5.2.99', { count: 2, waitSeconds: 1 });
    assert.deepEqual([result.sent, result.received], [2, 0]);
  });

  it('moves checked TCP data and UDP datagrams of any size', async () => {
    const { bytes } = await tcpTransfer(near.netns, far.netns, far.address, { bytes: 5_000_001 });
    assert.equal(bytes, 5_000_001);
    const sizes = [0, 1, 1421, 1422, 1423, 9000];
    assert.deepEqual(await udpExchange(near.netns, far.netns, far.address, sizes), { lost: [], altered: [] });
  });

  it('names the datagrams that do not come back', async () => {
    const blockLarge = 'iptables -A FORWARD -p udp -m length --length 600:700 -j DROP';
    await rig.host(2).netns.run(['sh', '-c', blockLarge]);
    const result = await udpExchange(near.netns, far.netns, far.address, [100, 640, 1000], { timeoutMs: 300 });
    await rig.host(2).netns.run(['iptables', '-F', 'FORWARD']);
    assert.deepEqual(result, { lost: [640], altered: [] });
  });

  it('sends no frame longer than the MTU on a wire-like link', async () => {
    const running = await capture(rig.host(1).netns, 'eth0', 'tcp and src net 10.5.1.0/24');
    const result = await iperf(near.netns, far.netns, far.address, { seconds: 1 });
    const { frames, linkType } = await running.stop();
    assert.ok(result.bitsPerSecond > 1e8, `only ${result.bitsPerSecond} bit/s`);
    assert.equal(linkType, 1);
    assert.ok(frames.length > 1000);
    const longest = frames.reduce((length, { data }) => Math.max(length, data.length), 0);
    assert.equal(longest, 14 + 1450);
  });

  it('keeps the data of an etcd that is killed, paused and started again', async () => {
    await rig.putConfig({ Network: '10.5.0.0/16' });
    const lease = await rig.etcd.grantLease(60);
    await rig.etcd.put('/coreos.com/network/subnets/10.5.9.0-24', 'held', lease);
    await rig.etcd.kill();
    await rig.etcd.start();
    rig.etcd.pause();
    rig.etcd.resume();
    assert.equal((await rig.etcd.get('/coreos.com/network/config'))?.value, '{"Network":"10.5.0.0/16"}');
    assert.equal((await rig.etcd.list('/coreos.com/network/subnets/'))[0]?.leaseId, lease);
    await rig.etcd.delete('/coreos.com/network/', { isPrefix: true });
    assert.deepEqual(await rig.etcd.list('/coreos.com/network/'), []);
  });

  it('counts what a continuous ping lost', async () => {
    const pings = startPing(near.netns, far.address, { intervalMs: 5 });
    await ping(near.netns, far.address, { count: 10, intervalMs: 10 });
    const { sent, received } = await pings.stop();
    assert.ok(sent > 5);
    assert.equal(received, sent);
  });

  it('counts what a steady ping lost, for how long at a time, and nothing that was answered', async () => {
    const silence = `blackhole ${far.address}/32`;
    const pings = SteadyPing.start(near.netns, far.address);
    await ping(near.netns, far.address);
    await near.netns.ip([`route add ${silence}`]);
    await ping(far.netns, '127.0.0.1', { count: 5, intervalMs: 25 });
    await near.netns.ip([`route del ${silence}`]);
    await ping(near.netns, far.address);
    const { sent, received, longestGapMs } = await pings.stop();
    assert.ok(received > 0 && received < sent, `${received} of ${sent}`);
    assert.equal(longestGapMs, (sent - received) * 5);
  });

  it('counts what a steady ping sends to nobody as lost', async () => {
    const pings = SteadyPing.start(near.netns, '203.0.113.9');
    await ping(near.netns, far.address);
    const { sent, received, longestGapMs } = await pings.stop();
    assert.deepEqual({ received, longestGapMs }, { received: 0, longestGapMs: sent * 5 });
  });

  it('describes equal states equally and a changed one differently', async () => {
    const { netns } = rig.host(1);
    const before = await netState(netns);
    await ping(near.netns, far.address);
    assert.deepEqual(await netState(netns), before);
    await netns.ip(['route add 10.5.3.0/24 via 192.0.2.13']);
    const changed = await netState(netns);
    assert.deepEqual(
      changed.routes.filter((route) => !before.routes.includes(route)),
      ['10.5.3.0/24 via 192.0.2.13 dev eth0'],
    );
  });

  it('leaves nothing behind after close', async () => {
    const other = await Rig.create({ topology: 'pair' });
    const names = ourNamespaces(process.pid);
    await other.close();
    assert.equal(ourNamespaces(process.pid).length, names.length - 2);
    assert.ok(!existsSync(other.directory));
  });

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    it(`leaves nothing behind when the process gets ${signal}`, async () => {
      const child = makeRigElsewhere();
      await once(child.stdout, 'data');
      assert.equal(ourNamespaces(child.pid).length, 2);
      child.kill(signal);
      const [code] = (await once(child, 'exit')) as [number];
      assert.equal(code, signal === 'SIGINT' ? 130 : 143);
      assert.deepEqual(ourNamespaces(child.pid), []);
    });
  }

  it('removes what a killed process left', async () => {
    const child = makeRigElsewhere();
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal(ourNamespaces(child.pid).length, 2);
    const other = await Rig.create({ topology: 'pair' });
    await other.close();
    assert.deepEqual(ourNamespaces(child.pid), []);
  });
});

function makeRigElsewhere(): ChildProcessByStdio<null, Readable, null> {
  const module = new URL('../support/rig.ts', import.meta.url).href;
  const program = `
    const { Rig } = await import('${module}');
    await Rig.create({ topology: 'pair' });
    console.log('up');
    setInterval(() => {}, 1e6);`;
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}
