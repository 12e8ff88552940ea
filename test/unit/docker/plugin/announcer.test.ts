import assert from 'node:assert/strict';
import { Announcer } from '../../../../src/docker/plugin/announcer.js';
import type { Endpoint } from '../../../../src/docker/plugin/network.js';
import { IpAddress } from '../../../../src/ip/address.js';
import { parseMac } from '../../../../src/ip/mac.js';
import { silentLogger } from '../../../../src/log.js';
import { FakeClock } from '../../../support/fake-clock.js';

const ENDPOINT: Endpoint = {
  id: 'e'.repeat(64),
  networkId: 'n',
  mac: parseMac('02:42:0a:0a:0a:02'),
  addresses: [
    { address: IpAddress.parse('10.10.10.2'), length: 24 },
    { address: IpAddress.parse('2001:db8::2'), length: 64 },
  ],
  sandbox: '/run/docker/netns/1',
};

describe('the announcer', () => {
  let clock: FakeClock;
  let sentAtMs: number[];
  let opened: number;
  let closed: number;
  let isHere: boolean;
  let isUp: boolean;
  let announcer: Announcer;

  beforeEach(() => {
    clock = new FakeClock();
    sentAtMs = [];
    [opened, closed, isHere, isUp] = [0, 0, false, true];
    announcer = new Announcer({
      clock,
      log: silentLogger,
      isHere: () => isHere,
      open: () => {
        if (!isUp) return Promise.resolve(undefined);
        opened++;
        return Promise.resolve({
          send: (frames) => {
            assert.equal(frames.length, 3, 'two for IPv4, one for IPv6');
            sentAtMs.push(clock.monotonicMs());
          },
          close: () => {
            closed++;
          },
        });
      },
    });
  });

  afterEach(() => announcer.close());

  it('tells every address three times within two seconds', async () => {
    const startMs = clock.monotonicMs();
    announcer.announce(ENDPOINT);
    await clock.advance(2000);
    assert.deepEqual(
      sentAtMs.map((atMs) => atMs - startMs),
      [0, 900, 1800],
    );
    assert.deepEqual([opened, closed, announcer.statistics], [1, 1, { announced: 1, failed: 0 }]);
    assert.equal(clock.pending, 0);
  });

  it('waits until the interface is in the container, and up', async () => {
    isHere = true;
    announcer.announce(ENDPOINT);
    await clock.advance(1000);
    [isHere, isUp] = [false, false];
    await clock.advance(1000);
    assert.deepEqual(sentAtMs, []);
    isUp = true;
    await clock.advance(20);
    assert.equal(sentAtMs.length, 1);
  });

  it('gives up an interface that never comes', async () => {
    isUp = false;
    announcer.announce(ENDPOINT);
    await clock.advance(20_000);
    assert.deepEqual([announcer.statistics, clock.pending], [{ announced: 0, failed: 1 }, 0]);
  });

  it('tells nothing more of an endpoint that has gone', async () => {
    announcer.announce(ENDPOINT);
    await clock.advance(0);
    announcer.cancel(ENDPOINT.id);
    await clock.advance(5000);
    assert.deepEqual([sentAtMs.length, opened, closed, clock.pending], [1, 1, 1, 0]);
  });

  it('begins again when the endpoint joins again', async () => {
    announcer.announce(ENDPOINT);
    await clock.advance(100);
    announcer.announce(ENDPOINT);
    await clock.advance(5000);
    assert.deepEqual([sentAtMs.length, opened, closed], [4, 2, 2]);
  });
});
