import path from 'node:path';
import { optionalTextFlag, textFlag } from '../config/flag-values.js';
import { attachmentOwner } from '../docker/plugin/attachment-owner.js';
import { linkNameOf } from '../docker/plugin/network.js';
import { attachmentId } from '../docker/plugin/own-ids.js';
import { OverlayError } from '../errors.js';
import { type MacAddress, deriveMac } from '../ip/mac.js';
import { isDeviceName } from '../netlink/device-name.js';
import type { LinkInfo } from '../netlink/link.js';
import type {
  AddressPoolStatus,
  ContainerNetworkStatus,
  ContainerNetworksStatus,
} from '../observe/container-status.js';
import { ALIAS_PREFIX } from '../reconcile/ownership.js';
import type { FlagTable } from './command.js';
import { readDaemonStatus } from './daemon-client.js';

/** Which interface of which namespace is meant. */
export const ATTACHMENT_FLAGS = {
  netns: optionalTextFlag({
    group: 'containers',
    placeholder: 'PATH',
    help: 'The network namespace: a path such as /proc/PID/ns/net, or a name as ip netns has it.',
  }),
  ifname: textFlag('eth0', {
    group: 'containers',
    placeholder: 'NAME',
    help: 'Name of the interface in the namespace.',
  }),
} as const satisfies FlagTable;

/** An interface of a namespace, and what it is called elsewhere: always the same for the same one. */
export interface Attachment {
  readonly netns: string;
  readonly ifname: string;
  /** Of the endpoint. */
  readonly id: string;
  /** Where interfaces of the network have MAC addresses of their own. */
  readonly mac: MacAddress;
  /** By which its addresses are told from those of others. */
  readonly owner: string;
}

/**
 * Reads what {@link ATTACHMENT_FLAGS} say.
 *
 * @param host - what stands for this host in etcd.
 * @throws {@link OverlayError} `ERR_FLAG`
 */
export function attachmentOf(
  host: string,
  { netns: word, ifname }: { readonly netns: string | undefined; readonly ifname: string },
): Attachment {
  if (word === undefined || word === '') {
    throw new OverlayError('ERR_FLAG', 'cannot find the namespace: --netns is missing', {
      hint: 'give --netns and a path such as /run/netns/NAME',
    });
  }
  if (!isDeviceName(ifname)) {
    throw new OverlayError('ERR_FLAG', `cannot call an interface ${JSON.stringify(ifname)}`, {
      hint: 'use 1 to 15 characters without spaces, "/" and ":"',
    });
  }
  const netns = word.includes('/') ? path.resolve(word) : `/run/netns/${word}`;
  const owner = attachmentOwner(netns, ifname);
  return { netns, ifname, owner, id: attachmentId(owner), mac: deriveMac(host, owner) };
}

/**
 * Whether a device of the namespace is the interface of an attachment: known by its MAC address, or where that is its
 * parent's, by its name and mark.
 */
export function isInterfaceOf({ id, ifname, mac }: Attachment, link: LinkInfo): boolean {
  if (link.kind !== 'ipvlan') return link.mac === mac;
  return link.name === linkNameOf(id) || (link.name === ifname && link.alias.startsWith(ALIAS_PREFIX));
}

/** An address of an attachment, and the pool it comes from. */
export interface HeldAddress {
  readonly pool: AddressPoolStatus;
  readonly address: string;
}

/** What is there of an attachment. */
export interface Held {
  readonly network: ContainerNetworkStatus | undefined;
  readonly addresses: readonly HeldAddress[];
}

/** Finds what the daemon has for an attachment. */
export function findHeld({ id, mac, owner }: Attachment, { networks, pools }: ContainerNetworksStatus): Held {
  return {
    network: networks.find(({ endpoints }) => endpoints.some((endpoint) => endpoint.id === id)),
    addresses: pools.flatMap((pool) =>
      pool.uses
        .filter((use) => use.owner === owner || use.mac === mac)
        .map(({ address }): HeldAddress => ({ pool, address })),
    ),
  };
}

/**
 * What the daemon of this host has of container networks.
 *
 * @throws {@link OverlayError} `ERR_DAEMON_UNREACHABLE`
 */
export async function readContainerNetworks(socket: string, signal: AbortSignal): Promise<ContainerNetworksStatus> {
  const { containerNetworks } = await readDaemonStatus(socket, signal);
  if (containerNetworks !== null) return containerNetworks;
  throw new OverlayError(
    'ERR_DAEMON_UNREACHABLE',
    'cannot use networks of containers: the daemon does not serve them',
    {
      hint: 'enable tsflannel-docker-plugin.socket, or start tsflanneld with --docker-plugin',
    },
  );
}
