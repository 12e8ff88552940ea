import assert from 'node:assert/strict';
import { HostLease } from '../../../src/container/host-lease.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeSharedValues, FakeValueStore } from '../../support/fake-shared-values.js';

describe('HostLease', () => {
  let clock: FakeClock;
  let values: FakeSharedValues;
  let store: FakeValueStore;
  let lease: HostLease;

  beforeEach(() => {
    clock = new FakeClock();
    values = new FakeSharedValues(clock);
    store = new FakeValueStore(values, clock);
    lease = new HostLease({ store, clock, ttlSeconds: 60 });
  });

  async function renew(of = lease): Promise<void> {
    const renewing = of.renew();
    await clock.advance(20);
    await renewing;
  }

  it('lasts until a second before its time is over, counted from when it was last renewed', async () => {
    assert.equal(lease.isValid(), false);
    const before = clock.monotonicMs();
    await renew();
    await clock.advance(before + 58_999 - clock.monotonicMs());
    assert.equal(lease.isValid(), true);
    await clock.advance(1);
    assert.equal(lease.isValid(), false);
    assert.equal(lease.expiresAtMs, undefined);
  });

  it('counts the time that the machine was suspended before it read the answer', async () => {
    await renew();
    store.keepAlive = () => {
      clock.wallMs = () => 1_700_000_000_000 + clock.monotonicMs() + 100_000; // the monotonic clock stood still
      return Promise.resolve(60);
    };
    await lease.renew();
    assert.equal(lease.isValid(), false);
  });

  it('stays the same when it is renewed in time', async () => {
    await renew();
    const { id, generation } = lease;
    await clock.advance(50_000);
    await renew();
    await clock.advance(50_000);
    assert.deepEqual([lease.id, lease.generation, lease.isValid()], [id, generation, true]);
  });

  it('says that everything has to be confirmed anew when its time had run out, even if etcd still has it', async () => {
    await renew();
    const { id, generation } = lease;
    await clock.advance(59_500);
    await renew();
    assert.deepEqual([lease.id, lease.isValid()], [id, true]);
    assert.notEqual(lease.generation, generation);
  });

  it('has to be renewed, and all confirmed anew, when etcd has another history, whatever was under way', async () => {
    await renew();
    const { id, generation } = lease;
    const renewing = lease.renew();
    await clock.advance(5);
    lease.distrust();
    values.wipe();
    assert.deepEqual([lease.isValid(), lease.generation === generation], [false, false]);
    await clock.advance(20);
    await renewing;
    assert.equal(lease.isValid(), true);
    assert.notEqual(lease.id, id);
  });

  it('is another one when etcd has it no more', async () => {
    await renew();
    const { id, generation } = lease;
    values.wipe();
    await renew();
    assert.notEqual(lease.id, id);
    assert.notEqual(lease.generation, generation);
    assert.equal(lease.isValid(), true);
  });

  it('has run out when the wall clock says so, as after the machine was suspended', async () => {
    await renew();
    const wallMs = clock.wallMs();
    clock.wallMs = () => wallMs + 61_000;
    assert.equal(lease.isValid(), false);
  });

  it('goes on in another process for what is left of it', async () => {
    await renew();
    const saved = lease.save();
    assert.ok(saved !== undefined);
    await clock.advance(30_000);
    const next = new HostLease({ store, clock, ttlSeconds: 60 });
    assert.equal(next.restore(saved), true);
    assert.equal(next.isValid(), true);
    await clock.advance(30_000);
    assert.equal(next.isValid(), false);
  });

  for (const [title, savedAtMs, expiresAtMs] of [
    ['is over', -60_000, -1],
    ['was saved later than now', 1, 60_000],
  ] as const) {
    it(`is not believed where it ${title}`, async () => {
      await renew();
      const nowMs = clock.wallMs();
      const next = new HostLease({ store, clock, ttlSeconds: 60 });
      const etcdLeaseId = lease.id;
      assert.ok(etcdLeaseId !== undefined);
      const saved = { etcdLeaseId, savedAtMs: nowMs + savedAtMs, expiresAtMs: nowMs + expiresAtMs };
      assert.equal(next.restore(saved), false);
      assert.equal(next.isValid(), false);
      await renew(next);
      assert.deepEqual([next.id, next.generation], [etcdLeaseId, 1]);
    });
  }
});
