import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import fc from 'fast-check';
import {
  WireguardSecret,
  parseWireguardPublicKey,
  publicKeyFromBytes,
  publicKeyToBytes,
} from '../../../src/ip/wireguard-key.js';

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

describe('a key of WireGuard', () => {
  // RFC 7748 6.1
  for (const [who, privateHex, publicHex] of [
    [
      'Alice',
      '77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a',
      '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a',
    ],
    [
      'Bob',
      '5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb',
      'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f',
    ],
  ] as const) {
    it(`gives the public key of ${who} in RFC 7748`, () => {
      const secret = WireguardSecret.parse(base64(fromHex(privateHex)));
      assert.equal(secret?.publicKey, base64(fromHex(publicHex)));
    });
  }

  const some = base64(fromHex('01'.repeat(32)));
  for (const [what, text] of [
    ['nothing', ''],
    ['31 bytes', base64(fromHex('01'.repeat(31)))],
    ['33 bytes', base64(fromHex('01'.repeat(33)))],
    ['zeros, which stand for none', base64(new Uint8Array(32))],
    ['a missing end', some.slice(0, -1)],
    ['more behind it', `${some}\n`],
    ['other characters', `-${some.slice(1)}`],
    ['hexadecimal', '01'.repeat(32)],
  ] as const) {
    it(`is not ${what}`, () => {
      assert.equal(parseWireguardPublicKey(text), undefined);
      assert.equal(WireguardSecret.parse(text), undefined);
    });
  }

  it('has one text, whatever stands in the bits that carry nothing', () => {
    const last = some.at(-2) ?? '';
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
    const sloppy = `${some.slice(0, -2)}${alphabet[alphabet.indexOf(last) + 3] ?? ''}=`;
    assert.notEqual(sloppy, some);
    assert.equal(parseWireguardPublicKey(sloppy), some);
  });

  it('keeps its bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        fc.pre(bytes.some((byte) => byte !== 0));
        const key = publicKeyFromBytes(bytes);
        assert.ok(key);
        assert.deepEqual(Uint8Array.from(publicKeyToBytes(key)), bytes);
        assert.equal(parseWireguardPublicKey(key), key);
        assert.equal(WireguardSecret.fromBytes(bytes)?.toBase64(), key);
      }),
    );
  });

  it('shows nothing of a secret, however it is made a text', () => {
    const secret = WireguardSecret.parse(some);
    assert.ok(secret);
    const texts = [String(secret), JSON.stringify({ secret }), inspect(secret), inspect({ a: [secret] }, { depth: 9 })];
    for (const text of texts) {
      assert.match(text, /\[secret\]/);
      assert.ok(!text.includes(some.slice(0, 8)) && !text.includes('1, 1, 1'), text);
    }
    assert.deepEqual(Object.keys(secret), []);
  });

  it('is another one each time one is made, and equals only itself', () => {
    const [a, b] = [WireguardSecret.generate(), WireguardSecret.generate()];
    assert.equal(a.equals(b), false);
    assert.equal(a.equals(undefined), false);
    assert.equal(a.equals(WireguardSecret.parse(a.toBase64())), true);
    assert.notEqual(a.publicKey, b.publicKey);
  });
});
