import assert from 'node:assert/strict';
import { ActualState } from '../../../src/reconcile/actual.js';
import { readActual } from '../../../src/reconcile/actual-reader.js';
import { type DesiredState, EMPTY_STATE, type SysctlSpec } from '../../../src/reconcile/desired.js';
import { DesiredIndex } from '../../../src/reconcile/desired-index.js';
import { diff } from '../../../src/reconcile/diff.js';
import { FormerValuesInMemory } from '../../../src/reconcile/former-values.js';
import { readSysctls, sysctlKind } from '../../../src/reconcile/kinds/sysctl.js';
import type { Operation } from '../../../src/reconcile/operation.js';
import { Ownership } from '../../../src/reconcile/ownership.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { finish } from '../../support/steps.js';

const PATH = 'net/ipv4/conf/eth0/rp_filter';
const OTHER = 'net/ipv4/conf/eth0/accept_local';

describe('kernel parameters', () => {
  let kernel: FakeKernel;
  let desired: DesiredIndex;
  let formerValues: FormerValuesInMemory;
  let ownership: Ownership;

  beforeEach(() => {
    kernel = new FakeKernel();
    kernel.addLink({ name: 'eth0', isUp: true });
    desired = new DesiredIndex();
    formerValues = new FormerValuesInMemory();
    ownership = new Ownership({ instance: 'a', scope: [], staleDevices: [] }, desired);
  });

  /** What is to be done for these parameters, and which of them have to wait. */
  async function plan(...sysctls: readonly SysctlSpec[]): Promise<readonly string[]> {
    finish(desired.update({ ...EMPTY_STATE, sysctls } satisfies DesiredState));
    const actual = await readActual(kernel, desired, ownership, newActual());
    const { operations, blocked } = finish(
      diff({
        ...{ actual, desired, ownership },
        ...{ isHeld: () => false, tunnelDevices: new Set<string>() },
      }),
    );
    const steps = operations.flatMap((op) =>
      op.kind === 'sysctl' ? [`${op.path}=${op.value} ${op.reason} of ${String(op.device)}`] : [],
    );
    return [...steps, ...Array.from(blocked, (key) => `${key} waits`)];
  }

  const newActual = (): ActualState => new ActualState(desired, ownership, 8472, new Map(), formerValues);

  /** What is known of the kernel, once these were read. */
  function known(...sysctls: readonly SysctlSpec[]): ActualState {
    finish(desired.update({ ...EMPTY_STATE, sysctls }));
    const actual = newActual();
    readSysctls(kernel, actual);
    return actual;
  }

  it('are set where they differ, and it is said whether they were there', async () => {
    kernel.sysctls.set(PATH, '0');
    assert.deepEqual(await plan({ path: PATH, value: '2' }), [`${PATH}=2 altered of eth0`]);
    assert.deepEqual(await plan({ path: PATH, value: '0' }), []);
    assert.deepEqual(await plan({ path: OTHER, value: '1' }), [`${OTHER}=1 missing of eth0`]);
    assert.deepEqual(await plan({ path: OTHER, value: '1', from: '0' }), [`${OTHER}=1 missing of eth0`]);
  });

  it('are left alone where they differ from what they may be changed from, or IPv6 has none', async () => {
    kernel.sysctls.set(PATH, '1');
    assert.deepEqual(await plan({ path: PATH, value: '2', from: '0' }), []);
    assert.deepEqual(await plan({ path: 'net/ipv6/conf/eth0/accept_ra', value: '2' }), []);
  });

  it('wait for their device, and for none where they are those of all or of new ones', async () => {
    const paths = ['eth9', 'all', 'default'].map((name) => `net/ipv4/conf/${name}/rp_filter`);
    for (const path of paths) kernel.sysctls.set(path, '1');
    const [first = '', ...others] = paths;
    assert.deepEqual(await plan({ path: first, value: '0' }), [`sysctl ${first} waits`]);
    for (const path of others) {
      assert.deepEqual(await plan({ path, value: '0' }), [`${path}=0 altered of undefined`]);
    }
  });

  it('are forgotten when they are gone, and known again when they were set', () => {
    kernel.sysctls.set(PATH, '1');
    const actual = known({ path: PATH, value: '1' });
    assert.deepEqual([...actual.sysctls], [[`sysctl ${PATH}`, '1']]);
    kernel.sysctls.delete(PATH);
    readSysctls(kernel, actual);
    assert.equal(actual.sysctls.size, 0);
    const set = { kind: 'sysctl', verb: 'set', reason: 'missing', device: 'eth0', path: PATH, value: '1' } as const;
    sysctlKind.record(actual, { ...set, key: `sysctl ${PATH}` } satisfies Operation<'sysctl'>);
    assert.equal(actual.sysctls.get(`sysctl ${PATH}`), '1');
  });

  it('keep in mind what they were as long as they are wanted, whatever somebody has set them to meanwhile', () => {
    formerValues.remember(PATH, { former: '0', value: '2' });
    kernel.sysctls.set(PATH, '1');
    known({ path: PATH, value: '2' });
    assert.equal(formerValues.entries.size, 1);
    const actual = known();
    assert.equal(formerValues.entries.size, 0, 'what somebody has set them to stays');
    assert.equal(actual.sysctls.size, 0);
  });

  it('get back what they were one by one, and are forgotten with that', async () => {
    for (const path of [PATH, OTHER]) {
      formerValues.remember(path, { former: '0', value: '2' });
      kernel.sysctls.set(path, '2');
    }
    const back = [PATH, OTHER].map((path) => `${path}=0 unexpected of eth0`).sort();
    assert.deepEqual([...(await plan())].sort(), back);
    const actual = known();
    const set = { kind: 'sysctl', verb: 'set', reason: 'unexpected', device: 'eth0', path: PATH, value: '0' } as const;
    sysctlKind.record(actual, { ...set, key: `sysctl ${PATH}` } satisfies Operation<'sysctl'>);
    assert.deepEqual([[...formerValues.entries.keys()], actual.sysctls.has(`sysctl ${PATH}`)], [[OTHER], false]);
  });

  it('stay as they are while another one, wanted or not, has the value that needs them', async () => {
    const keptWhile = { path: OTHER, value: '1' };
    formerValues.remember(PATH, { former: '0', value: '2', keptWhile });
    kernel.sysctls.set(PATH, '2');
    const back = `${PATH}=0 unexpected of eth0`;
    kernel.sysctls.set(OTHER, '1');
    assert.deepEqual(await plan(), []);
    kernel.sysctls.set(OTHER, '0');
    assert.deepEqual(await plan(), [back]);
    // That one gets back what it was in the same step, unless it is wanted.
    kernel.sysctls.set(OTHER, '1');
    formerValues.remember(PATH, { former: '0', value: '2', keptWhile });
    formerValues.remember(OTHER, { former: '0', value: '1' });
    assert.deepEqual([...(await plan())].sort(), [`${OTHER}=0 unexpected of eth0`, back].sort());
    assert.deepEqual(await plan({ path: OTHER, value: '1' }), []);
  });
});
