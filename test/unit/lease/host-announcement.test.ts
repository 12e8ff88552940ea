import assert from 'node:assert/strict';
import { HostAnnouncement } from '../../../src/lease/host-announcement.js';
import { decodeHostStatus, hostStatusPath } from '../../../src/lease/host-status.js';
import type { HostStatus } from '../../../src/lease/host-status.js';
import type { EtcdStore } from '../../../src/etcd/store.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import { silentLogger } from '../../../src/log.js';
import { ip } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { leaseRecord } from '../../support/lease-world.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { SimEtcdCluster } from '../../support/sim-etcd/cluster.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';

const PATH = hostStatusPath(ip('192.0.2.3'));

describe('HostAnnouncement', () => {
  let clock: FakeClock;
  let cluster: SimEtcdCluster;
  let store: EtcdStore;
  let other: EtcdStore;
  let link: SimLink;

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimEtcdCluster({ clock });
    ({ store } = simStore(clock, { cluster }));
    ({ store: other } = simStore(clock, { cluster, host: 'host-2' }));
    link = cluster.link('host-1');
  });

  afterEach(async () => {
    await store.close();
    await other.close();
    cluster.close();
  });

  const make = (hostName = 'alpha'): HostAnnouncement =>
    new HostAnnouncement({ store, clock, log: silentLogger, hostName, version: 'v1' });

  const record = (ttlSeconds: number | undefined, key = '10.5.3.0-24'): LeaseRecord =>
    leaseRecord(3, {
      key,
      isReservation: ttlSeconds === undefined,
      ...(ttlSeconds === undefined ? {} : { etcdLeaseId: BigInt(cluster.grantLease(ttlSeconds)).toString(16) }),
    });

  async function told(): Promise<HostStatus | undefined> {
    const [entry] = await other.listValues(PATH);
    return entry && decodeHostStatus(entry.text);
  }

  it('tells name, version and since when, once', async () => {
    const announcement = make();
    const held = record(100);
    await announcement.announce(held);
    await announcement.announce(held);
    const leaseSince = new Date(clock.wallMs()).toISOString();
    assert.deepEqual(await told(), { hostName: 'alpha', version: 'v1', leaseKey: '10.5.3.0-24', leaseSince });
    assert.equal(link.requests['KV.txn'], 1);
  });

  it('keeps the age of the lease over a restart, and begins anew with another lease or host', async () => {
    await make().announce(record(1000));
    const since = (await told())?.leaseSince;
    await clock.advance(5000);
    await make().announce(record(1000));
    assert.equal((await told())?.leaseSince, since);
    await make().announce(record(1000, '10.5.4.0-24'));
    assert.notEqual((await told())?.leaseSince, since);
    await clock.advance(5000);
    const other = (await told())?.leaseSince;
    await make('beta').announce(record(1000, '10.5.4.0-24'));
    assert.notEqual((await told())?.leaseSince, other);
  });

  it('expires with the lease, and stays with a reservation', async () => {
    const announcement = make();
    await announcement.announce(record(100));
    await clock.advance(101_000);
    assert.equal(await told(), undefined);
    await announcement.announce(record(undefined));
    await clock.advance(1e9);
    assert.equal((await told())?.hostName, 'alpha');
  });

  it('tells the last of the leases that came while it was telling another', async () => {
    const announcement = make();
    await Promise.all([3, 4, 5, 6].map((n) => announcement.announce(record(100, `10.5.${n}.0-24`))));
    assert.equal((await told())?.leaseKey, '10.5.6.0-24');
    assert.equal(link.requests['KV.txn'], 2);
  });

  it('does not mind a store that is away, and tells it later', async () => {
    const announcement = make();
    const held = record(100);
    link.partition('refuse');
    await announcement.announce(held);
    assert.equal(await told(), undefined);
    link.heal();
    await announcement.announce(held);
    assert.equal((await told())?.hostName, 'alpha');
  });

  it('reads nothing out of a text of others', () => {
    for (const text of ['', 'x', 'null', '[]', '{}', '{"hostName":5}'])
      assert.equal(decodeHostStatus(text), undefined, text);
  });
});
