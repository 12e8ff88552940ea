import assert from 'node:assert/strict';
import type { EtcdStore } from '../../../src/etcd/store.js';
import { UnusedEtcdLeases } from '../../../src/etcd/unused-etcd-leases.js';
import { LeaseKeeper } from '../../../src/lease/keeper.js';
import { PeerSet } from '../../../src/lease/peers.js';
import type { EtcdLeaseId } from '../../../src/lease/record.js';
import { silentLogger } from '../../../src/log.js';
import { network } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { admissionContext, follow } from '../../support/lease-world.js';
import type { Direction, Fate, SimLink } from '../../support/sim-etcd/link.js';
import { type SimStoreOptions, simStore } from '../../support/sim-etcd/sim-store.js';
import { SimFlannel } from '../../support/sim-flannel.js';
import { attributesOf, mustCreate, subnetsOf } from '../../support/store-contract.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const id = (n: number): EtcdLeaseId => n.toString(16) as EtcdLeaseId;

describe('UnusedEtcdLeases', () => {
  it('gives each up once, and those in use when they no longer are', async () => {
    const asked: string[] = [];
    const inUse = new Set([id(2)]);
    const unused = new UnusedEtcdLeases(
      (etcdLeaseId) => {
        asked.push(etcdLeaseId);
        return Promise.resolve(inUse.has(etcdLeaseId) ? 'in-use' : 'released');
      },
      new FakeClock(),
      silentLogger,
    );
    unused.add(id(1));
    await unused.sweep();
    unused.add(id(2));
    await unused.sweep();
    await unused.sweep();
    inUse.clear();
    await unused.sweep();
    await unused.sweep();
    assert.deepEqual(asked.filter((each) => each === id(1)).length, 1);
    assert.equal(asked.at(-1), id(2));
    const { length } = asked;
    await unused.sweep();
    assert.equal(asked.length, length);
  });

  it('stops at the first failure and begins again at the next sweep', async () => {
    let asked = 0;
    let isAway = true;
    const unused = new UnusedEtcdLeases(
      () => {
        asked++;
        return isAway ? Promise.reject(new Error('away')) : Promise.resolve('released');
      },
      new FakeClock(),
      silentLogger,
    );
    for (let n = 1; n <= 5; n++) unused.add(id(n));
    await unused.sweep();
    assert.equal(asked, 1);
    await unused.sweep();
    assert.equal(asked, 2, 'of all five, one');
    isAway = false;
    await unused.sweep();
    assert.equal(asked, 7);
  });

  it('tries again by itself, ever more seldom, until it is closed', async () => {
    const clock = new FakeClock();
    const askedAtMs: number[] = [];
    const release = (): Promise<'in-use'> => {
      askedAtMs.push(clock.monotonicMs());
      return Promise.resolve('in-use');
    };
    const unused = new UnusedEtcdLeases(release, clock, silentLogger);
    unused.add(id(1));
    await clock.advance(HOUR);
    const pauses = askedAtMs.slice(1).map((atMs, index) => atMs - (askedAtMs[index] ?? 0));
    assert.ok((pauses[0] ?? 0) < 2000, 'soon at first');
    assert.ok((pauses.at(-1) ?? 0) > 3 * MINUTE, 'seldom in the end');
    unused.close();
    const { length } = askedAtMs;
    await clock.advance(HOUR);
    assert.equal(askedAtMs.length, length);
    assert.equal(clock.pending, 0);
  });

  it('has a bound: the oldest are left to end by themselves', async () => {
    const released: string[] = [];
    let isAway = true;
    const unused = new UnusedEtcdLeases(
      (etcdLeaseId) => {
        if (isAway) return Promise.reject(new Error('away'));
        released.push(etcdLeaseId);
        return Promise.resolve('released');
      },
      new FakeClock(),
      silentLogger,
    );
    for (let n = 1; n <= 1000; n++) unused.add(id(n));
    await settle();
    isAway = false;
    await unused.sweep();
    assert.equal(released.length, 256);
    assert.equal(released.at(-1), id(1000));
  });
});

describe('etcd leases without a key', () => {
  let clock: FakeClock;
  let cluster: SimFlannel;
  let link: SimLink;
  let store: EtcdStore;
  let keeper: LeaseKeeper | undefined;

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimFlannel(clock);
    link = cluster.etcd.link('host-1');
    store = openStore();
    keeper = undefined;
  });

  afterEach(async () => {
    cluster.etcd.setAuth(undefined);
    await keeper?.close();
    await store.close();
    cluster.etcd.close();
  });

  const openStore = (options: SimStoreOptions = {}): EtcdStore =>
    simStore(clock, { cluster: cluster.etcd, pingIntervalMs: HOUR, ...options }).store;

  async function hold(on: EtcdStore): Promise<LeaseKeeper> {
    keeper = new LeaseKeeper({ store: on, clock, log: silentLogger, network: network(), attributes: attributesOf(1) });
    follow(on, keeper);
    keeper.start();
    await clock.advance(1);
    return keeper;
  }

  it('are not left by fifty deletions of the own key, and of peers’ keys', async () => {
    const { state } = await hold(store);
    assert.equal(state, 'held');
    const other = openStore({ host: 'host-2' });
    const peers = new PeerSet({ clock, log: silentLogger, context: admissionContext() });
    follow(store, peers);
    for (let turn = 0; turn < 50; turn++) {
      await mustCreate(other, 9);
      cluster.deleteLease(keeper?.lease?.key ?? '');
      await clock.advance(3000);
      const [lease] = (await other.listLeases()).leases.filter(({ key }) => key === '10.5.9.0-24');
      assert.ok(lease !== undefined);
      await other.deleteLease(lease);
    }
    await clock.advance(10 * MINUTE);
    assert.equal(keeper?.state, 'held');
    assert.deepEqual(cluster.etcd.orphanLeases(), []);
    assert.equal(cluster.etcd.leases.length, 1);
    peers.close();
    await other.close();
  });

  it('are not left by a day with a user who may only read', async () => {
    await store.close();
    const reader = {
      password: 'r',
      permissions: [{ type: 'read', key: '/coreos.com', rangeEnd: '/coreos.con' }],
    } as const;
    cluster.etcd.setAuth({ root: { password: 'x', permissions: 'root' }, reader });
    store = openStore({ username: 'reader', password: 'r' });
    await hold(store);
    let most = 0;
    for (let hour = 0; hour < 24; hour++) {
      await clock.advance(HOUR);
      most = Math.max(most, cluster.etcd.leases.length);
    }
    assert.notEqual(keeper?.state, 'held');
    assert.ok(most <= 2, String(most));
    assert.ok((link.requests['Lease.leaseGrant'] ?? 0) > 100, 'it tried');
  }).timeout(60_000);

  const methods = ['Lease.leaseGrant', 'KV.txn', 'Lease.leaseTimeToLive', 'Lease.leaseRevoke', 'KV.range'];
  const directions: readonly Direction[] = ['request', 'answer'];
  const fates: readonly Fate[] = ['lose', 'reset'];
  for (const method of methods) {
    for (const direction of directions) {
      for (const fate of fates) {
        it(`are not left when each ${direction} of ${method} is ${fate === 'lose' ? 'lost' : 'cut off'} in turn`, async () => {
          for (let nth = 1; nth <= 6; nth++) {
            let count = 0;
            link.intercept = (passing) =>
              passing.method === method && passing.direction === direction && ++count === nth ? fate : 'pass';
            const each = await hold(store);
            await clock.advance(MINUTE);
            const { lease } = each;
            assert.ok(lease !== undefined);
            each.publish(attributesOf(1, { backendType: `t${nth}` }));
            await clock.advance(MINUTE);
            cluster.deleteLease(lease.key);
            await clock.advance(MINUTE);
            link.intercept = undefined;
            await clock.advance(11 * MINUTE);
            assert.equal(each.state, 'held');
            assert.deepEqual(cluster.etcd.orphanLeases(), [], `the ${nth}th`);
            assert.equal(cluster.etcd.leases.length, 1);
            await each.close();
          }
        }).timeout(60_000);
      }
    }
  }

  it('are not left by a create that comes too late, nor by a reuse of what has changed', async () => {
    const other = openStore({ host: 'host-2' });
    const lease = await mustCreate(other, 7);
    const taken = await store.createLease({ subnets: subnetsOf(7), attributes: attributesOf(1), ttlSeconds: 600 });
    assert.equal(taken.outcome, 'taken');
    await other.publishLease(lease, attributesOf(7, { backendType: 'x' }));
    assert.equal((await store.reuseLease(lease, attributesOf(1), 600)).outcome, 'changed');
    assert.deepEqual(cluster.etcd.orphanLeases(), []);
    await other.close();
  });
});
