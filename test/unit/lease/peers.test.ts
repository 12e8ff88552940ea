import assert from 'node:assert/strict';
import fc from 'fast-check';
import { encodeAttributes } from '../../../src/lease/attributes.js';
import type { Lease, LeaseAttributes } from '../../../src/lease/lease.js';
import { PeerSet, type PeerSetOptions, decodePeerCache, encodePeerCache } from '../../../src/lease/peers.js';
import { ip, lease } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { MemoryCluster, MemoryStore } from '../../support/memory-store.js';
import { RecordingLogger } from '../../support/recorder.js';
import { attributesOf, subnetsOf } from '../../support/store-contract.js';

describe('PeerSet', () => {
  let clock: FakeClock;
  let cluster: MemoryCluster;
  let log: RecordingLogger;
  let peers: PeerSet;
  let calls: string[][];

  const names = (list: readonly Lease[]): string[] => list.map(({ subnet }) => subnet.toString());
  const put = (n: number, attributes: LeaseAttributes = attributesOf(n)): void => {
    cluster.write([{ key: `subnets/10.5.${n}.0-24`, text: encodeAttributes(attributes) }]);
  };
  const drop = (n: number): void => cluster.write([{ key: `subnets/10.5.${n}.0-24` }]);

  function make(changes: Partial<PeerSetOptions> = {}): PeerSet {
    const own = { subnets: subnetsOf(1), publicIp: ip('192.0.2.1') };
    const set = new PeerSet({ store: new MemoryStore(cluster), clock, log, own, leaveGraceMs: 0, ...changes });
    set.onChange((list) => calls.push(names(list)));
    return set;
  }

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new MemoryCluster(clock);
    log = new RecordingLogger();
    calls = [];
    peers = make();
  });

  afterEach(() => peers.close());

  async function start(): Promise<void> {
    peers.start();
    await clock.advance(1000);
    calls.length = 0;
  }

  it('has all leases but the own one, in order', async () => {
    for (const n of [3, 1, 2]) put(n);
    peers.start();
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24', '10.5.3.0/24']]);
    assert.equal(peers.isSynced, true);
  });

  it('says once that there are no peers', async () => {
    peers.start();
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
    peers.setOwn({ subnets: subnetsOf(2), publicIp: ip('192.0.2.2') });
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
    assert.deepEqual(peers.counters, { joined: 3, changed: 1, left: 1, snapshots: 1, badEntries: 0 });
  });

  it('is silent when a peer renews without a change', async () => {
    put(2);
    await start();
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, []);
  });

  it('is silent when a peer goes and comes back within a batch', async () => {
    put(2);
    await start();
    drop(2);
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, []);
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
    cluster.write([{ key: 'subnets/10.5.2.0-24', text: 'garbage' }]);
    cluster.write([{ key: 'subnets/.lock', text: '' }]);
    await clock.advance(1000);
    cluster.setDown(true);
    cluster.compact();
    cluster.setDown(false);
    await clock.advance(1000);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
    assert.deepEqual(calls, []);
    assert.equal(peers.counters.badEntries, 2);
    assert.equal(log.find(/unreadable/, 'warn').length, 2);
    assert.deepEqual(peers.badKeys, ['10.5.2.0-24', '.lock']);
    cluster.write([{ key: 'subnets/.lock' }]);
    drop(2);
    await clock.advance(1000);
    assert.deepEqual(peers.badKeys, []);
    assert.deepEqual(calls, [[]]);
  });

  it('keeps every peer while the store is away and resumes where it was', async () => {
    put(2);
    put(3);
    await start();
    cluster.setDown(true);
    await clock.advance(3_600_000);
    drop(2);
    put(4);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24', '10.5.3.0/24']);
    cluster.setDown(false);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.3.0/24', '10.5.4.0/24']]);
    assert.equal(peers.counters.snapshots, 1);
  });

  it('finds what changed during a compacted outage by value', async () => {
    for (const n of [2, 3, 4]) put(n);
    await start();
    cluster.setDown(true);
    drop(2);
    put(3, attributesOf(3, { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: '02:00:00:00:00:03' } }));
    put(5);
    cluster.compact();
    cluster.setDown(false);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.3.0/24', '10.5.4.0/24', '10.5.5.0/24']]);
    assert.deepEqual(peers.counters, { joined: 4, changed: 1, left: 1, snapshots: 2, badEntries: 0 });
  });

  it('takes the key written last of two for one subnet, and the other one when that goes', async () => {
    put(2);
    await start();
    cluster.write([{ key: 'subnets/old 10.5.2.0-24', text: encodeAttributes(attributesOf(99)) }]);
    await clock.advance(1000);
    assert.equal(peers.peers[0]?.attributes.publicIp.toString(), '192.0.2.99');
    cluster.write([{ key: 'subnets/old 10.5.2.0-24' }]);
    await clock.advance(1000);
    assert.equal(peers.peers[0].attributes.publicIp.toString(), '192.0.2.2');
  });

  it('begins with the peers of its last run, until the store says otherwise', async () => {
    put(2);
    cluster.setDown(true);
    peers.seed([lease(2), lease(9)]);
    peers.start();
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24', '10.5.9.0/24']]);
    assert.equal(peers.isSynced, false);
    cluster.setDown(false);
    await clock.advance(1000);
    assert.deepEqual(calls.at(-1), ['10.5.2.0/24']);
    peers.seed([lease(9)]);
    await clock.advance(1000);
    assert.deepEqual(names(peers.peers), ['10.5.2.0/24']);
  });

  it('is not stopped by a callback that fails', async () => {
    peers.onChange(() => {
      throw new Error('mistake');
    });
    await start();
    put(2);
    await clock.advance(1000);
    assert.deepEqual(calls, [['10.5.2.0/24']]);
    assert.equal(log.find(/not processed/, 'error').length, 2);
  });

  it('ends silently, twice if need be', async () => {
    await start();
    put(2);
    peers.close();
    peers.close();
    await clock.advance(1000);
    assert.deepEqual(calls, []);
    assert.equal(clock.pending, 0);
  });

  it('ends up with what the store holds after any history', async () => {
    const step = fc.record({
      n: fc.integer({ min: 2, max: 6 }),
      what: fc.constantFrom('put', 'drop', 'garbage', 'cut', 'compact', 'mend', 'wait'),
      host: fc.integer({ min: 2, max: 250 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        clock = new FakeClock();
        cluster = new MemoryCluster(clock);
        const set = make();
        set.start();
        // The last readable value of each key that exists counts; one that was never seen readable does not.
        for (const { n, what, host } of steps) {
          if (what === 'put') put(n, attributesOf(host));
          else if (what === 'drop') drop(n);
          else if (what === 'garbage') cluster.write([{ key: `subnets/junk-${n}`, text: 'x' }]);
          else if (what === 'compact') cluster.compact();
          else if (what === 'wait') await clock.advance(100);
          else cluster.setDown(what === 'cut');
        }
        cluster.setDown(false);
        await clock.advance(1000);
        const expected = (await new MemoryStore(cluster).listLeases()).leases;
        assert.deepEqual(
          set.peers.map(({ subnet, attributes }) => [subnet.toString(), encodeAttributes(attributes)]),
          expected.map(({ subnet, attributes }) => [subnet.toString(), encodeAttributes(attributes)]),
        );
        set.close();
      }),
      { numRuns: 60 },
    );
  });
});

describe('peer cache', () => {
  const some = [
    lease(2, { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:02' } }),
    { ...lease(3, { isDualStack: true }), isReservation: true, revision: '77' },
  ];

  it('survives writing and reading', () => {
    assert.deepEqual(
      JSON.parse(JSON.stringify(decodePeerCache(encodePeerCache(some)))),
      JSON.parse(JSON.stringify(some)),
    );
    assert.deepEqual(decodePeerCache(encodePeerCache([])), []);
  });

  for (const [title, text] of [
    ['nothing', ''],
    ['half a file', encodePeerCache(some).slice(0, 100)],
    ['another version', '{"version":2,"leases":[]}'],
    ['no object', 'null'],
    ['a bad key', '{"version":1,"leases":[{"key":"x","value":"{}","revision":"1"}]}'],
    ['a bad value', '{"version":1,"leases":[{"key":"10.5.1.0-24","value":"[]","revision":"1"}]}'],
    ['no revision', '{"version":1,"leases":[{"key":"10.5.1.0-24","value":"{}"}]}'],
    ['no lease', '{"version":1,"leases":[null]}'],
  ] as const) {
    it(`is refused with a reason if it has ${title}`, () => {
      assert.throws(() => decodePeerCache(text), { code: 'ERR_PEER_CACHE' });
    });
  }
});
