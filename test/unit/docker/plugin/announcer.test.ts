import assert from 'node:assert/strict';
import { Announcer } from '../../../../src/docker/plugin/announcer.js';
import type { Endpoint } from '../../../../src/docker/plugin/network.js';
import { IpAddress } from '../../../../src/ip/address.js';
import { parseMac } from '../../../../src/ip/mac.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeKernel } from '../../../support/fake-kernel.js';
import { RecordingLogger } from '../../../support/recorder.js';

const ENDPOINT: Endpoint = {
  id: 'e'.repeat(64),
  networkId: 'n',
  mac: parseMac('02:42:0a:0a:0a:02'),
  addresses: [
    { address: IpAddress.parse('10.10.10.2'), length: 24 },
    { address: IpAddress.parse('2001:db8::2'), length: 64 },
  ],
  sandbox: '/run/docker/netns/1',
  isStale: false,
};

describe('the announcer', () => {
  const kernel = new FakeKernel();
  const links = { own: kernel.addLink({ name: 'tsfc1' }), parent: kernel.addLink({ name: 'eth0' }) };
  let clock: FakeClock;
  let log: RecordingLogger;
  let sent: string[];
  let broken: string | undefined;
  let announcer: Announcer;

  beforeEach(() => {
    clock = new FakeClock();
    log = new RecordingLogger();
    sent = [];
    broken = undefined;
    const startMs = clock.monotonicMs();
    const record = (how: string, device: string, frames: readonly Uint8Array[]): void => {
      if (device === broken) throw new Error('ENETDOWN');
      sent.push(`${clock.monotonicMs() - startMs} ${how} ${device}: ${frames.length}`);
    };
    announcer = new Announcer({
      clock,
      log,
      port: {
        sendBriefly: ({ name }, frames) => record('briefly', name, frames),
        send: ({ name }, frames) => record('up', name, frames),
      },
    });
  });

  afterEach(() => announcer.close());

  it('tells every address at once out of the interface, and twice more out of its parent', async () => {
    announcer.announce(ENDPOINT, links);
    assert.deepEqual(sent, ['0 briefly tsfc1: 3'], 'two for IPv4, one for IPv6');
    await clock.advance(5000);
    assert.deepEqual(sent.slice(1), ['900 up eth0: 3', '1800 up eth0: 3']);
    assert.deepEqual([announcer.statistics, clock.pending], [{ announced: 1, failed: 0 }, 0]);
  });

  for (const [device, before] of [
    ['tsfc1', 0],
    ['eth0', 1],
  ] as const) {
    it(`counts, and tells, that it cannot send on ${device}`, async () => {
      broken = device;
      announcer.announce(ENDPOINT, links);
      await clock.advance(5000);
      assert.equal(sent.length, before);
      assert.deepEqual([announcer.statistics, clock.pending], [{ announced: 0, failed: 1 }, 0]);
      assert.deepEqual(
        log.lines.map(({ level, fields }) => [level, fields.address]),
        [['warn', '10.10.10.2 2001:db8::2']],
      );
    });
  }

  it('tells nothing more of an endpoint that has gone', async () => {
    announcer.announce(ENDPOINT, links);
    announcer.cancel(ENDPOINT.id);
    await clock.advance(5000);
    assert.deepEqual([sent.length, clock.pending], [1, 0]);
  });

  it('begins again when the endpoint joins again', async () => {
    announcer.announce(ENDPOINT, links);
    await clock.advance(100);
    announcer.announce(ENDPOINT, links);
    await clock.advance(5000);
    assert.equal(sent.length, 4);
    assert.equal(announcer.statistics.announced, 1);
  });
});
