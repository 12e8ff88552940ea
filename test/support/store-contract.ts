import assert from 'node:assert/strict';
import type { EtcdStore } from '../../src/etcd/store.js';
import type { LeaseAttributes } from '../../src/lease/lease.js';
import type { LeaseRecord } from '../../src/lease/record.js';
import type {
  OperatorStore,
  OwnLeaseStore,
  SharedValueStore,
  StoreCounters,
  ValueStore,
  WorldStore,
} from '../../src/lease/store.js';
import type { World } from '../../src/lease/world.js';
import { ip, net } from './builders.js';
import { waitFor } from './wait.js';

/** Every side of a store, and the handles that it makes for itself. */
export type WholeStore = WorldStore &
  OwnLeaseStore &
  ValueStore &
  SharedValueStore &
  OperatorStore &
  Pick<EtcdStore, 'revokeEtcdLease'>;

/** A store to test, and a way around it. */
export interface StoreFixture {
  readonly store: WholeStore;
  /** A second host's store on the same data. */
  readonly other: WholeStore;
  /** Writes a key below `subnets/` as another program would, without TTL. */
  poke(key: string, value: string): Promise<void>;
}

/** What a host without backend data publishes. */
export function attributesOf(n: number, changes: Partial<LeaseAttributes> = {}): LeaseAttributes {
  return {
    publicIp: ip(`192.0.2.${n}`),
    publicIpv6: undefined,
    backendType: '',
    backendData: undefined,
    backendV6Data: undefined,
    ...changes,
  };
}

/** 10.5.`n`.0/24, with fd00:10:5:`v6`::/64 if given. */
export function subnetsOf(
  n: number,
  v6?: number,
): { subnet: ReturnType<typeof net>; ipv6Subnet: ReturnType<typeof net> | undefined } {
  return {
    subnet: net(`10.5.${n}.0/24`),
    ipv6Subnet: v6 === undefined ? undefined : net(`fd00:10:5:${v6.toString(16)}::/64`),
  };
}

/** Creates a lease and fails if it cannot be had. */
export async function mustCreate(
  store: WholeStore,
  n: number,
  ttlSeconds: number | undefined = 600,
): Promise<LeaseRecord> {
  const result = await store.createLease({ subnets: subnetsOf(n), attributes: attributesOf(n), ttlSeconds });
  assert.ok(result.outcome === 'created');
  return result.lease;
}

/** What every {@link WholeStore} does; each test begins with an empty store. */
export function describeStoreContract(name: string, open: () => Promise<StoreFixture> | StoreFixture): void {
  describe(`${name} as a store of leases`, () => {
    let store: WholeStore;
    let other: WholeStore;
    let fixture: StoreFixture;

    beforeEach(async () => {
      fixture = await open();
      ({ store, other } = fixture);
    });

    afterEach(async () => {
      await store.close();
      await other.close();
    });

    it('has no configuration at first, and gives what was written', async () => {
      assert.equal(await store.readConfig(), undefined);
      const first = await store.writeConfig('{"Network":"10.5.0.0/16"}', 'absent');
      assert.ok(first.outcome === 'written');
      const { revision } = first;
      assert.deepEqual(await other.readConfig(), { text: '{"Network":"10.5.0.0/16"}', revision, createdAt: revision });
      const second = await store.writeConfig('{}', { revision });
      assert.ok(second.outcome === 'written');
      assert.deepEqual(await other.readConfig(), { text: '{}', revision: second.revision, createdAt: revision });
    });

    it('writes the configuration only if it is still the expected one', async () => {
      const first = await store.writeConfig('one', 'absent');
      assert.ok(first.outcome === 'written');
      assert.equal((await other.writeConfig('two', 'absent')).outcome, 'conflict');
      assert.equal((await other.writeConfig('two', { revision: first.revision })).outcome, 'written');
      const late = await store.writeConfig('three', { revision: first.revision });
      assert.ok(late.outcome === 'conflict');
      assert.equal(late.current?.text, 'two');
      assert.equal((await store.writeConfig('four', 'any')).outcome, 'written');
    });

    it('reports the configuration as it is and each time it is written', async () => {
      const seen: (string | undefined)[] = [];
      const subscription = store.followWorld(({ config }) => seen.push(config?.text));
      await waitFor(() => seen.length === 1, { what: 'the first report' });
      await other.writeConfig('one', 'any');
      await other.writeConfig('two', 'any');
      await waitFor(() => seen.at(-1) === 'two', { what: 'the last report' });
      subscription.close();
      await other.writeConfig('three', 'any');
      await store.readConfig();
      assert.equal(seen[0], undefined);
      assert.ok(!seen.includes('three'));
    });

    it('creates a lease with TTL and lists it', async () => {
      const lease = await mustCreate(store, 7);
      assert.equal(lease.key, '10.5.7.0-24');
      assert.equal(lease.isReservation, false);
      assert.ok(lease.etcdLeaseId !== undefined);
      const left = await store.remainingTtl(lease.etcdLeaseId);
      assert.ok(left !== undefined && left > 590 && left <= 600, `${left} s left`);
      const { leases, revision } = await other.listLeases();
      assert.deepEqual(leases, [lease]);
      assert.equal(revision, lease.revision);
    });

    it('shows the other leases at the instant of creation', async () => {
      const first = await mustCreate(store, 7);
      const second = await other.createLease({ subnets: subnetsOf(8), attributes: attributesOf(8), ttlSeconds: 600 });
      assert.ok(second.outcome === 'created');
      assert.deepEqual(
        second.snapshot.leases.map(({ key }) => key),
        [first.key, second.lease.key],
      );
    });

    for (const [title, mine, theirs] of [
      ['the same key', subnetsOf(7), subnetsOf(7)],
      ['a dual-stack key with the same IPv4 subnet', subnetsOf(7), subnetsOf(7, 1)],
      ['an IPv4 key that a dual-stack one begins with', subnetsOf(7, 1), subnetsOf(7)],
      ['a dual-stack key that differs in IPv6 only', subnetsOf(7, 1), subnetsOf(7, 2)],
    ] as const) {
      it(`refuses to create ${title}`, async () => {
        const attributes = attributesOf(7);
        const ttlSeconds = 600;
        assert.equal((await store.createLease({ subnets: mine, attributes, ttlSeconds })).outcome, 'created');
        const second = await other.createLease({ subnets: theirs, attributes: attributesOf(8), ttlSeconds });
        assert.equal(second.outcome, 'taken');
        assert.equal((await store.listLeases()).leases.length, 1);
      });
    }

    it('replaces an own lease by another in one step', async () => {
      const old = await mustCreate(store, 7);
      const worlds: (readonly string[])[] = [];
      other.followWorld(({ leases }) => worlds.push([...leases.keys()]));
      await waitFor(() => worlds.length > 0, { what: 'the first world' });
      const result = await store.createLease({
        subnets: subnetsOf(7, 1),
        attributes: attributesOf(7),
        ttlSeconds: 600,
        replacing: old,
      });
      assert.equal(result.outcome, 'created');
      await waitFor(() => worlds.length > 1, { what: 'the change' });
      assert.deepEqual(worlds, [['10.5.7.0-24'], ['10.5.7.0-24&fd00:10:5:1::-64']]);
      assert.deepEqual(
        (await store.listLeases()).leases.map(({ key }) => key),
        ['10.5.7.0-24&fd00:10:5:1::-64'],
      );
      assert.ok(old.etcdLeaseId !== undefined);
      assert.equal(await store.remainingTtl(old.etcdLeaseId), undefined);
    });

    it('replaces an own lease by one under the same key', async () => {
      const old = await mustCreate(store, 7);
      const attributes = attributesOf(7, { backendType: 'host-gw' });
      const result = await store.createLease({ subnets: subnetsOf(7), attributes, ttlSeconds: 600, replacing: old });
      assert.ok(result.outcome === 'created');
      assert.deepEqual((await other.listLeases()).leases, [result.lease]);
      assert.deepEqual(result.lease.attributes, attributes);
    });

    it('does not replace an own lease by a key that another host has', async () => {
      const old = await mustCreate(store, 7);
      const theirs = await mustCreate(other, 8);
      const replacing = { subnets: subnetsOf(8), attributes: attributesOf(7), ttlSeconds: 600, replacing: old };
      assert.deepEqual(await store.createLease(replacing), { outcome: 'taken', revision: theirs.revision });
      assert.deepEqual((await store.listLeases()).leases, [old, theirs]);
    });

    it('does not replace a lease that has changed meanwhile', async () => {
      const old = await mustCreate(store, 7);
      await other.publishLease(old, attributesOf(9));
      const subnets = subnetsOf(8);
      const result = await store.createLease({ subnets, attributes: attributesOf(7), ttlSeconds: 600, replacing: old });
      assert.equal(result.outcome, 'taken');
      assert.deepEqual(
        (await store.listLeases()).leases.map(({ key }) => key),
        ['10.5.7.0-24'],
      );
    });

    it('reuses a lease with a fresh TTL and gives the old one up', async () => {
      const lease = await mustCreate(store, 7);
      const result = await store.reuseLease(lease, attributesOf(7, { backendType: 'host-gw' }), 900);
      assert.ok(
        result.outcome === 'updated' && result.lease.etcdLeaseId !== undefined && lease.etcdLeaseId !== undefined,
      );
      assert.notEqual(result.lease.etcdLeaseId, lease.etcdLeaseId);
      assert.equal(result.lease.attributes.backendType, 'host-gw');
      assert.equal(await store.remainingTtl(lease.etcdLeaseId), undefined);
      const left = await store.remainingTtl(result.lease.etcdLeaseId);
      assert.ok(left !== undefined && left > 600);
      assert.deepEqual((await store.listLeases()).leases, [result.lease]);
    });

    it('keeps a TTL that another key is still attached to when a lease is reused', async () => {
      const lease = await mustCreate(store, 7);
      await store.putValue('hosts/7', 'up', { etcdLeaseId: lease.etcdLeaseId });
      await store.reuseLease(lease, attributesOf(7), 600);
      assert.ok(lease.etcdLeaseId !== undefined);
      assert.notEqual(await store.remainingTtl(lease.etcdLeaseId), undefined);
      assert.equal((await store.listValues('hosts/')).length, 1);
      assert.equal(await store.revokeEtcdLease(lease.etcdLeaseId), 'in-use');
    });

    for (const [title, write] of [
      ['reuse', (lease: LeaseRecord) => store.reuseLease(lease, attributesOf(7), 600)],
      ['publish', (lease: LeaseRecord) => store.publishLease(lease, attributesOf(7))],
      ['reserve', (lease: LeaseRecord) => store.reserve(lease, attributesOf(7), lease)],
    ] as const) {
      it(`does not ${title} over what another host wrote meanwhile`, async () => {
        const lease = await mustCreate(store, 7);
        const theirs = await other.publishLease(lease, attributesOf(9));
        assert.ok(theirs.outcome === 'updated');
        const result = await write(lease);
        assert.ok(result.outcome === 'changed');
        assert.deepEqual(result.now.lease, theirs.lease);
      });

      it(`does not bring a deleted key back to ${title} it`, async () => {
        const lease = await mustCreate(store, 7);
        assert.equal(await other.deleteLease(lease), 'deleted');
        const result = await write(lease);
        assert.ok(result.outcome === 'changed');
        assert.equal(result.now.lease, undefined);
        assert.deepEqual((await store.listLeases()).leases, []);
      });
    }

    it('publishes attributes and leaves the TTL alone', async () => {
      const lease = await mustCreate(store, 7);
      const data = { VNI: 1, VtepMAC: '02:42:ac:11:00:09' };
      const result = await store.publishLease(lease, attributesOf(7, { backendType: 'vxlan', backendData: data }));
      assert.ok(result.outcome === 'updated');
      assert.equal(result.lease.etcdLeaseId, lease.etcdLeaseId);
      assert.deepEqual(result.lease.attributes.backendData, data);
      assert.notEqual(result.lease.revision, lease.revision);
    });

    it('deletes a lease only as it was last seen', async () => {
      const lease = await mustCreate(store, 7);
      const changed = await other.publishLease(lease, attributesOf(9));
      assert.equal(await store.deleteLease(lease), 'changed');
      assert.ok(changed.outcome === 'updated');
      assert.equal(await store.deleteLease(changed.lease), 'deleted');
      assert.deepEqual((await store.listLeases()).leases, []);
      assert.ok(lease.etcdLeaseId !== undefined);
      assert.equal(await store.remainingTtl(lease.etcdLeaseId), undefined, 'nor does its TTL stay');
      assert.equal(await store.deleteLease(changed.lease), 'deleted', 'repeating it is safe');
    });

    it('makes a reservation, which nothing turns into a lease that expires', async () => {
      const made = await store.reserve(subnetsOf(7), attributesOf(7), undefined);
      assert.ok(made.outcome === 'updated');
      assert.equal(made.lease.isReservation, true);
      const reused = await other.reuseLease(made.lease, attributesOf(7, { backendType: 'host-gw' }), 600);
      assert.ok(reused.outcome === 'updated');
      const published = await other.publishLease(reused.lease, attributesOf(7));
      assert.ok(published.outcome === 'updated');
      assert.equal(published.lease.isReservation, true);
      assert.equal(published.lease.etcdLeaseId, undefined);
    });

    it('refuses a reservation of a subnet that another host has', async () => {
      const lease = await mustCreate(store, 7);
      const result = await other.reserve(subnetsOf(7), attributesOf(9), undefined);
      assert.ok(result.outcome === 'changed');
      assert.deepEqual(result.now.lease, lease);
    });

    it('turns a lease into a reservation and back', async () => {
      const lease = await mustCreate(store, 7);
      const reserved = await other.reserve(lease, lease.attributes, lease);
      assert.ok(reserved.outcome === 'updated' && reserved.lease.isReservation);
      assert.ok(lease.etcdLeaseId !== undefined);
      assert.equal(await store.remainingTtl(lease.etcdLeaseId), undefined);
      assert.equal(await other.unreserve(reserved.lease, { ttlSeconds: 300 }), 'done');
      const [again] = (await store.listLeases()).leases;
      assert.equal(again?.isReservation, false);
      assert.deepEqual(again.attributes, lease.attributes);
    });

    it('ends a reservation at once if told so', async () => {
      const made = await store.reserve(subnetsOf(7), attributesOf(7), undefined);
      assert.ok(made.outcome === 'updated');
      assert.equal(await store.unreserve(made.lease, 'delete'), 'done');
      assert.deepEqual((await store.listLeases()).leases, []);
    });

    it('keeps a TTL alive as long as it exists', async () => {
      const etcdLeaseId = await store.grantTtl(60);
      assert.equal(await other.keepAlive(etcdLeaseId), 60);
      assert.equal(await store.revokeEtcdLease(etcdLeaseId), 'released');
      assert.equal(await other.keepAlive(etcdLeaseId), undefined);
      assert.equal(await other.remainingTtl(etcdLeaseId), undefined);
      assert.equal(await store.revokeEtcdLease(etcdLeaseId), 'released', 'repeating it is safe');
    });

    it('lists entries that are no leases apart from the leases', async () => {
      const lease = await mustCreate(store, 7);
      await fixture.poke('not-a-lease', '{}');
      await fixture.poke('10.5.9.0-24', 'not json');
      await fixture.poke('deeper/10.5.10.0-24', '{"PublicIP":"192.0.2.10"}');
      const { leases, bad } = await store.listLeases();
      assert.deepEqual(leases, [lease]);
      assert.deepEqual(
        bad.map(({ key, reason, subnets }) => [key, reason.replace(/:.*/, ''), subnets?.subnet.toString()]),
        [
          ['10.5.9.0-24', 'cannot read the value of a lease', '10.5.9.0/24'],
          ['deeper/10.5.10.0-24', 'cannot read the lease key "deeper/10.5.10.0-24"', undefined],
          ['not-a-lease', 'cannot read the lease key "not-a-lease"', undefined],
        ],
      );
    });

    it('reports all leases, then every change of them in order', async () => {
      const first = await mustCreate(store, 1);
      const worlds: World[] = [];
      store.followWorld((world) => worlds.push(world));
      const latest = (): World => {
        const world = worlds.at(-1);
        assert.ok(world !== undefined);
        return world;
      };
      const hasReached = (what: string, isThere: (world: World) => boolean): Promise<true> =>
        waitFor(() => worlds.length > 0 && isThere(latest()), { what });
      await hasReached('the first world', () => true);
      const second = await mustCreate(other, 2);
      await hasReached('a lease', ({ leases }) => leases.has(second.key));
      await fixture.poke('10.5.3.0-24', 'bad');
      await hasReached('an unreadable value', ({ bad }) => bad.has('10.5.3.0-24'));
      const changed = await other.publishLease(second, attributesOf(4));
      assert.ok(changed.outcome === 'updated');
      await hasReached('a change', ({ leases }) => leases.get(second.key)?.revision === changed.lease.revision);
      await other.deleteLease(first);
      await hasReached('a deletion', ({ leases }) => !leases.has(first.key));
      assert.deepEqual(
        worlds.map(({ leases, bad }) => [...leases.keys(), ...bad.keys()]),
        [
          [first.key],
          [first.key, second.key],
          [first.key, second.key, '10.5.3.0-24'],
          [first.key, second.key, '10.5.3.0-24'],
          [second.key, '10.5.3.0-24'],
        ],
      );
      assert.deepEqual(worlds[0]?.leases.get(first.key), first);
      assert.deepEqual(latest().leases.get(second.key), changed.lease);
      assert.deepEqual(
        worlds.map(({ revision }) => BigInt(revision)),
        [0, 1, 2, 3, 4].map((step) => BigInt(first.revision) + BigInt(step)),
      );
      assert.equal(new Set(worlds.map(({ epoch, clusterId }) => `${epoch} ${clusterId}`)).size, 1);
    });

    it('tells a key from those that begin like it, and a value from what took its place', async () => {
      let world: World | undefined;
      store.followWorld((now) => (world = now));
      await fixture.poke('10.5.7.0-24&fd00:10:5:7::-64', '{"PublicIP":"192.0.2.9"}');
      await fixture.poke('10.5.7.0-24', '{"PublicIP":"192.0.2.7"}');
      await waitFor(() => world?.leases.has('10.5.7.0-24'), { what: 'the lease' });
      assert.equal(world?.leases.get('10.5.7.0-24')?.attributes.publicIp.toString(), '192.0.2.7');
      assert.equal(world.leases.get('10.5.7.0-24&fd00:10:5:7::-64')?.attributes.publicIp.toString(), '192.0.2.9');
      await fixture.poke('10.5.7.0-24', 'bad');
      await waitFor(() => world?.bad.has('10.5.7.0-24'), { what: 'the unreadable value' });
      assert.deepEqual([...world.leases.keys()], ['10.5.7.0-24&fd00:10:5:7::-64']);
      await fixture.poke('10.5.7.0-24', '{"PublicIP":"192.0.2.7"}');
      await waitFor(() => world?.leases.has('10.5.7.0-24'), { what: 'the lease again' });
      assert.equal(world.bad.size, 0);
    });

    it('says nothing more once a subscription is closed', async () => {
      let calls = 0;
      const subscription = store.followWorld(() => calls++);
      await waitFor(() => calls === 1, { what: 'the first world' });
      subscription.close();
      await mustCreate(other, 1);
      await mustCreate(store, 2);
      assert.equal(calls, 1);
    });

    it('is not stopped by an observer that fails', async () => {
      let calls = 0;
      store.followWorld(() => {
        calls++;
        throw new Error('mistake');
      });
      await waitFor(() => calls === 1, { what: 'the first world' });
      await mustCreate(other, 1);
      await waitFor(() => calls === 2, { what: 'the second world' });
    });

    it('keeps values apart from leases, with conditions and TTL', async () => {
      const etcdLeaseId = await store.grantTtl(60);
      const first = await store.putValue('hosts/a', 'one', { expected: 'absent', etcdLeaseId });
      assert.ok(first.outcome === 'written');
      assert.equal((await other.putValue('hosts/a', 'two', { expected: 'absent' })).outcome, 'conflict');
      assert.equal((await other.putValue('hosts/b', 'three')).outcome, 'written');
      await other.putValue('networks/n', 'four');
      assert.deepEqual(
        (await store.listValues('hosts/')).map(({ path, text }) => [path, text]),
        [
          ['hosts/a', 'one'],
          ['hosts/b', 'three'],
        ],
      );
      assert.equal(await store.deleteValue('hosts/b', { expected: { revision: first.revision } }), false);
      assert.equal(await store.deleteValue('hosts/b'), true);
      assert.equal(await store.deleteValue('hosts/b'), false);
      assert.deepEqual((await store.listLeases()).leases, []);
    });

    it('changes several texts in one step, if all that is expected holds', async () => {
      const etcdLeaseId = await store.grantTtl(60);
      const puts = [
        { path: 'n/blocks/a', text: 'one', etcdLeaseId },
        { path: 'n/hosts/a', text: 'two' },
      ];
      const made = await store.transactValues({
        conditions: [{ absent: 'n/blocks/a' }, { noneBelow: 'n/addresses/a/' }],
        puts,
      });
      assert.ok(made !== undefined);
      const texts = async (): Promise<readonly string[]> => (await other.listValues('n/')).map(({ text }) => text);
      assert.deepEqual(await texts(), ['one', 'two']);
      assert.equal((await other.listValues('n/blocks/'))[0]?.revision, made);
      await other.putValue('n/addresses/b/x', 'three');
      for (const failing of [
        { absent: 'n/blocks/a' },
        { noneBelow: 'n/addresses/b/' },
        { path: 'n/blocks/a', revision: '1' },
        { path: 'n/blocks/b', revision: made },
      ]) {
        const conditions = [{ absent: 'n/none' }, failing];
        assert.equal(await other.transactValues({ conditions, puts: [{ path: 'n/new', text: '' }] }), undefined);
      }
      assert.deepEqual(await texts(), ['three', 'one', 'two']);
      const conditions = [{ path: 'n/blocks/a', revision: made }];
      const changed = await other.transactValues({
        conditions,
        puts: [{ path: 'n/hosts/a', text: 'four' }],
        deletes: ['n/blocks/a', 'n/nothing'],
      });
      assert.ok(changed !== undefined);
      assert.deepEqual(await texts(), ['three', 'four']);
      assert.equal(await store.revokeEtcdLease(etcdLeaseId), 'released');
    });

    it('calls whoever watches values when they may have changed, until that is over', async () => {
      let calls = 0;
      const watch = store.watchValues('asked/a/', () => calls++);
      await waitFor(() => calls === 1, { what: 'the watch to be open' });
      await other.putValue('asked/b/1', '');
      await other.putValue('asked/a/1', '');
      await waitFor(() => calls === 2, { what: 'the first change' });
      await other.deleteValue('asked/a/1');
      await waitFor(() => calls === 3, { what: 'the deletion' });
      watch.close();
      await other.putValue('asked/a/2', '');
      await store.listValues('asked/');
      assert.equal(calls, 3);
    });

    it('tells values below a path as they are, then what changes, and all again on request, until that is over', async () => {
      const told: (readonly string[])[] = [];
      const etcdLeaseId = await other.grantTtl(60);
      await other.putValue('told/a', 'one', { etcdLeaseId });
      await other.putValue('tole', '');
      const following = store.followValues('told/', ({ isListing, written, deleted }) => {
        const texts = written.map(({ path, text }) => `${path} ${text}`);
        told.push([...(isListing ? ['all'] : []), ...texts, ...deleted.map((path) => `no ${path}`)]);
      });
      await waitFor(() => told.length === 1, { what: 'the listing' });
      const changes = [() => other.putValue('told/b', 'two'), () => other.deleteValue('told/b')];
      for (const [index, change] of changes.entries()) {
        await change();
        await waitFor(() => told.length === index + 2, { what: 'the change' });
      }
      assert.deepEqual(told, [['all', 'told/a one'], ['told/b two'], ['no told/b']]);
      following.relist();
      await waitFor(() => told.length === 4, { what: 'the second listing' });
      assert.equal(await store.revokeEtcdLease(etcdLeaseId), 'in-use');
      await other.deleteValue('told/a');
      await waitFor(() => told.length === 5, { what: 'a change after it' });
      following.close();
      await other.putValue('told/c', '');
      await store.listValues('told/');
      assert.deepEqual(told.slice(3), [['all', 'told/a one'], ['no told/a']]);
    });

    it('refuses requests once it is closed, and can be closed twice', async () => {
      await store.listLeases();
      await store.close();
      await store.close();
      await assert.rejects(store.listLeases(), { code: 'ERR_STORE_CLOSED' });
    });

    it('rejects with the reason of a signal that was aborted', async () => {
      const reason = new Error('enough');
      await assert.rejects(store.listLeases(AbortSignal.abort(reason)), reason);
    });

    it('counts round trips', async () => {
      const { compactions, watchRestarts } = store.counters();
      assert.deepEqual([compactions, watchRestarts], [0, 0]);
      const before = store.counters();
      await store.listLeases();
      const after = store.counters();
      assert.ok(after.roundTrips > before.roundTrips);
      const timed = ({ roundTripTimes }: StoreCounters): number => roundTripTimes.buckets.reduce((a, b) => a + b, 0);
      assert.equal(timed(after) - timed(before), after.roundTrips - before.roundTrips);
      assert.equal(store.health.isConnected, true);
    });
  });
}
