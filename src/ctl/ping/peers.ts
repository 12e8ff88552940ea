import { readSubnetEnv } from '../../docker/subnet-env.js';
import { OverlayError, isOverlayError } from '../../errors.js';
import { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import type { PeerStatus } from '../../observe/status.js';
import { type CtlContext, type StoreOptions, withStore } from '../command.js';
import { readDaemonStatus } from '../daemon-client.js';
import { type LeaseRow, readLeaseRows } from '../lease-rows.js';
import type { PingPeer } from './layers.js';

/** Where peers are looked for. */
export interface PeerOptions extends StoreOptions {
  readonly statusSocket: string;
  readonly subnetFile: string;
}

/** Whom a command line names: a peer, and an address behind it where it names one. */
export interface Choice {
  readonly peer: PingPeer;
  readonly container: IpAddress | undefined;
}

/**
 * The peers as the daemon of this host knows them or, where none answers, as etcd does.
 *
 * @throws {@link OverlayError} of etcd
 */
export async function readPeers(context: CtlContext, options: PeerOptions): Promise<readonly PingPeer[]> {
  try {
    const { peers } = await readDaemonStatus(options.statusSocket, context.signal);
    return peers.map((peer) => pingPeer(peer, peer.skipped ?? undefined));
  } catch (error) {
    if (!isOverlayError(error, 'ERR_DAEMON_UNREACHABLE')) throw error;
    const own = (await readSubnetEnv(options.subnetFile))?.subnet;
    const rows = await readRows(context, options);
    return rows.filter(({ subnet }) => subnet !== own?.toString()).map((row) => pingPeer(row));
  }
}

/**
 * The peer that a word names: its subnet, a public address, a container's address, or the host's name, which is looked
 * up in etcd.
 *
 * @throws {@link OverlayError} `ERR_NOT_FOUND`, or of etcd
 */
export async function choosePeer(
  context: CtlContext,
  options: PeerOptions,
  peers: readonly PingPeer[],
  word: string,
): Promise<Choice> {
  const address = IpAddress.tryParse(word);
  const subnet = Prefix.tryParse(word);
  for (const peer of peers) {
    const subnets = [peer.subnet, peer.ipv6Subnet].filter((each) => each !== undefined);
    if (subnet !== undefined && subnets.some((each) => each.equals(subnet))) return { peer, container: undefined };
    if (address === undefined) continue;
    if (address.equals(peer.publicIp) || address.equals(peer.publicIpv6)) return { peer, container: undefined };
    if (subnets.some((each) => each.contains(address))) return { peer, container: address };
  }
  if (address === undefined && subnet === undefined) {
    const row = (await readRows(context, options)).find(({ hostName }) => hostName === word);
    const peer = peers.find((each) => each.subnet.toString() === row?.subnet);
    if (peer !== undefined) return { peer: { ...peer, hostName: word }, container: undefined };
  }
  throw new OverlayError('ERR_NOT_FOUND', `cannot find a peer for ${word}`, {
    hint: 'name a subnet, a public address, a container’s address or a host of tsflannelctl leases list, but not this host',
  });
}

function readRows(context: CtlContext, options: PeerOptions): Promise<readonly LeaseRow[]> {
  return withStore(context, options, async (store) => {
    return (await readLeaseRows(store, { wallMs: context.clock.wallMs(), signal: context.signal })).rows;
  });
}

function pingPeer(
  peer: Pick<PeerStatus, 'subnet' | 'ipv6Subnet' | 'publicIp' | 'publicIpv6' | 'backend'> & Partial<LeaseRow>,
  skipped?: PingPeer['skipped'],
): PingPeer {
  const publicIp = IpAddress.parse(peer.publicIp);
  return {
    subnet: Prefix.parse(peer.subnet),
    ipv6Subnet: peer.ipv6Subnet === null ? undefined : Prefix.parse(peer.ipv6Subnet),
    publicIp: publicIp.isUnspecified ? undefined : publicIp,
    publicIpv6: peer.publicIpv6 === null ? undefined : IpAddress.parse(peer.publicIpv6),
    backend: peer.backend,
    hostName: peer.hostName ?? undefined,
    skipped,
  };
}
