import { intFlag, switchFlag } from '../config/flag-values.js';
import { readSubnetEnv } from '../docker/subnet-env.js';
import { OverlayError, describeError, isOverlayError } from '../errors.js';
import type { DaemonStatus } from '../observe/status.js';
import {
  type CtlContext,
  defineCommand,
  EXIT,
  HOST_FLAGS,
  printJson,
  STORE_FLAGS,
  type StoreOptions,
  withStore,
} from './command.js';
import { readDaemonStatus } from './daemon-client.js';
import { type LeaseRow, readLeaseRows } from './lease-rows.js';
import { formatStatus } from './status-text.js';
import { formatDuration } from './text-table.js';

/** What `status --json` prints where no daemon answers. */
interface WithoutDaemon {
  readonly daemon: null;
  readonly error: string;
  readonly subnetFile: {
    readonly path: string;
    readonly network: string | null;
    readonly subnet: string | null;
    readonly ipv6Subnet: string | null;
    readonly mtu: number | null;
  } | null;
  /** The lease of the subnet in the subnet file. */
  readonly lease: LeaseRow | null;
  /** Why etcd could not be asked. */
  readonly storeError: string | null;
}

/** `status` */
export const status = defineCommand({
  name: 'status',
  summary: 'Show how the daemon on this host is doing',
  description: 'Where no daemon answers, the subnet file and etcd tell what can be told, and the exit code is 4.',
  operands: [],
  flags: {
    ...HOST_FLAGS,
    ...STORE_FLAGS,
    watch: switchFlag(false, {
      group: 'observe',
      help: 'Show it again and again until interrupted; as JSON one document per line.',
    }),
    interval: intFlag(
      2,
      { min: 1, max: 3600 },
      { group: 'observe', placeholder: 'SECONDS', help: 'Pause between two looks.' },
    ),
  },
  exits: ['unreachable'],
  async run(context, { options }) {
    let previous: DaemonStatus | undefined;
    for (;;) {
      const seen = await readDaemonStatus(options.statusSocket, context.signal).catch((error: unknown) => {
        if (isOverlayError(error, 'ERR_DAEMON_UNREACHABLE') && !context.signal.aborted) return error;
        throw error;
      });
      const isDown = seen instanceof OverlayError;
      const without = isDown ? await lookWithoutDaemon(context, seen, options) : undefined;
      if (options.json) {
        const document = without ?? { daemon: seen };
        if (options.watch) context.out.block(`${JSON.stringify(document)}\n`);
        else printJson(context, document);
      } else {
        if (options.watch) context.clearScreen?.();
        if (!isDown) context.out.block(formatStatus(seen, previous));
        else if (without !== undefined) showWithoutDaemon(context, seen, without);
      }
      if (!options.watch) return isDown ? EXIT.unreachable : EXIT.ok;
      previous = isDown ? undefined : seen;
      await context.clock.sleep(options.interval * 1000, context.signal).catch(() => {});
      if (context.signal.aborted) return EXIT.ok;
    }
  },
});

async function lookWithoutDaemon(
  context: CtlContext,
  error: OverlayError,
  options: StoreOptions & { readonly subnetFile: string },
): Promise<WithoutDaemon> {
  const env = await readSubnetEnv(options.subnetFile);
  let lease: LeaseRow | null = null;
  let storeError: string | null = null;
  if (env?.subnet !== undefined) {
    const subnet = env.subnet.toString();
    try {
      const look = { wallMs: context.clock.wallMs(), signal: context.signal };
      const { rows } = await withStore(context, options, (store) => readLeaseRows(store, look));
      lease = rows.find((row) => row.subnet === subnet) ?? null;
    } catch (cause) {
      context.signal.throwIfAborted();
      storeError = describeError(cause);
    }
  }
  const subnetFile =
    env === undefined
      ? null
      : {
          path: options.subnetFile,
          network: env.network?.toString() ?? null,
          subnet: env.subnet?.toString() ?? null,
          ipv6Subnet: env.ipv6Subnet?.toString() ?? null,
          mtu: env.mtu ?? null,
        };
  return { daemon: null, error: describeError(error), subnetFile, lease, storeError };
}

function showWithoutDaemon(context: CtlContext, error: OverlayError, seen: WithoutDaemon): void {
  context.err.line(describeError(error));
  const { subnetFile, lease, storeError } = seen;
  if (subnetFile === null) {
    context.out.line('no subnet file: no daemon has had a lease since this host started');
    return;
  }
  const { path, subnet, network, mtu } = subnetFile;
  context.out.line(`last subnet  ${subnet ?? '-'} of ${network ?? '-'}, MTU ${mtu ?? '-'} (${path})`);
  if (storeError !== null) context.out.line(`lease        not known: ${storeError}`);
  else if (lease === null) context.out.line('lease        none: it has ended, or belongs to nobody any more');
  else {
    const end = lease.expiresInSeconds === null ? 'a reservation' : `ends in ${formatDuration(lease.expiresInSeconds)}`;
    context.out.line(`lease        held by ${lease.publicIp}, ${lease.backend}, ${end}`);
  }
}
