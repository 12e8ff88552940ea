import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { EtcdStore } from '../../../src/etcd/store.js';
import { encodeAttributes } from '../../../src/lease/attributes.js';
import type { Lease, LeaseAttributes } from '../../../src/lease/lease.js';
import { PeerSet, type PeerSetOptions, areSamePeers } from '../../../src/lease/peers.js';
import { type HistoryMark, newestMark, noteChange } from '../../../src/lease/world.js';
import { lease } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import {
  type RecordChanges,
  admissionContext,
  badEntry,
  follow,
  leaseRecord,
  worldOf,
} from '../../support/lease-world.js';
import { RecordingLogger } from '../../support/recorder.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { SimFlannel } from '../../support/sim-flannel.js';
import { attributesOf, subnetsOf } from '../../support/store-contract.js';

describe('PeerSet', () => {
  let clock: FakeClock;
  let cluster: SimFlannel;
  let store: EtcdStore;
  let log: RecordingLogger;
  let peers: PeerSet;
  let calls: string[][];

  const names = (list: readonly Lease[]): string[] => list.map(({ subnet }) => subnet.toString());
  const put = (n: number, attributes: LeaseAttributes = attributesOf(n)): void => {
    cluster.putLease(`10.5.${n}.0-24`, encodeAttributes(attributes));
  };
  const drop = (n: number): void => cluster.deleteLease(`10.5.${n}.0-24`);
  /** Cuts the host off, or lets it back. */
  const setCutOff = (isCutOff: boolean): void => {
    const link = cluster.etcd.link('host-1');
    if (isCutOff) link.partition('refuse');
    else link.heal();
  };

  /** Has etcd forget all but the present. */
  const compact = (): void => {
    try {
      cluster.etcd.compact();
    } catch {} // it was done at this revision
  };

  function make(changes: Partial<PeerSetOptions> = {}): PeerSet {
    const set = new PeerSet({ clock, log, context: admissionContext(), leaveGraceMs: 0, ...changes });
    set.onChange((list) => calls.push(names(list)));
    return set;
  }

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimFlannel(clock);
    ({ store } = simStore(clock, { cluster: cluster.etcd }));
    log = new RecordingLogger();
    calls = [];
    peers = make();
  });

  afterEach(async () => {
    peers.close();
    await store.close();
    cluster.etcd.close();
  });

  async function start(): Promise<void> {
    follow(store, peers);
    await clock.advance(1000);
    calls.length = 0;
  }

  it('is the same whether or not it is told what has changed', async () => {
    const step = fc.record({
      n: fc.integer({ min: 2, max: 5 }),
      subnets: fc.constantFrom(undefined, '10.5.0.0-21', '10.6.3.0-24'),
      what: fc.constantFrom('put', 'bad', 'gone'),
      epoch: fc.constantFrom(1, 1, 1, 2),
      waitMs: fc.constantFrom(0, 60, 1500, 3000),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const told = make({ leaveGraceMs: 2000 });
        const untold = make({ leaveGraceMs: 2000 });
        let before = worldOf([leaseRecord(2), leaseRecord(3)]);
        for (const [index, { n, subnets, what, epoch, waitMs }] of [...steps.entries()]) {
          told.observe(before);
          untold.observe({ ...before });
          await clock.advance(waitMs);
          const key = leaseRecord(n).key;
          const leases = new Map(before.leases);
          const bad = new Map(before.bad);
          leases.delete(key);
          bad.delete(key);
          const revision = 20 + index;
          if (what === 'put') leases.set(key, leaseRecord(n, { key, revision, ...(subnets && { subnets }) }));
          else if (what === 'bad') bad.set(key, badEntry(key, revision));
          const world = { ...before, epoch: Math.max(before.epoch, epoch), leases, bad };
          noteChange(before, world, new Set([key]));
          before = world;
          assert.deepEqual(told.peers, untold.peers);
          assert.deepEqual(told.quarantined, untold.quarantined);
        }
        assert.deepEqual(told.counters, untold.counters);
        told.close();
        untold.close();
      }),
    );
  });

  it('has all leases but the own one, in order', async () => {
    for (const n of [3, 1, 2]) put(n);
    follow(store, peers);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24', '10.5.3.0/24']]);
    assert.equal(peers.isSynced, true);
  });

  it('says once that there are no peers', async () => {
    follow(store, peers);
    await clock.advance(1000);
    assert.deepEqual(calls, [[]]);
  });

  it('does not take a left-over lease of its own host for a peer', async () => {
    put(1);
    put(9, attributesOf(1));
    put(2);
    await start();
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
  });

  it('keeps its own subnet out even if somebody else writes it', async () => {
    put(1, attributesOf(77));
    await start();
    assert.deepEqual(names(peers.peers), []);
  });

  it('filters anew when the own subnet changes', async () => {
    put(1, attributesOf(77));
    put(2);
    await start();
    peers.setContext(admissionContext({ own: subnetsOf(2), publicIp: attributesOf(2).publicIp }));
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.1.0/24']]);
  });

  it('reports joining, changing and leaving peers, each batch once', async () => {
    put(2);
    await start();
    put(3);
    put(4);
    drop(2);
    await clock.advance(1000);
    put(3, attributesOf(3, { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: '02:00:00:00:00:03' } }));
    await clock.advance(1000);
    assert.deepEqual(calls, [
      ['10.5.3.0/24', '10.5.4.0/24'],
      ['10.5.3.0/24', '10.5.4.0/24'],
    ]);
    assert.equal(peers.peers[0]?.attributes.backendType, 'vxlan');
    assert.deepEqual(peers.counters, {
      joined: 3,
      changed: 1,
      left: 1,
      epochs: 1,
      badEntries: 0,
      quarantined: 0,
    });
  });

  it('is silent when a peer renews without a change', async () => {
    put(2);
    await start();
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, []);
  });

  it('has peers looked at again, without a line, when one goes and comes back within a batch', async () => {
    put(2);
    await start();
    const lines = log.lines.length;
    drop(2);
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24']], 'somebody may have looked in between');
    assert.equal(log.lines.length, lines);
  });

  // A key deleted by mistake is back as soon as its host has seen it; its peers dropped the traffic to it meanwhile.
  it('keeps a peer that comes back within the grace, and lets one go after it', async () => {
    peers = make({ leaveGraceMs: 1000 });
    put(2);
    put(3);
    await start();
    drop(2);
    drop(3);
    await clock.advance(900);
    put(2);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24', '10.5.3.0/24']);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24']]);
  });

  it('keeps a peer whose value became unreadable, and counts and logs each bad revision once', async () => {
    put(2);
    await start();
    cluster.putLease('10.5.2.0-24', 'garbage');
    cluster.putLease('.lock', '');
    await clock.advance(1000);
    setCutOff(true);
    compact();
    setCutOff(false);
    await clock.advance(1000);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
    assert.deepEqual(calls, []);
    assert.equal(peers.counters.badEntries, 2);
    assert.equal(log.find(/unreadable/, 'warn').length, 2);
    assert.deepEqual(peers.badEntries.map(({ key }) => key).sort(), ['.lock', '10.5.2.0-24']);
    cluster.deleteLease('.lock');
    drop(2);
    await clock.advance(1000);
    assert.deepEqual(peers.badEntries, []);
    assert.deepEqual(calls, [[]]);
  });

  it('keeps every peer while the store is away and resumes where it was', async () => {
    put(2);
    put(3);
    await start();
    setCutOff(true);
    await clock.advance(3_600_000);
    drop(2);
    put(4);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24', '10.5.3.0/24']);
    setCutOff(false);
    await clock.advance(3000);
    assert.deepEqual(calls, [['10.5.3.0/24', '10.5.4.0/24']]);
    assert.equal(peers.counters.epochs, 1);
  });

  it('finds what changed during a compacted outage by value', async () => {
    for (const n of [2, 3, 4]) put(n);
    await start();
    setCutOff(true);
    drop(2);
    put(3, attributesOf(3, { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: '02:00:00:00:00:03' } }));
    put(5);
    compact();
    setCutOff(false);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.3.0/24', '10.5.4.0/24', '10.5.5.0/24']]);
    assert.deepEqual(peers.counters, {
      joined: 4,
      changed: 1,
      left: 1,
      epochs: 1,
      badEntries: 0,
      quarantined: 0,
    });
  });

  it('takes the older key of two hosts for one subnet, says so, and takes the other one when that goes', async () => {
    put(2);
    await start();
    cluster.putLease('new 10.5.2.0-24', encodeAttributes(attributesOf(99)));
    await clock.advance(1000);
    assert.deepEqual(calls, []);
    assert.deepEqual(
      peers.quarantined.map(({ key, reason }) => [key, reason]),
      [['new 10.5.2.0-24', 'overlaps-peer']],
    );
    assert.equal(peers.counters.quarantined, 1);
    assert.equal(log.find(/not believed/, 'warn').length, 1);
    drop(2);
    await clock.advance(1000);
    assert.equal(peers.peers[0]?.attributes.publicIp.toString(), '192.0.2.99');
    assert.deepEqual(peers.quarantined, []);
    assert.equal(log.find(/believed again/, 'info').length, 1);
  });

  it('takes the key written last of two that one host has for one subnet', async () => {
    put(2);
    await start();
    cluster.putLease('old 10.5.2.0-24', encodeAttributes(attributesOf(2, { backendType: 'host-gw' })));
    await clock.advance(1000);
    assert.equal(peers.peers[0]?.attributes.backendType, 'host-gw');
    assert.deepEqual(peers.quarantined, []);
    cluster.deleteLease('old 10.5.2.0-24');
    await clock.advance(1000);
    assert.equal(peers.peers[0].attributes.backendType, '');
  });

  for (const [title, isKnown, lingerMs] of [
    ['until the store that it knows says otherwise', true, 0],
    ['and keeps those that a store unknown to it lacks for as long as they may need', false, 400_000],
  ] as const) {
    it(`begins with the peers of its last run, ${title}`, async () => {
      put(2);
      peers = make({ leaveGraceMs: 60_000 }); // which is not for what went while nobody looked
      let mark: HistoryMark | undefined;
      const before = store.followWorld((world) => (mark = newestMark(world)));
      await clock.advance(1000);
      before.close();
      setCutOff(true);
      peers.seed([lease(2), lease(9)]);
      store.followWorld((world) => peers.observe(world), isKnown ? mark : undefined);
      await clock.advance(1000);
      assert.deepEqual(calls, [['10.5.2.0/24', '10.5.9.0/24']]);
      assert.equal(peers.isSynced, false);
      setCutOff(false);
      await clock.advance(lingerMs);
      assert.deepEqual(calls.at(-1), ['10.5.2.0/24', '10.5.9.0/24']);
      await clock.advance(3000);
      assert.deepEqual(calls.at(-1), ['10.5.2.0/24']);
      peers.seed([lease(9)]);
      await clock.advance(1000);
      assert.deepEqual(names(peers.peers), ['10.5.2.0/24'], 'the store has the say now');
    });
  }

  describe('in another history of the store', () => {
    const at = (n: number, changes: RecordChanges = {}): LeaseRecord => leaseRecord(n, changes);
    const all = [2, 3, 4].map((n) => at(n));

    beforeEach(async () => {
      peers.observe(worldOf(all));
      await clock.advance(1000);
      calls.length = 0;
    });

    it('keeps the peers that it lacks for 400 s', async () => {
      peers.observe(worldOf([at(3)], { epoch: 2 }));
      await clock.advance(399_000);
      assert.equal(peers.peers.length, 3);
      assert.equal(peers.kept.length, 2);
      assert.deepEqual(calls, []);
      assert.equal(peers.counters.epochs, 2);
      await clock.advance(2000);
      assert.deepEqual(calls, [['10.5.3.0/24']]);
      assert.equal(peers.kept.length, 0);
    });

    it('has those again that come back, as they are then', async () => {
      peers.observe(worldOf([], { epoch: 2 }));
      await clock.advance(60_000);
      peers.observe(worldOf([at(2, { revision: 50, attributes: { backendType: 'host-gw' } })], { epoch: 2 }));
      assert.deepEqual(
        peers.kept.map(({ subnet }) => subnet.toString()),
        ['10.5.3.0/24', '10.5.4.0/24'],
      );
      await clock.advance(400_000);
      assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
      assert.equal(peers.peers[0]?.attributes.backendType, 'host-gw');
    });

    it('gives one up as soon as another host has its subnet, under whatever key', async () => {
      const other = at(9, { subnets: '10.5.2.0-23', revision: 60 });
      peers.observe(worldOf([other], { epoch: 2 }));
      await clock.advance(1000);
      assert.deepEqual(names(peers.peers), ['10.5.2.0/23', '10.5.4.0/24']);
    });

    it('lets go at once of what is deleted in it', async () => {
      peers.observe(worldOf(all, { epoch: 2 }));
      peers.observe(worldOf(all.slice(1), { epoch: 2, revision: 60 }));
      await clock.advance(1000);
      assert.deepEqual(names(peers.peers), ['10.5.3.0/24', '10.5.4.0/24']);
    });

    it('does not give a longer time to what was missing already', async () => {
      peers.observe(worldOf([], { epoch: 2 }));
      await clock.advance(300_000);
      peers.observe(worldOf([], { epoch: 3 }));
      await clock.advance(101_000);
      assert.deepEqual(names(peers.peers), []);
    });

    it('keeps a peer whose value is unreadable in it as long as it is', async () => {
      peers.observe(worldOf([], { epoch: 2, bad: [badEntry('10.5.2.0-24', 50)] }));
      await clock.advance(3_600_000);
      assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
      peers.observe(worldOf([], { epoch: 2, revision: 60 }));
      await clock.advance(1000);
      assert.deepEqual(names(peers.peers), []);
    });
  });

  it('is not stopped by a callback that fails, and does not fill the log with it', async () => {
    peers.onChange(() => {
      throw new Error('mistake');
    });
    await start();
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24']]);
    assert.equal(log.find(/^defect in the daemon/, 'error').length, 1);
  });

  it('ends silently, twice if need be', async () => {
    await start();
    put(2);
    peers.close();
    peers.close();
    await clock.advance(1000);
    assert.deepEqual(calls, []);
    await store.close();
    cluster.etcd.close();
    assert.equal(clock.pending, 0);
  });

  it('takes nothing more once it is closed, and leaves no timer: neither of news nor of a peer that is kept', async () => {
    const pending = clock.pending;
    peers.observe(worldOf([leaseRecord(2), leaseRecord(3)]));
    await clock.advance(1000);
    assert.equal(clock.pending, pending);
    calls.length = 0;
    peers.observe(worldOf([leaseRecord(3), leaseRecord(4)], { epoch: 2 }));
    assert.equal(clock.pending, pending + 2);
    peers.observe(worldOf([leaseRecord(3), leaseRecord(5)], { epoch: 2 }));
    assert.equal(clock.pending, pending + 2);
    const { peers: list } = peers;
    peers.close();
    assert.equal(clock.pending, pending);
    peers.observe(worldOf([], { epoch: 3 }));
    peers.setContext(admissionContext({ own: subnetsOf(4) }));
    assert.equal(clock.pending, pending);
    await clock.advance(500_000);
    assert.deepEqual(calls, []);
    assert.equal(peers.peers, list);
  });

  it('takes no peers of an earlier run once it is closed', () => {
    const { pending } = clock;
    peers.close();
    peers.seed([lease(2)]);
    assert.deepEqual(peers.peers, []);
    assert.equal(clock.pending, pending);
  });

  it('tells what comes within 50 ms together, and lets a peer go after two seconds', async () => {
    peers = new PeerSet({ clock, log, context: admissionContext() });
    assert.deepEqual(peers.badEntries, []);
    peers.onChange((list) => calls.push(names(list)));
    peers.observe(worldOf([leaseRecord(2)]));
    await clock.advance(49);
    peers.observe(worldOf([leaseRecord(2), leaseRecord(3)]));
    assert.deepEqual(calls, []);
    await clock.advance(1);
    assert.deepEqual(calls, [['10.5.2.0/24', '10.5.3.0/24']]);
    peers.observe(worldOf([leaseRecord(2)]));
    await clock.advance(1999);
    assert.equal(peers.peers.length, 2);
    await clock.advance(1);
    assert.equal(peers.peers.length, 1);
  });

  it('lets go at once of what an earlier run knew and an unbroken history lacks', () => {
    peers.seed([lease(2), lease(9)]);
    peers.observe(worldOf([leaseRecord(2)], { epoch: 0 }));
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
  });

  it('says nothing of no peers before the store has', async () => {
    peers.seed([]);
    await clock.advance(1000);
    assert.deepEqual(calls, []);
  });

  it('waits for more changes for as long as it is told to, and says who came', async () => {
    peers = make({ debounceMs: 500 });
    peers.observe(worldOf([leaseRecord(2)]));
    await clock.advance(499);
    assert.deepEqual(calls, []);
    await clock.advance(1);
    assert.deepEqual(calls, [['10.5.2.0/24']]);
    assert.deepEqual(
      log.find(/peer joined/).map(({ fields }) => fields.subnet),
      ['10.5.2.0/24'],
    );
  });

  it('tells what it held back of bad keys when it is closed', async () => {
    const { pending } = clock;
    const junk = Array.from({ length: 100 }, (_, n) => badEntry(`junk-${n}`));
    for (let n = 1; n <= junk.length; n++) peers.observe(worldOf([], { bad: junk.slice(0, n) }));
    await clock.advance(1000);
    assert.ok(clock.pending > pending, 'lines are held back');
    peers.close();
    assert.equal(clock.pending, pending);
  });

  it('tells what it held back of peers when it is closed', async () => {
    const { pending } = clock;
    for (let n = 2; n < 40; n++) {
      peers.observe(worldOf(Array.from({ length: n - 1 }, (_, index) => leaseRecord(index + 2))));
      await clock.advance(51);
    }
    assert.ok(clock.pending > pending, 'lines are held back');
    peers.close();
    assert.equal(clock.pending, pending);
    const lines = log.find(/^peers? joined/).map(({ fields: { count = 1 } }) => count);
    assert.equal(
      lines.reduce((sum, count) => sum + count, 0),
      38,
    );
  });

  it('gives the same list until something changes', () => {
    const [second, third] = [leaseRecord(2), leaseRecord(3)];
    peers.observe(worldOf([second, third]));
    const { peers: list } = peers;
    peers.observe(worldOf([second, third], { revision: 50 }));
    assert.equal(peers.peers, list);
    peers.observe(worldOf([second, leaseRecord(4)], { revision: 51 }));
    assert.notEqual(peers.peers, list);
  });

  it('ends up with what the store holds after any history', async () => {
    const step = fc.record({
      n: fc.integer({ min: 2, max: 6 }),
      what: fc.constantFrom('put', 'drop', 'garbage', 'cut', 'compact', 'fix', 'wait'),
      host: fc.integer({ min: 2, max: 250 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        clock = new FakeClock();
        cluster = new SimFlannel(clock);
        const { store: own } = simStore(clock, { cluster: cluster.etcd, pingIntervalMs: 600_000 });
        const set = make();
        follow(own, set);
        for (const { n, what, host } of steps) {
          if (what === 'put') put(n, attributesOf(host));
          else if (what === 'drop') drop(n);
          else if (what === 'garbage') cluster.putLease(`junk-${n}`, 'x');
          else if (what === 'compact' && cluster.etcd.revision > 1) compact();
          else if (what === 'wait') await clock.advance(100);
          else setCutOff(what === 'cut');
        }
        setCutOff(false);
        // What is missing after a compaction that hid a history is kept for a while.
        await clock.advance(410_000);
        const expected = (await own.listLeases()).leases;
        assert.deepEqual(
          set.peers.map(({ subnet, attributes }) => [subnet.toString(), encodeAttributes(attributes)]),
          expected.map(({ subnet, attributes }) => [subnet.toString(), encodeAttributes(attributes)]),
        );
        set.close();
        await own.close();
        cluster.etcd.close();
      }),
      { numRuns: 60 },
    );
  });
});

describe('areSamePeers', () => {
  const [second, third] = [leaseRecord(2), leaseRecord(3)];

  for (const [title, before, after, expected] of [
    ['a renewal', [second], [leaseRecord(2, { revision: 99, etcdLeaseId: 'ff' })], true],
    ['one more', [second], [second, third], false],
    ['one less', [second, third], [second], false],
    ['another subnet', [second], [{ ...second, subnet: third.subnet }], false],
    ['another IPv6 subnet', [second], [leaseRecord(2, { isDualStack: true })], false],
    ['one of two changed', [second, third], [second, leaseRecord(3, { host: 9 })], false],
    ['another backend', [second], [leaseRecord(2, { attributes: { backendType: 'host-gw' } })], false],
  ] as const) {
    it(`${expected ? 'passes over' : 'sees'} ${title}`, () => {
      assert.equal(areSamePeers(before, after), expected);
    });
  }
});
