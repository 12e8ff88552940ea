import { createPrivateKey, createPublicKey, randomBytes, timingSafeEqual } from 'node:crypto';
import { inspect } from 'node:util';

declare const keyBrand: unique symbol;

/** A Curve25519 public key (RFC 7748) as `wg` shows it: 44 characters of base64 for 32 bytes. */
export type WireguardPublicKey = string & { readonly [keyBrand]: true };

/** `WG_KEY_LEN`: of public, private and preshared keys alike. */
export const WIREGUARD_KEY_BYTES = 32;

/** The 12 bytes before the key in the SubjectPublicKeyInfo of an X25519 key (RFC 8410 4). */
const SPKI_PREFIX_BYTES = 12;

/** What stands before the key in the PKCS #8 form of an X25519 key (RFC 8410 7). */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** The 32 bytes that a key's text stands for; undefined if it is not one. */
function bytesOf(text: string): Buffer | undefined {
  return /^[0-9A-Za-z+/]{43}=$/.test(text) ? Buffer.from(text, 'base64') : undefined;
}

/**
 * Reads a public key.
 *
 * @returns undefined for anything else than 32 bytes in base64, and for the key of zeros, which stands for none. The four
 * bits of the last character that carry nothing are dropped, so that two texts of one key become the same.
 */
export function parseWireguardPublicKey(text: string): WireguardPublicKey | undefined {
  const bytes = bytesOf(text);
  return bytes === undefined ? undefined : publicKeyFromBytes(bytes);
}

/** The key with these bytes; undefined for any other number than 32 and for zeros. */
export function publicKeyFromBytes(bytes: Uint8Array): WireguardPublicKey | undefined {
  if (bytes.length !== WIREGUARD_KEY_BYTES || bytes.every((byte) => byte === 0)) return undefined;
  return Buffer.from(bytes).toString('base64') as WireguardPublicKey;
}

/** 32 bytes. */
export function publicKeyToBytes(key: WireguardPublicKey): Uint8Array {
  return Buffer.from(key, 'base64');
}

/**
 * A private or preshared key, which no log line, message or status can show: every way of making text of it gives the
 * same word. Only {@link bytes} and {@link toBase64} give it away.
 */
export class WireguardSecret {
  readonly #bytes: Buffer;
  #publicKey: WireguardPublicKey | undefined;

  private constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** A private key that nobody else has. */
  static generate(): WireguardSecret {
    return new WireguardSecret(randomBytes(WIREGUARD_KEY_BYTES));
  }

  /** Reads 32 bytes in base64; undefined for anything else and for zeros, by which the kernel means that there is none. */
  static parse(text: string): WireguardSecret | undefined {
    const bytes = bytesOf(text);
    return bytes === undefined ? undefined : WireguardSecret.fromBytes(bytes);
  }

  /** Undefined for any other number than 32 and for zeros. */
  static fromBytes(bytes: Uint8Array): WireguardSecret | undefined {
    if (bytes.length !== WIREGUARD_KEY_BYTES || bytes.every((byte) => byte === 0)) return undefined;
    return new WireguardSecret(Buffer.from(bytes));
  }

  /** 32 bytes, lent. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** What a private key is known to others by. */
  get publicKey(): WireguardPublicKey {
    this.#publicKey ??= derivePublicKey(this.#bytes);
    return this.#publicKey;
  }

  /** As key files have it, without the end of the line. */
  toBase64(): string {
    return this.#bytes.toString('base64');
  }

  equals(other: WireguardSecret | undefined): boolean {
    return other !== undefined && timingSafeEqual(this.#bytes, other.#bytes);
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

function derivePublicKey(bytes: Buffer): WireguardPublicKey {
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, bytes]), format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return spki.subarray(SPKI_PREFIX_BYTES).toString('base64') as WireguardPublicKey;
}
