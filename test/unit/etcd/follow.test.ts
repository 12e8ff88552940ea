import assert from 'node:assert/strict';
import type { EtcdStore } from '../../../src/etcd/store.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import type { Subscription } from '../../../src/lease/store.js';
import { type HistoryMark, type World, newestMark } from '../../../src/lease/world.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { SimFlannel } from '../../support/sim-flannel.js';
import { attributesOf, mustCreate } from '../../support/store-contract.js';

/** Longer than any delay between two attempts to follow. */
const RECONNECT_MS = 2500;

describe('following a world', () => {
  let clock: FakeClock;
  let cluster: SimFlannel;
  let log: RecordingLogger;
  let store: EtcdStore;
  let link: SimLink;
  let worlds: World[];
  let following: Subscription;

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimFlannel(clock);
    log = new RecordingLogger();
    ({ store } = simStore(clock, { cluster: cluster.etcd, log }));
    link = cluster.etcd.link('host-1');
    worlds = [];
    cluster.configure('one');
    for (const n of [1, 2, 3]) put(n);
  });

  afterEach(async () => {
    await store.close();
    cluster.etcd.close();
  });

  const name = (n: number): string => `10.5.${n}.0-24`;
  /** Another host's daemon takes or renews a subnet. */
  const put = (n: number): void => {
    cluster.putLease(name(n), `{"PublicIP":"192.0.2.${n}"}`, cluster.etcd.grantLease(86_400));
  };
  const reserve = (n: number, publicIp: string): void => {
    cluster.putLease(name(n), `{"PublicIP":"${publicIp}"}`, '0');
  };
  const latest = (): World => {
    const world = worlds.at(-1);
    assert.ok(world !== undefined);
    return world;
  };
  const leases = (): string[] => [...latest().leases.keys()].sort();

  async function start(since?: HistoryMark): Promise<void> {
    following = store.followWorld((world) => worlds.push(world), since);
    await clock.advance(1);
  }

  async function reconnect(): Promise<void> {
    link.heal();
    await clock.advance(RECONNECT_MS);
  }

  /** What is followed is, in the end, what lies there. */
  function assertTrue(): void {
    assert.deepEqual(leases(), cluster.leases.map((entry) => entry.name).sort());
    const found = cluster.leases.map((entry) => `${entry.name} ${entry.modRevision}`);
    assert.deepEqual(
      [...latest().leases.values()].map(({ key, revision }) => `${key} ${revision}`).sort(),
      found.sort(),
    );
  }

  it('goes on in the same history after an outage, without listing again', async () => {
    await start();
    link.partition('refuse');
    put(4);
    cluster.deleteLease(name(1));
    await clock.advance(60_000);
    const before = link.requests['KV.range'] ?? 0;
    await reconnect();
    assertTrue();
    assert.equal(latest().epoch, 1);
    assert.equal(store.counters().watchRestarts, 1);
    assert.equal(
      (link.requests['KV.range'] ?? 0) - before,
      4,
      'the witnesses, the number of keys and the configuration',
    );
    assert.equal(log.find(/restored|forgotten/).length, 0);
  });

  it('begins a new epoch when etcd was wiped', async () => {
    await start();
    cluster.etcd.wipe();
    await clock.advance(RECONNECT_MS);
    assert.deepEqual(leases(), []);
    assert.equal(latest().epoch, 2);
    assert.equal(latest().config, undefined);
    assert.equal(log.find(/restored or wiped/, 'warn').length, 1);
    put(7);
    await clock.advance(1);
    assertTrue();
  });

  for (const [title, overtake] of [
    ['and its revision is lower', 0],
    ['although its revision is where it was', 3],
    ['although others have written more than was lost', 20],
  ] as const) {
    it(`begins a new epoch when etcd was restored ${title}`, async () => {
      const backup = cluster.etcd.backup();
      for (const n of [4, 5]) put(n);
      cluster.deleteLease(name(1));
      await start();
      link.partition('refuse');
      cluster.etcd.restore(backup);
      for (let n = 0; n < overtake; n++) put(10 + n);
      await clock.advance(5000);
      await reconnect();
      assert.equal(latest().epoch, 2);
      assertTrue();
      assert.ok(leases().includes(name(1)));
      assert.ok(!leases().includes(name(4)));
    });

    // The newest lease is a witness, and still there: nothing tells that the configuration after it never was.
    it(`does not keep a configuration that was lost in a restore to a point after the newest lease ${title}`, async () => {
      const backup = cluster.etcd.backup();
      cluster.configure('two');
      await start();
      assert.equal(latest().config?.text, 'two');
      link.partition('refuse');
      cluster.etcd.restore(backup);
      for (let n = 0; n < overtake; n++) put(10 + n);
      await clock.advance(5000);
      await reconnect();
      assert.equal(latest().config?.text, 'one');
      assert.equal(latest().epoch, 2);
      assertTrue();
    });
  }

  for (const [title, lost, instead] of [
    ['deleted', () => cluster.deleteLease(name(1)), () => cluster.deleteLease(name(2))],
    [
      'deleted the configuration',
      () => void cluster.etcd.delete('/coreos.com/network/config'),
      () => cluster.deleteLease(name(1)),
    ],
    ['made a reservation', () => reserve(1, '192.0.2.1'), () => reserve(2, '192.0.2.2')],
    ['wrote what is no lease', () => cluster.putLease(name(1), '{'), () => cluster.putLease(name(2), '{')],
    ['wrote other attributes', () => reserve(1, '192.0.2.1'), () => reserve(1, '192.0.2.9')],
    [
      'deleted what was deleted before',
      () => {
        cluster.etcd.put('/registry/elsewhere', 'x');
        cluster.deleteLease(name(1));
      },
      () => {
        cluster.deleteLease(name(1));
        cluster.etcd.put('/registry/elsewhere', 'x');
      },
    ],
  ] as const) {
    it(`begins a new epoch when the change that is lost ${title}, and another one has its revision`, async () => {
      reserve(1, '192.0.2.1');
      put(3); // a witness that both histories have
      const backup = cluster.etcd.backup();
      await start();
      lost();
      await clock.advance(1);
      link.partition('refuse');
      const { revision } = cluster.etcd;
      cluster.etcd.restore(backup);
      instead();
      assert.equal(cluster.etcd.revision, revision);
      await clock.advance(5000);
      await reconnect();
      const { epoch, leases, bad, config } = latest();
      assert.equal(epoch, 2);
      assert.equal(config?.text, 'one');
      const found = [...leases.values(), ...bad.values()].map(({ key, revision }) => `${key} ${revision}`);
      assert.deepEqual(found.sort(), cluster.leases.map((entry) => `${entry.name} ${entry.modRevision}`).sort());
    });
  }

  it('begins a new epoch when a reservation that was listed is lost, and another one has its revision', async () => {
    const backup = cluster.etcd.backup();
    reserve(1, '192.0.2.1');
    await start();
    link.partition('refuse');
    cluster.etcd.restore(backup);
    reserve(2, '192.0.2.2');
    await clock.advance(5000);
    await reconnect();
    assert.equal(latest().epoch, 2);
    assertTrue();
  });

  for (const [title, write] of [
    ['created', () => mustCreate(store, 9)],
    ['published', (own) => store.publishLease(own, attributesOf(8, { backendType: 'vxlan' }))],
  ] as readonly [string, (own: LeaseRecord) => Promise<unknown>][]) {
    it(`begins a new epoch when a lease is lost that this host ${title} and never heard of`, async () => {
      const own = await mustCreate(store, 8);
      await start();
      const backup = cluster.etcd.backup();
      link.freezeStreams();
      await write(own);
      link.partition('refuse');
      cluster.etcd.restore(backup);
      for (let n = 0; n < 5; n++) put(10 + n);
      await clock.advance(5000);
      await reconnect();
      assert.equal(latest().epoch, 2);
      assertTrue();
    });
  }

  for (const [title, change] of [
    ['deleted', () => cluster.deleteLease(name(1))],
    ['is a reservation', () => reserve(1, '192.0.2.1')],
  ] as const) {
    it(`stays in its epoch when the newest change, one that ${title}, is there or was compacted`, async () => {
      await start();
      change();
      await clock.advance(1);
      for (const happen of [() => {}, () => cluster.etcd.compact()]) {
        link.partition('refuse');
        cluster.etcd.put('/registry/elsewhere', 'x');
        happen();
        await clock.advance(5000);
        await reconnect();
        assert.equal(latest().epoch, 1);
        assertTrue();
      }
    });
  }

  it('begins a new epoch when it is another cluster, however alike', async () => {
    await start();
    cluster.etcd.restore(cluster.etcd.backup(), { hasNewClusterId: true });
    await clock.advance(RECONNECT_MS);
    assert.equal(latest().epoch, 2);
    assertTrue();
  });

  it('stays in its epoch when etcd was restored to what it was', async () => {
    await start();
    cluster.etcd.restore(cluster.etcd.backup());
    await clock.advance(RECONNECT_MS);
    put(5);
    await clock.advance(1);
    assert.equal(latest().epoch, 1);
    assertTrue();
  });

  it('lists again in the same epoch when the history in between is gone, but a witness is there', async () => {
    await start();
    link.partition('refuse');
    cluster.deleteLease(name(1));
    put(1);
    cluster.deleteLease(name(2));
    cluster.etcd.compact();
    await reconnect();
    assert.equal(latest().epoch, 1);
    assert.equal(store.counters().compactions, 1);
    assertTrue();
  });

  it('begins a new epoch when the proof is gone with the history', async () => {
    await start();
    link.partition('refuse');
    put(3); // the newest lease, and so the witness
    cluster.deleteLease(name(1));
    cluster.etcd.compact();
    await reconnect();
    assert.equal(latest().epoch, 2);
    assert.equal(log.find(/forgotten what happened/, 'info').length, 1);
    assertTrue();
  });

  it('notices a restore between the listing and the watch', async () => {
    const backup = cluster.etcd.backup();
    for (const n of [4, 5]) put(n);
    link.intercept = ({ direction, method }) => {
      if (direction !== 'request' || method !== 'Watch.watch') return 'pass';
      link.intercept = undefined;
      cluster.etcd.restore(backup);
      for (let n = 10; n < 20; n++) put(n);
      return 'pass';
    };
    await start();
    await clock.advance(RECONNECT_MS);
    assertTrue();
    assert.equal(latest().epoch, 2);
  });

  it('lists everything anew, as another history, when an answer contradicts what it told', async () => {
    await start();
    store.distrust(latest());
    await clock.advance(1);
    assert.equal(latest().epoch, 2);
    assert.equal(log.find(/contradicts/, 'info').length, 1);
    put(4);
    await clock.advance(1);
    assertTrue();
  });

  it('does so in growing intervals, and not for a world that was told before', async () => {
    await start();
    const [first] = worlds;
    assert.ok(first !== undefined);
    const listings = async (ms: number): Promise<number> => {
      const before = latest().epoch;
      for (let at = 0; at < ms; at += 500) {
        store.distrust(latest());
        store.distrust(first);
        await clock.advance(500);
      }
      return latest().epoch - before;
    };
    const [minute, hour] = [await listings(60_000), await listings(3_540_000)];
    assert.ok(minute >= 2 && minute <= 5, String(minute));
    assert.ok(hour >= 10 && hour <= 20, String(hour));
    const { epoch } = latest();
    await clock.advance(1_200_000);
    store.distrust(first);
    await clock.advance(RECONNECT_MS);
    assert.equal(latest().epoch, epoch);
    assert.ok((await listings(60_000)) >= 2, 'after a while it is heeded as at first');
  }).timeout(60_000);

  it('leaves a connection on which nothing comes any more', async () => {
    await start();
    link.partition('hang', { direction: 'answer' });
    put(4);
    await clock.advance(10_000 + 5000 + 1);
    assert.ok(store.counters().watchRestarts >= 1);
    await reconnect();
    await clock.advance(5000);
    assertTrue();
    assert.equal(latest().epoch, 1);
  });

  it('leaves a stream on which nothing comes although its connection is well', async () => {
    await start();
    link.freezeStreams();
    put(4);
    await clock.advance(25 * 60_000 + RECONNECT_MS);
    assertTrue();
    assert.equal(store.counters().watchRestarts, 1);
    await clock.advance(3_600_000);
    assert.equal(store.counters().watchRestarts, 1, 'a quiet stream is told that it is well');
  }).timeout(60_000);

  it('says nothing while etcd is away, least of all an empty world', async () => {
    await start();
    const { length } = worlds;
    cluster.setDown(true);
    await clock.advance(60_000);
    assert.equal(worlds.length, length);
    cluster.setDown(false);
    await clock.advance(RECONNECT_MS);
    put(9);
    await clock.advance(1);
    assertTrue();
    assert.equal(latest().epoch, 1);
  });

  it('asks once in a while, not as fast as it can, while following is refused', async () => {
    cluster.etcd.setAuth({ root: { password: 'x', permissions: 'root' } });
    await start();
    await clock.advance(600_000);
    const count = link.requestCount;
    assert.ok(count > 300 && count < 1000, String(count));
    assert.ok(log.lines.length <= 12, String(log.lines.length));
  });

  it('is over when it is closed, and when the store is', async () => {
    await start();
    following.close();
    await clock.advance(1);
    assert.equal(link.streamCount, 0);
    await start();
    await store.close();
    await clock.advance(0);
    cluster.etcd.close();
    assert.equal(clock.pending, 0);
  });

  describe('after an earlier process', () => {
    let mark: HistoryMark | undefined;

    beforeEach(async () => {
      await start();
      mark = newestMark(latest());
      following.close();
      await clock.advance(1);
    });

    it('goes on in its epoch if the history has what it knew', async () => {
      put(4);
      cluster.deleteLease(name(1));
      await start(mark);
      assert.equal(latest().epoch, 0);
      assertTrue();
    });

    it('goes on in it if the witness was written anew meanwhile', async () => {
      put(3);
      await start(mark);
      assert.equal(latest().epoch, 0);
    });

    for (const [title, happen] of [
      ['etcd was wiped', () => cluster.etcd.wipe()],
      ['it is another cluster', () => cluster.etcd.restore(cluster.etcd.backup(), { hasNewClusterId: true })],
      [
        'the proof was compacted',
        () => {
          put(3);
          cluster.etcd.compact();
        },
      ],
      ['nothing was known', () => (mark = undefined)],
    ] as const) {
      it(`begins an epoch if ${title}`, async () => {
        happen();
        await start(mark);
        await clock.advance(RECONNECT_MS);
        assert.equal(latest().epoch, 1);
      });
    }
  });
});
