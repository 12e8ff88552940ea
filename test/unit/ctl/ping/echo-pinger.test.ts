import assert from 'node:assert/strict';
import { EchoPinger, type EchoResult } from '../../../../src/ctl/ping/echo-pinger.js';
import { ip } from '../../../support/builders.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { FakeEcho } from '../../../support/fake-echo.js';

describe('EchoPinger', () => {
  let clock: FakeClock;
  let echo: FakeEcho;
  let pinger: EchoPinger;

  beforeEach(() => {
    clock = new FakeClock();
    echo = new FakeEcho();
    pinger = new EchoPinger(clock, echo.open);
  });

  const measure = (address: string, signal = new AbortController().signal): Promise<EchoResult> =>
    pinger.measure(ip(address), signal);

  it('sends three echoes and tells the shortest round trip', async () => {
    echo.isSlow = true;
    const result = measure('10.5.2.0');
    for (const ms of [30, 20, 150]) {
      await clock.advance(ms);
      echo.arrive();
      echo.deliver();
      await clock.advance(200 - ms);
    }
    await clock.advance(400);
    assert.deepEqual(await result, { sent: 3, received: 3, roundTripMs: 20 });
  });

  it('gives up a second after the last echo, and does not wait when all are answered', async () => {
    echo.answers = (address) => address !== '10.5.3.0';
    const ended: string[] = [];
    const all = ['10.5.2.0', '10.5.3.0'].map(async (address) => {
      const result = await measure(address);
      ended.push(address);
      return result;
    });
    await clock.advance(500);
    assert.deepEqual(ended, ['10.5.2.0']);
    await clock.advance(1000);
    assert.deepEqual(await Promise.all(all), [
      { sent: 3, received: 3, roundTripMs: 0 },
      { sent: 3, received: 0, roundTripMs: undefined },
    ]);
  });

  it('takes what the kernel refuses to send for unanswered', async () => {
    echo.result = () => -101;
    const result = measure('10.5.2.0');
    await clock.advance(2000);
    assert.equal((await result).received, 0);
  });

  it('ends at once when it is interrupted', async () => {
    const interruption = new AbortController();
    const result = measure('10.5.2.0', interruption.signal);
    interruption.abort(new Error('interrupted'));
    await assert.rejects(result, /interrupted/);
  });

  it('asks in both families and closes what it opened', async () => {
    const results = Promise.all([measure('10.5.2.0'), measure('fd00:10:5:2::')]);
    await clock.advance(500);
    assert.deepEqual(
      (await results).map(({ received }) => received),
      [3, 3],
    );
    assert.equal(echo.openPorts, 2);
    pinger.close();
    assert.equal(echo.openPorts, 0);
  });
});
