import assert from 'node:assert/strict';
import { parseMac } from '../../../src/ip/mac.js';
import type { DaemonStatus } from '../../../src/observe/status.js';
import { ip, net } from '../../support/builders.js';
import type { FakeClock } from '../../support/fake-clock.js';
import { canReach, obstacle } from '../../support/reach.js';
import type { SimFlannel } from '../../support/sim-flannel.js';
import { TestCluster } from '../../support/test-cluster.js';
import { SUBNET_FILE, type TestDaemon } from '../../support/test-daemon.js';
import { finish } from '../../support/steps.js';

const CONFIG = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}';
const HOUR = 3_600_000;
const STATE = '/var/lib/tsflannel';

describe('a daemon after a reboot', function () {
  this.timeout(60_000); // days of simulated time
  let hosts: TestCluster;
  let clock: FakeClock;
  let cluster: SimFlannel;

  beforeEach(() => {
    hosts = new TestCluster();
    ({ clock, etcd: cluster } = hosts);
    cluster.configure(CONFIG);
  });

  afterEach(() => hosts.close());

  const host = (number: number, flags: readonly string[] = []): TestDaemon => hosts.add(number, { flags });
  const start = (...started: readonly TestDaemon[]): Promise<void> => hosts.start(started, 2000);

  /** Power off, `offMs` pass, power on. */
  const reboot = async (daemon: TestDaemon, offMs = 0): Promise<void> => {
    daemon.kill();
    daemon.host.reboot();
    await clock.advance(offMs);
    assert.equal(daemon.host.files.texts.get(SUBNET_FILE), undefined);
  };

  const subnetOf = ({ host: { files } }: TestDaemon): string | undefined =>
    /^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(files.texts.get(SUBNET_FILE) ?? '')?.[1]?.concat('.0/24');

  const savedState = ({ daemon }: TestDaemon): DaemonStatus['savedState'] => finish(daemon.status()).savedState;

  /** A host with a lease in a cluster of two, its state on disk. */
  const settled = async (...all: readonly TestDaemon[]): Promise<void> => {
    await start(...all);
    await clock.advance(15_000);
  };

  /** Has the key of a host written by somebody else. */
  const give = (subnet: string | undefined, publicIp: string): void => {
    const key = `/coreos.com/network/subnets/${subnet?.replace('/', '-') ?? ''}`;
    cluster.etcd.delete(key);
    cluster.etcd.put(key, `{"PublicIP":"${publicIp}","PublicIPv6":null,"BackendType":"vxlan"}`);
  };

  it('carries packets to another one within two seconds while etcd is away from both', async () => {
    const [a, b] = [host(1), host(2)];
    await settled(a, b);
    const { subnet } = a;
    cluster.setDown(true);
    for (const each of [a, b]) await reboot(each);
    await start(a, b);
    assert.equal(subnetOf(a), subnet);
    assert.equal(obstacle(a.host, b.host), undefined);
    assert.equal(obstacle(b.host, a.host), undefined);
    assert.equal(a.log.find(/etcd does not answer, going on with the saved state/, 'warn').length, 1);
    assert.equal(savedState(a)?.subnet, subnet);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, [
      'the lease is the saved one, etcd has not confirmed it',
    ]);
    cluster.setDown(false);
    await clock.advance(60_000);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    assert.equal(savedState(a), null);
    assert.equal(a.subnet, subnet);
    assert.equal(a.log.find(/etcd has confirmed the saved lease/).length, 1);
  });

  it('has the VTEP MAC that its peers send to, also one that flannel had chosen', async () => {
    const [a, b] = [host(1), host(2)];
    const mac = parseMac('0a:00:00:00:00:77');
    a.host.kernel.addLink({ name: 'flannel.1', kind: 'vxlan', mac });
    await settled(a, b);
    assert.equal(a.host.kernel.getLink('flannel.1')?.mac, mac);
    cluster.setDown(true);
    await reboot(a);
    await start(a);
    assert.equal(a.host.kernel.getLink('flannel.1')?.mac, mac);
    assert.equal(obstacle(b.host, a.host), undefined);
  });

  it('waits for a network that comes up late', async () => {
    const a = host(1);
    await settled(a);
    const { subnet } = a;
    cluster.setDown(true);
    await reboot(a);
    a.host.forgetRoutes(net('0.0.0.0/0'));
    await start(a);
    assert.equal(subnetOf(a), undefined);
    a.host.renumber(a.host.address);
    await clock.advance(3000);
    assert.equal(subnetOf(a), subnet);
  });

  it('says once that it has no network when etcd answers late, and begins when it has one', async () => {
    const a = host(1);
    cluster.setDown(true);
    a.host.forgetRoutes(net('0.0.0.0/0'));
    await start(a);
    cluster.setDown(false);
    await clock.advance(20_000);
    assert.equal(a.log.find(/cannot carry the overlay as configured/, 'error').length, 1);
    assert.equal(subnetOf(a), undefined);
    a.host.renumber(a.host.address);
    await clock.advance(5000);
    assert.notEqual(subnetOf(a), undefined);
  });

  it('keeps its subnet while etcd is there', async () => {
    const a = host(1);
    await settled(a);
    const { subnet } = a;
    await reboot(a);
    await start(a);
    assert.equal(a.subnet, subnet);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    assert.equal(a.log.find(/saved (state|lease)/, 'warn').length, 0);
  });

  it('asks for its former subnet when its lease ended while it was off', async () => {
    const a = host(1);
    await settled(a);
    const { subnet } = a;
    await reboot(a, 25 * HOUR);
    assert.equal(cluster.leases.length, 0, 'the lease has ended');
    await start(a);
    assert.equal(a.subnet, subnet);
  });

  it('gives up a subnet that another host got meanwhile, and says that Docker has to follow', async () => {
    const a = host(1);
    await settled(a);
    const { subnet } = a;
    await reboot(a);
    give(subnet, '192.0.2.99');
    cluster.setDown(true);
    await start(a);
    assert.equal(subnetOf(a), subnet);
    cluster.setDown(false);
    await clock.advance(5000);
    assert.notEqual(a.subnet, subnet);
    assert.equal(subnetOf(a), a.subnet);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
    assert.match(finish(a.daemon.status()).dockerHint ?? '', /systemctl restart docker/);
    assert.equal(a.log.find(/saved lease was given away meanwhile/, 'error').length, 1);
    const addresses = [...a.host.kernel.addresses.values()].map(({ address }) => address.toString());
    assert.ok(!addresses.includes(subnet?.replace('/24', '') ?? ''), addresses.join());
  });

  it('leaves a subnet of another host even where it gets no other one', async () => {
    cluster.configure(
      '{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.1.0", "Backend": {"Type": "vxlan"}}',
    );
    const a = host(1);
    await settled(a);
    assert.equal(a.subnet, '10.5.1.0/24');
    await reboot(a);
    give(a.subnet, '192.0.2.99');
    cluster.setDown(true);
    await start(a);
    assert.ok(a.host.kernel.getLink('flannel.1'));
    cluster.setDown(false);
    await clock.advance(5000);
    assert.equal(a.host.kernel.getLink('flannel.1'), undefined);
    assert.equal(a.isReady, false);
  });

  it('leaves the lease alone that names its former address when it has got another one while etcd was away', async () => {
    const a = host(1);
    await settled(a);
    const { subnet } = a;
    const { address } = a.host;
    a.kill();
    cluster.etcd.delete(`/coreos.com/network/subnets/${subnet?.replace('/', '-') ?? ''}`);
    give('10.5.200.0/24', address.toString());
    cluster.setDown(true);
    await start(a);
    a.host.renumber(ip('192.0.2.77'));
    await clock.advance(3000);
    cluster.setDown(false);
    await clock.advance(60_000);
    assert.equal(a.subnet, subnet);
    const other = cluster.leases.find(({ name }) => name === '10.5.200.0-24');
    assert.ok(other?.value.toString().includes(`"${address.toString()}"`), other?.value.toString());
  });

  it('takes its subnet in another etcd that does not know it, and keeps its peers meanwhile', async () => {
    const [a, b] = [host(1), host(2)];
    await settled(a, b);
    const { subnet } = a;
    cluster.setDown(true);
    for (const each of [a, b]) await reboot(each);
    await start(a, b);
    cluster.etcd.wipe({ hasNewClusterId: true });
    cluster.configure(CONFIG);
    cluster.setDown(false);
    await clock.advance(100);
    assert.equal(obstacle(a.host, b.host), undefined);
    await clock.advance(10_000);
    assert.equal(a.subnet, subnet);
    assert.equal(obstacle(a.host, b.host), undefined);
  });

  describe('longer than its lease without etcd', () => {
    let a: TestDaemon;
    let b: TestDaemon;
    let subnet: string | undefined;
    beforeEach(async () => {
      [a, b] = [host(1), host(2)];
      await settled(a, b);
      ({ subnet } = a);
      await reboot(a, 25 * HOUR);
      cluster.setDown(true);
      await start(a);
    });

    it('lets Docker have its subnet and sends nothing to other hosts', () => {
      assert.equal(subnetOf(a), subnet);
      assert.deepEqual(finish(a.daemon.status()).peers, []);
      assert.equal(canReach(a.host, b.host), false);
      assert.equal(canReach(b.host, a.host), false);
      assert.equal(a.host.kernel.getLink('flannel.1'), undefined);
      assert.match(savedState(a)?.isolatedBecause ?? '', /its lease ended at/);
      assert.match(a.serviceMessages.at(-1) ?? '', /nothing is sent to other hosts until etcd answers/);
      assert.equal(a.log.find(/the saved lease may have ended: its subnet is for Docker only/, 'warn').length, 1);
    });

    it('joins again when etcd answers', async () => {
      cluster.setDown(false);
      await clock.advance(5000);
      assert.equal(a.subnet, subnet);
      assert.equal(obstacle(a.host, b.host), undefined);
      assert.equal(obstacle(b.host, a.host), undefined);
    });
  });

  it('goes on within one boot however long ago its lease ended, since the kernel has done so, too', async () => {
    const [a, b] = [host(1), host(2)];
    await settled(a, b);
    a.kill();
    await clock.advance(25 * HOUR);
    cluster.setDown(true);
    await start(a);
    assert.equal(obstacle(a.host, b.host), undefined);
    assert.equal(savedState(a)?.isolatedBecause, null);
  });

  it('knows after a power cut how long its lease runs, hours after anything changed', async () => {
    const a = host(1);
    await settled(a);
    await clock.advance(25 * HOUR);
    await reboot(a);
    cluster.setDown(true);
    await start(a);
    assert.equal(savedState(a)?.isolatedBecause, null);
  });

  describe('with the state of another', () => {
    /** A second machine whose disk is that of the first. */
    const copyOf = (original: TestDaemon, flags: readonly string[] = []): TestDaemon => {
      const copy = host(2, flags);
      for (const [file, text] of original.host.files.texts) {
        if (file.startsWith('/var/')) copy.host.files.texts.set(file, text);
      }
      return copy;
    };

    it('machine, does nothing with it while etcd is away, and takes a subnet of its own afterwards', async () => {
      const a = host(1);
      await settled(a);
      const copy = copyOf(a);
      cluster.setDown(true);
      await start(copy);
      assert.equal(subnetOf(copy), undefined);
      assert.equal(copy.log.find(/the saved state is not used/, 'warn').length, 1);
      assert.equal(copy.log.find(/no saved state to go on with/).length, 1);
      cluster.setDown(false);
      await clock.advance(60_000);
      assert.deepEqual(finish(copy.daemon.status()).notReadyBecause, []);
      assert.notEqual(copy.subnet, a.subnet);
      assert.equal(a.log.find(/own (subnet|lease)/, 'error').length, 0);
    });

    it('address, if nothing else tells the copy from the original, leaves the lease to the original', async () => {
      const a = host(1);
      await settled(a);
      const { subnet } = a;
      const copy = copyOf(a);
      Object.defineProperty(copy.host, 'machine', { value: { ...a.host.machine, boot: 'another' } });
      cluster.setDown(true);
      await start(copy);
      assert.equal(subnetOf(copy), undefined);
      assert.equal(copy.log.find(/this host has another public address now/, 'warn').length, 1);
      cluster.setDown(false);
      await clock.advance(60_000);
      assert.notEqual(copy.subnet, a.subnet);
      assert.equal(a.subnet, subnet);
      assert.equal(a.log.find(/taken by another host|overwritten/).length, 0);
    });

    it('etcd prefix, waits', async () => {
      const a = host(1);
      await settled(a);
      const copy = copyOf(a, ['--etcd-prefix=/other']);
      Object.defineProperty(copy.host, 'machine', { value: a.host.machine });
      copy.host.renumber(a.host.address);
      cluster.setDown(true);
      await start(copy);
      assert.equal(subnetOf(copy), undefined);
      assert.match(String(copy.log.find(/the saved state is not used/)[0]?.fields.detail), /etcd prefix \/coreos\.com/);
    });
  });

  it('does not believe saved peers that it would not believe from etcd', async () => {
    const [a, b] = [host(1), host(2)];
    await settled(a, b);
    const file = `${STATE}/peers.json`;
    const lie =
      '{"key":"10.5.200.0-24","value":"{\\"PublicIP\\":\\"10.5.9.9\\"}","revision":"1","isReservation":false}';
    const etcd =
      '{"key":"192.0.2.0-24","value":"{\\"PublicIP\\":\\"192.0.2.9\\"}","revision":"1","isReservation":false}';
    const text = a.host.files.texts.get(file) ?? '';
    a.host.files.texts.set(file, text.replace('"leases": [', `"leases": [${lie},${etcd},`));
    await reboot(a);
    cluster.setDown(true);
    await start(a);
    const { peers, peerSet } = finish(a.daemon.status());
    assert.deepEqual(
      peers.map(({ subnet }) => subnet),
      [b.subnet],
    );
    assert.deepEqual(peerSet.quarantined.map(({ reason }) => reason).sort(), ['bad-public-ip', 'outside-network']);
  });

  it('does not use a saved network that covers etcd', async () => {
    const a = host(1);
    await settled(a);
    const file = `${STATE}/config.json`;
    a.host.files.texts.set(file, '{"Network": "192.0.0.0/8"}');
    await reboot(a);
    cluster.setDown(true);
    await start(a);
    assert.equal(subnetOf(a), undefined);
    assert.equal(a.host.routeTo(ip('192.0.2.250'))?.gateway, undefined);
    assert.equal(finish(a.daemon.status()).network, null);
  });

  it('tells the service manager that it waits, and that it is ready with the saved state', async () => {
    const a = host(1);
    await settled(a);
    await reboot(a);
    cluster.setDown(true);
    await start(a);
    const isReadiness = (message: string): boolean => message.startsWith('READY=1');
    assert.equal(a.serviceMessages[0], 'waiting for etcd');
    assert.deepEqual(a.serviceMessages.filter(isReadiness), [
      'READY=1 the lease is the saved one, etcd has not confirmed it',
    ]);
    cluster.setDown(false);
    await clock.advance(30_000);
    assert.equal(a.serviceMessages.filter(isReadiness).length, 1, 'it is told once');
    assert.match(a.serviceMessages.at(-1) ?? '', /^lease 10\.5\./);
  });

  it('is not ready for the service manager without etcd and without a saved state', async () => {
    cluster.setDown(true);
    const a = host(1);
    await start(a);
    await clock.advance(60_000);
    assert.ok(!a.serviceMessages.some((message) => message.startsWith('READY')));
    assert.equal(a.serviceMessages.at(-1), 'waiting for etcd, without a saved state to go on with');
    assert.equal(a.log.find(/no saved state to go on with, waiting/).length, 1);
  });
});
