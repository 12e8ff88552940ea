import { type Flag, UnfitValue, optionalTextFlag, repeatableFlag, switchFlag } from '../config/flag-values.js';
import { madeNetworkId } from '../docker/plugin/own-ids.js';
import { OverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { readContainerNetworks } from './attachment.js';
import { defineCommand, EXIT, HOST_FLAGS, printJson, type ValuesOf } from './command.js';
import { type WantedSubnet, findHostNetwork, makeHostNetwork } from './host-network.js';
import { PLUGIN_FLAGS, PluginClient } from './plugin-client.js';
import { requireRoot } from './rights.js';

/** The words of `docker network create`. */
const NETWORK_FLAGS = {
  subnet: prefixesFlag('The subnet of the real network, once per family.'),
  'ip-range': prefixesFlag('The part of a subnet that addresses are taken from by themselves; default all of it.'),
  gateway: repeatableFlag(
    { group: 'containers', placeholder: 'ADDRESS', help: 'The router of a subnet; default its first address.' },
    checkAddress,
  ),
  'aux-address': repeatableFlag(
    { group: 'containers', placeholder: '[NAME=]ADDRESS', help: 'An address that no container gets.' },
    (text) => checkAddress(withoutName(text)),
  ),
  network: optionalTextFlag({
    group: 'containers',
    placeholder: 'NAME',
    help: 'Name of the network in the cluster, which tells two with one subnet apart.',
  }),
  opt: repeatableFlag(
    {
      group: 'containers',
      placeholder: 'KEY=VALUE',
      help: 'An option of the network as docker network create takes it with -o: parent, vlan, mode, mtu, host-access, probe.',
    },
    (text) => {
      if (!/^[^=]+=./.test(text)) throw new UnfitValue('it is no KEY=VALUE', 'write such as --opt parent=eth0');
    },
  ),
  internal: switchFlag(false, {
    group: 'containers',
    help: 'Connect what is on this host with each other alone, without gateway.',
  }),
} as const;

/** `docker-networks create` */
export const dockerNetworksCreate = defineCommand({
  name: 'docker-networks create',
  summary: 'Make a network of containers on this host, without Docker',
  description:
    'What docker network create does with the network and IPAM driver tsflannel, for hosts without Docker: other hosts then attach to it as it is written down in etcd. It stays until docker-networks remove.',
  operands: [],
  flags: { ...NETWORK_FLAGS, ...PLUGIN_FLAGS, 'status-socket': HOST_FLAGS['status-socket'] },
  exits: ['unreachable'],
  async run(context, { options }) {
    requireRoot('make networks of containers');
    const subnets = readSubnets(options);
    const title = options.network ?? subnets[0]?.subnet.toString() ?? '';
    const status = await readContainerNetworks(options.statusSocket, context.signal);
    if (findHostNetwork(title, status) !== undefined) {
      throw new OverlayError('ERR_CONFLICT', `cannot make the network ${title}: this host has it`, {
        hint: 'attach to it, or remove it first',
      });
    }
    const plugin = new PluginClient(options.pluginSocket, context.signal);
    await makeHostNetwork(plugin, {
      id: madeNetworkId(title),
      subnets,
      isInternal: options.internal,
      options: Object.fromEntries(options.opt.map((text): [string, string] => splitOnce(text))),
    });
    const texts = subnets.map(({ subnet }) => subnet.toString());
    if (options.json) printJson(context, { network: title, subnets: texts });
    else context.out.line(`made the network ${title} with ${texts.join(' and ')}`);
    return EXIT.ok;
  },
});

/** Puts ranges, gateways and auxiliary addresses to the subnets that they lie in, as Docker does. */
function readSubnets(options: ValuesOf<typeof NETWORK_FLAGS>): readonly WantedSubnet[] {
  const { subnet: given, ipRange, gateway, auxAddress, network: name, internal } = options;
  const subnets = given.map((text) => Prefix.parse(text));
  if (subnets.length === 0) {
    throw new OverlayError('ERR_FLAG', 'cannot make a network: --subnet is missing', {
      hint: 'give the subnet of the real network, such as --subnet 10.10.10.0/24',
    });
  }
  const ranges = ipRange.map((text) => Prefix.parse(text));
  const gateways = gateway.map((text) => IpAddress.parse(text));
  const auxiliary = auxAddress.map((text) => IpAddress.parse(withoutName(text)));
  const isInside = (value: Prefix | IpAddress): boolean =>
    subnets.some((each) => (value instanceof Prefix ? each.covers(value) : each.contains(value)));
  const stray = [...ranges, ...gateways, ...auxiliary].find((each) => !isInside(each));
  if (stray !== undefined) {
    throw new OverlayError('ERR_FLAG', `cannot use ${stray.toString()}: it lies outside of ${given.join(' and ')}`, {
      hint: 'choose one inside of a --subnet',
    });
  }
  return subnets.map((subnet) => ({
    name,
    subnet,
    range: ranges.find((each) => subnet.covers(each)),
    gateway: internal ? 'none' : (gateways.find((each) => subnet.contains(each)) ?? 'first'),
    auxiliary: auxiliary.filter((each) => subnet.contains(each)),
  }));
}

function prefixesFlag(help: string): Flag<readonly string[]> {
  return repeatableFlag({ group: 'containers', placeholder: 'ADDRESS/LENGTH', help }, (text) => {
    if (Prefix.tryParse(text) === undefined) throw new UnfitValue('it is no subnet', 'use such as 10.10.10.0/24');
  });
}

function checkAddress(text: string): void {
  if (IpAddress.tryParse(text) === undefined) throw new UnfitValue('it is no address', 'use an IPv4 or IPv6 address');
}

function withoutName(text: string): string {
  return text.slice(text.indexOf('=') + 1);
}

function splitOnce(text: string): [string, string] {
  const at = text.indexOf('=');
  return [text.slice(0, at), text.slice(at + 1)];
}
