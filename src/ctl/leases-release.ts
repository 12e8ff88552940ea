import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore, YES_FLAG } from './command.js';
import { findLease } from './lease-rows.js';
import { LEASE_OPERAND } from './leases-show.js';
import { changed } from './leases-unreserve.js';

/** `leases release SUBNET` */
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
      const lease = findLease(await store.listLeases(context.signal), operands[0] ?? '');
      const subnet = lease.subnet.toString();
      const owner = lease.attributes.publicIp.toString();
      const what = lease.isReservation ? 'reservation' : 'lease';
      if (!options.yes && (await context.confirm(`Delete the ${what} of ${subnet} held by ${owner}?`)) !== true) {
        context.stderr(`the ${what} of ${subnet} held by ${owner} stays; say yes, or give --yes\n`);
        return EXIT.refused;
      }
      if ((await store.deleteLease(lease, context.signal)) === 'changed') throw changed(subnet);
      if (options.json) printJson(context, { key: lease.key, publicIp: owner });
      else context.stdout(`released ${subnet}, which ${owner} held\n`);
      return EXIT.ok;
    }),
});
