import { MAX_STATIONS } from '../../netlink/filter-program.js';
import type { OverlayError } from '../../errors.js';
import { type ContainerNetwork, linkNameOf } from './network.js';
import { type NetworkType, onLink } from './network-type.js';
import { checkParent, refused } from './parent-checks.js';

const MODES = ['bridge', 'vepa', 'private', 'passthru'] as const;

type Mode = (typeof MODES)[number];

/**
 * Containers with MAC addresses of their own on an interface of the host.
 *
 * @see drivers/net/macvlan.c for what is refused: no loopback (`macvlan_port_create()`), nothing beside `passthru`
 * (`macvlan_common_newlink()`).
 */
export const macvlanType: NetworkType = {
  options: ['parent', 'vlan', 'mode', 'mtu', 'host-access', 'probe'],
  modes: MODES,
  flags: [],
  addressings: ['subnet'],

  properties: () => ({}),

  checkNetwork(network, parent, others) {
    checkParent(network, parent, others);
    const passthru = parent.upper.find(({ details }) => details?.kind === 'macvlan' && details.mode === 'passthru');
    if (passthru !== undefined) throw besidePassthru(network, `${passthru.name} has it in that mode`);
    const other = others.networks.find((each) => isPassthru(each) || isPassthru(network));
    if (other !== undefined) throw besidePassthru(network, `network ${other.id.slice(0, 12)} is on it`);
    if (network.hasHostAccess && network.mode !== 'bridge') {
      throw refused(
        network,
        `host access needs mode=bridge, and the mode is ${network.mode}`,
        'leave out one of the two',
      );
    }
  },

  checkEndpoint(network, others) {
    if (isPassthru(network) && others.endpoints.length > 0) throw besidePassthru(network, 'another container has it');
    if (!network.hasHostAccess) return;
    const accessed = new Set(
      [network, ...others.networks].filter(({ hasHostAccess }) => hasHostAccess).map(({ id }) => id),
    );
    const stations = others.endpoints.filter(({ networkId }) => accessed.has(networkId)).length;
    if (stations < MAX_STATIONS) return;
    throw refused(
      network,
      `the filter for host access tells ${MAX_STATIONS} containers apart, and so many have it`,
      'use another parent, or a network without -o host-access=true, which may share this one',
    );
  },

  addressLength: (_network, subnet) => subnet.length,

  newLink(network, endpoint, parent) {
    return {
      kind: 'macvlan',
      name: linkNameOf(endpoint.id),
      mode: network.mode as Mode,
      lowerIndex: parent.index,
      mac: endpoint.mac,
      ...(network.mtu === undefined ? {} : { mtu: network.mtu }),
    };
  },

  routing: onLink,
};

function isPassthru({ mode }: ContainerNetwork): boolean {
  return mode === 'passthru';
}

function besidePassthru(network: ContainerNetwork, why: string): OverlayError {
  return refused(network, `mode passthru takes a parent alone, and ${why}`, 'use mode bridge, or another parent');
}
