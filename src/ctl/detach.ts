import { OverlayError } from '../errors.js';
import { Netlink } from '../netlink/netlink.js';
import { NetworkNamespace } from '../sys/netns.js';
import {
  ATTACHMENT_FLAGS,
  type Attachment,
  type Held,
  attachmentOf,
  findHeld,
  isInterfaceOf,
  readContainerNetworks,
} from './attachment.js';
import { defineCommand, EXIT, HOST_FLAGS, printJson } from './command.js';
import { PLUGIN_FLAGS, PluginClient } from './plugin-client.js';
import { requireRoot } from './rights.js';

/** `detach` */
export const detach = defineCommand({
  name: 'detach',
  summary: 'Take an interface of a container network away from a network namespace',
  description: 'Also when the namespace is gone: then its addresses come free.',
  operands: [],
  flags: { ...ATTACHMENT_FLAGS, ...PLUGIN_FLAGS, 'status-socket': HOST_FLAGS['status-socket'] },
  exits: ['unreachable'],
  async run(context, { options }) {
    requireRoot('change network namespaces');
    const status = await readContainerNetworks(options.statusSocket, context.signal);
    const attachment = attachmentOf(status.host, options);
    const held = findHeld(attachment, status);
    const isRemoved = await removeInterface(attachment);
    if (held.network === undefined && held.addresses.length === 0 && !isRemoved) {
      throw new OverlayError(
        'ERR_NOT_FOUND',
        `cannot detach ${attachment.ifname} of ${attachment.netns}: it is not attached`,
        {
          hint: 'see tsflannelctl docker-networks for the path and the name that were given',
        },
      );
    }
    const plugin = new PluginClient(options.pluginSocket, context.signal);
    await giveBack(plugin, attachment, held);
    const addresses = held.addresses.map(({ address }) => address);
    if (options.json)
      printJson(context, { netns: attachment.netns, interface: attachment.ifname, released: addresses });
    else
      context.out.line(
        `detached ${attachment.ifname} of ${attachment.netns}, released ${addresses.join(' and ') || 'no address'}`,
      );
    return EXIT.ok;
  },
});

/** Deletes the interface inside of the namespace. @returns whether it was there. */
async function removeInterface(attachment: Attachment): Promise<boolean> {
  const netns = NetworkNamespace.open(attachment.netns);
  if (netns === undefined) return false;
  let netlink: Netlink | undefined;
  try {
    netlink = netns.run(() => Netlink.open());
    const link = (await netlink.links.list()).find((each) => isInterfaceOf(attachment, each));
    if (link !== undefined) netlink.links.del(link);
    return link !== undefined;
  } finally {
    netlink?.close();
    netns.close();
  }
}

/** Has the daemon forget the interface and give up its addresses; a network of attachments goes with its last one. */
export async function giveBack(plugin: PluginClient, { id }: Attachment, { network, addresses }: Held): Promise<void> {
  if (network !== undefined) {
    const endpoint = { NetworkID: network.id, EndpointID: id };
    await plugin.call('NetworkDriver.Leave', endpoint);
    await plugin.call('NetworkDriver.DeleteEndpoint', endpoint);
  }
  for (const { pool, address } of addresses) {
    await plugin.call('IpamDriver.ReleaseAddress', { PoolID: pool.id, Address: address });
  }
}
