import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isOverlayError } from '../../../src/errors.js';
import {
  asLocallyAdministered,
  deriveMac,
  isUnicastMac,
  macFromBytes,
  macToBytes,
  parseMac,
} from '../../../src/ip/mac.js';

const anyBytes = fc.uint8Array({ minLength: 6, maxLength: 6 });

describe('MAC addresses', () => {
  for (const text of ['02:42:ac:11:00:09', '02:42:AC:11:00:09', '02-42-ac-11-00-09']) {
    it(`reads ${text}`, () => assert.equal(parseMac(text), '02:42:ac:11:00:09'));
  }

  for (const text of [
    '',
    '02:42:ac:11:00',
    '02:42:ac:11:00:09:0a',
    '02:42:ac:11:00:9',
    '0242ac110009',
    '02:42:ac:11:00:0g',
    '02:42:ac:11:00:09 ',
  ]) {
    it(`refuses "${text}"`, () => {
      assert.throws(
        () => parseMac(text),
        (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(`"${text}"`),
      );
    });
  }

  for (const [text, expected] of [
    ['02:42:ac:11:00:09', true],
    ['00:00:00:00:00:01', true],
    ['01:00:5e:00:00:01', false],
    ['33:33:00:00:00:01', false],
    ['ff:ff:ff:ff:ff:ff', false],
    ['00:00:00:00:00:00', false],
  ] as const) {
    it(`${text} is ${expected ? '' : 'not '}the address of one device`, () =>
      assert.equal(isUnicastMac(parseMac(text)), expected));
  }

  it('turn into bytes and back', () => {
    assert.deepEqual([...macToBytes(parseMac('02:42:ac:11:00:ff'))], [2, 0x42, 0xac, 0x11, 0, 0xff]);
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const mac = macFromBytes(bytes);
        assert.deepEqual(macToBytes(mac), bytes);
        assert.equal(parseMac(mac.toUpperCase()), mac);
      }),
    );
  });

  it('refuse bytes that are not six', () => {
    for (const length of [0, 5, 7]) {
      assert.throws(
        () => macFromBytes(new Uint8Array(length)),
        (error) => isOverlayError(error, 'ERR_IP_SYNTAX') && error.message.includes(`${length} bytes`),
      );
    }
  });

  it('become locally administered and unicast, and change in nothing else', () => {
    assert.equal(asLocallyAdministered(parseMac('01:00:5e:00:00:01')), '02:00:5e:00:00:01');
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        const [first = 0, ...rest] = macToBytes(asLocallyAdministered(macFromBytes(bytes)));
        assert.deepEqual(rest, [...bytes.subarray(1)]);
        assert.equal(first & 3, 2);
        assert.equal(first >> 2, (bytes[0] ?? 0) >> 2);
      }),
    );
  });
});

describe('a derived MAC address', () => {
  it('is the same at every start, another one for every owner and device, and locally administered unicast', () => {
    const macs = ['host-a', 'host-b'].flatMap((host) => ['flannel.1', 'flannel.2'].map((dev) => deriveMac(host, dev)));
    assert.equal(new Set(macs).size, 4);
    // What peers have in their forwarding entries: another one after an update would cut this host off from them.
    assert.equal(deriveMac('host-a', 'flannel.1'), '5e:9c:af:52:29:06');
    for (const mac of macs) assert.equal(Number.parseInt(mac.slice(0, 2), 16) & 3, 2);
  });
});
