import { OverlayError } from '../errors.js';
import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { LEASE_OPERAND, findLease } from './find-lease.js';
import { readLeaseRows } from './lease-rows.js';
import { formatDuration, formatFields } from './text-table.js';

/** `leases show LEASE` */
export const leasesShow = defineCommand({
  name: 'leases show',
  summary: 'Show one lease with everything its host has published',
  operands: [LEASE_OPERAND],
  flags: STORE_FLAGS,
  exits: ['unreachable'],
  run: (context, { operands, options }) =>
    withStore(context, options, async (store) => {
      const look = { wallMs: context.clock.wallMs(), signal: context.signal };
      const { rows, snapshot, hosts } = await readLeaseRows(store, look);
      const { key } = findLease(snapshot, hosts, operands[0] ?? '');
      const row = rows.find((each) => each.key === key);
      if (row === undefined) throw new OverlayError('ERR_NOT_FOUND', `cannot find the lease ${key}: it is gone`);
      if (options.json) {
        printJson(context, row);
        return EXIT.ok;
      }
      const lines: readonly (readonly [string, string | null])[] = [
        ['subnet', row.subnet],
        ['IPv6 subnet', row.ipv6Subnet],
        ['host', row.hostName],
        ['public IP', row.publicIp],
        ['public IPv6', row.publicIpv6],
        ['backend', row.backend],
        ['data', row.backendData === null ? null : JSON.stringify(row.backendData)],
        ['IPv6 data', row.backendV6Data === null ? null : JSON.stringify(row.backendV6Data)],
        [
          'expires',
          row.expiresInSeconds === null ? 'never: it is a reservation' : formatDuration(row.expiresInSeconds),
        ],
        ['age', row.ageSeconds === null ? null : formatDuration(row.ageSeconds)],
        ['key', row.key],
        ['revision', row.revision],
      ];
      context.out.block(
        formatFields(lines.flatMap(([name, value]) => (value === null ? [] : [[name, value] as const]))),
      );
      return EXIT.ok;
    }),
});
