import assert from 'node:assert/strict';
import { ReachFollower } from '../../../src/container/reach-follower.js';
import { encodeBlock } from '../../../src/container/records.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeFiles } from '../../support/fake-files.js';
import { FakeSharedValues, FakeValueStore } from '../../support/fake-shared-values.js';
import { type ReachEntry, addressEntry, blockEntry, networkEntry, placeEntry } from '../../support/reach-entries.js';
import { RecordingLogger } from '../../support/recorder.js';

const FILE = '/state/container-routes.json';

describe('ReachFollower', () => {
  let clock: FakeClock;
  let values: FakeSharedValues;
  let store: FakeValueStore;
  let files: FakeFiles;
  let log: RecordingLogger;
  let follower: ReachFollower;
  let changes: number;

  const NETWORK = networkEntry({ type: 'overlay' });
  const BLOCK = blockEntry('a', '10.99.0.0/28');
  const SINGLE = addressEntry('b', '10.99.0.5');
  const PLACE = placeEntry('a', 1);

  beforeEach(() => {
    clock = new FakeClock();
    values = new FakeSharedValues(clock);
    store = new FakeValueStore(values, clock);
    files = new FakeFiles();
    log = new RecordingLogger();
    for (const entry of [NETWORK, BLOCK, SINGLE, PLACE]) poke(entry);
  });

  afterEach(() => follower.close());

  const poke = ({ path, text }: ReachEntry): void => values.poke(path, text);

  /** A new process of the host; the former one is dead or was closed. */
  async function start(options: { readonly etcdPrefix?: string } = {}): Promise<void> {
    changes = 0;
    follower = new ReachFollower({
      store,
      clock,
      log,
      files,
      file: FILE,
      etcdPrefix: '/coreos.com/network',
      onChange: () => changes++,
      ...options,
    });
    await follower.load();
    follower.start();
    await rest();
  }

  const rest = (ms = 50): Promise<void> => clock.advance(ms);
  const paths = (): readonly string[] => [...follower.known.facts.keys()].sort();
  const hostOf = ({ path }: ReachEntry): string | undefined => {
    const fact = follower.known.facts.get(path);
    return fact !== undefined && 'host' in fact ? fact.host : undefined;
  };
  const ALL = [NETWORK, BLOCK, SINGLE, PLACE].map(({ path }) => path).sort();

  it('knows what etcd has, and what changes there', async () => {
    await start();
    assert.deepEqual(paths(), ALL);
    poke(addressEntry('c', '10.99.0.5'));
    await rest();
    assert.equal(hostOf(SINGLE), 'c');
    assert.equal(changes, 2);
  });

  it('tells changes together that come together', async () => {
    await start();
    const before = changes;
    values.remove(SINGLE.path);
    poke(addressEntry('c', '10.99.0.5'));
    for (let n = 1; n < 9; n++) poke(blockEntry('a', `10.99.0.${n * 16}/28`));
    await rest();
    assert.equal(changes - before, 1);
    assert.equal(hostOf(SINGLE), 'c');
  });

  it('tells nothing of a container more in a block, unless others have single addresses there', async () => {
    values.remove(SINGLE.path);
    await start();
    const { changes: none } = { changes };
    const give = (own: bigint): void => values.poke(BLOCK.path, encodeBlock({ host: 'a', own, used: 0n }));
    give(1n);
    await rest();
    assert.equal(changes, none);
    poke(SINGLE);
    await rest();
    give(3n);
    await rest();
    assert.equal(changes, none + 2);
    values.remove(SINGLE.path);
    await rest();
    give(7n);
    await rest();
    assert.equal(changes, none + 3);
  });

  it('forgets a single address at once, and a block only after a grace', async () => {
    await start();
    for (const { path } of [SINGLE, BLOCK, PLACE]) values.remove(path);
    await rest();
    assert.deepEqual(paths(), [BLOCK.path, PLACE.path, NETWORK.path].sort());
    assert.deepEqual([...follower.known.fading].sort(), [BLOCK.path, PLACE.path].sort());
    poke(PLACE);
    await rest(3000);
    assert.deepEqual(paths(), [PLACE.path, NETWORK.path].sort());
    assert.equal(follower.known.fading.size, 0);
  });

  it('keeps all while etcd is away', async () => {
    await start();
    store.isAway = true;
    values.wipe();
    await rest(3_600_000);
    assert.deepEqual(paths(), ALL);
  });

  it('keeps what another history lacks until its hosts had time to tell it again, but believes what it has', async () => {
    await start();
    store.isAway = true;
    values.wipe();
    poke(addressEntry('c', '10.99.0.5'));
    await rest();
    store.isAway = false;
    follower.observe({ epoch: 1 });
    await rest();
    assert.deepEqual(paths(), ALL);
    assert.equal(hostOf(SINGLE), 'c');
    assert.ok(follower.known.fading.has(BLOCK.path) && !follower.known.fading.has(SINGLE.path));
    poke(BLOCK);
    await rest(390_000);
    assert.deepEqual(paths(), ALL);
    await rest(20_000);
    assert.deepEqual(paths(), [BLOCK.path, SINGLE.path].sort());
  });

  it('lists again only when the history is another one', async () => {
    await start();
    let listings = 0;
    const list = values.list.bind(values);
    values.list = (path) => {
      listings++;
      return list(path);
    };
    follower.observe({ epoch: 0 });
    follower.observe({ epoch: 2 });
    follower.observe({ epoch: 2 });
    await rest();
    assert.equal(listings, 1);
  });

  it('goes on with what it knew after a restart without etcd, and gives up what etcd lacks then', async () => {
    await start();
    await follower.close();
    store.isAway = true;
    await start();
    assert.deepEqual(paths(), ALL);
    await rest(3_600_000);
    assert.deepEqual(paths(), ALL, 'however long etcd is away');
    values.remove(SINGLE.path);
    await rest();
    store.isAway = false;
    await rest(1000);
    assert.deepEqual(paths(), ALL);
    await rest(400_000);
    assert.deepEqual(
      paths(),
      ALL.filter((path) => path !== SINGLE.path),
    );
  });

  it('writes it soon, to be read by nobody else, and seldom however much changes', async () => {
    const modes: unknown[] = [];
    const write = files.write.bind(files);
    files.write = (file, text, mode?: unknown) => {
      modes.push(mode);
      return write(file, text);
    };
    await start();
    for (let n = 0; n < 600; n++) {
      poke(addressEntry(n % 2 === 0 ? 'c' : 'd', '10.99.0.5'));
      await rest(100);
    }
    assert.ok(modes.length >= 4 && modes.length <= 7, `${modes.length} times in a minute`);
    assert.deepEqual(modes[0], { file: 0o600, directory: 0o700 });
    await follower.close();
    store.isAway = true;
    await start();
    assert.equal(hostOf(SINGLE), 'd');
  });

  it('tells once that it cannot be written, and writes it later', async () => {
    files.writeErrno = 'EROFS';
    await start();
    await rest(200_000);
    assert.equal(log.find(/cannot be saved/, 'warn').length, 1);
    files.writeErrno = undefined;
    await rest(100_000);
    assert.ok(files.texts.has(FILE));
  });

  for (const [title, spoil] of [
    ['of another cluster', (text: string) => text.replace('/coreos.com/network', '/other')],
    ['that is cut off', (text: string) => text.slice(0, -20)],
    ['of a later version', (text: string) => text.replace('"version":1', '"version":2')],
  ] as const) {
    it(`does not use a file ${title}`, async () => {
      await start();
      await follower.close();
      files.texts.set(FILE, spoil(files.texts.get(FILE) ?? ''));
      store.isAway = true;
      await start();
      assert.deepEqual(paths(), []);
      assert.equal(log.find(/cannot be used/, 'warn').length, 1);
    });
  }

  it('names what it cannot read, until it is written right or deleted', async () => {
    await start();
    values.poke(BLOCK.path, 'junk');
    values.poke(PLACE.path, '{}');
    await rest();
    assert.deepEqual([...follower.known.bad].sort(), [BLOCK.path, PLACE.path].sort());
    assert.ok(!paths().includes(BLOCK.path));
    poke(BLOCK);
    values.remove(PLACE.path);
    await rest();
    assert.deepEqual([...follower.known.bad], []);
    assert.ok(paths().includes(BLOCK.path));
  });

  it('tells nothing any more once it is closed', async () => {
    await start();
    const before = changes;
    poke(addressEntry('c', '10.99.0.5'));
    await follower.close();
    await rest(5000);
    assert.equal(changes, before);
  });
});
