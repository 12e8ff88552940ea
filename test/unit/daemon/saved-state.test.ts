import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type SavedState, StateDirectory } from '../../../src/daemon/saved-state.js';
import type { TtlId } from '../../../src/lease/record.js';
import type { HistoryMark } from '../../../src/lease/world.js';
import { lease } from '../../support/builders.js';
import { systemFiles } from '../../../src/sys/text-files.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';

const CONFIG = '{"Network": "10.5.0.0/16"}';
const MARK: HistoryMark = {
  clusterId: '14841639068965178418',
  leaseKey: '10.5.1.0-24',
  revision: '42',
  createdAt: '40',
  ttlId: '694d8dce65c2a10a' as TtlId,
};

describe('state directory', () => {
  let parent: string;
  beforeEach(() => {
    parent = mkdtempSync(path.join(tmpdir(), 'tsflannel-test-'));
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  const rig = (name = 'state'): { directory: StateDirectory; log: RecordingLogger } => {
    const log = new RecordingLogger();
    // A timer that never fires: the tests flush.
    return { directory: new StateDirectory(path.join(parent, name), log, () => () => {}), log };
  };
  const state = (peers: number[]): SavedState => ({
    config: CONFIG,
    own: lease(1),
    peers: peers.map((n) => lease(n, { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:01' } })),
    mark: MARK,
  });

  it('gives back what the process before saved last', async () => {
    const { directory } = rig();
    directory.save(() => state([2]));
    directory.save(() => state([2, 3]));
    await directory.flush();
    const loaded = await rig().directory.load();
    assert.equal(loaded?.config, CONFIG);
    assert.equal(loaded.own.subnet.toString(), '10.5.1.0/24');
    assert.deepEqual(
      loaded.peers.map((peer) => [peer.subnet.toString(), peer.attributes.backendType]),
      [
        ['10.5.2.0/24', 'vxlan'],
        ['10.5.3.0/24', 'vxlan'],
      ],
    );
    assert.deepEqual(loaded.mark, MARK);
    for (const name of ['peers.json', 'history.json']) {
      assert.equal(statSync(path.join(parent, 'state', name)).mode & 0o777, 0o600);
    }
  });

  it('begins without a history if none was known, even if an earlier state had one', async () => {
    const { directory } = rig();
    directory.save(() => state([2]));
    await directory.flush();
    directory.save(() => ({ ...state([2]), mark: undefined }));
    await directory.flush();
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
      const { directory } = rig();
      directory.save(() => state([2]));
      await directory.flush();
      damage(path.join(parent, 'state', 'history.json'));
      const loaded = await rig().directory.load();
      assert.equal(loaded?.peers.length, 1);
      assert.equal(loaded.mark, undefined);
    });
  }

  it('writes the history after what it vouches for', async () => {
    const written: string[] = [];
    const files = { ...systemFiles, write: (file: string) => Promise.resolve(void written.push(path.basename(file))) };
    const directory = new StateDirectory(parent, new RecordingLogger(), () => () => {}, files);
    directory.save(() => state([2]));
    await directory.flush();
    assert.equal(written.at(-1), 'history.json');
    assert.equal(written.length, 4);
  });

  it('saves the state as it is when it is written, once for many changes', async () => {
    const clock = new FakeClock();
    const log = new RecordingLogger();
    const writes: string[] = [];
    const files = { ...systemFiles, write: (file: string) => Promise.resolve(void writes.push(path.basename(file))) };
    const directory = new StateDirectory(parent, log, (ms, callback) => clock.after(ms, callback), files);
    let asked = 0;
    for (let turn = 0; turn < 5; turn++) directory.save(() => (asked++, state([turn])));
    assert.equal(asked, 0);
    await clock.advance(10_000);
    assert.equal(asked, 1);
    assert.deepEqual(writes, ['config.json', 'own-lease.json', 'peers.json', 'history.json']);
    assert.equal(clock.pending, 0);
  });

  for (const damaged of ['config.json', 'own-lease.json', 'peers.json']) {
    it(`counts as empty when ${damaged} is damaged or missing`, async () => {
      const { directory } = rig();
      directory.save(() => state([2]));
      await directory.flush();
      writeFileSync(path.join(parent, 'state', damaged), '{"half a fi');
      assert.equal(await rig().directory.load(), undefined);
      rmSync(path.join(parent, 'state', damaged));
      assert.equal(await rig().directory.load(), undefined);
    });
  }

  it('complains once while it cannot write', async () => {
    writeFileSync(path.join(parent, 'file'), '');
    const { directory, log } = rig('file/state');
    for (const peers of [[2], [3]]) {
      directory.save(() => state(peers));
      await directory.flush();
    }
    assert.equal(log.find(/cannot be saved/, 'warn').length, 1);
  });
});
