import { isRouted } from '../../../docker/plugin/network.js';
import type { AddressUseStatus } from '../../../observe/container-status.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { isOf, rangeLeft } from '../range-left.js';
import { networkRemoval, shellWord, someOf } from '../text.js';

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
  {
    id: 'container-start',
    title: 'Docker could start every container of these networks that restarts by itself',
    run: strandedContainers,
  },
  { id: 'plugin-socket', title: "systemd keeps the plugin's socket open while the daemon restarts", run: pluginSocket },
];

function parents({ daemon, links }: DoctorFacts): readonly Found[] {
  const networks = daemon?.containerNetworks?.networks ?? [];
  const onInterfaces = networks.filter((network) => !network.isInternal && !isRouted(network));
  const names = [...new Set(onInterfaces.map(({ parent }) => parent))];
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
    const ids = networks.filter(({ parent }) => parent === name).map(({ id }) => id);
    return [
      {
        severity: 'error',
        message: `containers of ${subnets} cannot start: their interface ${name} does not exist`,
        evidence: `there are ${someOf(links.filter(({ isLoopback }) => !isLoopback).map((each) => each.name))}`,
        command: `${ids.map(networkRemoval).join('; ')} # unless ${name} comes back; then create it again with -o parent=`,
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

/** A range with no more than this part of its addresses left is nearly full. */
const NEARLY_FULL = 0.1;

function fullRanges({ daemon, containers }: DoctorFacts): readonly Found[] {
  const networks = daemon?.containerNetworks ?? null;
  if (networks?.isConfirmed !== true) return [];
  const inUse = networks.pools.filter(({ uses }) => uses.length > 0);
  return inUse.flatMap((pool): Found[] => {
    const { network, subnet, range, uses, free, blocks } = pool;
    const inCluster = containers?.cluster?.find((each) => isOf(each, pool));
    const found = inCluster && rangeLeft(pool, inCluster);
    // Without etcd, what the host has already is all that it can give.
    const left = found?.left ?? free;
    if (left > (found?.all ?? 0) * NEARLY_FULL) return [];
    const holders = new Set([...(inCluster?.blocks ?? []), ...(inCluster?.addresses ?? [])].map(({ host }) => host));
    const gone = (containers?.silentHosts ?? []).filter((host) => holders.has(host));
    return [
      {
        severity: 'warning',
        message: `network ${network} has ${left === 0 ? 'no address' : left === 1 ? 'one address' : `${left} addresses`} left for further containers of this host`,
        evidence:
          found === undefined
            ? `${uses.length} in use, no block of ${range} is free besides ${someOf(blocks)}`
            : `of the ${found.all} addresses of ${range}, ${found.all - left} are in use or leased by ${someOf([...holders])}`,
        command:
          gone.length > 0
            ? `tsflannelctl docker-networks release ${gone.map(shellWord).join(' ')} # not heard of for long; make sure that it is off`
            : `tsflannelctl docker-networks # who has them: end what is not needed; or remove the network on all hosts and, once none is listed here, create it again with a larger --ip-range of ${subnet}`,
      },
    ];
  });
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

/**
 * Docker finds a plugin whenever its socket is there, but starts the containers of before only once: one that started
 * before the socket was there leaves them down.
 */
function strandedContainers({ containers }: DoctorFacts): readonly Found[] {
  const stranded = containers?.stranded ?? [];
  if (stranded.length === 0) return [];
  const isOne = stranded.length === 1;
  return [
    {
      severity: 'error',
      message: `${isOne ? 'a container is down that restarts by itself' : `${stranded.length} containers are down that restart by themselves`}: Docker could not start ${isOne ? 'it' : 'them'} while this plugin, or etcd, was not there, and does not try again`,
      evidence: someOf(stranded.map(({ name, error }) => `${name}: ${error}`)),
      command: `docker start ${stranded.map(({ name }) => shellWord(name)).join(' ')}`,
    },
  ];
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
