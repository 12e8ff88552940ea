import type { IEvent, IKeyValue } from 'etcd3/lib/rpc.js';
import { type BadEntry, type LeaseRecord, isAfter } from '../lease/record.js';
import { type World, noteChange } from '../lease/world.js';
import type { Steps } from '../pace.js';
import type { KeyLayout } from './endpoints.js';
import { decodeEntry, toText } from './entries.js';

/** Where a listing was made. */
export interface Listing {
  readonly epoch: number;
  readonly revision: string;
  readonly clusterId: string;
}

/** The world that a listing of everything shows, entry by entry. */
export function* buildWorld(keys: KeyLayout, entries: readonly IKeyValue[], listing: Listing): Steps<World> {
  const leases = new Map<string, LeaseRecord>();
  const bad = new Map<string, BadEntry>();
  let config: World['config'];
  for (const entry of entries) {
    const key = entry.key.toString();
    if (key === keys.config) config = toText(entry);
    else if (key.startsWith(keys.subnets)) put(leases, bad, key.slice(keys.subnets.length), entry);
    yield;
  }
  return { ...listing, config, leases, bad };
}

/**
 * The world after these events; the same object if they say nothing new.
 *
 * @remarks Events may repeat what the world has already: a watch resumes where the history was last recognised.
 */
export function applyEvents(keys: KeyLayout, world: World, events: readonly IEvent[]): World {
  const leases = new Map(world.leases);
  const bad = new Map(world.bad);
  const changed = new Set<string>();
  let { config, revision } = world;
  let isConfigChanged = false;
  for (const { kv, ...event } of events) {
    const key = kv.key.toString();
    const isDeleted = isDelete(event);
    if (isAfter(kv.mod_revision, revision)) revision = kv.mod_revision;
    if (key === keys.config) {
      if (isDeleted ? config === undefined : config?.revision === kv.mod_revision) continue;
      config = isDeleted ? undefined : toText(kv);
      isConfigChanged = true;
    } else if (key.startsWith(keys.subnets)) {
      const name = key.slice(keys.subnets.length);
      const known = leases.get(name) ?? bad.get(name);
      if (isDeleted ? known === undefined : known?.revision === kv.mod_revision) continue;
      if (isDeleted) {
        leases.delete(name);
        bad.delete(name);
      } else put(leases, bad, name, kv);
      changed.add(name);
    }
  }
  if (!isConfigChanged && changed.size === 0 && revision === world.revision) return world;
  const next = { ...world, revision, config, leases, bad };
  noteChange(world, next, changed);
  return next;
}

function put(leases: Map<string, LeaseRecord>, bad: Map<string, BadEntry>, name: string, entry: IKeyValue): void {
  const decoded = decodeEntry(name, entry);
  if (decoded.lease === undefined) {
    leases.delete(name);
    bad.set(name, decoded.bad);
  } else {
    bad.delete(name);
    leases.set(name, decoded.lease);
  }
}

/** The enumeration arrives under the names of the protocol file, in capitals, whatever the package's types say. */
export function isDelete(event: Pick<IEvent, 'type'>): boolean {
  return event.type.toUpperCase() === 'DELETE';
}
