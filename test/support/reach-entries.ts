import type { NetworkProperties } from '../../src/container/addresses.js';
import { encodePlace, placePath } from '../../src/container/host-place.js';
import { type Fact, readFact } from '../../src/container/network-facts.js';
import { PoolPaths, encodeBlock, encodeHolder, encodeRecord } from '../../src/container/records.js';
import type { PoolIdentity } from '../../src/container/pool-id.js';
import { ip, net } from './builders.js';

/** A key as its host writes it. */
export interface ReachEntry {
  readonly path: string;
  readonly text: string;
  readonly createdAt: string;
}

/** The network `web`, 10.99.0.0/24, of 16 blocks of 16 addresses. */
export const WEB: PoolIdentity = { name: 'web', subnet: net('10.99.0.0/24'), range: net('10.99.0.0/24') };

/** A record of a network. */
export function networkEntry(
  properties: NetworkProperties,
  { pool = WEB, createdAt = '5' }: { readonly pool?: PoolIdentity; readonly createdAt?: string } = {},
): ReachEntry {
  const text = encodeRecord({ range: pool.range, properties });
  return { path: new PoolPaths(pool).record, text, createdAt };
}

/** That a host is in a network. */
export function memberEntry(host: string, pool: PoolIdentity = WEB): ReachEntry {
  return { path: new PoolPaths(pool).host(host), text: 'instance', createdAt: '6' };
}

/** A block of a host. */
export function blockEntry(
  host: string,
  block: string,
  { pool = WEB, own = 0n }: { readonly pool?: PoolIdentity; readonly own?: bigint } = {},
): ReachEntry {
  const text = encodeBlock({ host, own, used: 0n });
  return { path: new PoolPaths(pool).block(net(block)), text, createdAt: '7' };
}

/** A single address of a container of a host. */
export function addressEntry(host: string, address: string, pool: PoolIdentity = WEB): ReachEntry {
  const text = encodeHolder({ host, kind: 'container' });
  return { path: new PoolPaths(pool).container(ip(address)), text, createdAt: '8' };
}

/** Where a host is: at 192.0.2.`n`, with the lease 10.5.`n`.0/24. */
export function placeEntry(host: string, n: number): ReachEntry {
  const place = { addresses: { 4: ip(`192.0.2.${n}`) }, leaseKey: `10.5.${n}.0-24` };
  return { path: placePath(host), text: encodePlace(place), createdAt: '9' };
}

/** What keys say, by path; fails for keys that say nothing. */
export function factsOf(entries: readonly ReachEntry[]): ReadonlyMap<string, Fact> {
  return new Map(
    entries.map((entry) => {
      const fact = readFact(entry);
      if (fact === 'none' || fact === 'bad') throw new TypeError(`${entry.path}: ${fact}`);
      return [entry.path, fact];
    }),
  );
}
