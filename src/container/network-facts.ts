import { IpAddress } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { Revision } from '../lease/record.js';
import type { ValueEntry } from '../lease/store.js';
import { isSpread } from './address-spread.js';
import type { NetworkProperties } from './addresses.js';
import { type HostPlace, PLACES_PATH, decodePlace, placeHost } from './host-place.js';
import { type PoolIdentity, poolPath, tryParsePrefix } from './pool-id.js';
import type { AddressMask } from './pool-layout.js';
import {
  NETWORKS_PATH,
  PoolPaths,
  RECORDS_PATH,
  decodeBlock,
  decodeHolder,
  decodeRecord,
  isHostId,
  parsePoolPath,
} from './records.js';

/** All paths that say something of who has which addresses begin with it. */
export const FACTS_PATH = 'network';

/**
 * How packets get to containers of a network on other hosts: `direct`ly, as the real network carries them, or through
 * the `overlay` of the daemon.
 */
export type RoutedBy = 'direct' | 'overlay';

/** A network of which hosts have to know where each address is. */
export interface NetworkFact extends PoolIdentity {
  readonly kind: 'network';
  readonly pool: string;
  readonly routedBy: RoutedBy;
  /** Whether each host of it has a route to the whole subnet, which ends there what no container has. */
  readonly isConnected: boolean;
  /** Whether hosts answer on their link for its IPv6 addresses. */
  readonly hasNdpProxy: boolean;
  /** Whether the addresses that it gives out by themselves share their last 24 bits: from that follow its blocks. */
  readonly isSpread: boolean;
  /** Whether rules of the hosts decide who reaches its containers: those with addresses of the real network have none. */
  readonly isFiltered: boolean;
  readonly createdAt: Revision;
}

/** That a host is in a network. */
export interface MemberFact {
  readonly kind: 'member';
  readonly pool: string;
  readonly host: string;
}

/** That a host has a block. */
export interface BlockFact {
  readonly kind: 'block';
  readonly pool: string;
  readonly host: string;
  readonly block: Prefix;
  /** As in `BlockRecord`. */
  readonly own: AddressMask;
}

/** That a container of a host has an address by itself. */
export interface AddressFact {
  readonly kind: 'address';
  readonly pool: string;
  readonly host: string;
  readonly address: IpAddress;
}

/** Where a host is. */
export interface PlaceFact {
  readonly kind: 'place';
  readonly host: string;
  readonly place: HostPlace;
}

/** What one key says of where packets for containers go. */
export type Fact = NetworkFact | MemberFact | BlockFact | AddressFact | PlaceFact;

/**
 * Reads what a key says: the one place where such keys of other hosts are read.
 *
 * @returns `none` for keys that say nothing of it, such as those of networks that are one segment; `bad` for what no host
 * writes.
 */
export function readFact(entry: Pick<ValueEntry, 'path' | 'text' | 'createdAt'>): Fact | 'none' | 'bad' {
  const { path, text } = entry;
  if (path.startsWith(PLACES_PATH)) {
    const host = placeHost(path);
    const place = decodePlace(text);
    return host === undefined || place === undefined ? 'bad' : { kind: 'place', host, place };
  }
  if (path.startsWith(RECORDS_PATH)) return readNetwork(path.slice(RECORDS_PATH.length), entry);
  return path.startsWith(NETWORKS_PATH) ? readHolding(path, text) : 'none';
}

function readNetwork(
  place: string,
  { text, createdAt }: Pick<ValueEntry, 'text' | 'createdAt'>,
): NetworkFact | 'none' | 'bad' {
  const identity = parsePoolPath(place);
  const record = decodeRecord(text);
  if (identity === undefined || record === undefined || !identity.subnet.covers(record.range)) return 'bad';
  const { range, properties = {} } = record;
  const routedBy = routedByOf(properties);
  if (routedBy === undefined) return 'none';
  const { type, address = type === 'bridge' ? 'subnet' : 'host' } = properties;
  const isConnected = type === 'bridge' && address === 'subnet';
  const hasNdpProxy = properties['ndp-proxy'] === 'true';
  const isFiltered = type !== 'ipvlan';
  return {
    kind: 'network',
    pool: poolPath(identity),
    ...identity,
    range,
    routedBy,
    isConnected,
    hasNdpProxy,
    isSpread: isSpread(properties),
    isFiltered,
    createdAt,
  };
}

/** How a network with these properties is routed; undefined if its hosts are on one segment. */
export function routedByOf({ type, mode }: NetworkProperties): RoutedBy | undefined {
  if (type === 'overlay') return 'overlay';
  return type === 'bridge' || (type === 'ipvlan' && (mode === 'l3' || mode === 'l3s')) ? 'direct' : undefined;
}

function readHolding(path: string, text: string): MemberFact | BlockFact | AddressFact | 'none' | 'bad' {
  const identity = parsePoolPath(path.slice(NETWORKS_PATH.length).split('/', 2).join('/'));
  if (identity === undefined) return 'bad';
  const paths = new PoolPaths(identity);
  const pool = poolPath(identity);
  if (path.startsWith(paths.hosts)) {
    const host = path.slice(paths.hosts.length);
    return isHostId(host) ? { kind: 'member', pool, host } : 'bad';
  }
  if (path.startsWith(paths.blocks)) {
    const block = tryParsePrefix(path.slice(paths.blocks.length));
    const record = decodeBlock(text);
    if (block === undefined || record === undefined) return 'bad';
    return { kind: 'block', pool, host: record.host, block, own: record.own };
  }
  if (!path.startsWith(paths.addresses)) return 'bad';
  const address = IpAddress.tryParse(path.slice(paths.addresses.length).split('/', 1)[0] ?? '');
  const holder = decodeHolder(text);
  if (address === undefined || holder === undefined) return 'bad';
  const { host, kind } = holder;
  if (path === paths.shared(address, host)) return 'none';
  if (path !== paths.container(address) || !identity.subnet.contains(address)) return 'bad';
  return kind === 'container' ? { kind: 'address', pool, host, address } : 'none';
}

/** Whether two facts of one key say the same of where packets go. */
export function isSameFact(a: Fact | undefined, b: Fact): boolean {
  if (a?.kind !== b.kind) return false;
  switch (b.kind) {
    case 'member':
    case 'address':
      return 'host' in a && a.host === b.host;
    case 'block':
      return a.kind === 'block' && a.host === b.host && a.own === b.own;
    case 'network':
      return (
        a.kind === 'network' &&
        a.range.equals(b.range) &&
        a.routedBy === b.routedBy &&
        a.isConnected === b.isConnected &&
        a.hasNdpProxy === b.hasNdpProxy &&
        a.isSpread === b.isSpread &&
        a.isFiltered === b.isFiltered &&
        a.createdAt === b.createdAt
      );
    case 'place': {
      if (a.kind !== 'place') return false;
      const [{ addresses, leaseKey }, other] = [a.place, b.place];
      return (
        leaseKey === other.leaseKey &&
        String(addresses[4]) === String(other.addresses[4]) &&
        String(addresses[6]) === String(other.addresses[6])
      );
    }
  }
}
