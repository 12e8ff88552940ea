import { switchFlag } from '../config/flag-values.js';
import { OverlayError } from '../errors.js';
import { LEASE_TTL_SECONDS } from '../lease/keeper.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { LEASE_OPERAND, findLease } from './find-lease.js';
import { readHosts } from './lease-rows.js';

/** `leases unreserve LEASE` */
export const leasesUnreserve = defineCommand({
  name: 'leases unreserve',
  summary: 'End a reservation: the lease becomes an ordinary one, which its host keeps as long as it runs',
  operands: [LEASE_OPERAND],
  flags: {
    ...STORE_FLAGS,
    delete: switchFlag(false, {
      group: 'observe',
      help: 'Delete it at once instead of in a day; for a host that does not run.',
    }),
  },
  exits: ['unreachable'],
  run: (context, { operands, options }) =>
    withStore(context, options, async (store) => {
      const snapshot = await store.listLeases(context.signal);
      const lease = findLease(snapshot, await readHosts(store, context.signal), operands[0] ?? '');
      const subnet = lease.subnet.toString();
      if (!lease.isReservation) {
        throw new OverlayError('ERR_NOT_FOUND', `cannot end the reservation of ${subnet}: it is an ordinary lease`, {
          hint: 'to take it from its host, use tsflannelctl leases release',
        });
      }
      const how = options.delete ? 'delete' : { ttlSeconds: LEASE_TTL_SECONDS };
      if ((await store.unreserve(lease, how, context.signal)) === 'changed') throw changed(subnet);
      if (options.json) printJson(context, { key: lease.key, isDeleted: options.delete });
      else context.out.line(options.delete ? `deleted ${subnet}` : `${subnet} ends in a day unless its host renews it`);
      return EXIT.ok;
    }),
});

/** The error for a lease that somebody else wrote since it was read. */
export function changed(subnet: string): OverlayError {
  return new OverlayError('ERR_CONFLICT', `cannot change the lease of ${subnet}: it changed in the meantime`, {
    hint: 'look at tsflannelctl leases list, then run this again',
  });
}
