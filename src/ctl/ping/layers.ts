import { findBackend } from '../../backend/registry.js';
import { DEFAULT_PATHS } from '../../config/paths.js';
import { describeCarrier } from '../../firewall/carrier.js';
import type { Family, IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import { type ProbeLayer, type ProbeTarget, bridgeAddress, deviceAddress, doesCarry } from '../../reach/targets.js';
import type { EchoResult } from './echo-pinger.js';

/** A peer as far as pinging it goes. */
export interface PingPeer {
  readonly subnet: Prefix;
  readonly ipv6Subnet: Prefix | undefined;
  /** Undefined where the network has no IPv4. */
  readonly publicIp: IpAddress | undefined;
  readonly publicIpv6: IpAddress | undefined;
  readonly backend: string;
  readonly hostName: string | undefined;
  /** Why the daemon sends nothing to it, and what fixes that. */
  readonly skipped: { readonly reason: string; readonly hint: string } | undefined;
}

/** What lies on the way to a peer in one family, from the real network inwards. */
export interface PingPath {
  readonly family: Family;
  readonly targets: readonly ProbeTarget[];
}

/** A {@link ProbeTarget} with what echoes to it gave. */
export interface LayerResult extends ProbeTarget, EchoResult {}

/** Where the way to a peer ends. */
export interface Verdict {
  /** The first layer that packets do not come to; undefined when they come to all. */
  readonly stopsAt: ProbeLayer | undefined;
  readonly message: string;
  /** What to look at; undefined when nothing is wrong. */
  readonly hint: string | undefined;
}

/**
 * The ways to a peer, one for each family that it has.
 *
 * @param container - an address inside one of its subnets that is to be asked as well; then in that family only.
 */
export function pingPaths(peer: PingPeer, container?: IpAddress): readonly PingPath[] {
  const sides = [
    [peer.subnet, peer.publicIp],
    [peer.ipv6Subnet, peer.publicIpv6],
  ] as const;
  return sides.flatMap(([subnet, publicIp]): PingPath[] => {
    if (subnet === undefined || publicIp === undefined) return [];
    if (container !== undefined && container.family !== subnet.family) return [];
    if (!doesCarry(peer.backend, subnet.family)) return [];
    const device = deviceAddress(peer.backend, subnet);
    const bridge = bridgeAddress(subnet);
    const isOwn = container === undefined || container.equals(device) || container.equals(bridge);
    return [
      {
        family: subnet.family,
        targets: [
          { layer: 'underlay', address: publicIp },
          ...(device === undefined ? [] : [{ layer: 'overlay', address: device } as const]),
          { layer: 'bridge', address: bridge },
          ...(isOwn ? [] : [{ layer: 'container', address: container } as const]),
        ],
      },
    ];
  });
}

/** What carries the packets of a backend, for those who look at firewalls; its options are not known here. */
function carrierText(type: string): string {
  const carrier = findBackend(type)?.parse({}).carrier;
  if (carrier === undefined) return 'the overlay';
  return `${describeCarrier(carrier)}${carrier.protocol === 'udp' ? ', or the one that Backend names,' : ''}`;
}

/** Says where packets stop and what to look at. */
export function judge(peer: PingPeer, results: readonly LayerResult[]): Verdict {
  if (peer.skipped !== undefined) {
    const { reason, hint } = peer.skipped;
    return { stopsAt: 'overlay', message: `this host sends it nothing: ${reason}`, hint };
  }
  const at = (layer: ProbeLayer): LayerResult | undefined => results.find((result) => result.layer === layer);
  const answers = (layer: ProbeLayer): boolean => (at(layer)?.received ?? 0) > 0;
  const text = (layer: ProbeLayer): string => at(layer)?.address.toString() ?? '';
  const container = at('container');
  if (container !== undefined ? answers('container') : answers('bridge')) {
    return { stopsAt: undefined, message: 'it answers', hint: undefined };
  }
  if (container !== undefined && (answers('bridge') || answers('overlay'))) {
    return {
      stopsAt: 'container',
      message: 'the host answers through the overlay, the container does not',
      hint: `on that host: does the container run (docker ps), and does the packet filter let it through: tsflannelctl doctor, ip route get ${text('container')}`,
    };
  }
  if (answers('overlay')) {
    return {
      stopsAt: 'bridge',
      message: `the host answers through the overlay, but has no bridge at ${text('bridge')}`,
      hint: `on that host: systemctl status docker, ip -br address show docker0, and cat ${DEFAULT_PATHS.subnetFile}; without containers there is nothing to fix`,
    };
  }
  if (at('overlay') === undefined && answers('underlay')) {
    return {
      stopsAt: 'bridge',
      message: `the host answers on the real network, nothing does at ${text('bridge')}`,
      hint: `here: ip route get ${text('bridge')} must name ${text('underlay')}; on that host: ip -br address show docker0, sysctl net.ipv4.ip_forward, tsflannelctl doctor`,
    };
  }
  if (answers('underlay')) {
    return {
      stopsAt: 'overlay',
      message: 'the host answers on the real network, but not through the overlay',
      hint: `${carrierText(peer.backend)} must pass between the hosts in both directions, and the daemon must run there: here ip route get ${text('overlay')}, on both tsflannelctl doctor`,
    };
  }
  return {
    stopsAt: 'underlay',
    message: 'nothing answers, not even on the real network',
    hint: `is the host up? ip route get ${text('underlay')}; if it is gone for good: tsflannelctl leases release ${peer.subnet.toString()}`,
  };
}
