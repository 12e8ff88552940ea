import { defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { type LeaseRow, readLeaseRows } from './lease-rows.js';
import { formatDuration, formatTable } from './text-table.js';

const HEADINGS = ['SUBNET', 'PUBLIC IP', 'BACKEND', 'EXPIRES', 'HOST', 'AGE'];

/** `leases list` */
export const leasesList = defineCommand({
  name: 'leases list',
  summary: 'List the subnets and who holds them',
  description:
    'EXPIRES is the time left unless the host renews it; reservations never expire. HOST and AGE are known of hosts that run tsflanneld.',
  operands: [],
  flags: STORE_FLAGS,
  exits: ['unreachable', 'differences'],
  run: (context, { options }) =>
    withStore(context, options, async (store) => {
      const { rows, bad } = await readLeaseRows(store, { wallMs: context.clock.wallMs(), signal: context.signal });
      if (options.json) {
        printJson(context, { leases: rows, badKeys: bad });
      } else {
        const hasIpv6 = rows.some(({ ipv6Subnet }) => ipv6Subnet !== null);
        const headings = hasIpv6 ? ['SUBNET', 'IPV6 SUBNET', ...HEADINGS.slice(1)] : HEADINGS;
        context.out.block(
          formatTable(
            headings,
            rows.map((row) => cellsOf(row, hasIpv6)),
          ),
        );
        for (const { problem } of bad) context.err.line(problem);
      }
      return bad.length === 0 ? EXIT.ok : EXIT.differences;
    }),
});

function cellsOf(row: LeaseRow, hasIpv6: boolean): readonly string[] {
  return [
    row.subnet,
    ...(hasIpv6 ? [row.ipv6Subnet ?? ''] : []),
    row.publicIp,
    row.backend,
    row.expiresInSeconds === null ? 'never' : formatDuration(row.expiresInSeconds),
    row.hostName ?? '',
    row.ageSeconds === null ? '' : formatDuration(row.ageSeconds),
  ];
}
