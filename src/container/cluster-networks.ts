import { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { ValueEntry, ValueStore } from '../lease/store.js';
import {
  ACCOUNTS_PATH,
  type UseAccount,
  accountHost,
  decodeHostName,
  decodeUse,
  hostNamePath,
} from './account-records.js';
import type { AddressKind } from './addresses.js';
import { type PoolIdentity, poolPath, tryParsePrefix } from './pool-id.js';
import { type AddressMask, addressesIn, blockSizeOf } from './pool-layout.js';
import {
  NETWORKS_PATH,
  type NetworkRecord,
  PoolPaths,
  RECORDS_PATH,
  decodeBlock,
  decodeHolder,
  decodeRecord,
  isHostId,
  parsePoolPath,
} from './records.js';

/** A block that a host has leased. */
export interface LeasedBlock {
  readonly block: Prefix;
  readonly host: string;
  /** As in `BlockRecord`. */
  readonly own: AddressMask;
  /** Addresses that containers had when the host wrote this. */
  readonly used: readonly IpAddress[];
  readonly entry: ValueEntry;
}

/** An address that a host has leased by itself. */
export interface LeasedAddress {
  readonly address: IpAddress;
  readonly host: string;
  readonly kind: AddressKind;
  readonly entry: ValueEntry;
}

/** A network of containers, as all hosts together have it. */
export interface ClusterNetwork extends Pick<PoolIdentity, 'name' | 'subnet'> {
  /** Undefined where it is missing or cannot be read. */
  readonly record: NetworkRecord | undefined;
  /** In byte order. */
  readonly hosts: readonly string[];
  readonly blocks: readonly LeasedBlock[];
  readonly addresses: readonly LeasedAddress[];
}

/** What lies in etcd for networks of containers. */
export interface ClusterNetworks {
  readonly networks: readonly ClusterNetwork[];
  /** Everything that ends with a host, by host, its memberships included. */
  readonly entriesByHost: ReadonlyMap<string, readonly ValueEntry[]>;
  /** What hosts are called, by host, as far as they tell. */
  readonly hostNames: ReadonlyMap<string, string>;
  /** What has an address, as its host tells, by the path of `usePath`. */
  readonly uses: ReadonlyMap<string, UseAccount>;
  /** Paths that cannot be read; nobody knows whose the addresses below them are. */
  readonly badPaths: readonly string[];
}

/** Reads what all hosts have, in byte order of the networks. */
export async function readClusterNetworks(
  store: Pick<ValueStore, 'listValues'>,
  signal: AbortSignal,
): Promise<ClusterNetworks> {
  const records = await store.listValues(RECORDS_PATH, signal);
  const cluster = describeCluster(records, await store.listValues(NETWORKS_PATH, signal));
  const accounts = readAccounts(await store.listValues(ACCOUNTS_PATH, signal));
  return { ...cluster, ...accounts, badPaths: [...cluster.badPaths, ...accounts.badPaths] };
}

/** Name of a network for people: the one it was given, or else its subnet. */
export function networkTitle({ name, subnet }: Pick<PoolIdentity, 'name' | 'subnet'>): string {
  return name ?? subnet.toString();
}

/** The networks that people call so: those with that name, or else those with that subnet. */
export function networksTitled<T extends Pick<PoolIdentity, 'name' | 'subnet'>>(
  title: string,
  networks: readonly T[],
): readonly T[] {
  const named = networks.filter((each) => networkTitle(each) === title);
  return named.length > 0 ? named : networks.filter(({ subnet }) => subnet.toString() === title);
}

interface Growing extends Pick<PoolIdentity, 'name' | 'subnet'> {
  record: NetworkRecord | undefined;
  readonly hosts: string[];
  readonly blocks: LeasedBlock[];
  readonly addresses: LeasedAddress[];
}

function readAccounts(entries: readonly ValueEntry[]): Pick<ClusterNetworks, 'hostNames' | 'uses' | 'badPaths'> {
  const hostNames = new Map<string, string>();
  const uses = new Map<string, UseAccount>();
  const badPaths: string[] = [];
  for (const { path, text } of entries) {
    const host = accountHost(path);
    const isName = host !== undefined && path === hostNamePath(host);
    const name = isName ? decodeHostName(text) : undefined;
    const use = host === undefined || isName ? undefined : decodeUse(text);
    if (host !== undefined && name !== undefined) hostNames.set(host, name);
    else if (use !== undefined) uses.set(path, use);
    else badPaths.push(path);
  }
  return { hostNames, uses, badPaths };
}

function describeCluster(
  records: readonly ValueEntry[],
  entries: readonly ValueEntry[],
): Pick<ClusterNetworks, 'networks' | 'entriesByHost' | 'badPaths'> {
  const networks = new Map<string, Growing>();
  const entriesByHost = new Map<string, ValueEntry[]>();
  const badPaths: string[] = [];
  const networkAt = (path: string): Growing | undefined => {
    const identity = parsePoolPath(path.split('/', 2).join('/'));
    if (identity === undefined) return undefined;
    const key = poolPath(identity);
    const known = networks.get(key);
    if (known !== undefined) return known;
    const made: Growing = { ...identity, record: undefined, hosts: [], blocks: [], addresses: [] };
    networks.set(key, made);
    return made;
  };
  for (const { path, text } of records) {
    const place = path.slice(RECORDS_PATH.length);
    const network = parsePoolPath(place) && networkAt(place);
    if (network !== undefined) network.record = decodeRecord(text);
    if (network?.record === undefined) badPaths.push(path);
  }
  for (const entry of entries) {
    const network = networkAt(entry.path.slice(NETWORKS_PATH.length));
    const host = network && takeEntry(network, entry);
    if (host === undefined) badPaths.push(entry.path);
    else entriesByHost.set(host, [...(entriesByHost.get(host) ?? []), entry]);
  }
  const sorted = [...networks].sort(([a], [b]) => (a < b ? -1 : 1));
  return { networks: sorted.map(([, network]) => network), entriesByHost, badPaths };
}

/** Puts what a host wrote where it belongs. @returns the host; undefined for what no host writes. */
function takeEntry(network: Growing, entry: ValueEntry): string | undefined {
  const paths = new PoolPaths(network);
  const { path, text } = entry;
  if (path.startsWith(paths.hosts)) {
    const host = path.slice(paths.hosts.length);
    if (!isHostId(host)) return undefined;
    network.hosts.push(host);
    return host;
  }
  if (path.startsWith(paths.blocks)) {
    const block = tryParsePrefix(path.slice(paths.blocks.length));
    const record = decodeBlock(text);
    const size = block && blockSizeOf(block);
    if (block === undefined || record === undefined || size === undefined) return undefined;
    const { host, own, used } = record;
    if (!network.subnet.covers(block) || own >> size > 0n) return undefined;
    network.blocks.push({ block, host, own, used: addressesIn(block, used), entry });
    return host;
  }
  const address = IpAddress.tryParse(path.slice(paths.addresses.length).split('/', 1)[0] ?? '');
  const holder = decodeHolder(text);
  if (address === undefined || holder === undefined) return undefined;
  const { host, kind } = holder;
  if (path !== paths.container(address) && path !== paths.shared(address, host)) return undefined;
  network.addresses.push({ address, host, kind, entry });
  return host;
}
