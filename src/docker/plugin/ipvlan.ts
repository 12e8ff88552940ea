import type { OverlayError } from '../../errors.js';
import { Prefix } from '../../ip/prefix.js';
import { type ContainerNetwork, isLayer3, linkNameOf } from './network.js';
import { type ContainerRouting, type NetworkType, type ParentDevice, onLink } from './network-type.js';
import { checkParent, refused } from './parent-checks.js';

const MODES = ['l2', 'l3', 'l3s'] as const;

const FLAGS = ['bridge', 'private', 'vepa'] as const;

type Mode = (typeof MODES)[number];

type Flag = (typeof FLAGS)[number];

/**
 * Containers with the MAC address of an interface of the host: on its network with addresses of their own (`l2`), or
 * behind its routing (`l3`, and `l3s` past the packet filter of the host).
 *
 * @remarks The kernel has mode and flag for each parent, and gives those of a new interface to all that are there
 * (`ipvlan_link_new()`): so another one is refused.
 * @see drivers/net/ipvlan
 */
export const ipvlanType: NetworkType = {
  options: ['parent', 'vlan', 'mode', 'flag', 'mtu', 'host-access', 'probe'],
  modes: MODES,
  flags: FLAGS,
  addressings: ['subnet'],

  properties: ({ mode, flag }) => ({ mode, flag }),

  checkNetwork(network, parent, others) {
    checkParent(network, parent, others);
    const holder = otherSettingOn(network, parent, others.networks);
    if (holder !== undefined) throw holder;
    checkHostAccess(network);
  },

  checkEndpoint: () => {},

  addressLength: (_network, subnet) => subnet.length,

  newLink(network, endpoint, parent) {
    return {
      kind: 'ipvlan',
      name: linkNameOf(endpoint.id),
      mode: network.mode as Mode,
      flag: network.flag as Flag,
      lowerIndex: parent.index,
      ...(network.mtu === undefined ? {} : { mtu: network.mtu }),
    };
  },

  routing: (network) => (isLayer3(network) ? byDevice(network) : onLink(network)),
};

/** Another mode or flag on the parent, as a refusal. */
function otherSettingOn(
  network: ContainerNetwork,
  { upper }: ParentDevice,
  networks: readonly ContainerNetwork[],
): OverlayError | undefined {
  const own = settingOf(network);
  const holders = [
    ...networks.map((each) => ({ name: `network ${each.id.slice(0, 12)}`, setting: settingOf(each) })),
    ...upper.flatMap(({ name, details }) =>
      details?.kind === 'ipvlan' ? { name: `the interface ${name}`, setting: settingOf(details) } : [],
    ),
  ];
  const other = holders.find(({ setting }) => setting !== own);
  return (
    other &&
    refused(
      network,
      `${other.name} has it with ${other.setting}, and the kernel has one mode and one flag for all on a parent`,
      `use ${other.setting}, or another parent, such as a VLAN of its own (-o vlan=)`,
    )
  );
}

/** As it is typed. */
function settingOf({ mode, flag }: { readonly mode: string; readonly flag: string }): string {
  return `-o mode=${mode} -o flag=${flag}`;
}

function checkHostAccess(network: ContainerNetwork): void {
  if (!network.hasHostAccess) return;
  if (network.flag !== 'bridge') {
    const why = `host access needs flag=bridge, and the flag is ${network.flag}`;
    throw refused(network, why, 'leave out one of the two');
  }
  if (!isLayer3(network) && network.subnets.some(({ pool }) => pool === undefined)) {
    const why = 'host access takes an address of each subnet for the host, and another IPAM driver has those';
    throw refused(network, why, 'use --ipam-driver tsflannel-ipvlan, or leave out -o host-access=true');
  }
}

/** Everything leaves by the interface itself: from there on, the routing of the host decides. */
function byDevice({ isInternal, subnets }: ContainerNetwork): ContainerRouting {
  const families = isInternal ? [] : ([4, 6] as const).filter((each) => subnets.some((s) => s.subnet.family === each));
  return {
    gateways: [],
    routes: families.map((family) => ({
      destination: Prefix.parse(family === 4 ? '0.0.0.0/0' : '::/0'),
      gateway: undefined,
    })),
  };
}
