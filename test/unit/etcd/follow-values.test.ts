import assert from 'node:assert/strict';
import type { EtcdStore } from '../../../src/etcd/store.js';
import type { ValueNews, ValuesFollowing } from '../../../src/lease/store.js';
import { FakeClock } from '../../support/fake-clock.js';
import { SimEtcdCluster } from '../../support/sim-etcd/cluster.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';

const OWN = '/coreos.com/network-ts/';

/** Longer than any delay between two attempts to follow. */
const RECONNECT_MS = 12_000;

describe('following values', () => {
  let clock: FakeClock;
  let cluster: SimEtcdCluster;
  let store: EtcdStore;
  let link: SimLink;
  let listings: number;
  let following: ValuesFollowing;
  let known: Map<string, string>;

  beforeEach(async () => {
    clock = new FakeClock();
    cluster = new SimEtcdCluster({ clock });
    ({ store } = simStore(clock, { cluster }));
    link = cluster.link('host-1');
    listings = 0;
    known = new Map();
    for (const name of ['a', 'b']) put(name, '1');
    following = store.followValues('followed/', take);
    await clock.advance(1);
  });

  afterEach(async () => {
    following.close();
    await store.close();
    cluster.close();
  });

  const put = (name: string, text: string): void => cluster.put(`${OWN}followed/${name}`, text);
  const remove = (name: string): boolean => cluster.delete(`${OWN}followed/${name}`);

  function take({ isListing, written, deleted }: ValueNews): void {
    if (isListing) {
      listings++;
      known.clear();
    }
    for (const path of deleted) known.delete(path);
    for (const { path, text } of written) known.set(path, text);
  }

  const texts = (): readonly string[] => [...known].map(([path, text]) => `${path.slice(9)}=${text}`).sort();

  async function reconnect(): Promise<void> {
    link.heal();
    await clock.advance(RECONNECT_MS);
  }

  it('goes on where the stream broke, without listing again', async () => {
    link.partition('refuse');
    put('c', '1');
    put('a', '2');
    remove('b');
    await clock.advance(60_000);
    assert.deepEqual(texts(), ['a=1', 'b=1'], 'nothing is forgotten while etcd is away');
    await reconnect();
    assert.deepEqual(texts(), ['a=2', 'c=1']);
    assert.equal(listings, 1);
  });

  it('tells all again when what happened meanwhile was compacted', async () => {
    link.partition('refuse');
    put('a', '2');
    remove('b');
    cluster.compact();
    await reconnect();
    assert.deepEqual(texts(), ['a=2']);
    assert.deepEqual([listings, store.counters().compactions], [2, 1]);
  });

  it('tells all again when etcd was wiped and has not reached the old revision', async () => {
    cluster.wipe();
    put('n', '1');
    await clock.advance(RECONNECT_MS);
    assert.deepEqual(texts(), ['n=1']);
    put('n', '2');
    await clock.advance(1);
    assert.deepEqual(texts(), ['n=2']);
  });

  it('tells all again when it is asked to, also if it is asked while it lists', async () => {
    following.relist();
    following.relist();
    await clock.advance(RECONNECT_MS);
    assert.ok(listings >= 2);
    put('a', '3');
    await clock.advance(1);
    assert.deepEqual(texts(), ['a=3', 'b=1']);
  });
});
