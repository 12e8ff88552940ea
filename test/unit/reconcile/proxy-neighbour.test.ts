import assert from 'node:assert/strict';
import { type DesiredState, EMPTY_STATE, ROUTE_PROTOCOL } from '../../../src/reconcile/desired.js';
import { Reconciler } from '../../../src/reconcile/reconciler.js';
import { ip, net } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeKernel } from '../../support/fake-kernel.js';
import { RecordingLogger } from '../../support/recorder.js';

const SCOPE = { proxyScope: [net('2001:db8:0:1:8000::/66')] };
const ADDRESS = '2001:db8:0:1:8000::2';

describe('proxy neighbours', () => {
  let kernel: FakeKernel;
  let clock: FakeClock;
  let reconciler: Reconciler;
  let eth0: number;

  const answering = (...addresses: readonly string[]): DesiredState => ({
    ...EMPTY_STATE,
    proxyNeighbours: addresses.map((address) => ({ device: 'eth0', address: ip(address) })),
  });

  const reach = async (state: DesiredState): Promise<void> => {
    reconciler.setDesired(state, SCOPE);
    await clock.advance(500);
  };

  const present = (): string[] =>
    Array.from(kernel.proxies.values(), ({ address, protocol }) => `${address.toString()} ${protocol}`).sort();

  beforeEach(() => {
    kernel = new FakeKernel();
    clock = new FakeClock();
    eth0 = kernel.addLink({ name: 'eth0', isUp: true, isRunning: true }).index;
    reconciler = new Reconciler({
      kernel,
      clock,
      logger: new RecordingLogger(),
      instance: 'a',
      tunnels: { open: () => Promise.reject(new TypeError('none here')), workers: 0, disabledOffloads: [] },
    });
  });

  afterEach(async () => {
    await reconciler.close();
  });

  it('are put on a device that is not ours, and removed when nobody wants them any more', async () => {
    await reach(answering(ADDRESS, '2001:db8:0:1:8000::3'));
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`, `2001:db8:0:1:8000::3 ${ROUTE_PROTOCOL}`]);
    await reach(answering(ADDRESS));
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`]);
    assert.ok(reconciler.status.isConverged);
  });

  it('of others are left alone, in our networks as well, and serve as ours would', async () => {
    kernel.putProxy({ index: eth0, address: ip(ADDRESS), protocol: 0 });
    kernel.putProxy({ index: eth0, address: ip('2001:db8:0:1:8000::9'), protocol: 4 });
    await reach(answering(ADDRESS));
    assert.deepEqual(present(), [`${ADDRESS} 0`, '2001:db8:0:1:8000::9 4']);
    await reach(EMPTY_STATE);
    assert.deepEqual(present(), [`${ADDRESS} 0`, '2001:db8:0:1:8000::9 4']);
  });

  it('of another daemon of this kind stay: they lie in its networks', async () => {
    kernel.putProxy({ index: eth0, address: ip('2001:db8:0:1:4000::2'), protocol: ROUTE_PROTOCOL });
    await reach(EMPTY_STATE);
    assert.deepEqual(present(), [`2001:db8:0:1:4000::2 ${ROUTE_PROTOCOL}`]);
  });

  it('stay where another part of the daemon answers, though they lie in the overlay', async () => {
    kernel.putProxy({ index: eth0, address: ip(ADDRESS), protocol: ROUTE_PROTOCOL });
    reconciler.setDesired(EMPTY_STATE, { scope: SCOPE.proxyScope });
    await clock.advance(500);
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`]);
  });

  it('that an earlier process left go when they are no longer wanted', async () => {
    kernel.putProxy({ index: eth0, address: ip(ADDRESS), protocol: ROUTE_PROTOCOL });
    await reach(EMPTY_STATE);
    assert.deepEqual(present(), []);
  });

  it('are put again after the device was down', async () => {
    await reach(answering(ADDRESS));
    kernel.setLink(eth0, { isUp: false });
    await clock.advance(500);
    assert.deepEqual(present(), []);
    kernel.setLink(eth0, { isUp: true });
    await clock.advance(500);
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`]);
  });

  it('are put again after the device had no carrier', async () => {
    await reach(answering(ADDRESS));
    kernel.setLink(eth0, { isRunning: false });
    await clock.advance(500);
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`], 'the kernel may have dropped it just now');
    kernel.proxies.clear();
    kernel.setLink(eth0, { isRunning: true });
    await clock.advance(500);
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`]);
  });

  it('wait for a device that is not there', async () => {
    await reach({ ...EMPTY_STATE, proxyNeighbours: [{ device: 'eth1', address: ip(ADDRESS) }] });
    assert.equal(reconciler.status.isConverged, false);
    kernel.addLink({ name: 'eth1', isUp: true });
    await clock.advance(500);
    assert.deepEqual(present(), [`${ADDRESS} ${ROUTE_PROTOCOL}`]);
  });
});
