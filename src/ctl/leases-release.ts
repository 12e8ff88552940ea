import type { BadEntry } from '../lease/record.js';
import type { OperatorStore } from '../lease/store.js';
import {
  type CtlContext,
  defineCommand,
  EXIT,
  type ExitCode,
  printJson,
  STORE_FLAGS,
  withStore,
  YES_FLAG,
} from './command.js';
import { LEASE_OPERAND, findLease } from './find-lease.js';
import { readHosts } from './lease-rows.js';
import { changed } from './leases-unreserve.js';

/** `leases release LEASE` */
export const leasesRelease = defineCommand({
  name: 'leases release',
  summary: 'Delete a lease, for a host that is gone',
  description:
    'A host that still runs tsflanneld takes the subnet again at once; one that runs flannel’s own daemon ends it, and restarts with a new lease.',
  operands: [LEASE_OPERAND],
  flags: { ...STORE_FLAGS, ...YES_FLAG },
  exits: ['unreachable', 'refused'],
  run: (context, { operands, options }) =>
    withStore(context, options, async (store) => {
      const name = operands[0] ?? '';
      const snapshot = await store.listLeases(context.signal);
      const unreadable = snapshot.bad.find(({ key }) => key === name);
      if (unreadable !== undefined) return releaseUnreadable(context, options, store, unreadable);
      const lease = findLease(snapshot, await readHosts(store, context.signal), name);
      const subnet = lease.subnet.toString();
      const owner = lease.attributes.publicIp.toString();
      const what = lease.isReservation ? 'reservation' : 'lease';
      if (!options.yes && (await context.confirm(`Delete the ${what} of ${subnet} held by ${owner}?`)) !== true) {
        context.err.line(`the ${what} of ${subnet} held by ${owner} stays; say yes, or give --yes`);
        return EXIT.refused;
      }
      if ((await store.deleteLease(lease, context.signal)) === 'changed') throw changed(subnet);
      if (options.json) printJson(context, { key: lease.key, publicIp: owner });
      else context.out.line(`released ${subnet}, which ${owner} held`);
      return EXIT.ok;
    }),
});

/** Deletes a key among the leases that is none. */
async function releaseUnreadable(
  context: CtlContext,
  options: { readonly yes: boolean; readonly json: boolean },
  store: OperatorStore,
  { key, revision, reason }: BadEntry,
): Promise<ExitCode> {
  if (!options.yes && (await context.confirm(`Delete the key ${key}, which is no lease (${reason})?`)) !== true) {
    context.err.line(`the key ${key} stays; say yes, or give --yes`);
    return EXIT.refused;
  }
  if ((await store.deleteLease({ key, revision, etcdLeaseId: undefined }, context.signal)) === 'changed')
    throw changed(key);
  if (options.json) printJson(context, { key, publicIp: null });
  else context.out.line(`deleted ${key}, which was no lease`);
  return EXIT.ok;
}
