import assert from 'node:assert/strict';
import type { EtcdStore } from '../../../src/etcd/store.js';
import { encodeAttributes } from '../../../src/lease/attributes.js';
import type { CreateResult, UpdateResult } from '../../../src/lease/store.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import { FakeClock } from '../../support/fake-clock.js';
import { SimEtcdCluster } from '../../support/sim-etcd/cluster.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { attributesOf, mustCreate, subnetsOf } from '../../support/store-contract.js';

const KEY = '/coreos.com/network/subnets/10.5.7.0-24';
const VXLAN = attributesOf(7, { backendType: 'vxlan', backendData: { VNI: 1 } });

// A member carries a write out and is gone before it answers: the store asks the next one, and finds its own doing.
describe('EtcdStore after a lost answer', () => {
  let clock: FakeClock;
  let cluster: SimEtcdCluster;
  let link: SimLink;
  let store: EtcdStore;

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimEtcdCluster({ clock, members: ['etcd-1:2379', 'etcd-2:2379'] });
    link = cluster.link('host-1');
    ({ store } = simStore(clock, { cluster }));
  });

  afterEach(async () => {
    await store.close();
    cluster.close();
  });

  async function done<T>(request: Promise<T>): Promise<T> {
    await clock.advance(100);
    return request;
  }

  /** Does this while the answer to the first write of the request is lost. */
  async function losing<T>(request: () => Promise<T>, meanwhile = (): void => {}): Promise<T> {
    let isLost = false;
    link.intercept = ({ direction, method }) => {
      if (isLost || direction !== 'answer' || method !== 'KV.txn') return 'pass';
      isLost = true;
      meanwhile();
      return 'reset';
    };
    const result = await done(request());
    assert.ok(isLost);
    return result;
  }

  const create = (ttlSeconds: number | undefined): Promise<CreateResult> =>
    store.createLease({ subnets: subnetsOf(7), attributes: attributesOf(7), ttlSeconds });

  it('holds what it created, and lists everything', async () => {
    const other = await done(mustCreate(store, 8));
    const result = await losing(() => create(600));
    assert.ok(result.outcome === 'created' && result.lease.etcdLeaseId !== undefined);
    assert.deepEqual(result.snapshot.leases, [result.lease, other]);
    assert.equal(await done(store.remainingTtl(result.lease.etcdLeaseId)), 599);
  });

  it('does not hold what another host of the same address has created since', async () => {
    const result = await losing(
      () => create(600),
      () => cluster.put(KEY, encodeAttributes(attributesOf(7)), cluster.grantLease(600)),
    );
    assert.equal(result.outcome, 'taken');
  });

  for (const [title, write, isReservation] of [
    ['reused', (lease) => store.reuseLease(lease, VXLAN, 900), false],
    ['published', (lease) => store.publishLease(lease, VXLAN), false],
    ['reserved', (lease) => store.reserve(lease, VXLAN, lease), true],
  ] as readonly [string, (lease: LeaseRecord) => Promise<UpdateResult>, boolean][]) {
    it(`knows what it ${title}`, async () => {
      const lease = await done(mustCreate(store, 7));
      const result = await losing(() => write(lease));
      assert.ok(result.outcome === 'updated');
      assert.deepEqual([result.lease.attributes, result.lease.isReservation], [VXLAN, isReservation]);
    });

    it(`does not take what another host wrote since for what it ${title}`, async () => {
      const lease = await done(mustCreate(store, 7));
      const theirs = encodeAttributes(VXLAN);
      const result = await losing(
        () => write(lease),
        () => cluster.put(KEY, theirs, cluster.grantLease(600)),
      );
      assert.ok(result.outcome === 'changed');
      assert.equal(result.now.revision, String(cluster.revision));
    });
  }

  it('knows a reservation that it made, and one that it ended', async () => {
    const made = await losing(() => store.reserve(subnetsOf(7), attributesOf(7), undefined));
    assert.ok(made.outcome === 'updated' && made.lease.isReservation);
    assert.equal(await losing(() => store.unreserve(made.lease, { ttlSeconds: 600 })), 'done');
    assert.notEqual(cluster.get(KEY)?.leaseId, '0');
  });

  it('has deleted what is gone', async () => {
    const lease = await done(mustCreate(store, 7));
    assert.equal(await losing(() => store.deleteLease(lease)), 'deleted');
  });

  it('knows the configuration that it changed', async () => {
    const first = await done(store.writeConfig('one', 'absent'));
    assert.ok(first.outcome === 'written');
    const second = await losing(
      () => store.writeConfig('two', { revision: first.revision }),
      () => cluster.put(KEY, 'of another host'),
    );
    assert.deepEqual(second, { outcome: 'written', revision: String(cluster.revision - 1) });
  });

  it('cannot tell the first configuration that it wrote from the same one of another host', async () => {
    const result = await losing(() => store.writeConfig('one', 'absent'));
    assert.ok(result.outcome === 'conflict');
    assert.equal(result.current?.text, 'one');
  });

  it('knows a value that hangs on its own etcd lease', async () => {
    const etcdLeaseId = await done(store.grantTtl(60));
    const result = await losing(() => store.putValue('hosts/a', 'one', { expected: 'absent', etcdLeaseId }));
    assert.equal(result.outcome, 'written');
  });
});
