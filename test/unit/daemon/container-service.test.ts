import assert from 'node:assert/strict';
import { type ContainerNetworks, ContainerService } from '../../../src/daemon/container-networks.js';
import { OverlayError } from '../../../src/errors.js';
import type { World } from '../../../src/lease/world.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('ContainerService', () => {
  const HOST = {
    range: () => undefined,
    overlay: () => [],
    defaultParent: () => undefined,
    overlayMtu: () => undefined,
    overlayFamilies: () => undefined,
    peers: () => [],
    neighbourhood: () => undefined,
    place: () => undefined,
  };
  const taken = new OverlayError('ERR_PLUGIN_SOCKET', 'cannot answer Docker: somebody else does');
  let clock: FakeClock;
  let log: RecordingLogger;
  let closed: number;
  let worlds: World[];

  beforeEach(() => {
    clock = new FakeClock();
    log = new RecordingLogger();
    closed = 0;
    worlds = [];
  });

  const networks = (): ContainerNetworks => ({
    status: () => assert.fail('nobody asks'),
    observe: (world) => worlds.push(world),
    review: () => {},
    noteNeighbourhood: () => {},
    moved: () => {},
    close: () => {
      closed += 1;
      return Promise.resolve();
    },
  });

  function serviceThatFails(times: number): ContainerService {
    let left = times;
    return new ContainerService({
      clock,
      log,
      open: () => (left-- > 0 ? Promise.reject(taken) : Promise.resolve(networks())),
    });
  }

  it('tries again until networks can be served, and tells of it once', async () => {
    const service = serviceThatFails(3);
    await service.start(HOST);
    assert.equal(service.status(), undefined);
    await clock.advance(60_000);
    assert.deepEqual(
      log.find(/networks of containers/).map(({ level, message }) => `${level}: ${message}`),
      ['error: networks of containers are not served, trying again', 'info: networks of containers are served now'],
    );
    assert.throws(() => service.status(), /nobody asks/);
    await service.close();
    assert.equal(closed, 1);
  });

  it('passes on what the store says, the last of it also to networks that are served later', async () => {
    const [first, second, third] = [1, 2, 3].map((epoch) => ({ epoch }) as World);
    const service = serviceThatFails(1);
    await service.start(HOST);
    for (const world of [first, second]) service.observe(world as World);
    await clock.advance(60_000);
    service.observe(third as World);
    assert.deepEqual(worlds, [second, third]);
    await service.close();
  });

  it('tries no more once it is closed', async () => {
    const service = serviceThatFails(1);
    await service.start(HOST);
    await service.close();
    await clock.advance(600_000);
    assert.deepEqual(log.find(/served now/), []);
    assert.equal(clock.pending, 0);
  });

  it('closes what was opened while it was being closed', async () => {
    let opened: (served: ContainerNetworks) => void = () => {};
    const open = (): Promise<ContainerNetworks> => new Promise((resolve) => (opened = resolve));
    const service = new ContainerService({ clock, log, open });
    void service.start(HOST);
    const end = service.close();
    opened(networks());
    await end;
    await settle();
    assert.equal(closed, 1);
  });
});
