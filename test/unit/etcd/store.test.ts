import assert from 'node:assert/strict';
import { systemClock } from '../../../src/clock.js';
import type { EtcdStore } from '../../../src/etcd/store.js';
import type { EtcdLeaseId } from '../../../src/lease/record.js';
import { ip } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { SimEtcdCluster } from '../../support/sim-etcd/cluster.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { type SimStoreOptions, simStore } from '../../support/sim-etcd/sim-store.js';
import { attributesOf, describeStoreContract, mustCreate, subnetsOf } from '../../support/store-contract.js';

describeStoreContract('EtcdStore on a simulated cluster', () => {
  // TTLs of the contract last minutes; their timers must not keep the test process.
  const clock = {
    ...systemClock,
    after: (ms: number, callback: () => void) => {
      const timer = setTimeout(callback, ms).unref();
      return () => clearTimeout(timer);
    },
  };
  const cluster = new SimEtcdCluster({ clock });
  return {
    store: simStore(clock, { cluster, host: 'host-1' }).store,
    other: simStore(clock, { cluster, host: 'host-2' }).store,
    poke: (key, value) => {
      cluster.put(`/coreos.com/network/subnets/${key}`, value);
      return Promise.resolve();
    },
  };
});

describe('EtcdStore', () => {
  const CONFIG = '/coreos.com/network/config';
  let clock: FakeClock;
  let cluster: SimEtcdCluster;
  let link: SimLink;
  let store: EtcdStore;

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimEtcdCluster({ clock });
    link = cluster.link('host-1');
    store = openStore();
  });

  afterEach(async () => {
    await store.close();
    cluster.close();
  });

  const openStore = (options: SimStoreOptions = {}): EtcdStore => simStore(clock, { cluster, ...options }).store;

  /** A new process of the host after one that is killed, which closes nothing. */
  async function restart(options: SimStoreOptions = {}): Promise<void> {
    await store.close();
    store = openStore(options);
  }

  const orphans = (): readonly string[] => cluster.orphanLeases().map(({ id }) => BigInt(id).toString(16));

  for (const [title, user, isUsed] of [
    ['user and password', { username: 'reader', password: 'r' }, true],
    ['no user without password', { username: 'reader' }, false],
    ['no password without user', { password: 'r' }, false],
  ] as const) {
    it(`logs in with ${title}`, async () => {
      const permissions = [{ type: 'read', key: '/coreos.com', rangeEnd: '/coreos.con' }] as const;
      cluster.setAuth({ root: { password: 'x', permissions: 'root' }, reader: { password: 'r', permissions } });
      await restart(user);
      if (isUsed) assert.deepEqual((await store.listLeases()).leases, []);
      else await assert.rejects(store.listLeases(), { code: 'ERR_ETCD_AUTH' });
      assert.equal(link.requests['Auth.authenticate'], isUsed ? 1 : undefined);
      cluster.setAuth(undefined);
    });
  }

  for (const [title, options, expectedMs] of [
    ['five seconds', {}, 5000],
    ['the time that it is given', { callTimeoutMs: 300 }, 300],
  ] as const) {
    it(`gives a request up after ${title}`, async () => {
      await restart(options);
      link.partition('hang');
      let failedAtMs: number | undefined;
      const startedAtMs = clock.monotonicMs();
      const request = store.readConfig().catch(() => (failedAtMs = clock.monotonicMs()));
      await clock.advance(10_000);
      await request;
      assert.equal(failedAtMs, startedAtMs + expectedMs);
    });
  }

  for (const [title, options, silenceMs] of [
    ['ten seconds', {}, 10_000],
    ['the time that it is given', { pingIntervalMs: 700 }, 700],
  ] as const) {
    it(`asks whether a connection in use is well after ${title} of silence, and leaves it five seconds later`, async () => {
      await restart(options);
      store.watchValues('hosts/', () => {});
      await clock.advance(0);
      link.partition('hang');
      await clock.advance(silenceMs + 4999);
      assert.equal(link.streamCount, 1);
      await clock.advance(1);
      assert.equal(link.streamCount, 0);
    });
  }

  it('hears on new connections what has come up before the network of the host changed', async () => {
    let text: string | undefined;
    store.followWorld(({ config }) => (text = config?.text));
    await clock.advance(1);
    link.freezeStreams();
    cluster.put(CONFIG, 'new');
    await clock.advance(5000);
    assert.equal(text, undefined);
    store.networkChanged();
    await clock.advance(200);
    assert.equal(text, 'new');
  });

  for (const [title, follow] of [
    ['watching values', () => store.watchValues('hosts/', () => {})],
    ['following values', () => store.followValues('hosts/', () => {})],
  ] as const) {
    it(`stops ${title} when it is closed`, async () => {
      follow();
      await clock.advance(1);
      assert.equal(link.streamCount, 1);
      await store.close();
      await clock.advance(0);
      cluster.close();
      assert.equal(clock.pending, 0);
    });
  }

  it('tells the versions of the configuration, the newest first, since it was created', async () => {
    assert.deepEqual(await store.configHistory(5), { versions: [], end: 'first' });
    cluster.put(CONFIG, 'of before');
    cluster.delete(CONFIG);
    for (const text of ['one', 'two', 'three']) {
      cluster.put(CONFIG, text);
      cluster.put('/coreos.com/network/subnets/10.5.9.0-24', text); // revisions in between are not the configuration's
    }
    const all = await store.configHistory(5);
    assert.deepEqual([all.versions.map(({ text }) => text), all.end], [['three', 'two', 'one'], 'first']);
    assert.deepEqual(await store.readConfig(), all.versions[0]);
    const few = await store.configHistory(2);
    assert.deepEqual([few.versions.map(({ text }) => text), few.end], [['three', 'two'], 'limit']);
    cluster.compact();
    const { versions, end } = await store.configHistory(5);
    assert.deepEqual([versions.map(({ text }) => text), end], [['three'], 'compacted']);
  });

  it('knows the first version of the configuration for that, although what was before is compacted', async () => {
    cluster.put(CONFIG, 'one');
    cluster.compact();
    const { versions, end } = await store.configHistory(5);
    assert.deepEqual([versions.map(({ text }) => text), end], [['one'], 'first']);
  });

  describe('etcd leases', () => {
    const create = (n: number, publicIp = `192.0.2.${n}`): ReturnType<EtcdStore['createLease']> => {
      const attributes = attributesOf(n, { publicIp: ip(publicIp) });
      return store.createLease({ subnets: subnetsOf(n), attributes, ttlSeconds: 600 });
    };

    /** Leaves what a host has that is killed between the grant of an etcd lease and the write of its key. */
    async function crashBeforeWriting(n: number, publicIp?: string): Promise<void> {
      link.intercept = ({ method }) => (method === 'KV.txn' ? 'lose' : 'pass');
      void create(n, publicIp).catch(() => {});
      await clock.advance(1);
      link.intercept = undefined;
      await restart();
    }

    it('have ids of its own choice', async () => {
      await restart({ newEtcdLeaseId: () => 0x1234n });
      assert.equal(await store.grantTtl(60), '1234');
    });

    it('that are refused are none', async () => {
      await restart({ callTimeoutMs: 10 });
      link.partition('refuse');
      const request = assert.rejects(store.grantTtl(60), { code: 'ERR_ETCD_UNAVAILABLE' });
      await clock.advance(100);
      await request;
    });

    it('have a last second', async () => {
      const etcdLeaseId = await store.grantTtl(1);
      await clock.advance(1500); // etcd makes two seconds of one
      assert.equal(await store.remainingTtl(etcdLeaseId), 0);
    });

    it('that an earlier process of the host left behind are given up, and no others', async () => {
      await crashBeforeWriting(7);
      const [left] = orphans();
      const stranger = BigInt(cluster.grantLease(600)).toString(16);
      await crashBeforeWriting(8);
      const ofNeighbour = orphans().find((id) => id !== left && id !== stranger);
      assert.deepEqual(orphans().length, 3);
      await create(7);
      await clock.advance(1);
      assert.deepEqual([...orphans()].sort(), [stranger, ofNeighbour].sort());
    });

    it('are looked for once, as long as the host has the same address', async () => {
      for (const n of [1, 2, 3]) await create(n, '192.0.2.1');
      assert.equal(link.requests['Lease.leaseLeases'], 1);
      await create(4, '192.0.2.4');
      assert.equal(link.requests['Lease.leaseLeases'], 2);
    });

    it('are looked for again if that failed, and the lease is created meanwhile', async () => {
      await crashBeforeWriting(7);
      link.intercept = ({ method }) => (method === 'Lease.leaseLeases' ? 'lose' : 'pass');
      const request = create(8, '192.0.2.7');
      await clock.advance(10_000);
      assert.equal((await request).outcome, 'created');
      link.intercept = undefined;
      await create(9, '192.0.2.7');
      await clock.advance(1);
      assert.deepEqual(orphans(), []);
    });

    it('are asked for no more once the request was aborted', async () => {
      const aborting = new AbortController();
      link.intercept = ({ method }) => {
        if (method === 'Lease.leaseLeases') aborting.abort(new Error('enough'));
        return 'pass';
      };
      const lease = { subnets: subnetsOf(7), attributes: attributesOf(7), ttlSeconds: 600 };
      await assert.rejects(store.createLease(lease, aborting.signal), /enough/);
      await clock.advance(1);
      assert.deepEqual(link.requests, { 'Lease.leaseLeases': 1 });
    });

    // Every host without IPv4 publishes that: a mark made of it would be all of theirs.
    it('of other hosts without an address are left alone', async () => {
      await crashBeforeWriting(7, '0.0.0.0');
      await create(8, '0.0.0.0');
      await clock.advance(1);
      assert.equal(orphans().length, 1);
      assert.equal(link.requests['Lease.leaseLeases'], undefined);
    });

    it('are given up as soon as nothing hangs on them any more', async () => {
      for (const write of [
        async (other: EtcdLeaseId) => store.putValue('hosts/a', 'two', { etcdLeaseId: other }),
        async (other: EtcdLeaseId) => {
          cluster.delete('/coreos.com/network-ts/hosts/a');
          await store.keepAlive(other);
        },
        async () => {
          cluster.delete('/coreos.com/network-ts/hosts/a');
          await store.grantTtl(60);
        },
      ]) {
        const [first, second] = [await store.grantTtl(60), await store.grantTtl(60)];
        await store.putValue('hosts/a', 'one', { etcdLeaseId: first });
        store.discardEtcdLease(first);
        await clock.advance(1);
        assert.notEqual(await store.remainingTtl(first), undefined, 'in use');
        await write(second);
        await clock.advance(1);
        assert.equal(await store.remainingTtl(first), undefined);
      }
    });

    it('that a lease had are given up later if a value hangs on them', async () => {
      const lease = await mustCreate(store, 7);
      await store.putValue('hosts/7', 'up', { etcdLeaseId: lease.etcdLeaseId });
      await store.reuseLease(lease, attributesOf(7), 600);
      assert.equal(cluster.leases.length, 2);
      await store.deleteValue('hosts/7');
      await clock.advance(5000);
      assert.equal(cluster.leases.length, 1);
    });

    it('that a lease had are given up once', async () => {
      const lease = await mustCreate(store, 7);
      await store.reuseLease(lease, attributesOf(7), 600);
      await clock.advance(5000);
      assert.equal(cluster.leases.length, 1);
      assert.equal(link.requests['Lease.leaseRevoke'], 1);
    });

    it('are not asked about just when etcd is lost', async () => {
      const etcdLeaseId = await store.grantTtl(3600);
      await store.putValue('hosts/a', 'one', { etcdLeaseId });
      store.discardEtcdLease(etcdLeaseId);
      await clock.advance(1);
      link.partition('refuse');
      const { requests } = link;
      await assert.rejects(store.readConfig(), { code: 'ERR_ETCD_UNAVAILABLE' });
      await clock.advance(1);
      assert.equal(link.requests['Lease.leaseTimeToLive'], requests['Lease.leaseTimeToLive']);
    });

    it('are given up as soon as etcd is back', async () => {
      const etcdLeaseId = await store.grantTtl(3600);
      link.partition('refuse');
      store.discardEtcdLease(etcdLeaseId);
      await clock.advance(600_000); // by itself it would be tried again after minutes
      link.heal();
      await store.readConfig();
      await clock.advance(1);
      assert.deepEqual(orphans(), []);
    });

    it('wait for nothing once the store is closed', async () => {
      const etcdLeaseId = await store.grantTtl(3600);
      await store.putValue('hosts/a', 'one', { etcdLeaseId });
      store.discardEtcdLease(etcdLeaseId);
      await clock.advance(1);
      await store.close();
      await clock.advance(0);
      cluster.close();
      assert.equal(clock.pending, 0);
    });
  });
});
