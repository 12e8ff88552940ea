import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type DesiredState, EMPTY_STATE, type SysctlSpec } from '../../../src/reconcile/desired.js';
import { type FormerValues, FormerValuesInMemory } from '../../../src/reconcile/former-values.js';
import { FORMER_VALUES_FILE, FormerValuesFile } from '../../../src/reconcile/former-values-file.js';
import { Reconciler } from '../../../src/reconcile/reconciler.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { RecordingLogger } from '../../support/recorder.js';

const PATH = 'net/ipv6/conf/eth0/accept_ra';
const TWO: DesiredState = { ...EMPTY_STATE, sysctls: [{ path: PATH, value: '2', from: '1', isRestored: true }] };

describe('parameters that get back what they were', () => {
  let kernel: FakeKernel;
  let clock: FakeClock;
  let reconciler: Reconciler;
  let formerValues: FormerValues;

  const start = (): Reconciler =>
    new Reconciler({
      kernel,
      clock,
      logger: new RecordingLogger(),
      instance: 'a',
      tunnels: { open: () => Promise.reject(new TypeError('none here')), workers: 0, disabledOffloads: [] },
      formerValues,
    });

  const reach = async (state: DesiredState): Promise<void> => {
    reconciler.setDesired(state);
    await clock.advance(500);
    assert.ok(reconciler.status.isConverged);
  };

  const value = (): string | undefined => kernel.sysctls.get(PATH);

  beforeEach(() => {
    kernel = new FakeKernel();
    clock = new FakeClock();
    formerValues = new FormerValuesInMemory();
    kernel.addLink({ name: 'eth0', isUp: true });
    kernel.sysctls.set(PATH, '1');
    reconciler = start();
  });

  afterEach(async () => {
    await reconciler.close();
  });

  it('do so when nobody wants them changed any more', async () => {
    await reach(TWO);
    assert.equal(value(), '2');
    await reach(EMPTY_STATE);
    assert.equal(value(), '1');
    assert.equal(formerValues.entries.size, 0);
  });

  it('do so after a restart as well', async () => {
    await reach(TWO);
    await reconciler.close();
    assert.equal(value(), '2', 'the end of a process changes nothing');
    reconciler = start();
    await reach(TWO);
    await reach(EMPTY_STATE);
    assert.equal(value(), '1');
  });

  for (const other of ['0', '2']) {
    it(`are left alone at ${other}, which is what somebody wants`, async () => {
      kernel.sysctls.set(PATH, other);
      await reach(TWO);
      assert.equal(value(), other);
      await reach(EMPTY_STATE);
      assert.equal(value(), other);
    });
  }

  it('keep what somebody has set them to since', async () => {
    await reach(TWO);
    kernel.sysctls.set(PATH, '0');
    await clock.advance(60_000);
    assert.equal(value(), '0');
    await reach(EMPTY_STATE);
    assert.equal(value(), '0');
    kernel.sysctls.set(PATH, '2');
    await clock.advance(60_000);
    assert.equal(value(), '2', 'nothing is remembered any more');
  });

  it('are forgotten with their device', async () => {
    await reach(TWO);
    kernel.sysctls.delete(PATH);
    await reach(EMPTY_STATE);
    assert.equal(formerValues.entries.size, 0);
  });

  it('are not changed as long as it cannot be noted what they were', async () => {
    const remember = formerValues.remember.bind(formerValues);
    formerValues.remember = () => {
      throw new Error('no space left on device');
    };
    reconciler.setDesired(TWO);
    await clock.advance(500);
    assert.equal(value(), '1');
    formerValues.remember = remember;
    await clock.advance(60_000);
    assert.equal(value(), '2');
  });

  const FORWARDING = 'net/ipv6/conf/all/forwarding';
  const KEPT: SysctlSpec = {
    path: PATH,
    value: '2',
    from: '1',
    isRestored: true,
    keptWhile: { path: FORWARDING, value: '1' },
  };

  it('stay as long as another parameter makes them needed, and do so afterwards', async () => {
    kernel.sysctls.set(FORWARDING, '1');
    await reach({ ...EMPTY_STATE, sysctls: [KEPT] });
    await reach(EMPTY_STATE);
    await reconciler.close();
    reconciler = start();
    await reach(EMPTY_STATE);
    assert.equal(value(), '2');
    kernel.sysctls.set(FORWARDING, '0');
    await clock.advance(60_000);
    assert.equal(value(), '1');
  });

  it('do so together with the one that made them needed', async () => {
    kernel.sysctls.set(FORWARDING, '0');
    await reach({ ...EMPTY_STATE, sysctls: [KEPT, { path: FORWARDING, value: '1', isRestored: true }] });
    assert.deepEqual([value(), kernel.sysctls.get(FORWARDING)], ['2', '1']);
    assert.deepEqual(
      kernel.applied.map(({ key }) => key),
      [`sysctl ${PATH}`, `sysctl ${FORWARDING}`],
      'no moment in which the host forwards and ignores its router',
    );
    await reach(EMPTY_STATE);
    assert.deepEqual([value(), kernel.sysctls.get(FORWARDING)], ['1', '0']);
  });

  it('keep their value where it is not asked to be put back', async () => {
    const plain: SysctlSpec = { path: PATH, value: '0' };
    await reach({ ...EMPTY_STATE, sysctls: [plain] });
    await reach(EMPTY_STATE);
    assert.equal(value(), '0');
  });
});

describe('FormerValuesFile', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsf-former-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  const kept = (values: FormerValues): unknown => Object.fromEntries(values.entries);

  it('tells a later process what was remembered, apart for each', () => {
    const file = FormerValuesFile.open(path.join(directory, 'new'), 'boot');
    file.of('a').remember(PATH, { former: '1', value: '2' });
    file.of('b').remember('other', { former: '80', value: '0', keptWhile: { path: 'x', value: '1' } });
    const later = FormerValuesFile.open(path.join(directory, 'new'), 'boot');
    assert.deepEqual(kept(later.of('a')), { [PATH]: { former: '1', value: '2' } });
    assert.deepEqual(Object.keys(kept(later.of('c', 'a', 'b')) as object), [PATH, 'other']);
    later.of('c', 'a').forget(PATH);
    const last = FormerValuesFile.open(path.join(directory, 'new'), 'boot');
    assert.deepEqual(kept(last.of('a')), {});
    assert.deepEqual(kept(last.of('b')), { other: { former: '80', value: '0', keptWhile: { path: 'x', value: '1' } } });
  });

  it('forgets with a reboot, as the kernel does', () => {
    FormerValuesFile.open(directory, 'boot').of('a').remember(PATH, { former: '1', value: '2' });
    assert.deepEqual(kept(FormerValuesFile.open(directory, 'next').of('a')), {});
  });

  for (const text of ['', '{', '[]', 'null', '{"boot":"boot","parameters":{"a":{"x":{"former":1}}}}']) {
    it(`takes nothing from a file with ${JSON.stringify(text)}`, () => {
      writeFileSync(path.join(directory, FORMER_VALUES_FILE), text);
      const file = FormerValuesFile.open(directory, 'boot');
      assert.deepEqual(kept(file.of('a')), {});
      file.of('a').remember(PATH, { former: '1', value: '2' });
      assert.match(readFileSync(path.join(directory, FORMER_VALUES_FILE), 'utf8'), /accept_ra/);
    });
  }

  it('says what is wrong when it cannot be written', () => {
    const file = path.join(directory, 'file');
    writeFileSync(file, '');
    assert.throws(
      () => FormerValuesFile.open(path.join(file, 'below'), 'boot').of('a').remember(PATH, { former: '1', value: '2' }),
      { code: 'ERR_SYSCTL', message: /kernel-parameters\.json/ },
    );
  });
});
