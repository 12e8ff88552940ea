import assert from 'node:assert/strict';
import { systemClock } from '../../../../src/clock.js';
import { probeForeignMac } from '../../../../src/ctl/doctor/foreign-mac.js';
import { OverlayError } from '../../../../src/errors.js';
import { ip, mac } from '../../../support/builders.js';

const [OWN, FOREIGN] = [mac(1), mac(2)];

describe('probeForeignMac', () => {
  /** Asks a network of neighbours, by the MAC addresses that each answers; says who was asked under which. */
  async function probe(
    neighbours: Readonly<Record<string, (sender: string, count: number) => boolean>>,
  ): Promise<{ readonly found: unknown; readonly asked: readonly string[] }> {
    const asked: string[] = [];
    const found = await probeForeignMac({
      device: 'lan0',
      own: OWN,
      foreign: FOREIGN,
      neighbours: Object.keys(neighbours).map(ip),
      clock: systemClock,
      isAnswered: (sender, _device, address) => {
        asked.push(`${address.toString()} ${sender === OWN ? 'own' : 'foreign'}`);
        const count = asked.filter((each) => each === asked.at(-1)).length;
        return Promise.resolve(neighbours[address.toString()]?.(sender, count) ?? false);
      },
    });
    return { found, asked };
  }

  it('takes the first neighbour that answers the device itself', async () => {
    const { found, asked } = await probe({ '192.0.2.1': () => false, '192.0.2.2': () => true });
    assert.deepEqual(found, { address: '192.0.2.2', mac: FOREIGN, isAnswered: true });
    assert.deepEqual(asked, ['192.0.2.1 own', '192.0.2.2 own', '192.0.2.2 foreign']);
  });

  it('believes in silence after the second round', async () => {
    const { found, asked } = await probe({ '192.0.2.1': (sender) => sender === OWN });
    assert.deepEqual(found, { address: '192.0.2.1', mac: FOREIGN, isAnswered: false });
    assert.equal(asked.length, 3);
    const late = await probe({ '192.0.2.1': (sender, count) => sender === OWN || count === 2 });
    assert.deepEqual(late.found, { address: '192.0.2.1', mac: FOREIGN, isAnswered: true });
  });

  it('says nothing where nobody answers the device, and asks no more than four', async () => {
    const silent = Object.fromEntries([1, 2, 3, 4, 5].map((n) => [`192.0.2.${n}`, () => false]));
    const { found, asked } = await probe(silent);
    assert.equal(found, undefined);
    assert.equal(asked.length, 4);
  });

  it('says nothing where the device cannot be asked', async () => {
    const refuses = (): never => {
      throw new OverlayError('ERR_LAN_PROBE', 'cannot ask on lan0: ENODEV');
    };
    assert.equal((await probe({ '192.0.2.1': refuses })).found, undefined);
  });
});
