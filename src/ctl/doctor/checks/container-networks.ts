import type { AddressPoolStatus, AddressUseStatus } from '../../../observe/container-status.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { someOf } from '../text.js';

/** Networks of containers with addresses of the real network, by the daemon's account and the devices of this host. */
export const CONTAINER_NETWORK_CHECKS: readonly Check[] = [
  { id: 'network-parent', title: 'the interface of each container network is there and up', run: parents },
  { id: 'address-lost', title: 'no container has an address that another host has by now', run: lostAddresses },
  { id: 'address-range', title: 'each container network has addresses left for this host', run: fullRanges },
  {
    id: 'address-seen',
    title: "no machine on the network has an address of the containers' range",
    run: seenAddresses,
  },
  { id: 'plugin-socket', title: "systemd keeps the plugin's socket open while the daemon restarts", run: pluginSocket },
];

function parents({ daemon, links }: DoctorFacts): readonly Found[] {
  const networks = daemon?.containerNetworks?.networks ?? [];
  const names = [...new Set(networks.filter(({ isInternal }) => !isInternal).map(({ parent }) => parent))];
  return names.flatMap((name): Found[] => {
    const link = links.find((each) => each.name === name);
    if (link?.isUp === true) return [];
    const subnets = someOf(networks.filter(({ parent }) => parent === name).flatMap((network) => network.subnets));
    if (link !== undefined) {
      return [
        {
          severity: 'error',
          message: `containers of ${subnets} reach nobody: their interface ${name} is down`,
          evidence: `${name} is not set up`,
          command: `ip link set dev ${name} up`,
        },
      ];
    }
    const ids = networks.filter(({ parent }) => parent === name).map(({ id }) => id.slice(0, 12));
    return [
      {
        severity: 'error',
        message: `containers of ${subnets} cannot start: their interface ${name} does not exist`,
        evidence: `there are ${someOf(links.filter(({ isLoopback }) => !isLoopback).map((each) => each.name))}`,
        command: `docker network rm ${ids.join(' ')} # unless ${name} comes back; then create it again with -o parent=`,
      },
    ];
  });
}

/** Who has an address on this host, and what takes it from there. */
function removal({ address, owner }: AddressUseStatus): string {
  const [, netns, ifname] = /^netns (\S+) (\S+)$/.exec(owner ?? '') ?? [];
  if (netns !== undefined && ifname !== undefined) return `tsflannelctl detach --netns ${netns} --ifname ${ifname}`;
  return owner !== null && /^[\w.-]+$/.test(owner) ? `docker restart ${owner}` : `docker ps # which one has ${address}`;
}

function lostAddresses({ daemon }: DoctorFacts): readonly Found[] {
  return (daemon?.containerNetworks?.pools ?? []).flatMap(({ network, uses }) =>
    uses
      .filter(({ state }) => state === 'lost')
      .map((use): Found => ({
        severity: 'error',
        message: `${use.address} of network ${network} was given to another host while this one was away; two containers may have it`,
        evidence: `container ${use.owner ?? 'unknown'} has it here since ${use.since}`,
        command: removal(use),
      })),
  );
}

/** A host leases more addresses before it has none left: then there were none, or etcd was away. */
function fullRanges({ daemon }: DoctorFacts): readonly Found[] {
  const { pools = [], isConfirmed = false } = daemon?.containerNetworks ?? {};
  const isFull = ({ free, uses }: AddressPoolStatus): boolean => isConfirmed && free === 0 && uses.length > 0;
  return pools.filter(isFull).map(({ network, subnet, range, uses, blocks }) => ({
    severity: 'warning',
    message: `network ${network} has no address left for further containers of this host`,
    evidence: `${uses.length} in use, no block of ${range} is free besides ${someOf(blocks)}`,
    command: `tsflannelctl docker-networks # who has them; release what hosts have that are gone, or create the network again with a larger --ip-range of ${subnet}`,
  }));
}

function seenAddresses({ daemon }: DoctorFacts): readonly Found[] {
  return (daemon?.containerNetworks?.pools ?? [])
    .filter(({ seen }) => seen.length > 0)
    .map(({ network, seen }) => ({
      severity: 'note',
      message: `machines on the network have addresses of the containers' range of ${network}; containers do not get these`,
      evidence: someOf(seen.map(({ address, mac }) => `${address} at ${mac}`)),
      command: `ip neigh show # which machine it is: give it another address, or the network an --ip-range of its own`,
    }));
}

function pluginSocket({ daemon, hasSystemd }: DoctorFacts): readonly Found[] {
  const containers = daemon?.containerNetworks ?? null;
  if (!hasSystemd || containers === null || containers.socket.endsWith('(of systemd)')) return [];
  return [
    {
      severity: 'warning',
      message: 'what Docker asks while the daemon restarts fails, and takes a quarter of a minute each time',
      evidence: `the daemon itself has made ${containers.socket}`,
      command:
        'systemctl stop tsflanneld && systemctl enable --now tsflannel-docker-plugin.socket && systemctl start tsflanneld',
    },
  ];
}
