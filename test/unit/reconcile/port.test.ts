import assert from 'node:assert/strict';
import { type DesiredState, EMPTY_STATE } from '../../../src/reconcile/desired.js';
import { Reconciler } from '../../../src/reconcile/reconciler.js';
import { mac } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { RecordingLogger } from '../../support/recorder.js';

const BRIDGE = 'tsfb-1';
const PORT = 'tsfv1';

function state(isIsolated = true, mtu = 1500): DesiredState {
  return {
    ...EMPTY_STATE,
    links: [
      { kind: 'bridge', name: BRIDGE, mtu, mac: mac(1) },
      { kind: 'veth', name: PORT, mtu },
    ],
    ports: [{ device: PORT, bridge: BRIDGE, isIsolated, isHairpin: false }],
  };
}

describe('ports of the reconciler', () => {
  let kernel: FakeKernel;
  let clock: FakeClock;
  let reconciler: Reconciler;

  beforeEach(() => {
    kernel = new FakeKernel();
    clock = new FakeClock();
    reconciler = new Reconciler({
      kernel,
      clock,
      logger: new RecordingLogger(),
      instance: 'a',
      tunnels: { open: () => Promise.reject(new Error('none')), workers: 0, disabledOffloads: [] },
    });
  });

  afterEach(() => reconciler.close());

  const desire = async (wanted: DesiredState): Promise<void> => {
    reconciler.setDesired(wanted, { scope: [] });
    await clock.advance(0);
  };

  const port = (): readonly unknown[] => {
    const link = kernel.getLink(PORT);
    return [kernel.links.get(link?.masterIndex ?? 0)?.name, link?.isIsolated, link?.isUp, link?.mtu];
  };

  const reasons = (): readonly string[] =>
    kernel.applied.filter(({ kind }) => kind === 'port').map(({ reason }) => reason);

  it('makes a bridge and puts a device that somebody has made on it, in one go, before it is up', async () => {
    kernel.addLink({ name: PORT, kind: 'veth' });
    await desire(state());
    assert.deepEqual(port(), [BRIDGE, true, true, 1500]);
    const done = kernel.applied.length;
    await desire({ ...state(), sysctls: [] });
    assert.equal(kernel.applied.length, done, 'once');
    assert.deepEqual(reasons(), ['missing']);
    const steps = kernel.applied.map(
      (operation) => `${operation.kind} ${'aspect' in operation ? operation.aspect : operation.verb}`,
    );
    assert.ok(steps.indexOf('port set') < steps.lastIndexOf('link up'), steps.join());
    assert.ok(steps.includes('port set'));
  });

  it('does so where the device has all that the kernel gives a port by itself', async () => {
    kernel.addLink({ name: PORT, kind: 'veth', isUp: true, alias: 'tsflannel:a' });
    await desire(state(false));
    assert.deepEqual([port(), reasons()], [[BRIDGE, false, true, 1500], ['missing']]);
  });

  it('waits for a device that is not there, and makes none', async () => {
    await desire(state());
    assert.equal(kernel.getLink(PORT), undefined);
    assert.equal(reconciler.status.blocked, 2, 'the device, and its place on the bridge');
    kernel.addLink({ name: PORT, kind: 'veth' });
    await clock.advance(1000);
    assert.deepEqual(port(), [BRIDGE, true, true, 1500]);
  });

  it('is put on no bridge of somebody else', async () => {
    kernel.addLink({ name: PORT, kind: 'veth' });
    kernel.addLink({ name: BRIDGE, kind: 'bridge', alias: 'tsflannel:b', isUp: true });
    await desire(state());
    assert.equal(kernel.getLink(PORT)?.masterIndex, 0);
  });

  it('puts it back when it was taken off, or its bridge was deleted', async () => {
    const { index } = kernel.addLink({ name: PORT, kind: 'veth' });
    await desire(state(false));
    await clock.advance(5000);
    kernel.setLink(index, { masterIndex: 0 });
    await clock.advance(1000);
    assert.deepEqual(port(), [BRIDGE, false, true, 1500]);
    await desire(state());
    kernel.setLink(index, { masterIndex: 0, isIsolated: false });
    kernel.delLink(kernel.getLink(BRIDGE)?.index ?? 0);
    await clock.advance(1000);
    assert.deepEqual(port(), [BRIDGE, true, true, 1500]);
  });

  it('follows what is desired of it', async () => {
    kernel.addLink({ name: PORT, kind: 'veth' });
    await desire(state());
    await desire(state(false, 1400));
    assert.deepEqual(port(), [BRIDGE, false, true, 1400]);
    assert.deepEqual(reasons(), ['missing', 'altered']);
    const hairpin = { device: PORT, bridge: BRIDGE, isIsolated: false, isHairpin: true };
    await desire({ ...state(false, 1400), ports: [hairpin] });
    assert.equal(kernel.getLink(PORT)?.isHairpin, true);
  });

  it('leaves a device of another kind alone, and deletes its own when it is no longer desired', async () => {
    const { index } = kernel.addLink({ name: PORT, kind: 'dummy' });
    await desire(state());
    assert.deepEqual([kernel.getLink(PORT)?.masterIndex, kernel.getLink(PORT)?.alias], [0, '']);
    kernel.delLink(index);
    kernel.addLink({ name: PORT, kind: 'veth' });
    await clock.advance(60_000);
    assert.deepEqual(port(), [BRIDGE, true, true, 1500]);
    await desire(EMPTY_STATE);
    assert.deepEqual([...kernel.links.values()], []);
  });
});
