import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { SavedOrigin } from '../../../src/daemon/saved-origin.js';
import { StateDirectory, type StateToSave } from '../../../src/daemon/saved-state.js';
import type { Lease } from '../../../src/lease/lease.js';
import { encodePeerCache } from '../../../src/lease/peer-cache.js';
import type { EtcdLeaseId } from '../../../src/lease/record.js';
import type { HistoryMark } from '../../../src/lease/world.js';
import { systemFiles } from '../../../src/sys/text-files.js';
import { lease, net } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { FakeFiles } from '../../support/fake-files.js';
import { RecordingLogger } from '../../support/recorder.js';

const CONFIG = '{"Network": "10.5.0.0/16"}';
const MARK: HistoryMark = {
  clusterId: '14841639068965178418',
  leaseKey: '10.5.1.0-24',
  revision: '42',
  createdAt: '40',
  etcdLeaseId: '694d8dce65c2a10a' as EtcdLeaseId,
};
const ORIGIN: SavedOrigin = {
  machine: 'm1',
  boot: 'b1',
  etcdPrefix: '/coreos.com/network',
  savedAtMs: 1_700_000_000_000,
  expiresAtMs: 1_700_086_400_000,
};
const HOUR = 3_600_000;

const peer = (n: number, change: Partial<Lease> = {}): Lease => ({
  ...lease(n, { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:01' } }),
  ...change,
});
const state = (peers: readonly (number | Lease)[], change: Partial<StateToSave> = {}): StateToSave => ({
  config: CONFIG,
  own: lease(1),
  origin: ORIGIN,
  peers: peers.map((each) => (typeof each === 'number' ? peer(each) : each)),
  mark: MARK,
  ...change,
});

/** Files in memory that tell which of them were written. */
class CountingFiles extends FakeFiles {
  written: string[] = [];

  override write(file: string, text: string): Promise<void> {
    this.written.push(path.basename(file));
    return super.write(file, text);
  }

  /** What was written since it was asked last. */
  take(): string[] {
    return this.written.splice(0);
  }
}

describe('state directory', () => {
  let parent: string;
  let clock: FakeClock;
  beforeEach(() => {
    parent = mkdtempSync(path.join(tmpdir(), 'tsflannel-test-'));
    clock = new FakeClock();
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  const rig = (name = 'state', former?: string): { directory: StateDirectory; log: RecordingLogger } => {
    const log = new RecordingLogger();
    const options = { directory: path.join(parent, name), log, clock, files: systemFiles };
    return {
      directory: new StateDirectory({ ...options, former: former && path.join(parent, former) }),
      log,
    };
  };
  const inMemory = (): { directory: StateDirectory; files: CountingFiles; log: RecordingLogger } => {
    const [files, log] = [new CountingFiles(), new RecordingLogger()];
    return { directory: new StateDirectory({ directory: '/state', log, clock, files }), files, log };
  };
  const saved = async (...states: StateToSave[]): Promise<void> => {
    const { directory } = rig();
    for (const each of states) {
      directory.save(() => each);
      await directory.flush();
    }
    await directory.close();
  };

  it('gives back what the process before saved last, in files that nobody else can read', async () => {
    await saved(state([2]), state([2, 3]));
    const loaded = await rig().directory.load();
    assert.equal(loaded?.config, CONFIG);
    assert.equal(loaded.own.subnet.toString(), '10.5.1.0/24');
    assert.deepEqual(loaded.origin, ORIGIN);
    assert.deepEqual(
      loaded.peers.map(({ subnet, attributes }) => [subnet.toString(), attributes.backendType]),
      [
        ['10.5.2.0/24', 'vxlan'],
        ['10.5.3.0/24', 'vxlan'],
      ],
    );
    assert.deepEqual(loaded.mark, MARK);
    const modeOf = (name: string): number => statSync(path.join(parent, 'state', name)).mode & 0o777;
    assert.equal(modeOf('.'), 0o700);
    for (const name of ['config.json', 'own-lease.json', 'peers.json', 'history.json']) {
      assert.equal(modeOf(name), 0o600, name);
    }
  });

  it('begins without a history if none was known, even if an earlier state had one', async () => {
    await saved(state([2]), state([2], { mark: undefined }));
    const loaded = await rig().directory.load();
    assert.ok(loaded !== undefined);
    assert.equal(loaded.mark, undefined);
  });

  for (const [title, damage] of [
    ['missing, as after an update from a version without it', (file: string) => rmSync(file)],
    ['damaged', (file: string) => writeFileSync(file, '{"half a fi')],
    [
      'not readable',
      (file: string) => {
        rmSync(file);
        mkdirSync(file);
      },
    ],
  ] as const) {
    it(`loses no more than the history when that is ${title}`, async () => {
      await saved(state([2]));
      damage(path.join(parent, 'state', 'history.json'));
      const loaded = await rig().directory.load();
      assert.equal(loaded?.peers.length, 1);
      assert.equal(loaded.mark, undefined);
    });
  }

  for (const name of ['config.json', 'own-lease.json', 'peers.json']) {
    it(`counts as empty when ${name} is damaged, which is told, or missing`, async () => {
      await saved(state([2]));
      writeFileSync(path.join(parent, 'state', name), '{"half a fi');
      const damaged = rig();
      assert.equal(await damaged.directory.load(), undefined);
      assert.equal(damaged.log.find(/saved state cannot be used/, 'warn').length, 1);
      rmSync(path.join(parent, 'state', name));
      const missing = rig();
      assert.equal(await missing.directory.load(), undefined);
      assert.equal(missing.log.find(/saved state/, 'warn').length, 0);
    });
  }

  it('is refused when it does not say properly whose it is', async () => {
    await saved(state([2]));
    const file = path.join(parent, 'state', 'own-lease.json');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"machine":"m1"', '"machine":1'));
    const { directory, log } = rig();
    assert.equal(await directory.load(), undefined);
    assert.equal(log.find(/saved state cannot be used/, 'warn').length, 1);
  });

  it('is found where an earlier version kept it, unless there is a newer one', async () => {
    mkdirSync(path.join(parent, 'former'));
    const put = (name: string, text: string): void => writeFileSync(path.join(parent, 'former', name), text);
    put('config.json', CONFIG);
    put('own-lease.json', encodePeerCache([lease(9)]));
    put('peers.json', encodePeerCache([peer(8)]));
    const old = await rig('state', 'former').directory.load();
    assert.equal(old?.own.subnet.toString(), '10.5.9.0/24');
    assert.deepEqual([old.origin, old.peers.length], [undefined, 1]);
    await saved(state([2]));
    assert.equal((await rig('state', 'former').directory.load())?.own.subnet.toString(), '10.5.1.0/24');
  });

  it('writes the history after what it vouches for', async () => {
    const { directory, files } = inMemory();
    directory.save(() => state([2]));
    await directory.flush();
    assert.deepEqual(files.take(), ['config.json', 'own-lease.json', 'peers.json', 'history.json']);
  });

  it('saves the state as it is when it is written, once for many changes', async () => {
    const { directory, files } = inMemory();
    let asked = 0;
    for (let turn = 0; turn < 5; turn++) directory.save(() => (asked++, state([turn])));
    assert.equal(asked, 0);
    await clock.advance(10_000);
    assert.equal(asked, 1);
    assert.equal(files.take().length, 4);
  });

  it('does not write what was only renewed', async () => {
    const { directory, files } = inMemory();
    let turn = 0;
    const now = (): StateToSave =>
      state([peer(2, { revision: String(100 + turn) })], {
        origin: {
          ...ORIGIN,
          savedAtMs: ORIGIN.savedAtMs + turn,
          expiresAtMs: (ORIGIN.expiresAtMs ?? 0) + turn * 300_000,
        },
        mark: { ...MARK, revision: String(100 + turn) },
      });
    directory.save(now);
    await directory.flush();
    files.take();
    for (turn = 1; turn <= 60; turn++) {
      directory.save(now);
      await clock.advance(300_000);
    }
    assert.deepEqual(files.take(), []);
  });

  it('writes the end of its own lease every six hours, and nothing big with it', async () => {
    const { directory, files } = inMemory();
    const start = clock.monotonicMs();
    directory.save(() =>
      state([2], { origin: { ...ORIGIN, expiresAtMs: (ORIGIN.expiresAtMs ?? 0) + clock.monotonicMs() - start } }),
    );
    await clock.advance(10_000);
    files.take();
    await clock.advance(24 * HOUR);
    assert.deepEqual(files.take(), Array.from({ length: 4 }, () => ['own-lease.json', 'history.json']).flat());
  });

  it('writes the end of its own lease and the newest history at the end, and nothing afterwards', async () => {
    const { directory, files } = inMemory();
    directory.save(() => state([2]));
    await directory.flush();
    files.take();
    directory.save(() => state([2], { origin: { ...ORIGIN, expiresAtMs: 1_700_086_700_000 } }));
    await directory.close();
    assert.deepEqual(files.take(), ['own-lease.json', 'history.json']);
    directory.save(() => state([3]));
    await directory.close();
    assert.deepEqual(files.take(), []);
    assert.equal(clock.pending, 0);
  });

  it('writes thousands of peers that come and go now and then only, and at the end', async () => {
    const { directory, files } = inMemory();
    const peers = Array.from({ length: 5000 }, (_, n) =>
      peer(2, { subnet: net(`10.${100 + (n >> 8)}.${n & 255}.0/24`) }),
    );
    let turn = 0;
    const change = async (): Promise<void> => {
      turn++;
      directory.save(() => state(peers.slice(turn)));
      await clock.advance(10_000);
    };
    const startMs = clock.monotonicMs();
    while (clock.monotonicMs() - startMs < HOUR) await change();
    const writes = files.take().filter((name) => name === 'peers.json').length;
    const bytes = files.texts.get('/state/peers.json')?.length ?? 0;
    assert.ok(writes > 5, `${writes} times`);
    assert.ok(bytes < 2_000_000, `${bytes} bytes`);
    // 64 KiB in ten seconds, and the first time at once.
    assert.ok((writes - 1) * bytes <= (HOUR / 10_000) * 65_536, `${writes} times ${bytes} bytes in an hour`);
    await change();
    await directory.close();
    assert.equal(files.texts.get('/state/peers.json')?.split('\n').length, 5000 - turn + 3);
  });

  it('saves nothing while there is nothing to be saved, and keeps what there was', async () => {
    const { directory, files } = inMemory();
    directory.save(() => undefined);
    await directory.close();
    assert.deepEqual(files.take(), []);
  });

  it('complains once while it cannot write, and tries again', async () => {
    const { directory, files, log } = inMemory();
    files.writeErrno = 'ENOSPC';
    for (const peers of [[2], [3]]) {
      directory.save(() => state(peers));
      await directory.flush();
    }
    assert.equal(log.find(/cannot be saved/, 'warn').length, 1);
    files.writeErrno = undefined;
    files.take();
    await clock.advance(60_000);
    await settle();
    assert.equal(files.take().length, 4);
  });
});
