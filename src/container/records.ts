import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { AddressKind, NetworkProperties } from './addresses.js';
import { type PoolIdentity, formatPrefix, isNetworkName, poolPath, tryParsePrefix } from './pool-id.js';
import type { AddressMask } from './pool-layout.js';

/*
 * What hosts tell each other about addresses of containers, below `<prefix>-ts/`:
 *
 *   network-records/NAME/SUBNET                      what all hosts of a network agree on; stays as long as one is in it
 *   network-choice                                   written by whoever chooses a subnet: nobody else has done so meanwhile
 *   networks/NAME/SUBNET/hosts/HOST                  who is in it; which process serves that host
 *   networks/NAME/SUBNET/blocks/BLOCK                who has leased a block, and which of its addresses without asking
 *   networks/NAME/SUBNET/addresses/IP/container      who has leased an address by itself
 *   networks/NAME/SUBNET/addresses/IP/shared-HOST    who uses it as a gateway or an auxiliary address
 *   network-places/HOST                              where a host is: see host-place.ts
 *   address-requests/HOST/NAME/SUBNET/IP             asks a host for an address that it may give out without asking
 *
 * All but the records end with the etcd lease of the host that wrote them. Records lie apart, so that all networks can be
 * listed without what is in them.
 *
 * An address is never in `own` of its block and below `addresses/` at the same time: whoever adds it here does so on the
 * condition that it is not there. Everything below is untrusted: other hosts wrote it.
 */

/** Where everything but the records is. */
export const NETWORKS_PATH = 'networks/';

/** Where the records of all networks are. */
export const RECORDS_PATH = 'network-records/';

/** Changes with each subnet that a host chooses by itself. */
export const CHOICE_PATH = 'network-choice';

/** Longer than any that we write; what is longer is not read. */
const MAX_TEXT = 16_384;

const MAX_PROPERTIES = 32;
const MAX_PROPERTY = 256;

/** Whether a text can stand for a host: 1…64 letters, digits, `_`, `.`, `:` and `-`. */
export function isHostId(text: string): boolean {
  return /^[A-Za-z0-9_.:-]{1,64}$/.test(text);
}

/** Paths below `<prefix>-ts/` of one network. */
export class PoolPaths {
  readonly #base: string;
  readonly record: string;

  constructor(private readonly identity: Pick<PoolIdentity, 'name' | 'subnet'>) {
    this.#base = `${NETWORKS_PATH}${poolPath(identity)}/`;
    this.record = `${RECORDS_PATH}${poolPath(identity)}`;
  }

  get hosts(): string {
    return `${this.#base}hosts/`;
  }

  host(host: string): string {
    return `${this.hosts}${host}`;
  }

  get blocks(): string {
    return `${this.#base}blocks/`;
  }

  block(block: Prefix): string {
    return `${this.blocks}${formatPrefix(block)}`;
  }

  get addresses(): string {
    return `${this.#base}addresses/`;
  }

  /** Ends in a slash: below are its holders. */
  address(address: IpAddress): string {
    return `${this.addresses}${address.toString()}/`;
  }

  container(address: IpAddress): string {
    return `${this.address(address)}container`;
  }

  shared(address: IpAddress, host: string): string {
    return `${this.address(address)}shared-${host}`;
  }

  request(owner: string, address: IpAddress): string {
    return `${requestsPath(owner)}${poolPath(this.identity)}/${address.toString()}`;
  }
}

/** Where a host is asked for addresses. */
export function requestsPath(host: string): string {
  return `address-requests/${host}/`;
}

/** Which network and address a path below {@link requestsPath} asks for; undefined if it is none. */
export function parseRequestPath(
  host: string,
  path: string,
): (Pick<PoolIdentity, 'name' | 'subnet'> & { readonly address: IpAddress }) | undefined {
  const [name = '', subnetText = '', addressText = '', ...rest] = path.slice(requestsPath(host).length).split('/');
  const pool = parsePoolPath(`${name}/${subnetText}`);
  const address = IpAddress.tryParse(addressText);
  return pool === undefined || address === undefined || rest.length > 0 ? undefined : { ...pool, address };
}

/** Reads what `poolPath` wrote; undefined for anything else. */
export function parsePoolPath(text: string): Pick<PoolIdentity, 'name' | 'subnet'> | undefined {
  const [name = '', subnetText = '', ...rest] = text.split('/');
  const subnet = tryParsePrefix(subnetText);
  if (subnet === undefined || rest.length > 0 || (name !== '-' && !isNetworkName(name))) return undefined;
  return { name: name === '-' ? undefined : name, subnet };
}

/** A block as its host tells of it. */
export interface BlockRecord {
  readonly host: string;
  /** Addresses that only the host may give out, and may without asking anybody. */
  readonly own: AddressMask;
  /** Those of them that it had given out when it wrote this. */
  readonly used: AddressMask;
}

/** The text of a block. */
export function encodeBlock({ host, own, used }: BlockRecord): string {
  return JSON.stringify({ host, own: own.toString(16), used: used.toString(16) });
}

/** Reads a block; undefined if it is none: then nobody knows whose its addresses are. */
export function decodeBlock(text: string): BlockRecord | undefined {
  const fields = readObject(text);
  const host = fields?.['host'];
  const [own, used] = [readMask(fields?.['own']), readMask(fields?.['used'])];
  if (typeof host !== 'string' || !isHostId(host) || own === undefined || used === undefined) return undefined;
  return { host, own, used: used & own };
}

/** One holder of a single address. */
export interface HolderRecord {
  readonly host: string;
  readonly kind: AddressKind;
}

/** The text of a holder. */
export function encodeHolder({ host, kind }: HolderRecord): string {
  return JSON.stringify({ host, kind });
}

/** Reads a holder; undefined if it is none: the address is taken all the same. */
export function decodeHolder(text: string): HolderRecord | undefined {
  const fields = readObject(text);
  const [host, kind] = [fields?.['host'], fields?.['kind']];
  if (typeof host !== 'string' || !isHostId(host)) return undefined;
  return kind === 'gateway' || kind === 'auxiliary' || kind === 'container' ? { host, kind } : undefined;
}

/** What the hosts of a network agree on. */
export interface NetworkRecord {
  /** From the range follow the blocks. */
  readonly range: Prefix;
  /** Undefined until the first host has told them. */
  readonly properties: NetworkProperties | undefined;
}

/** The text of a record; the order of the properties does not matter. */
export function encodeRecord({ range, properties }: NetworkRecord): string {
  const sorted = properties && Object.entries(properties).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ range: formatPrefix(range), ...(sorted && { properties: Object.fromEntries(sorted) }) });
}

/** Reads a record; undefined if it is none. */
export function decodeRecord(text: string): NetworkRecord | undefined {
  const fields = readObject(text);
  const rangeText = fields?.['range'];
  const range = typeof rangeText === 'string' ? tryParsePrefix(rangeText) : undefined;
  if (fields === undefined || range === undefined) return undefined;
  if (fields['properties'] === undefined) return { range, properties: undefined };
  const properties = readProperties(fields['properties']);
  return properties && { range, properties };
}

/** Reads properties; undefined if they are none, or too many or too long. */
export function readProperties(value: unknown): NetworkProperties | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value as Readonly<Record<string, unknown>>);
  const isFine = ([name, each]: readonly [string, unknown]): boolean =>
    name.length <= MAX_PROPERTY && typeof each === 'string' && each.length <= MAX_PROPERTY;
  return entries.length <= MAX_PROPERTIES && entries.every(isFine) ? (value as NetworkProperties) : undefined;
}

/**
 * Refuses properties that could not be told to other hosts.
 *
 * @throws {@link OverlayError} `ERR_ADDRESS_POOL`
 */
export function checkProperties(properties: NetworkProperties): void {
  if (readProperties(properties) !== undefined) return;
  throw new OverlayError('ERR_ADDRESS_POOL', 'cannot tell other hosts the options of a network: there are too many', {
    hint: `use at most ${MAX_PROPERTIES} options of at most ${MAX_PROPERTY} characters`,
  });
}

function readMask(value: unknown): AddressMask | undefined {
  return typeof value === 'string' && /^[0-9a-f]{1,16}$/.test(value) ? BigInt(`0x${value}`) : undefined;
}

/** Reads an object; undefined if the text is none, or longer than any that we write. */
export function readObject(text: string, maxLength = MAX_TEXT): Readonly<Record<string, unknown>> | undefined {
  if (text.length > maxLength) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch {} // written by nobody we know
  return undefined;
}
