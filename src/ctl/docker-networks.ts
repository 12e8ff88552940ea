import { readClusterNetworks } from '../container/cluster-networks.js';
import { describeError, isOverlayError } from '../errors.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import { type CtlContext, defineCommand, EXIT, printJson, STORE_FLAGS, withStore } from './command.js';
import { readDaemonStatus } from './daemon-client.js';
import { withContainerNames } from './docker-containers.js';
import { type HostRow, type NetworksView, readSilence, viewNetworks } from './docker-networks-view.js';
import { formatDuration, formatTable } from './text-table.js';

/** `docker-networks` */
export const dockerNetworks = defineCommand({
  name: 'docker-networks',
  summary: 'List networks of containers, and who has which address',
  description:
    'Of this host as its daemon has it now, with names of containers from docker; of other hosts as they tell it in etcd, some seconds late.',
  operands: [],
  flags: STORE_FLAGS,
  exits: ['unreachable', 'differences'],
  run: (context, { options }) =>
    withStore(context, options, async (store) => {
      const here = await readLocal(context, options.statusSocket);
      const cluster = await readClusterNetworks(store, context.signal);
      const view = viewNetworks(cluster, await readSilence(store, cluster, context.signal), here);
      if (options.json) printJson(context, view);
      else {
        context.out.block(formatNetworks(view, context.clock.wallMs()));
        for (const key of view.badKeys) context.err.line(`the key ${key} cannot be read`);
      }
      return view.badKeys.length === 0 ? EXIT.ok : EXIT.differences;
    }),
});

/** What the daemon of this host knows; undefined, and said so, where it does not run or serves no such networks. */
async function readLocal(context: CtlContext, socket: string): Promise<ContainerNetworksStatus | undefined> {
  try {
    const { containerNetworks } = await readDaemonStatus(socket, context.signal);
    return containerNetworks === null ? undefined : await withContainerNames(containerNetworks);
  } catch (error) {
    context.signal.throwIfAborted();
    if (!isOverlayError(error, 'ERR_DAEMON_UNREACHABLE') && !isOverlayError(error, 'ERR_NOT_PRIVILEGED')) throw error;
    context.err.line(`containers of this host are not known: ${describeError(error)}`);
    return undefined;
  }
}

/**
 * The view as tables for people.
 *
 * @param nowMs - milliseconds since the epoch.
 */
export function formatNetworks(view: NetworksView, nowMs: number): string {
  const ago = (time: string | null): string =>
    time === null ? '' : formatDuration(Math.max(0, nowMs - Date.parse(time)) / 1000);
  const tables = [
    formatTable(
      ['NETWORK', 'SUBNET', 'RANGE', 'TYPE', 'GATEWAY', 'HOSTS', 'MODE', 'PARENT', 'HOST ACCESS'],
      view.networks.map(({ network, subnet, range, properties, hosts, here }) => [
        network,
        subnet,
        range ?? '',
        here?.type ?? properties?.['type'] ?? '',
        properties?.['gateway'] ?? '',
        String(hosts.length),
        here?.mode ?? '',
        here?.parent ?? '',
        here === null ? '' : here.hasHostAccess ? 'yes' : 'no',
      ]),
    ),
    view.hosts.length === 0
      ? ''
      : formatTable(
          ['HOST', 'NAME', 'NETWORK', 'BLOCKS', 'SINGLE ADDRESSES', 'HEARD OF'],
          view.hosts.map((row) => [
            row.isThisHost ? `${row.host} (this host)` : row.host,
            row.hostName ?? '',
            row.network,
            row.blocks.join(' '),
            row.addresses.join(' '),
            heardOf(row),
          ]),
        ),
    view.addresses.length === 0
      ? ''
      : formatTable(
          ['ADDRESS', 'NETWORK', 'HOST', 'CONTAINER', 'MAC', 'FOR', 'STATE'],
          view.addresses.map(({ address, network, host, hostName, owner, mac, since, state, abandonedSince }) => [
            address,
            network,
            hostName ?? host,
            abandonedSince === null ? (owner ?? '') : `none for ${ago(abandonedSince)}`,
            mac ?? '',
            ago(since),
            state,
          ]),
        ),
    view.seen.length === 0
      ? ''
      : formatTable(
          ['SEEN ON THE NETWORK', 'NETWORK', 'MAC', 'AGO'],
          view.seen.map(({ address, network, mac, seenAt }) => [address, network, mac, ago(seenAt)]),
        ),
  ];
  return tables.filter((table) => table !== '').join('\n');
}

function heardOf({ silentSeconds, isAlive }: HostRow): string {
  if (silentSeconds === null) return 'its lease has ended';
  return isAlive ? 'now' : `${formatDuration(silentSeconds)} ago`;
}
