import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import type { NetworkConfig } from '../../src/config/network-config.js';
import { decodeEntry } from '../../src/etcd/entries.js';
import { EtcdStore } from '../../src/etcd/store.js';
import { LeaseKeeper, type LeaseKeeperOptions } from '../../src/lease/keeper.js';
import type { LeaseRecord } from '../../src/lease/record.js';
import { ip, net, network } from '../support/builders.js';
import { follow } from '../support/lease-world.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd } from '../support/loopback-etcd.js';
import { ownershipFaults } from '../support/owners.js';
import { RecordingLogger } from '../support/recorder.js';
import { attributesOf, mustCreate, subnetsOf } from '../support/store-contract.js';
import { waitFor } from '../support/wait.js';

describe('LeaseKeeper on etcd', () => {
  let server: EtcdServer;
  let raw: RawEtcd;
  let log: RecordingLogger;
  let stores: EtcdStore[] = [];
  let keepers: LeaseKeeper[] = [];
  let tests = 0;
  let prefix = '';

  before(async () => {
    server = await startEtcd();
    raw = rawEtcd(server);
  });

  after(async () => {
    raw.close();
    await server.destroy();
  });

  beforeEach(() => {
    prefix = `/keeper/${++tests}`;
    log = new RecordingLogger();
  });

  afterEach(async () => {
    for (const keeper of keepers) await keeper.close();
    for (const store of stores) await store.close();
    keepers = [];
    stores = [];
  });

  function openStore(): EtcdStore {
    const store = new EtcdStore({ endpoints: server.endpoint, prefix, log });
    stores.push(store);
    return store;
  }

  function start(host: number, changes: Partial<LeaseKeeperOptions> = {}): LeaseKeeper {
    const store = openStore();
    const keeper = new LeaseKeeper({
      store,
      clock: systemClock,
      log,
      network: network(),
      attributes: attributesOf(host),
      ...changes,
    });
    keepers.push(keeper);
    follow(store, keeper);
    keeper.start();
    return keeper;
  }

  const held = (keeper: LeaseKeeper): Promise<LeaseRecord> =>
    waitFor(() => keeper.state === 'held' && keeper.lease, { what: 'a lease' });
  const keyOf = (lease: { readonly key: string }): string => `${prefix}/subnets/${lease.key}`;

  /** Looks at the leases at each revision, oldest first: none may overlap another, and no host have two. */
  async function assertHistoryIsSound(): Promise<void> {
    const range = { key: Buffer.from(`${prefix}/subnets/`), range_end: Buffer.from(`${prefix}/subnets0`) };
    const { header, kvs } = await raw.kv.range(range);
    const first = Math.min(...kvs.map((entry) => Number(entry.create_revision)), Number(header.revision));
    for (let revision = first; revision <= Number(header.revision); revision++) {
      const then = await raw.kv.range({ ...range, revision });
      const leases = then.kvs.flatMap(
        (entry) => decodeEntry(entry.key.toString().slice(`${prefix}/subnets/`.length), entry).lease ?? [],
      );
      assert.deepEqual(ownershipFaults(leases), [], `at revision ${revision}`);
    }
  }

  function narrow(last: string): NetworkConfig {
    const whole = network();
    return { ...whole, ipv4: whole.ipv4 && { ...whole.ipv4, max: ip(last) } };
  }

  it('takes over the lease with its public address', async () => {
    await raw.put(`${prefix}/subnets/10.5.40.0-24`, '{"PublicIP":"192.0.2.9"}', await flannelLease());
    await raw.put(`${prefix}/subnets/10.5.41.0-24`, '{"PublicIP":"192.0.2.1"}', await flannelLease());
    const lease = await held(start(1, { previousSubnets: { subnet: net('10.5.50.0/24') } }));
    assert.equal(lease.key, '10.5.41.0-24');
    assert.equal((await raw.get(keyOf(lease)))?.value, '{"PublicIP":"192.0.2.1","PublicIPv6":null}');
  });

  async function flannelLease(): Promise<string> {
    return (await raw.lease.leaseGrant({ TTL: 86_400 })).ID;
  }

  it('gives the etcd lease of flannel up once the key has its own', async () => {
    const old = await flannelLease();
    await raw.put(`${prefix}/subnets/10.5.41.0-24`, '{"PublicIP":"192.0.2.1"}', old);
    const lease = await held(start(1));
    const entry = await raw.get(keyOf(lease));
    assert.notEqual(entry?.lease, old);
    await waitFor(async () => (await raw.lease.leaseTimeToLive({ ID: old })).TTL === '-1', {
      what: 'the end of the former etcd lease, which nobody has to wait for',
    });
    assert.equal((await raw.lease.leaseTimeToLive({ ID: entry?.lease ?? '0' })).grantedTTL, '86400');
  });

  it('takes the previous subnet, else a free one', async () => {
    await mustCreate(openStore(), 50);
    const first = await held(start(1, { previousSubnets: { subnet: net('10.5.51.0/24') } }));
    const second = await held(start(2, { previousSubnets: { subnet: net('10.5.50.0/24') } }));
    assert.equal(first.key, '10.5.51.0-24');
    assert.ok(!['10.5.50.0-24', '10.5.51.0-24'].includes(second.key));
  });

  it('works its way past malformed keys and values, and leaves them alone', async () => {
    await raw.put(`${prefix}/subnets/10.5.1.0-24`, 'not json');
    await raw.put(`${prefix}/subnets/.lock`, 'x');
    await raw.put(`${prefix}/subnets/a/b/c`, 'x');
    const lease = await held(start(1, { network: narrow('10.5.2.0') }));
    assert.equal(lease.key, '10.5.2.0-24', 'a subnet with an unreadable value is somebody else’s');
    assert.equal((await raw.get(`${prefix}/subnets/10.5.1.0-24`))?.value, 'not json');
  });

  it('gives the last free subnet to exactly one of two', async () => {
    const two = [start(1, { network: narrow('10.5.1.0') }), start(2, { network: narrow('10.5.1.0') })];
    await waitFor(() => two.some(({ state }) => state === 'held'), { what: 'a winner' });
    await waitFor(() => log.find(/cannot acquire a lease/, 'error').length > 0, { what: 'a loser' });
    assert.deepEqual(two.map(({ state }) => state).sort(), ['acquiring', 'held']);
    await assertHistoryIsSound();
  });

  it('gives twelve hosts that start at once twelve subnets out of fourteen', async () => {
    const all = Array.from({ length: 12 }, (_, i) => start(i + 1, { network: narrow('10.5.14.0') }));
    const leases = await Promise.all(all.map(held));
    assert.equal(new Set(leases.map(({ key }) => key)).size, 12);
    await assertHistoryIsSound();
  });

  it('gets the same subnet again after its key was deleted by hand', async () => {
    const keeper = start(1);
    const lease = await held(keeper);
    await raw.delete(keyOf(lease));
    await waitFor(() => keeper.counters.losses === 1 && keeper.state === 'held', { what: 'the lease again' });
    assert.equal(keeper.lease?.key, lease.key);
    assert.equal((await raw.get(keyOf(lease)))?.value, '{"PublicIP":"192.0.2.1","PublicIPv6":null}');
  });

  it('moves away, loudly, from a key that another host overwrote', async () => {
    const keeper = start(1);
    const lease = await held(keeper);
    await raw.put(keyOf(lease), '{"PublicIP":"192.0.2.77"}');
    await waitFor(() => keeper.counters.losses === 1 && keeper.state === 'held', { what: 'another lease' });
    assert.notEqual(keeper.lease?.key, lease.key);
    assert.equal((await raw.get(keyOf(lease)))?.value, '{"PublicIP":"192.0.2.77"}');
    assert.equal(log.find(/taken by another host/, 'error').length, 1);
  });

  it('keeps a reservation without etcd lease, whatever it does', async () => {
    await openStore().reserve(subnetsOf(60), attributesOf(1), undefined);
    const keeper = start(1);
    const lease = await held(keeper);
    assert.equal(lease.isReservation, true);
    keeper.publish(attributesOf(1, { backendType: 'host-gw' }));
    await waitFor(async () => (await raw.get(keyOf(lease)))?.value.includes('host-gw'), { what: 'the new attributes' });
    assert.equal((await raw.get(keyOf(lease)))?.lease, '0');
    await keeper.close();
    await held(start(1));
    assert.equal((await raw.get(keyOf(lease)))?.lease, '0');
  });

  it('notices that its lease was made a reservation, and that it ended', async () => {
    const keeper = start(1);
    const lease = await held(keeper);
    await raw.put(keyOf(lease), '{"PublicIP":"192.0.2.1","PublicIPv6":null}');
    const reserved = await waitFor(() => keeper.lease?.isReservation === true && keeper.lease, {
      what: 'the reservation',
    });
    assert.equal(await openStore().unreserve(reserved, { ttlSeconds: 600 }), 'done');
    await waitFor(() => keeper.lease?.isReservation === false, { what: 'the lease' });
    await waitFor(() => keeper.counters.renewals > 0, { what: 'a keep-alive' });
    assert.equal(keeper.counters.losses, 0);
  });

  it('survives the end of its etcd lease', async () => {
    const keeper = start(1);
    const lease = await held(keeper);
    const { lease: id = '0' } = (await raw.get(keyOf(lease))) ?? {};
    await raw.lease.leaseRevoke({ ID: id });
    await waitFor(() => keeper.counters.losses === 1 && keeper.state === 'held', { what: 'the lease again' });
    assert.equal(keeper.lease?.key, lease.key);
  });

  it('renews a short lease in time, without writing the key', async () => {
    const keeper = start(1, { ttlSeconds: 3 });
    const lease = await held(keeper);
    await waitFor(() => keeper.counters.renewals >= 4, { what: 'four keep-alives' });
    assert.equal((await raw.get(keyOf(lease)))?.revision, lease.revision);
    assert.equal(keeper.counters.losses, 0);
  });

  it('keeps the lease when etcd is killed and started again', async () => {
    const keeper = start(1);
    const lease = await held(keeper);
    await server.kill();
    await server.start();
    keeper.publish(attributesOf(1, { backendType: 'ipip' }));
    await waitFor(() => keeper.lease?.attributes.backendType === 'ipip', { what: 'the new attributes' });
    assert.equal(keeper.lease?.key, lease.key);
    assert.equal(keeper.counters.losses, 0);
  });

  it('leaves its key at the end and finds it at the next start', async () => {
    const first = start(1);
    const lease = await held(first);
    await first.close();
    assert.ok((await raw.get(keyOf(lease))) !== undefined);
    assert.equal((await held(start(1))).key, lease.key);
  });
});
