import { OverlayError } from '../errors.js';
import { decodeAttributes, encodeAttributes } from './attributes.js';
import type { JsonValue } from '../json.js';
import type { Lease } from './lease.js';
import { formatSubnetKey, parseSubnetKey } from './subnet-key.js';

/** Layout of the cache; a file of another version is refused, not guessed at. */
const CACHE_VERSION = 1;

/** A peer's entry in the file; one peer among thousands changes at a time, and a lease never does. */
const encoded = new WeakMap<Lease, string>();

function encodeCachedLease(peer: Lease): string {
  const known = encoded.get(peer);
  if (known !== undefined) return known;
  const text = JSON.stringify({
    key: formatSubnetKey(peer),
    value: encodeAttributes(peer.attributes),
    revision: peer.revision,
    createdAt: peer.createdAt,
    isReservation: peer.isReservation,
  });
  encoded.set(peer, flat(text));
  return text;
}

/** The same text in one piece: what `JSON.stringify` gives is a tree of its pieces until somebody reads it, twice as large. */
function flat(text: string): string {
  return Buffer.from(text).toString();
}

/**
 * Leases as text for a file, to be used at the next start if the store is away then.
 *
 * @param origin - where they come from; {@link decodePeerCache} passes over it.
 */
export function encodePeerCache(leases: readonly Lease[], origin?: JsonValue): string {
  const head = origin === undefined ? '' : `, "origin": ${JSON.stringify(origin)}`;
  return `{"version": ${CACHE_VERSION}${head}, "leases": [\n${leases.map(encodeCachedLease).join(',\n')}\n]}\n`;
}

/**
 * Reads what {@link encodePeerCache} wrote.
 *
 * @throws {@link OverlayError} `ERR_PEER_CACHE`
 */
export function decodePeerCache(text: string): readonly Lease[] {
  try {
    const { version, leases } = JSON.parse(text) as { readonly version?: unknown; readonly leases?: unknown };
    if (version !== CACHE_VERSION || !Array.isArray(leases))
      throw new TypeError(`it is not of version ${CACHE_VERSION}`);
    return leases.map(decodeCachedLease);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OverlayError('ERR_PEER_CACHE', `cannot read the last known peers: ${reason}`, {
      cause,
      hint: 'nothing is lost, it is written anew once etcd answers',
    });
  }
}

function decodeCachedLease(entry: unknown): Lease {
  const { key, value, revision, createdAt, isReservation } = entry as Record<string, unknown>;
  if (typeof key !== 'string' || typeof value !== 'string') throw new TypeError('a lease lacks key or value');
  if (typeof revision !== 'string' || !/^\d+$/.test(revision)) throw new TypeError(`${key} has no revision`);
  return {
    ...parseSubnetKey(key),
    attributes: decodeAttributes(value),
    revision,
    // Files of 0.1.0 lack it.
    createdAt: typeof createdAt === 'string' && /^\d+$/.test(createdAt) ? createdAt : revision,
    isReservation: isReservation === true,
  };
}
