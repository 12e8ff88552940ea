import { networksTitled, readClusterNetworks } from '../container/cluster-networks.js';
import { dropRecord } from '../container/network-record.js';
import { PoolPaths } from '../container/records.js';
import { isAttached, isOwn } from '../docker/plugin/own-ids.js';
import { OverlayError, isOverlayError } from '../errors.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import { readContainerNetworks } from './attachment.js';
import {
  type CtlContext,
  defineCommand,
  EXIT,
  printJson,
  STORE_FLAGS,
  type StoreOptions,
  withStore,
} from './command.js';
import { findHostNetwork } from './host-network.js';
import { PLUGIN_FLAGS, PluginClient } from './plugin-client.js';
import { requireRoot } from './rights.js';

/** `docker-networks remove NETWORK` */
export const dockerNetworksRemove = defineCommand({
  name: 'docker-networks remove',
  summary: 'Remove a network of containers that nothing is attached to',
  description:
    'One that docker-networks create has made is removed from this host, and what is written down of it with the last host. One that no host is in any more is removed from etcd.',
  operands: [
    {
      name: 'NETWORK',
      isOptional: false,
      help: 'a name or subnet as tsflannelctl docker-networks lists them',
      values: 'none',
    },
  ],
  flags: { ...PLUGIN_FLAGS, ...STORE_FLAGS },
  exits: ['unreachable'],
  async run(context, { operands: [title = ''], options }) {
    const id = await findHere(context, options.statusSocket, title);
    if (id === undefined) await removeRecord(context, options, title);
    else {
      requireRoot('remove networks of containers');
      const plugin = new PluginClient(options.pluginSocket, context.signal);
      await plugin.call('NetworkDriver.DeleteNetwork', { NetworkID: id });
    }
    if (options.json) printJson(context, { removed: title });
    else context.out.line(`removed the network ${title}${id === undefined ? '' : ' from this host'}`);
    return EXIT.ok;
  },
});

/** @returns undefined if this host is not in the network, or serves none. */
async function findHere(context: CtlContext, socket: string, title: string): Promise<string | undefined> {
  let status: ContainerNetworksStatus;
  try {
    status = await readContainerNetworks(socket, context.signal);
  } catch (error) {
    if (isOverlayError(error, 'ERR_DAEMON_UNREACHABLE')) return undefined;
    throw error;
  }
  const id = findHostNetwork(title, status)?.id;
  if (id === undefined || (isOwn(id) && !isAttached(id))) return id;
  throw new OverlayError(
    'ERR_CONFLICT',
    `cannot remove the network ${title}: ${isAttached(id) ? 'something is attached to it' : 'Docker has it'}`,
    { hint: isAttached(id) ? 'run tsflannelctl detach; it goes with the last attachment' : 'run docker network rm' },
  );
}

/** Removes what is left of a network whose hosts are all gone. */
async function removeRecord(context: CtlContext, options: StoreOptions, title: string): Promise<void> {
  await withStore(context, options, async (store) => {
    const { signal } = context;
    const networks = networksTitled(title, (await readClusterNetworks(store, signal)).networks);
    if (networks.length === 0) {
      throw new OverlayError('ERR_NOT_FOUND', `cannot remove the network ${title}: there is none`, {
        hint: 'see tsflannelctl docker-networks',
      });
    }
    for (const network of networks) {
      const isGone = await dropRecord(store, new PoolPaths(network), signal);
      if (isGone) continue;
      const hosts = network.hosts.join(', ') || 'a host that has entered it just now';
      throw new OverlayError('ERR_CONFLICT', `cannot remove the network ${title}: there are hosts in it: ${hosts}`, {
        hint: 'remove it there; for hosts that are gone, run tsflannelctl docker-networks release HOST first',
      });
    }
  });
}
