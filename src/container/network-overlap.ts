import { OverlayError } from '../errors.js';
import type { Prefix } from '../ip/prefix.js';
import type { EtcdLeaseId } from '../lease/record.js';
import type { SharedValueStore, ValueCondition, ValueEntry, ValueTransaction } from '../lease/store.js';
import type { PoolIdentity } from './pool-id.js';
import { CHOICE_PATH, PoolPaths, RECORDS_PATH, parsePoolPath } from './records.js';

/** Who founds which network. */
export interface Founder {
  readonly host: string;
  readonly store: Pick<SharedValueStore, 'listValues'>;
  readonly identity: Pick<PoolIdentity, 'name' | 'subnet'>;
  readonly etcdLeaseId: EtcdLeaseId | undefined;
}

/** More members than anybody reads are counted. */
const MAX_NAMED = 3;

/**
 * What a transaction needs besides that writes the first record of a network, so that no two networks of one name, or
 * without, overlap: of two hosts that found one at the same instant, one has to look again. Different names stand for
 * different segments, which may have the same subnet. A network that no host is in any more goes.
 *
 * @throws {@link OverlayError} `ERR_ADDRESS_POOL` if hosts are in a network that it overlaps.
 */
export async function readFounding(
  { host, store, identity, etcdLeaseId }: Founder,
  signal: AbortSignal,
): Promise<Required<ValueTransaction>> {
  // First: whoever founds a network after the records were listed changes it.
  const choice = await readChoice(store, signal);
  const conditions: ValueCondition[] = [
    choice === undefined ? { absent: CHOICE_PATH } : { path: CHOICE_PATH, revision: choice.revision },
  ];
  const deletes: string[] = [];
  for (const { path, revision } of await store.listValues(RECORDS_PATH, signal)) {
    const other = parsePoolPath(path.slice(RECORDS_PATH.length));
    if (other === undefined || !isOverlapping(identity, other)) continue;
    const paths = new PoolPaths(other);
    const members = (await store.listValues(paths.hosts, signal)).map((each) => each.path.slice(paths.hosts.length));
    if (members.length > 0) throw overlaps(identity, other.subnet, members.includes(host) ? ['this host'] : members);
    conditions.push({ path, revision });
    deletes.push(path);
  }
  return { conditions, puts: [{ path: CHOICE_PATH, text: host, etcdLeaseId }], deletes };
}

/** Takes back what was written with an etcd lease that is about to be given up: its networks are gone. */
export async function dropChoice(
  store: Pick<SharedValueStore, 'listValues' | 'transactValues'>,
  etcdLeaseId: EtcdLeaseId,
  signal: AbortSignal,
): Promise<void> {
  const choice = await readChoice(store, signal);
  if (choice?.etcdLeaseId !== etcdLeaseId) return;
  const { path, revision } = choice;
  await store.transactValues({ conditions: [{ path, revision }], deletes: [path] }, signal);
}

/**
 * Refuses a subnet whose addresses the overlay routes to its hosts.
 *
 * @param overlay - its networks; what a host leases outside of them is not routed.
 * @throws {@link OverlayError} `ERR_ADDRESS_POOL`
 */
export function refuseOverlay(subnet: Prefix, overlay: readonly Prefix[]): void {
  const network = overlay.find((each) => each.overlaps(subnet));
  if (network === undefined) return;
  throw new OverlayError(
    'ERR_ADDRESS_POOL',
    `cannot use ${subnet.toString()} on the real network: it overlaps ${network.toString()}, the network of the overlay`,
    { hint: 'use the subnet of the real network, which lies outside of the overlay' },
  );
}

async function readChoice(
  store: Pick<SharedValueStore, 'listValues'>,
  signal: AbortSignal,
): Promise<ValueEntry | undefined> {
  return (await store.listValues(CHOICE_PATH, signal)).find(({ path }) => path === CHOICE_PATH);
}

function isOverlapping(a: Founder['identity'], b: Founder['identity']): boolean {
  return a.name === b.name && !a.subnet.equals(b.subnet) && a.subnet.overlaps(b.subnet);
}

function overlaps({ name, subnet }: Founder['identity'], other: Prefix, members: readonly string[]): OverlayError {
  const named = members.slice(0, MAX_NAMED).join(', ');
  const who = members.length > MAX_NAMED ? `${named} and ${members.length - MAX_NAMED} more` : named;
  const network = name === undefined ? '' : ` of the network ${name}`;
  return new OverlayError(
    'ERR_ADDRESS_POOL',
    `cannot use ${subnet.toString()}${network}: it overlaps ${other.toString()}, in use by ${who}`,
    { hint: 'use the same --subnet on all hosts, or tell wires apart by a name for each with --ipam-opt network=NAME' },
  );
}
