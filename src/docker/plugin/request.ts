import { OverlayError } from '../../errors.js';
import { type Family, IpAddress } from '../../ip/address.js';
import { type MacAddress, isUnicastMac, parseMac } from '../../ip/mac.js';
import { Prefix } from '../../ip/prefix.js';
import { oneLine } from '../../printable.js';

/** Docker's ids are 64 hexadecimal digits; other users of the protocol choose their own. */
const ID = /^[\w.-]{1,128}$/;

/** Far longer than any address, name or path that is sent. */
const MAX_TEXT = 1024;

/** Options of one network. */
const MAX_OPTIONS = 64;

/**
 * The body of a call, read field by field: the one place where what Docker sends is checked. A field that is missing,
 * null or an empty text is absent, as Go encodes what was not given.
 */
export class Request {
  private constructor(
    private readonly fields: Readonly<Record<string, unknown>>,
    /** Where in the body, for errors: empty, or `Interface.`. */
    private readonly where: string,
  ) {}

  /**
   * @param text - body of an HTTP request; empty counts as an empty object.
   * @throws {@link OverlayError} `ERR_PLUGIN_REQUEST`; likewise below.
   */
  static parse(text: string): Request {
    let value: unknown;
    try {
      value = text.trim() === '' ? {} : JSON.parse(text);
    } catch (cause) {
      throw new OverlayError('ERR_PLUGIN_REQUEST', 'cannot read the request: it is not JSON', { cause });
    }
    return Request.of(value, '');
  }

  private static of(value: unknown, where: string): Request {
    if (!isRecord(value)) throw malformed(where === '' ? 'the request' : where.slice(0, -1), 'an object', value);
    return new Request(value, where);
  }

  text(key: string): string | undefined {
    const value = this.present(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'string' || value.length > MAX_TEXT) throw this.malformed(key, 'a short text');
    return value;
  }

  /** A text that has to be there. */
  required(key: string): string {
    const text = this.text(key);
    if (text === undefined) throw this.malformed(key, 'a text');
    return text;
  }

  number(key: string): number {
    const value = this.present(key);
    if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw this.malformed(key, 'a whole number');
    return value;
  }

  /** An identifier, which names keys and parts of file names. */
  id(key: string): string {
    const text = this.text(key);
    if (text === undefined || !ID.test(text)) throw this.malformed(key, 'an identifier');
    return text;
  }

  flag(key: string): boolean {
    const value = this.present(key) ?? false;
    if (value === 'true' || value === true) return true;
    if (value === 'false' || value === false) return false;
    throw this.malformed(key, 'true or false');
  }

  address(key: string): IpAddress | undefined {
    const text = this.text(key);
    const address = text === undefined ? undefined : IpAddress.tryParse(text);
    if (text !== undefined && address === undefined) throw this.malformed(key, 'an IP address');
    return address;
  }

  prefix(key: string): Prefix | undefined {
    const text = this.text(key);
    const prefix = text === undefined ? undefined : Prefix.tryParse(text);
    if (text !== undefined && prefix === undefined) throw this.malformed(key, 'a network in the form address/length');
    return prefix;
  }

  /** `address/length`; an address alone has the length of its family. */
  interfaceAddress(key: string): { readonly address: IpAddress; readonly length: number } | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    const prefix = Prefix.tryParse(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
    const address = IpAddress.tryParse(text.split('/', 1)[0] ?? '');
    if (prefix === undefined || address === undefined)
      throw this.malformed(key, 'an address in the form address/length');
    return { address, length: prefix.length };
  }

  mac(key: string): MacAddress | undefined {
    const text = this.text(key);
    if (text === undefined) return undefined;
    try {
      const mac = parseMac(text);
      if (isUnicastMac(mac)) return mac;
    } catch {
      // told below, as for the address of a group
    }
    throw this.malformed(key, 'the MAC address of one device');
  }

  family(key: string): Family {
    return this.flag(key) ? 6 : 4;
  }

  /** An object inside; an absent one has no fields. */
  nested(key: string): Request {
    return Request.of(this.present(key) ?? {}, `${this.where}${key}.`);
  }

  /** An object inside that need not be there. */
  optional(key: string): Request | undefined {
    return this.present(key) === undefined ? undefined : this.nested(key);
  }

  /** Objects inside. */
  list(key: string): Request[] {
    return this.array(key).map((each, index) => Request.of(each, `${this.where}${key}[${index}].`));
  }

  texts(key: string): string[] {
    return this.array(key).map((each) => {
      if (typeof each !== 'string' || each.length > MAX_TEXT) throw this.malformed(key, 'short texts');
      return each;
    });
  }

  /** Texts by name, as options are; flags and numbers, which some versions send, count as texts. */
  options(key: string): Readonly<Record<string, string>> {
    const value = this.present(key) ?? {};
    if (!isRecord(value) || Object.keys(value).length > MAX_OPTIONS) throw this.malformed(key, 'a few options');
    const entries = Object.entries(value).map(([name, each]): [string, string] => {
      const isPlain = typeof each === 'string' || typeof each === 'boolean' || typeof each === 'number';
      if (!isPlain || name.length > MAX_TEXT || String(each).length > MAX_TEXT)
        throw this.malformed(key, 'short texts');
      return [name, String(each)];
    });
    return Object.fromEntries(entries);
  }

  private array(key: string): readonly unknown[] {
    const value = this.present(key) ?? [];
    if (!Array.isArray(value)) throw this.malformed(key, 'a list');
    return value;
  }

  private present(key: string): unknown {
    const value = Object.hasOwn(this.fields, key) ? this.fields[key] : undefined;
    return value === null || value === '' ? undefined : value;
  }

  private malformed(key: string, expected: string): OverlayError {
    return malformed(`${this.where}${key}`, expected, this.fields[key]);
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function malformed(what: string, expected: string, value: unknown): OverlayError {
  const shown = value === undefined ? 'it is missing' : `it is ${oneLine(JSON.stringify(value), 100)}`;
  return new OverlayError('ERR_PLUGIN_REQUEST', `cannot use ${what}: it has to be ${expected}, and ${shown}`);
}
