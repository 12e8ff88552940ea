import assert from 'node:assert/strict';
import type { Observer } from '../../../src/daemon/parts.js';
import { decodeAttributes } from '../../../src/lease/attributes.js';
import { noRefusals } from '../../../src/observe/refusals.js';
import { ip, net } from '../../support/builders.js';
import { type FakeClock, settle } from '../../support/fake-clock.js';
import { canReach, obstacle } from '../../support/reach.js';
import type { SimFlannel } from '../../support/sim-flannel.js';
import { TestCluster, assertReach, networkOf } from '../../support/test-cluster.js';
import { SUBNET_FILE, type TestDaemon } from '../../support/test-daemon.js';
import { finish } from '../../support/steps.js';

const BACKENDS = ['udp', 'vxlan', 'host-gw'] as const;

describe('Daemon', () => {
  let hosts: TestCluster;
  let clock: FakeClock;
  let cluster: SimFlannel;

  beforeEach(() => {
    hosts = new TestCluster();
    ({ clock, etcd: cluster } = hosts);
  });

  afterEach(() => hosts.close());

  const configure = (text: string): void => cluster.configure(text);

  const host = (number: number, flags: readonly string[] = []): TestDaemon => hosts.add(number, { flags });
  const start = (...started: readonly TestDaemon[]): Promise<void> => hosts.start(started);
  const stop = (daemon: TestDaemon): Promise<void> => hosts.stop(daemon);
  const published = (daemon: TestDaemon): ReturnType<typeof decodeAttributes> =>
    decodeAttributes(hosts.leaseOf(daemon));

  it('knows its peers by the names that they announce, once somebody has looked', async () => {
    configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    a.daemon.noteLook();
    await clock.advance(61_000);
    a.daemon.noteLook();
    await clock.advance(1000);
    assert.deepEqual(
      finish(a.daemon.status()).peers.map(({ hostName }) => hostName),
      ['host2'],
    );
  });

  it('keeps a history and counts refusals as long as somebody can ask', async () => {
    configure(networkOf('udp'));
    const refused = { ...noRefusals(), host: 7 };
    const observe = (): Promise<Observer> => Promise.resolve({ refused, close: () => Promise.resolve() });
    const a = hosts.add(1, { observe });
    await start(a);
    await clock.advance(60_000);
    assert.equal(a.daemon.history().length, 12);
    assert.equal(
      a.daemon.history().some(({ etcdMs }) => etcdMs !== null),
      true,
    );
    assert.equal(finish(a.daemon.status()).requests.refused.host, 7);
    await stop(a);
    await clock.advance(60_000);
    assert.equal(a.daemon.history().length, 12, 'none after the end');
  });

  it('tells of a thousand hosts that join and leave in a few lines, without missing one', async () => {
    configure(JSON.stringify({ Network: '10.0.0.0/11', Backend: { Type: 'host-gw' } }));
    const a = host(1);
    await start(a);
    a.log.lines.length = 0;
    const names = Array.from({ length: 1000 }, (_, n) => `10.${1 + (n >> 8)}.${n & 255}.0-24`);
    for (const [n, name] of names.entries()) {
      // Every other one is not on the link of this host, which is a complaint about each.
      const publicIp = n % 2 === 0 ? `192.0.2.${10 + (n % 200)}` : `198.51.${n >> 8}.${n & 255}`;
      cluster.putLease(name, `{"PublicIP":"${publicIp}","BackendType":"host-gw"}`);
      await clock.advance(60);
    }
    for (const name of names) cluster.deleteLease(name);
    await clock.advance(5000);
    await stop(a);
    const told = (message: RegExp): number =>
      a.log.find(message).reduce((sum, { fields }) => sum + (fields.count ?? 1), 0);
    assert.deepEqual([told(/^peers? joined$/), told(/^peers? left$/)], [1000, 1000]);
    assert.deepEqual([told(/^peers? cannot be reached$/), told(/^peers? can be reached again/)], [500, 500]);
    const lines = a.log.lines.filter(({ level }) => level !== 'debug');
    assert.ok(lines.length < 120, `${lines.length} lines`);
  }).timeout(120_000);

  for (const type of BACKENDS) {
    describe(`with ${type}`, () => {
      beforeEach(() => configure(networkOf(type)));

      it('gets ready: lease, subnet file, rules and kernel state', async () => {
        const a = host(1);
        await start(a);
        assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
        assert.equal(a.log.find(/^ready$/).length, 1);
        assert.equal(published(a).publicIp.toString(), '192.0.2.2');
        const subnet = a.subnet?.replace('.0/24', '.1/24') ?? '';
        assert.match(a.host.files.texts.get(SUBNET_FILE) ?? '', new RegExp(`^FLANNEL_SUBNET=${subnet}$`, 'm'));
        assert.equal(a.host.firewall.spec?.networks[0]?.subnet.toString(), a.subnet);
      });

      it('reaches a host that joins, and no longer one whose lease is gone', async () => {
        const [a, b] = [host(1), host(2)];
        await start(a);
        assert.equal(canReach(a.host, b.host), false);
        await start(b);
        assertReach(a, b);
        const key = b.subnet?.replace('/', '-') ?? '';
        await stop(b);
        cluster.deleteLease(key);
        await clock.advance(3000);
        assert.equal(canReach(a.host, b.host), false);
        assert.equal(finish(a.daemon.status()).peers.length, 0);
      });

      it('publishes its lease anew when the address of the host changes, and is reached there', async () => {
        const [a, b] = [host(1), host(2)];
        await start(a, b);
        const { subnet } = b;
        b.host.renumber(ip('192.0.2.77'));
        assert.equal(canReach(a.host, b.host), false);
        await clock.advance(3000);
        assert.equal(b.subnet, subnet);
        assert.equal(published(b).publicIp.toString(), '192.0.2.77');
        assertReach(a, b);
      });

      it('keeps lease and kernel state over a restart', async () => {
        const [a, b] = [host(1), host(2)];
        await start(a, b);
        const { subnet } = a;
        await stop(a);
        const stayed = type !== 'udp'; // the TUN ends with its process
        assert.equal(canReach(a.host, b.host), stayed);
        await start(a);
        assert.equal(a.subnet, subnet);
        assertReach(a, b);
        assert.equal(cluster.leases.length, 2);
      });

      it('goes on with the saved configuration and peers while the store is away at its start', async () => {
        const [a, b] = [host(1), host(2)];
        await start(a, b);
        await stop(a);
        a.host.forgetRoutes(net('10.5.0.0/16'));
        assert.equal(canReach(a.host, b.host), false);
        cluster.setDown(true);
        await start(a);
        assert.equal(obstacle(a.host, b.host), undefined);
        assert.equal(a.isReady, false, 'nobody has confirmed the lease');
        assert.equal(a.log.find(/etcd does not answer, going on with the saved/).length, 1);
        cluster.setDown(false);
        await clock.advance(60_000);
        assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
      });
    });
  }

  for (const type of BACKENDS) {
    it(`tells of a peer whether it answers, with ${type}`, async () => {
      configure(networkOf(type));
      const [a, b] = [host(1), host(2)];
      await start(a, b);
      await clock.advance(30_000);
      const states = (): readonly string[] =>
        finish(a.daemon.status()).peers.flatMap(({ reachability }) => reachability.map(({ state }) => state));
      assert.deepEqual(states(), ['reachable']);
      const since = Date.parse(finish(a.daemon.status()).peers[0]?.reachability[0]?.since ?? '');
      assert.ok(since > clock.wallMs() - 30_000 && since < clock.wallMs());
      a.host.echo.answers = () => false;
      await clock.advance(150_000);
      assert.deepEqual(states(), ['unreachable']);
      assert.equal(finish(a.daemon.status()).reachability?.peers.unreachable, 1);
      assert.equal(a.isReady, true, 'others are not what this host waits for');
      assert.equal(b.host.echo.openPorts, 1);
      await stop(b);
      assert.equal(b.host.echo.openPorts, 0);
      cluster.deleteLease(b.subnet?.replace('/', '-') ?? '');
      await clock.advance(3000);
      assert.equal(finish(a.daemon.status()).reachability?.peers.unreachable, 0);
    });
  }

  it('asks the devices of its peers as the backend changes', async () => {
    configure(networkOf('host-gw'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const [device, bridge] = ['.0', '.1'].map((end) => b.subnet?.replace('.0/24', end));
    await clock.advance(60_000);
    assert.ok(!a.host.echo.sent.includes(device ?? ''), a.host.echo.sent.join(' '));
    configure(networkOf('vxlan'));
    await clock.advance(10_000);
    a.host.echo.sent.length = 0;
    await clock.advance(120_000);
    assert.ok(a.host.echo.sent.includes(device ?? ''));
    assert.ok(!a.host.echo.sent.slice(2).includes(bridge ?? ''));
  });

  it('asks nobody where probes are switched off', async () => {
    configure(networkOf('vxlan'));
    const [a, b] = [host(1, ['--peer-probe-interval=0']), host(2)];
    await start(a, b);
    await clock.advance(120_000);
    assert.deepEqual(a.host.echo.sent, []);
    assert.equal(a.host.echo.openPorts, 0);
    assert.equal(finish(a.daemon.status()).reachability, null);
    assert.deepEqual(finish(a.daemon.status()).peers[0]?.reachability, []);
  });

  for (const [from, to] of [
    ['udp', 'vxlan'],
    ['vxlan', 'host-gw'],
    ['host-gw', 'udp'],
  ] as const) {
    it(`follows a change of the backend from ${from} to ${to}`, async () => {
      configure(networkOf(from));
      const [a, b] = [host(1), host(2)];
      await start(a, b);
      const { subnet } = a;
      configure(networkOf(to));
      await clock.advance(3000);
      assertReach(a, b);
      assert.deepEqual(finish(a.daemon.status()).backends, [to]);
      assert.equal(published(a).backendType, to === 'udp' ? '' : to);
      assert.equal(a.subnet, subnet);
    });
  }

  it('knows the history that it was killed in, also if its lease has the revision that it had in the one before', async () => {
    configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    await start(a);
    const revision = (): number | undefined => cluster.lease(a.subnet?.replace('/', '-') ?? '')?.modRevision;
    const before = revision();
    await start(b);
    await clock.advance(15_000); // saved with b
    await stop(b);
    cluster.deleteLease(b.subnet?.replace('/', '-') ?? '');
    await clock.advance(3000);
    assert.equal(finish(a.daemon.status()).peers.length, 0);
    cluster.etcd.wipe();
    configure(networkOf('vxlan'));
    await clock.advance(5000);
    assert.equal(revision(), before);
    a.kill();
    await start(a);
    assert.equal(finish(a.daemon.status()).peers.length, 0, 'b was given up before that history began');
  });

  it('takes another VTEP MAC if the lease that had it first is not known as its own any more', async () => {
    configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    await start(a, b);
    const { subnet } = a;
    await stop(a);
    a.host.files.texts.clear();
    a.host.renumber(ip('192.0.2.77'));
    await start(a);
    assert.notEqual(a.subnet, subnet, 'the former lease is somebody else’s now');
    assert.equal(a.log.find(/another host had the MAC address of this device first/).length, 1);
    assertReach(a, b);
    await stop(a);
    await start(a);
    assert.equal(a.log.find(/another host had the MAC address of this device first/).length, 1, 'not once more');
    assertReach(a, b);
  });

  it('publishes a new backend after a while although the kernel refuses its device', async () => {
    configure(networkOf('host-gw'));
    const a = host(1);
    await start(a);
    a.host.kernel.refuse = (operation) => (operation.key.includes('flannel.1') ? 'EOPNOTSUPP' : undefined);
    configure(networkOf('vxlan'));
    await clock.advance(4000);
    assert.equal(published(a).backendType, 'host-gw', 'the peers must not send to what is not there');
    await clock.advance(2000);
    assert.equal(published(a).backendType, 'vxlan');
    assert.equal(a.log.find(/publishing the lease all the same/).length, 1);
    assert.equal(a.isReady, false);
  });

  it('waits for a store that has never answered', async () => {
    configure(networkOf('vxlan'));
    cluster.setDown(true);
    const a = host(1);
    await start(a);
    assert.equal(a.isReady, false);
    assert.equal(a.host.files.texts.size, 0);
    cluster.setDown(false);
    await clock.advance(3000);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
  });

  it('goes on without rules that cannot be written, and says so', async () => {
    configure(networkOf('vxlan'));
    const [a, b] = [host(1), host(2)];
    a.host.firewall.isRefusing = true;
    await start(a, b);
    assertReach(a, b);
    assert.equal(a.log.find(/traffic rules not in place/).length, 1);
  });

  it('does not get ready while the subnet file cannot be written, and tries again', async () => {
    configure(networkOf('vxlan'));
    const a = host(1);
    a.host.files.writeErrno = 'EROFS';
    await start(a);
    assert.equal(a.isReady, false);
    a.host.files.writeErrno = undefined;
    await clock.advance(3000);
    assert.deepEqual(finish(a.daemon.status()).notReadyBecause, []);
  });

  it('takes the subnet of its subnet file again when its lease is gone', async () => {
    configure(networkOf('vxlan'));
    const a = host(1);
    await start(a);
    const { subnet } = a;
    await stop(a);
    cluster.deleteLease(subnet?.replace('/', '-') ?? '');
    await start(a);
    assert.equal(a.subnet, subnet);
  });

  it('ends without time passing, whatever was under way, and leaves no timer behind', async () => {
    configure(networkOf('udp'));
    const a = host(1);
    await start(a);
    configure(networkOf('vxlan'));
    await clock.advance(3000);
    a.host.renumber(ip('192.0.2.77'));
    await settle();
    await a.stop();
    cluster.etcd.close();
    assert.equal(clock.pending, 0);
  });
});
