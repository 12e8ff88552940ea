import assert from 'node:assert/strict';
import { decodeAttributes } from '../../../src/lease/attributes.js';
import type { FakeClock } from '../../support/fake-clock.js';
import { obstacle } from '../../support/reach.js';
import type { SimFlannel } from '../../support/sim-flannel.js';
import { TestCluster, networkOf } from '../../support/test-cluster.js';
import type { TestDaemon } from '../../support/test-daemon.js';
import { finish } from '../../support/steps.js';

const COMMANDS = {
  PreStartupCommand: 'pre',
  PostStartupCommand: 'post $SUBNET $PUBLIC_IP',
  SubnetAddCommand: 'add $SUBNET $PUBLIC_IP',
  SubnetRemoveCommand: 'remove $SUBNET $PUBLIC_IP',
  ShutdownCommand: 'shutdown $SUBNET',
};

describe('Daemon with backend extension', () => {
  let hosts: TestCluster;
  let clock: FakeClock;
  let cluster: SimFlannel;

  beforeEach(() => {
    hosts = new TestCluster();
    ({ clock, etcd: cluster } = hosts);
  });

  afterEach(() => hosts.close());

  const host = (number: number, flags: readonly string[] = ['--allow-extension-commands']): TestDaemon => {
    const daemon = hosts.add(number, { flags });
    daemon.host.programs.answer = (words) => (words === 'pre' ? { stdout: `key ${number}\n` } : {});
    return daemon;
  };
  const start = (...started: readonly TestDaemon[]): Promise<void> => hosts.start(started);
  const stop = (daemon: TestDaemon): Promise<void> => hosts.stop(daemon);
  const published = (daemon: TestDaemon): ReturnType<typeof decodeAttributes> =>
    decodeAttributes(hosts.leaseOf(daemon));

  /** What the host has run since somebody asked last. */
  const ran = (daemon: TestDaemon): readonly string[] => daemon.host.programs.lines.splice(0);

  it('runs each command in its turn, and gives peers what the other host wrote', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    assert.deepEqual([published(a).backendType, published(a).backendData], ['extension', 'key 1']);
    assert.deepEqual(ran(a), ['pre', `post ${a.subnet} 192.0.2.2`, `add ${b.subnet} 192.0.2.3 < key 2`]);
    assert.equal(a.isReady, true);
    assert.equal(finish(a.daemon.status()).commands?.peersDone, 1);
    cluster.deleteLease(b.subnet?.replace('/', '-') ?? '');
    await stop(b);
    assert.deepEqual(ran(b).at(-1), `shutdown ${b.subnet}`);
  });

  it('removes a peer whose lease is gone', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const a = host(1);
    await start(a);
    cluster.putLease('10.5.77.0-24', '{"PublicIP":"192.0.2.77","BackendType":"extension","BackendData":"x"}');
    await clock.advance(3000);
    cluster.deleteLease('10.5.77.0-24');
    await clock.advance(30_000);
    assert.deepEqual(ran(a).slice(2), ['add 10.5.77.0/24 192.0.2.77 < x', 'remove 10.5.77.0/24 192.0.2.77 < x']);
  });

  it('runs all of them again after a restart, and removes who left meanwhile', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const a = host(1);
    await start(a);
    const value = '{"PublicIP":"192.0.2.77","BackendType":"extension"}';
    for (const name of ['10.5.77.0-24', '10.5.78.0-24']) cluster.putLease(name, value.replace('77', name.slice(5, 7)));
    await clock.advance(120_000);
    await stop(a);
    cluster.deleteLease('10.5.78.0-24');
    ran(a);
    await start(a);
    await clock.advance(60_000);
    const lines = ran(a);
    assert.deepEqual(lines.slice(0, 2), ['pre', `post ${a.subnet} 192.0.2.2`]);
    assert.ok(lines.includes('add 10.5.77.0/24 192.0.2.77'));
    assert.deepEqual(
      lines.filter((line) => line.startsWith('remove')),
      ['remove 10.5.78.0/24 192.0.2.78'],
    );
  });

  it('removes nobody who left before a reboot, of whom nothing is left', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const a = host(1);
    await start(a);
    cluster.putLease('10.5.78.0-24', '{"PublicIP":"192.0.2.78","BackendType":"extension"}');
    await clock.advance(120_000);
    await stop(a);
    cluster.deleteLease('10.5.78.0-24');
    a.host.reboot();
    ran(a);
    await start(a);
    await clock.advance(60_000);
    assert.deepEqual(ran(a), ['pre', `post ${a.subnet} 192.0.2.2`]);
  });

  it('runs nothing that the operator of the host has not allowed, and says what would', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const a = host(1, []);
    await start(a);
    assert.deepEqual(ran(a), []);
    assert.equal(a.isReady, false);
    assert.match(
      finish(a.daemon.status()).notReadyBecause.join(),
      /^no valid network configuration: cannot run backend extension: its commands come from etcd.*; start the daemon with --allow-extension-commands if everybody who may write \/coreos\.com\/network\/config may do anything on this host/,
    );
    assert.equal(a.log.find(/network configuration not valid/, 'error')[0]?.fields.error instanceof Error, true);
  });

  it('goes on as before where a change brings commands that are not allowed', async () => {
    cluster.configure(networkOf('vxlan'));
    const [a, b] = [host(1, []), host(2, [])];
    await start(a, b);
    cluster.configure(networkOf('extension', COMMANDS));
    await clock.advance(60_000);
    assert.deepEqual([...ran(a), ...ran(b)], []);
    assert.equal(obstacle(a.host, b.host), undefined);
    assert.equal(published(a).backendType, 'vxlan');
    assert.match(finish(a.daemon.status()).network?.rejected ?? '', /--allow-extension-commands/);
  });

  for (const other of ['udp', 'vxlan', 'host-gw']) {
    it(`follows a change from ${other} and back, and leaves nothing of its own`, async () => {
      cluster.configure(networkOf(other));
      const [a, b] = [host(1), host(2)];
      await start(a, b);
      cluster.configure(networkOf('extension', COMMANDS));
      await clock.advance(60_000);
      assert.deepEqual(finish(a.daemon.status()).backends, ['extension']);
      assert.equal(published(a).backendData, 'key 1');
      assert.deepEqual(ran(a), ['pre', `post ${a.subnet} 192.0.2.2`, `add ${b.subnet} 192.0.2.3 < key 2`]);
      cluster.configure(networkOf(other));
      await clock.advance(3000);
      assert.equal(obstacle(a.host, b.host), undefined);
      await clock.advance(60_000);
      assert.deepEqual(ran(a), [`remove ${b.subnet} 192.0.2.3 < key 2`, `shutdown ${a.subnet}`]);
      assert.equal(finish(a.daemon.status()).commands, null);
      assert.equal(published(a).backendData === undefined, other !== 'vxlan');
      assert.deepEqual(finish(a.daemon.status()).backends, [other]);
    });
  }

  it('reaches a peer that has not changed over as that one asks, and gives it to no command', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    cluster.putLease('10.5.77.0-24', '{"PublicIP":"192.0.2.77","BackendType":"host-gw"}');
    const a = host(1);
    await start(a);
    assert.deepEqual(ran(a), ['pre', `post ${a.subnet} 192.0.2.2`]);
    assert.ok([...a.host.kernel.routes.keys()].length > 0);
    assert.deepEqual(finish(a.daemon.status()).backends, ['extension', 'host-gw']);
  });

  it('tells peers and Docker nothing of a backend whose PostStartupCommand has not succeeded', async () => {
    cluster.configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    for (const { host: each } of [a, b]) {
      each.programs.answer = (words) => (words.startsWith('post') ? { failure: 'exit status 1', output: 'no' } : {});
    }
    cluster.configure(networkOf('extension', COMMANDS));
    await clock.advance(60_000);
    assert.equal(published(a).backendType, 'vxlan');
    assert.equal(obstacle(a.host, b.host), undefined, 'packets go the former way');
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, ['PostStartupCommand fails: exit status 1: no']);
    for (const { host: each } of [a, b]) each.programs.answer = () => ({});
    await clock.advance(40_000);
    assert.equal(published(a).backendType, 'extension');
    assert.equal(a.isReady, true);
    cluster.configure(networkOf('host-gw'));
    await clock.advance(3000);
    assert.equal(published(a).backendType, 'host-gw');
  });

  it('gives up a backend whose commands never succeeded', async () => {
    cluster.configure(networkOf('extension', COMMANDS));
    const a = host(1);
    a.host.programs.answer = (words) => (words.startsWith('post') ? { failure: 'exit status 1' } : {});
    await start(a);
    cluster.configure(networkOf('vxlan'));
    await clock.advance(500);
    assert.equal(published(a).backendType, 'vxlan', 'nobody waits for a command of the former one');
    await clock.advance(60_000);
    assert.equal(a.isReady, true);
    assert.equal(ran(a).at(-1), `shutdown ${a.subnet}`);
  });
});
