import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type SavedState, StateDirectory } from '../../../src/daemon/saved-state.js';
import { lease } from '../../support/builders.js';
import { RecordingLogger } from '../../support/recorder.js';

const CONFIG = '{"Network": "10.5.0.0/16"}';

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
  });

  it('gives back what the process before saved last', async () => {
    const { directory } = rig();
    directory.save(state([2]));
    directory.save(state([2, 3]));
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
    assert.equal(statSync(path.join(parent, 'state', 'peers.json')).mode & 0o777, 0o600);
  });

  for (const damaged of ['config.json', 'own-lease.json', 'peers.json']) {
    it(`counts as empty when ${damaged} is damaged or missing`, async () => {
      const { directory } = rig();
      directory.save(state([2]));
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
      directory.save(state(peers));
      await directory.flush();
    }
    assert.equal(log.find(/cannot be saved/, 'warn').length, 1);
  });
});
