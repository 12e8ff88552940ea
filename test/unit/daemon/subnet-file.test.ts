import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { SubnetFile } from '../../../src/daemon/subnet-file.js';
import { isOverlayError } from '../../../src/errors.js';
import { lease, network } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('subnet file', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-test-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const rig = (): { file: SubnetFile; log: RecordingLogger; name: string } => {
    const log = new RecordingLogger();
    const name = path.join(directory, 'subnet.env');
    return { file: new SubnetFile(name, new FakeClock(), log), log, name };
  };
  const env = (n: number, mtu: number): Parameters<SubnetFile['update']>[0] => ({
    network: network(),
    lease: lease(n),
    mtu,
    isMasquerading: false,
  });

  it('is written once for the same content', async () => {
    const { file, log, name } = rig();
    await file.load();
    await file.update(env(1, 1472));
    await file.update(env(1, 1472));
    assert.equal(log.find(/subnet file written/).length, 1);
    assert.match(readFileSync(name, 'utf8'), /FLANNEL_SUBNET=10\.5\.1\.1\/24/);
    assert.equal(file.mtu, 1472);
    assert.equal(file.pendingRestart?.hint, undefined, 'nobody has read another one');
  });

  it('says which restart Docker needs when subnet or MTU differ from what an earlier process wrote', async () => {
    const { file, log, name } = rig();
    writeFileSync(name, 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.7.1/24\nFLANNEL_MTU=1450\n');
    await file.load();
    assert.equal(file.previousSubnets.subnet?.toString(), '10.5.7.0/24');
    assert.deepEqual(file.previousNetworks.map(String), ['10.5.0.0/16']);
    await file.update(env(7, 1450));
    assert.equal(file.pendingRestart?.hint, undefined);
    await file.update(env(8, 1472));
    assert.equal(
      file.pendingRestart?.hint,
      'subnet 10.5.7.0/24 → 10.5.8.0/24, MTU 1450 → 1472: systemctl restart docker',
    );
    assert.equal(log.find(/restart of Docker/, 'warn').length, 1);
  });

  it('shows why it cannot be written until it can', async () => {
    const { log } = rig();
    const blocked = path.join(directory, 'file');
    writeFileSync(blocked, '');
    const file = new SubnetFile(path.join(blocked, 'subnet.env'), new FakeClock(), log);
    await assert.rejects(file.update(env(1, 1472)), (error) => isOverlayError(error, 'ERR_SUBNET_FILE'));
    assert.match(file.status.error ?? '', /cannot write/);
    rmSync(blocked);
    await file.update(env(1, 1472));
    assert.equal(file.status.error, null);
    assert.ok(file.status.writtenAt !== null);
  });
});
