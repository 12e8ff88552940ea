import { OverlayError, describeError } from '../errors.js';
import { ADDRESS_BITS, type Family, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import type { BackendOptions } from './backend-options.js';
import { type JsonNode, readJson } from './json-reader.js';

/** Where subnets of one family come from; the values after defaults and checks of compatibility reference 2.4 and 2.5. */
export interface SubnetRange {
  readonly network: Prefix;
  readonly subnetLen: number;
  /** First allocatable subnet's address. */
  readonly min: IpAddress;
  /** Last allocatable subnet's address (inclusive). */
  readonly max: IpAddress;
}

/** Where subnets of one family come from for container networks that name none. */
export interface ContainerRange {
  readonly network: Prefix;
  /** Length of each of them. */
  readonly subnetLen: number;
}

/** The cluster's configuration: the JSON under `<prefix>/config`, checked and completed. */
export interface NetworkConfig {
  readonly ipv4: SubnetRange | undefined;
  readonly ipv6: SubnetRange | undefined;
  readonly useNftables: boolean;
  /** `Backend.Type` in lower case, `udp` when `Backend` is absent. */
  readonly backendType: string;
  /** The keys of `Backend`, `type` included; what they mean is the backend's business. */
  readonly backendOptions: BackendOptions;
  /** Our own, which flannel ignores. */
  readonly containerNetworks: { readonly ipv4: ContainerRange | undefined; readonly ipv6: ContainerRange | undefined };
}

/**
 * Reads the cluster's configuration with the rules of Go's JSON decoder, then checks and completes it as flannel does.
 *
 * @remarks Key names match in any case, also inside `Backend`; unknown keys are ignored; of duplicates the last one
 * wins; a `null` leaves a boolean or a length as it was. Refused although flannel accepts it: `EnableIPv4` false
 * (flannel's IPv6-only leases in etcd all get the key `0.0.0.0-0&…`), `SubnetMin` above `SubnetMax` (no subnet could
 * ever be allocated) and an IPv4 `IPv6Network`.
 * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`, `ERR_BACKEND_UNKNOWN` when `Backend` names no type.
 * @see flannel `pkg/subnet/config.go`
 */
export function parseNetworkConfig(text: string): NetworkConfig {
  const fields = readTopLevel(text);
  const raw = {
    enableIpv4: fields.read('EnableIPv4', boolean) ?? true,
    enableIpv6: fields.read('EnableIPv6', boolean) ?? false,
    useNftables: fields.read('EnableNFTables', boolean) ?? false,
    ipv4: {
      network: fields.read('Network', network(4)),
      subnetLen: fields.read('SubnetLen', unsignedInteger) ?? 0,
      min: fields.read('SubnetMin', address),
      max: fields.read('SubnetMax', address),
    },
    ipv6: {
      network: fields.read('IPv6Network', network(6)),
      subnetLen: fields.read('IPv6SubnetLen', unsignedInteger) ?? 0,
      min: fields.read('IPv6SubnetMin', nullable(address)),
      max: fields.read('IPv6SubnetMax', nullable(address)),
    },
  };
  const backend = readBackend(fields);
  const containerNetworks = readContainerNetworks(fields);
  if (!raw.enableIpv4) {
    throw raw.enableIpv6
      ? problem('EnableIPv4 is false, and a network of IPv6 alone has no form in etcd', 'leave EnableIPv4 out')
      : problem('EnableIPv4 and EnableIPv6 are both false', 'leave EnableIPv4 out');
  }
  const ipv4 = completeRange(raw.ipv4, V4_RULES);
  const ipv6 = raw.enableIpv6 ? completeRange(raw.ipv6, V6_RULES) : undefined;
  refuseOverlap('IPv4', containerNetworks.ipv4, 'Network', ipv4);
  refuseOverlap('IPv6', containerNetworks.ipv6, 'IPv6Network', ipv6);
  return { ipv4, ipv6, useNftables: raw.useNftables, ...backend, containerNetworks };
}

/**
 * Keys of a configuration that nobody reads, as written at the top and in lower case, after `Backend.`, inside it; for a
 * warning, since most of them are slips of the pen.
 *
 * @param backendKeys - those that the backend of this configuration reads.
 * @throws {@link OverlayError} as {@link parseNetworkConfig} does.
 */
export function unknownConfigKeys(text: string, backendKeys: readonly string[]): readonly string[] {
  const inBackend = Object.keys(parseNetworkConfig(text).backendOptions);
  const fields = readTopLevel(text);
  return [
    ...fields.names.filter((key) => !isOneOf(key, CONFIG_KEYS)),
    ...readObject(fields, 'ContainerNetworks')
      .names.filter((key) => !isOneOf(key, CONTAINER_KEYS))
      .map((key) => `ContainerNetworks.${key}`),
    ...inBackend.filter((key) => key !== 'type' && !isOneOf(key, backendKeys)).map((key) => `Backend.${key}`),
  ];
}

const CONTAINER_KEYS: readonly string[] = ['IPv4', 'SubnetLen', 'IPv6', 'IPv6SubnetLen'];

const CONFIG_KEYS: readonly string[] = [
  ...['EnableIPv4', 'EnableIPv6', 'EnableNFTables', 'Backend', 'ContainerNetworks'],
  ...['Network', 'SubnetLen', 'SubnetMin', 'SubnetMax'],
  ...['IPv6Network', 'IPv6SubnetLen', 'IPv6SubnetMin', 'IPv6SubnetMax'],
];

function isOneOf(key: string, keys: readonly string[]): boolean {
  return keys.some((known) => known.toLowerCase() === key.toLowerCase());
}

/** Turns a node into a value; `previous` is what an earlier key of the same name gave. */
type Decoder<T> = (node: JsonNode, name: string, previous: T | undefined) => T | undefined;

/** The keys of an object, found as Go finds them. */
class Fields {
  constructor(private readonly entries: readonly (readonly [string, JsonNode])[]) {}

  get names(): readonly string[] {
    return this.entries.map(([name]) => name);
  }

  /** The value of the last key of that name in any case; earlier ones must be well-typed nevertheless. */
  read<T>(name: string, decode: Decoder<T>): T | undefined {
    let value: T | undefined;
    for (const [key, node] of this.entries) {
      if (key.toLowerCase() === name.toLowerCase()) value = decode(node, name, value);
    }
    return value;
  }
}

function readTopLevel(text: string): Fields {
  let node: JsonNode;
  try {
    node = readJson(text);
  } catch (cause) {
    throw problem(`it is not JSON: ${describeError(cause)}`, REMEDY, cause);
  }
  if (node.kind === 'null') return new Fields([]);
  if (node.kind !== 'object') throw problem(`it is ${describe(node)}`, REMEDY);
  return new Fields(node.entries);
}

function boolean(node: JsonNode, name: string, previous: boolean | undefined): boolean | undefined {
  if (node.kind === 'null') return previous;
  if (node.kind !== 'boolean') throw problem(`${name} is ${describe(node)}`, 'write true or false without quotes');
  return node.value;
}

function unsignedInteger(node: JsonNode, name: string, previous: number | undefined): number | undefined {
  if (node.kind === 'null') return previous;
  if (node.kind !== 'number' || !/^\d+$/.test(node.literal)) {
    throw problem(`${name} is ${describe(node)}`, 'write a whole number without quotes, such as 24');
  }
  return Number(node.literal);
}

function network(family: Family): Decoder<Prefix> {
  const example = family === 4 ? '10.5.0.0/16' : 'fd00:10:5::/48';
  return (node, name) => {
    const prefix = node.kind === 'string' ? Prefix.tryParse(node.value) : undefined;
    if (prefix === undefined) throw problem(`${name} is ${describe(node)}`, `write a network such as "${example}"`);
    // An IPv4 text under IPv6Network is left to completeRange: flannel refuses to decode only the opposite.
    if (family === 4 && prefix.family === 6) {
      throw problem(`${name} is ${describe(node)}`, `write an IPv4 network here, and the IPv6 one as IPv6Network`);
    }
    return prefix;
  };
}

function address(node: JsonNode, name: string): IpAddress {
  const value = node.kind === 'string' ? IpAddress.tryParse(node.value) : undefined;
  if (value === undefined) throw problem(`${name} is ${describe(node)}`, 'write an address or leave it out');
  return value;
}

function nullable<T>(decode: Decoder<T>): Decoder<T> {
  return (node, name, previous) => (node.kind === 'null' ? undefined : decode(node, name, previous));
}

function readBackend(fields: Fields): Pick<NetworkConfig, 'backendType' | 'backendOptions'> {
  const node = fields.read('Backend', (found) => found);
  if (node === undefined) return { backendType: 'udp', backendOptions: {} };
  if (node.kind !== 'object' && node.kind !== 'null') {
    throw problem(`Backend is ${describe(node)}`, 'write an object such as {"Type": "vxlan"}');
  }
  const entries = node.kind === 'null' ? [] : node.entries;
  const type = new Fields(entries).read<string>('Type', (found, _name, previous) => {
    if (found.kind === 'null') return previous;
    if (found.kind === 'string') return found.value.toLowerCase();
    throw problem(`Backend.Type is ${describe(found)}`, 'write the name of a backend in quotes, such as "vxlan"');
  });
  if (type === undefined || type === '') {
    throw new OverlayError('ERR_BACKEND_UNKNOWN', 'cannot choose a backend: Backend has no Type', {
      hint: 'add "Type", such as "vxlan", or leave Backend out to get udp',
    });
  }
  const options = Object.fromEntries(entries.map(([key, value]) => [key.toLowerCase(), value]));
  return { backendType: type, backendOptions: { ...options, type: { kind: 'string', value: type } } };
}

function readObject(fields: Fields, name: string): Fields {
  const node = fields.read(name, (found) => found);
  if (node === undefined || node.kind === 'null') return new Fields([]);
  if (node.kind !== 'object') throw problem(`${name} is ${describe(node)}`, 'write an object, or leave it out');
  return new Fields(node.entries);
}

function readContainerNetworks(fields: Fields): NetworkConfig['containerNetworks'] {
  const inside = readObject(fields, 'ContainerNetworks');
  return { ipv4: readContainerRange(inside, V4_RULES), ipv6: readContainerRange(inside, V6_RULES) };
}

function readContainerRange(
  fields: Fields,
  { family, keyPrefix, preferredLen }: RangeRules,
): ContainerRange | undefined {
  const range = fields.read(`IPv${family}`, network(family));
  const given = fields.read(`${keyPrefix}SubnetLen`, unsignedInteger) ?? 0;
  if (range === undefined) return undefined;
  const name = `ContainerNetworks.IPv${family} ${range.toString()}`;
  if (range.family !== family) throw problem(`${name} is not an IPv${family} network`, `write it as IPv${family}`);
  const unusable = UNUSABLE.find(({ prefix }) => prefix.overlaps(range));
  if (unusable !== undefined) {
    throw problem(`${name} has ${unusable.purpose}`, 'use a network for private use, such as 10.200.0.0/16');
  }
  const longest = ADDRESS_BITS[family] - 2;
  if (range.length > longest) throw problem(`${name} has fewer than four addresses`, `use a /${longest} or larger`);
  const subnetLen = given > 0 ? given : Math.min(longest, Math.max(preferredLen, range.length));
  if (subnetLen >= range.length && subnetLen <= longest) return { network: range, subnetLen };
  throw problem(
    `ContainerNetworks.${keyPrefix}SubnetLen ${subnetLen} gives no subnets of ${range.toString()}`,
    `use ${range.length}…${longest} or leave it out`,
  );
}

/** Addresses of the overlay are routed to its hosts: no container elsewhere could be reached under them. */
function refuseOverlap(
  key: 'IPv4' | 'IPv6',
  range: ContainerRange | undefined,
  overlayKey: string,
  overlay: SubnetRange | undefined,
): void {
  if (range === undefined || overlay?.network.overlaps(range.network) !== true) return;
  const what = `ContainerNetworks.${key} ${range.network.toString()}`;
  throw problem(`${what} overlaps ${overlayKey} ${overlay.network.toString()}`, 'use a network of its own for it');
}

interface RawRange {
  readonly network: Prefix | undefined;
  /** 0 = choose. */
  readonly subnetLen: number;
  readonly min: IpAddress | undefined;
  readonly max: IpAddress | undefined;
}

/** What differs between the families. A subnet needs four addresses, and a network four subnets: hence the 2s. */
interface RangeRules {
  readonly family: Family;
  /** Prefixed to the names of keys. */
  readonly keyPrefix: '' | 'IPv6';
  /** Length that is chosen if it leaves four subnets. */
  readonly preferredLen: number;
}

/** Addresses that no host can have (RFC 1122 3.2.1.3, RFC 4291 2.5 and 2.7). */
const UNUSABLE = [
  { prefix: Prefix.parse('127.0.0.0/8'), purpose: 'loopback addresses' },
  { prefix: Prefix.parse('224.0.0.0/4'), purpose: 'multicast addresses' },
  { prefix: Prefix.parse('::1/128'), purpose: 'the loopback address' },
  { prefix: Prefix.parse('fe80::/10'), purpose: 'link-local addresses' },
  { prefix: Prefix.parse('ff00::/8'), purpose: 'multicast addresses' },
];

const V4_RULES: RangeRules = { family: 4, keyPrefix: '', preferredLen: 24 };
const V6_RULES: RangeRules = { family: 6, keyPrefix: 'IPv6', preferredLen: 64 };

function completeRange(raw: RawRange, { family, keyPrefix, preferredLen }: RangeRules): SubnetRange {
  const name = (key: string): string => `${keyPrefix}${key}`;
  const net = raw.network;
  if (net === undefined || (net.address.isUnspecified && net.length === 0)) {
    const example = family === 4 ? '10.5.0.0/16' : 'fd00:10:5::/48';
    throw problem(`${name('Network')} is missing`, `add "${name('Network')}": "${example}" or another free network`);
  }
  if (net.family !== family) {
    throw problem(`${name('Network')} ${net.toString()} is not an IPv${family} network`, `write it as IPv${family}`);
  }
  const unusable = UNUSABLE.find(({ prefix }) => prefix.overlaps(net));
  if (unusable !== undefined) {
    const what = `${name('Network')} ${net.toString()} has addresses of ${unusable.prefix.toString()}`;
    throw problem(`${what}, which are ${unusable.purpose}`, 'use a network for private use, such as 10.5.0.0/16');
  }
  const subnetLen = chooseSubnetLen(raw.subnetLen, net, preferredLen, name);
  const size = 1n << BigInt(ADDRESS_BITS[family] - subnetLen);
  // The first subnet is left out: its network address would be the address of the whole overlay.
  const min = isGiven(raw.min) ? raw.min : net.address.add(size);
  const max = isGiven(raw.max) ? raw.max : net.address.add(net.size - size);
  const bounds = [
    [name('SubnetMin'), min],
    [name('SubnetMax'), max],
  ] as const;
  for (const [key, bound] of bounds) {
    if (net.contains(bound)) continue;
    const range = `${net.address.toString()}…${net.last.toString()}`;
    throw problem(`${key} ${bound.toString()} is outside ${net.toString()}`, `use an address in ${range}`);
  }
  for (const [key, bound] of bounds) {
    const aligned = Prefix.of(bound, subnetLen);
    if (aligned.address.equals(bound)) continue;
    throw problem(
      `${key} ${bound.toString()} is not the start of a /${subnetLen} subnet`,
      `use ${aligned.address.toString()} or another multiple`,
    );
  }
  if (min.compare(max) > 0) {
    throw problem(
      `${name('SubnetMin')} ${min.toString()} is above ${name('SubnetMax')} ${max.toString()}`,
      'exchange them, or leave both out',
    );
  }
  return { network: net, subnetLen, min, max };
}

function chooseSubnetLen(given: number, net: Prefix, preferred: number, name: (key: string) => string): number {
  const shortest = net.length + 2;
  const longest = ADDRESS_BITS[net.family] - 2;
  const remedy =
    shortest > longest
      ? `use a ${name('Network')} of /${longest - 2} or larger`
      : `use ${shortest}…${longest} or leave it out`;
  if (given > longest) {
    throw problem(`${name('SubnetLen')} ${given} leaves fewer than four addresses in a subnet`, remedy);
  }
  if (given > 0 && given < shortest) {
    throw problem(`${name('SubnetLen')} ${given} leaves fewer than four subnets in ${net.toString()}`, remedy);
  }
  if (shortest > longest) {
    throw problem(`${name('Network')} ${net.toString()} is too small for four subnets of four addresses`, remedy);
  }
  if (given > 0) return given;
  return Math.max(preferred, shortest);
}

/** In flannel the all-zero address is the same as an absent key. */
function isGiven(bound: IpAddress | undefined): bound is IpAddress {
  return bound !== undefined && !bound.isUnspecified;
}

const REMEDY = 'write an object, {"Network": "10.5.0.0/16"}';

function problem(reason: string, hint: string, cause?: unknown): OverlayError {
  return new OverlayError('ERR_NETWORK_CONFIG', `cannot use the network configuration: ${reason}`, {
    hint,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Names what stands there, in as many words as fit into an error message. */
function describe(node: JsonNode): string {
  switch (node.kind) {
    case 'null':
      return 'null';
    case 'boolean':
      return String(node.value);
    case 'string':
      return JSON.stringify(node.value);
    case 'number':
      return node.literal;
    case 'array':
      return 'a list';
    case 'object':
      return 'an object';
  }
}
