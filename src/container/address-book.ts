import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { type MacAddress, parseMac } from '../ip/mac.js';
import { Prefix } from '../ip/prefix.js';
import type { EtcdLeaseId } from '../lease/record.js';
import { errnoOf } from '../sys/errno.js';
import type { TextFiles } from '../sys/text-files.js';
import type { NetworkProperties } from './addresses.js';
import type { SavedHostLease } from './host-lease.js';
import { type PoolId, formatPrefix, parsePoolId, tryParsePrefix } from './pool-id.js';
import type { AddressMask } from './pool-layout.js';
import { readProperties } from './records.js';

/** An address that a container has, as it is written down. */
export interface SavedUse {
  readonly address: IpAddress;
  readonly mac: MacAddress | undefined;
  readonly owner: string | undefined;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  readonly isLost: boolean;
  /** As in `AddressRequest`; undefined also where etcd alone remembers the use. */
  readonly register: string | undefined;
}

/** What is written down of one pool. */
export interface SavedPool {
  readonly id: PoolId;
  readonly isReleased: boolean;
  readonly properties: NetworkProperties | undefined;
  /** `own`: at most what etcd has, whatever is still under way. */
  readonly blocks: readonly { readonly block: Prefix; readonly own: AddressMask }[];
  /** Leased one by one. */
  readonly singles: readonly IpAddress[];
  readonly shared: readonly { readonly address: IpAddress; readonly kind: 'gateway' | 'auxiliary' }[];
  readonly uses: readonly SavedUse[];
  /** Given before and free since, the one that has been free for longest first. */
  readonly released: readonly IpAddress[];
  /** Asked for by name before. */
  readonly fixed: readonly IpAddress[];
}

/** All that is written down. */
export interface SavedAddresses {
  /** Whose book it is: a copy of the disk in another machine is worth nothing. */
  readonly host: string;
  /** Where in etcd it belongs. */
  readonly etcdPrefix: string;
  readonly lease: SavedHostLease | undefined;
  readonly pools: readonly SavedPool[];
}

const MODES = { file: 0o600, directory: 0o700 } as const;

/**
 * The book in which this host writes down who has which address, before anybody is told.
 *
 * @remarks *Writes* go one after the other; those who ask while one is under way share the next one.
 */
export class AddressBook {
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  #next: Promise<void> | undefined;

  /** @param content - asked whenever the book is written. */
  constructor(
    private readonly file: string,
    private readonly files: TextFiles,
    private readonly content: () => SavedAddresses,
  ) {}

  /**
   * What is written down in a file; undefined if there is none.
   *
   * @throws {@link OverlayError} `ERR_ADDRESS_BOOK`
   */
  static async read(file: string, files: TextFiles): Promise<SavedAddresses | undefined> {
    try {
      return decodeBook(await files.read(file));
    } catch (cause) {
      if (errnoOf(cause) === 'ENOENT') return undefined;
      throw new OverlayError('ERR_ADDRESS_BOOK', `cannot use ${file}, where addresses of containers are written down`, {
        cause,
        hint: 'it is written anew; what this host has leased is asked for in etcd',
      });
    }
  }

  /**
   * Has all that is so now on disk.
   *
   * @throws {@link OverlayError} `ERR_ADDRESS_BOOK`
   */
  save(): Promise<void> {
    this.#next ??= this.#writing
      .catch(() => undefined) // of those who asked for that one
      .then(() => {
        this.#next = undefined;
        return (this.#writing = this.#write());
      });
    return this.#next;
  }

  /** Whether the disk has something to do. */
  get isWriting(): boolean {
    return this.#isWriting;
  }

  /** Why something could not be answered in time. */
  slow(ms: number, cause: unknown): OverlayError {
    return new OverlayError('ERR_ADDRESS_BOOK', `cannot write ${this.file}: not done within ${ms} ms`, {
      cause,
      isRetryable: true,
      hint: 'look after the disk: addresses of containers are written down before they are given',
    });
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      await this.files.write(this.file, encodeBook(this.content()), MODES);
    } catch (cause) {
      const reason = errnoOf(cause) ?? String(cause);
      throw new OverlayError('ERR_ADDRESS_BOOK', `cannot write ${this.file}: ${reason}`, {
        cause,
        hint: 'make the directory writable: addresses of containers are written down before they are given',
      });
    } finally {
      this.#isWriting = false;
    }
  }
}

/** The text of a book. */
export function encodeBook({ host, etcdPrefix, lease, pools }: SavedAddresses): string {
  const blocksOf = (pool: SavedPool): unknown =>
    pool.blocks.map(({ block, own }) => ({ block: formatPrefix(block), own: own.toString(16) }));
  return JSON.stringify({ host, etcdPrefix, lease, pools: pools.map((pool) => ({ ...pool, blocks: blocksOf(pool) })) });
}

/**
 * Reads what {@link encodeBook} wrote.
 *
 * @throws `Error` if it is anything else.
 */
export function decodeBook(text: string): SavedAddresses {
  const { host, etcdPrefix, lease, pools } = objectOf(JSON.parse(text));
  return {
    host: textOf(host),
    etcdPrefix: textOf(etcdPrefix),
    lease: lease === undefined ? undefined : decodeLease(objectOf(lease)),
    pools: listOf(pools).map((pool) => decodePool(objectOf(pool))),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function decodeLease({ etcdLeaseId, savedAtMs, expiresAtMs }: Fields): SavedHostLease {
  const id = textOf(etcdLeaseId);
  if (!/^[0-9a-f]{1,16}$/.test(id)) throw new TypeError('it names no etcd lease');
  return { etcdLeaseId: id as EtcdLeaseId, savedAtMs: numberOf(savedAtMs), expiresAtMs: numberOf(expiresAtMs) };
}

function decodePool(fields: Fields): SavedPool {
  const id = textOf(fields['id']);
  parsePoolId(id);
  const properties = fields['properties'] === undefined ? undefined : readProperties(fields['properties']);
  const addresses = (value: unknown): readonly IpAddress[] => listOf(value).map((each) => addressOf(each));
  return {
    id: id as PoolId,
    isReleased: fields['isReleased'] === true,
    properties,
    blocks: listOf(fields['blocks']).map((each) => {
      const { block, own } = objectOf(each);
      const prefix = tryParsePrefix(textOf(block));
      if (prefix === undefined || !/^[0-9a-f]{1,16}$/.test(textOf(own))) throw new TypeError('it has no block there');
      return { block: prefix, own: BigInt(`0x${textOf(own)}`) };
    }),
    singles: addresses(fields['singles']),
    shared: listOf(fields['shared']).map((each) => {
      const { address, kind } = objectOf(each);
      return { address: addressOf(address), kind: kind === 'gateway' ? kind : 'auxiliary' };
    }),
    uses: listOf(fields['uses']).map((each) => {
      const { address, mac, owner, sinceMs, isLost, register } = objectOf(each);
      return {
        address: addressOf(address),
        mac: mac === undefined ? undefined : parseMac(textOf(mac)),
        owner: owner === undefined ? undefined : textOf(owner),
        sinceMs: numberOf(sinceMs),
        isLost: isLost === true,
        register: register === undefined ? undefined : textOf(register),
      };
    }),
    released: addresses(fields['released']),
    fixed: addresses(fields['fixed']),
  };
}

function objectOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null) throw new TypeError('an object is missing');
  return value as Fields;
}

function listOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new TypeError('a list is missing');
  return value;
}

function textOf(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('a text is missing');
  return value;
}

function numberOf(value: unknown): number {
  if (typeof value !== 'number') throw new TypeError('a number is missing');
  return value;
}

function addressOf(value: unknown): IpAddress {
  return IpAddress.parse(textOf(value));
}
