import { addressFlag, optionalTextFlag } from '../config/flag-values.js';
import { networkTitle, networksTitled, readClusterNetworks } from '../container/cluster-networks.js';
import { optionsOfRecord } from '../docker/plugin/network-settings.js';
import { attachedNetworkId } from '../docker/plugin/own-ids.js';
import { OverlayError, describeError } from '../errors.js';
import { type Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import { Prefix } from '../ip/prefix.js';
import type { LinkInfo } from '../netlink/link.js';
import { Netlink } from '../netlink/netlink.js';
import { netlinkErrno } from '../netlink/socket.js';
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
import {
  type CtlContext,
  defineCommand,
  EXIT,
  printJson,
  STORE_FLAGS,
  type StoreOptions,
  withStore,
} from './command.js';
import { giveBack } from './detach.js';
import {
  type HostNetwork,
  type WantedNetwork,
  type WantedSubnet,
  findHostNetwork,
  makeHostNetwork,
} from './host-network.js';
import { PLUGIN_FLAGS, PluginClient } from './plugin-client.js';
import { requireRoot } from './rights.js';

/** `attach` */
export const attach = defineCommand({
  name: 'attach',
  summary: 'Give a network namespace an interface and an address of a container network',
  description:
    'For namespaces that Docker does not know, with addresses of the same ranges. The network is one that some host of the cluster has made. Repeating it changes nothing that is there.',
  operands: [],
  flags: {
    ...ATTACHMENT_FLAGS,
    network: optionalTextFlag({
      group: 'containers',
      placeholder: 'NAME|SUBNET',
      help: 'The network, as tsflannelctl docker-networks lists it.',
    }),
    ip: addressFlag([4], {
      group: 'containers',
      placeholder: 'ADDRESS',
      help: 'This IPv4 address instead of any free one.',
    }),
    ip6: addressFlag([6], { group: 'containers', placeholder: 'ADDRESS', help: 'This IPv6 address likewise.' }),
    parent: optionalTextFlag({
      group: 'containers',
      placeholder: 'INTERFACE',
      help: 'Where the network is on this host, if nothing on this host is in it yet; found by itself otherwise.',
    }),
    ...PLUGIN_FLAGS,
    ...STORE_FLAGS,
  },
  exits: ['unreachable'],
  async run(context, { options }) {
    requireRoot('change network namespaces');
    const { network: title = '', ip, ip6 } = options;
    if (title === '') {
      throw new OverlayError('ERR_FLAG', 'cannot attach an interface: --network is missing', {
        hint: 'give a name or subnet as tsflannelctl docker-networks lists them',
      });
    }
    const status = await readContainerNetworks(options.statusSocket, context.signal);
    const attachment = attachmentOf(status.host, options);
    const netns = openExisting(attachment);
    const plugin = new PluginClient(options.pluginSocket, context.signal);
    const before = findHeld(attachment, status);
    const wanted = [ip, ip6].filter((each) => each !== undefined);
    refuseOther(attachment, before, title, wanted);
    let entered: Pick<HostNetwork, 'id'> | undefined;
    try {
      let network = findHostNetwork(title, status);
      if (network === undefined) {
        const unknown = await readNetwork(context, options, title);
        await makeHostNetwork(plugin, unknown);
        entered = unknown;
        network = findHostNetwork(title, await readContainerNetworks(options.statusSocket, context.signal));
        if (network === undefined) throw unknownNetwork(title);
      }
      const made = await join(plugin, attachment, network, { wanted, netns });
      showResult(context, options.json, attachment, title, made);
      return EXIT.ok;
    } catch (error) {
      if (before.network === undefined)
        await undo(context, plugin, attachment, { entered, socket: options.statusSocket });
      throw error;
    } finally {
      netns.close();
    }
  },
});

/** What other hosts have written down of a network; it is entered as they have it. */
function readNetwork(
  context: CtlContext,
  options: StoreOptions & { readonly parent: string | undefined },
  title: string,
): Promise<WantedNetwork> {
  return withStore(context, options, async (store) => {
    const { networks } = await readClusterNetworks(store, context.signal);
    const found = networksTitled(title, networks);
    const subnets = found.map(({ name, subnet, record }): WantedSubnet => {
      if (record === undefined) throw unknownNetwork(title);
      const gateway = IpAddress.tryParse(record.properties?.['gateway'] ?? '');
      return { name, subnet, range: record.range, gateway: gateway ?? 'none', auxiliary: [] };
    });
    const [first] = found;
    if (first === undefined) throw unknownNetwork(title);
    const { internal = 'false', ...agreed } = first.record?.properties ?? {};
    const { parent } = options;
    return {
      id: attachedNetworkId(networkTitle(first)),
      subnets,
      isInternal: internal === 'true',
      options: { ...optionsOfRecord(agreed), ...(parent === undefined ? {} : { parent }) },
    };
  });
}

function openExisting({ netns: path }: Attachment): NetworkNamespace {
  const netns = NetworkNamespace.open(path);
  if (netns !== undefined) {
    try {
      netns.run(() => {}); // before anything is asked for, whether it is one
      return netns;
    } catch (error) {
      netns.close();
      throw error;
    }
  }
  throw new OverlayError('ERR_NETNS', `cannot enter the network namespace ${path}: it does not exist`, {
    hint: 'make it first, such as with ip netns add NAME',
  });
}

/** One that is attached already stays as it is. */
function refuseOther(
  { netns, ifname }: Attachment,
  { network, addresses }: Held,
  title: string,
  wanted: readonly IpAddress[],
): void {
  const isSame = addresses.every(
    ({ pool }) => pool.network === title || pool.subnet === title || network?.subnets.includes(title),
  );
  const has = addresses.map(({ address }) => address);
  const other = wanted.find((address) => has.length > 0 && !has.includes(address.toString()));
  if (isSame && other === undefined) return;
  const names = [...new Set(addresses.map(({ pool }) => pool.network))].join(', ');
  throw new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot attach ${ifname} of ${netns}: it has ${has.join(' and ')} of ${names}`,
    {
      hint: `run tsflannelctl detach --netns ${netns} --ifname ${ifname} first, or choose another --ifname`,
    },
  );
}

/** What an interface got. */
interface Joined {
  readonly mac: MacAddress | undefined;
  readonly addresses: readonly { readonly address: IpAddress; readonly length: number }[];
  readonly gateways: HostNetwork['gateways'];
  readonly routes: HostNetwork['routes'];
}

async function join(
  plugin: PluginClient,
  attachment: Attachment,
  network: HostNetwork,
  { wanted, netns }: { readonly wanted: readonly IpAddress[]; readonly netns: NetworkNamespace },
): Promise<Joined> {
  const addresses = await requestAddresses(plugin, attachment, network, wanted);
  const endpoint = { NetworkID: network.id, EndpointID: attachment.id };
  const textOf = (family: Family): string => {
    const found = addresses.find(({ address }) => address.family === family);
    return found === undefined ? '' : `${found.address.toString()}/${found.length}`;
  };
  await plugin.call('NetworkDriver.CreateEndpoint', {
    ...endpoint,
    Interface: { MacAddress: network.hasOwnMac ? attachment.mac : '', Address: textOf(4), AddressIPv6: textOf(6) },
  });
  const inside = netns.run(() => Netlink.open());
  try {
    const links = await inside.links.list();
    refuseTakenName(attachment, links);
    if (!links.some((each) => isInterfaceOf(attachment, each))) {
      const joined = await plugin.call('NetworkDriver.Join', { ...endpoint, SandboxKey: attachment.netns });
      moveInterface(sourceName(joined['InterfaceName']), netns);
    }
    const { gateways, routes } = network;
    const made = { addresses, gateways, routes };
    const { mac } = await setUp(inside, attachment, made);
    return { ...made, mac };
  } finally {
    inside.close();
  }
}

async function requestAddresses(
  plugin: PluginClient,
  { mac, owner }: Attachment,
  { pools, hasOwnMac }: HostNetwork,
  wanted: readonly IpAddress[],
): Promise<Joined['addresses']> {
  const addresses: { address: IpAddress; length: number }[] = [];
  const outside = wanted.find((address) => !pools.some(({ subnet }) => subnet.contains(address)));
  if (outside !== undefined) {
    const subnets = pools.map(({ subnet }) => subnet.toString()).join(' and ');
    throw new OverlayError('ERR_ADDRESS_POOL', `cannot give ${outside.toString()}: the network has ${subnets}`, {
      hint: 'choose an address of that, or leave it out',
    });
  }
  for (const family of [4, 6] as const) {
    const asked = wanted.find((address) => address.family === family);
    const pool = pools.find(
      ({ subnet }) => subnet.family === family && (asked === undefined || subnet.contains(asked)),
    );
    if (pool === undefined) continue;
    const Options = {
      ...(hasOwnMac ? { 'com.docker.network.endpoint.macaddress': mac } : {}),
      'com.docker.network.endpoint.name': owner,
    };
    const request = { PoolID: pool.id, Address: asked?.toString() ?? '', Options };
    const text = await plugin.callFor('IpamDriver.RequestAddress', request, 'Address');
    const [given = '', length] = text.split('/');
    addresses.push({ address: IpAddress.parse(given), length: Number(length) });
  }
  return addresses;
}

function refuseTakenName(attachment: Attachment, links: readonly LinkInfo[]): void {
  const { netns, ifname } = attachment;
  if (!links.some((link) => link.name === ifname && !isInterfaceOf(attachment, link))) return;
  throw new OverlayError(
    'ERR_CONTAINER_NETWORK',
    `cannot attach ${ifname} to ${netns}: it has an interface of that name`,
    {
      context: { dev: ifname },
      hint: 'choose another --ifname',
    },
  );
}

function sourceName(value: unknown): string {
  const name = typeof value === 'object' && value !== null && 'SrcName' in value ? value.SrcName : undefined;
  if (typeof name === 'string') return name;
  throw new OverlayError('ERR_DAEMON_UNREACHABLE', 'cannot attach an interface: the plugin does not name it', {
    hint: 'use the tsflannelctl of the same release, and restart the daemon after an upgrade',
  });
}

function moveInterface(name: string, { fd }: NetworkNamespace): void {
  const netlink = Netlink.open();
  try {
    const link = netlink.links.get(name);
    if (link === undefined) {
      throw new OverlayError(
        'ERR_CONTAINER_NETWORK',
        `cannot find the interface ${name}: the daemon has made it elsewhere`,
        {
          context: { dev: name },
          hint: 'run this in the network namespace of the daemon',
        },
      );
    }
    netlink.links.set(link, { netns: { fd } });
  } finally {
    netlink.close();
  }
}

/** Gives the interface its name, addresses and routes. */
async function setUp(inside: Netlink, attachment: Attachment, made: Omit<Joined, 'mac'>): Promise<LinkInfo> {
  const { ifname, netns } = attachment;
  const { addresses, gateways, routes } = made;
  const link = (await inside.links.list()).find((each) => isInterfaceOf(attachment, each));
  if (link === undefined) throw new OverlayError('ERR_NETNS', `cannot find the interface ${ifname} in ${netns}`);
  if (link.name !== ifname) inside.links.set(link, { name: ifname });
  for (const { address, length } of addresses) {
    inside.addresses.replace({ index: link.index, address, length, noDad: address.family === 6 });
  }
  inside.links.set(link, { isUp: true });
  const defaults = gateways.map((gateway) => ({
    destination: gateway.family === 4 ? Prefix.parse('0.0.0.0/0') : Prefix.parse('::/0'),
    gateway,
  }));
  // Those on the link come first: by them the gateways are reached.
  for (const { destination, gateway } of [...routes, ...defaults]) {
    if (!addresses.some(({ address }) => address.family === destination.family)) continue;
    try {
      inside.routes.add({ destination, index: link.index, gateway });
    } catch (error) {
      // Of an earlier run, or the namespace has a way out already, which whoever made it wanted.
      if (netlinkErrno(error) !== 'EEXIST') throw error;
    }
  }
  return link;
}

function showResult(context: CtlContext, isJson: boolean, attachment: Attachment, network: string, made: Joined): void {
  const { netns, ifname } = attachment;
  const { mac } = made;
  const addresses = made.addresses.map(({ address, length }) => `${address.toString()}/${length}`);
  if (isJson) printJson(context, { network, netns, interface: ifname, mac, addresses });
  else context.out.line(`attached ${ifname} of ${netns} to ${network} with ${addresses.join(' and ')}`);
}

/** Leaves nothing behind of what was begun; what cannot be undone is told, and goes with the next detach. */
async function undo(
  context: CtlContext,
  plugin: PluginClient,
  attachment: Attachment,
  { entered, socket }: { readonly entered: Pick<HostNetwork, 'id'> | undefined; readonly socket: string },
): Promise<void> {
  try {
    const held = findHeld(attachment, await readContainerNetworks(socket, context.signal));
    await giveBack(plugin, attachment, held);
    const { networks } = await readContainerNetworks(socket, context.signal);
    const isUnused = networks.some(({ id, endpoints }) => id === entered?.id && endpoints.length === 0);
    if (isUnused) await plugin.call('NetworkDriver.DeleteNetwork', { NetworkID: entered?.id });
  } catch (error) {
    context.err.line(`not all was undone: ${describeError(error)}; run tsflannelctl detach`);
  }
}

function unknownNetwork(title: string): OverlayError {
  return new OverlayError('ERR_NOT_FOUND', `cannot attach to the network ${title}: no host has made it`, {
    hint: 'see tsflannelctl docker-networks, or make it with docker network create or tsflannelctl docker-networks create',
  });
}
