import { parseSubnetEnv } from '../../src/docker/subnet-env.js';
import { ForwardingTable } from '../../src/dataplane/forwarding-table.js';
import type { IpAddress } from '../../src/ip/address.js';
import { isSame } from '../../src/ip/same.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import type { RouteInfo } from '../../src/netlink/route.js';
import type { WireguardPeerInfo } from '../../src/netlink/wireguard.js';
import type { FakeHost } from './fake-host.js';
import { SUBNET_FILE } from './test-daemon.js';

/** Whether a container of one host can send to a container of another one, as both hosts' kernels are now. */
export function canReach(from: FakeHost, to: FakeHost): boolean {
  return obstacle(from, to) === undefined;
}

/**
 * Why a packet from a container of one host does not get to a container of another one; undefined if it does.
 *
 * @remarks Follows it as the kernels would: route, then tunnel table, or neighbour and forwarding entry, or gateway; over
 * the wire to the host that has that address; into the device that takes it there. The containers' subnet is the one
 * that Docker is told.
 */
export function obstacle(from: FakeHost, to: FakeHost): string | undefined {
  const target = containerOf(to);
  if (target === undefined) return `${to.name} has no subnet`;
  if (containerOf(from) === undefined) return `${from.name} has no subnet`;
  const route = from.routeTo(target);
  const link = route === undefined ? undefined : from.kernel.links.get(route.index);
  if (route === undefined || link === undefined) return `${from.name} has no route to ${target.toString()}`;
  const way = wayInto(from, link, route, target);
  if (typeof way === 'string') return way;
  if (!to.owns(way.outer)) return `${from.name} sends to ${way.outer.toString()}, which ${to.name} does not have`;
  return way.enter(to) ?? takenAwayAt(to, target);
}

/** Where a host sends a packet, and what keeps another host from taking it in. */
interface Way {
  readonly outer: IpAddress;
  readonly enter: (to: FakeHost) => string | undefined;
}

function wayInto(from: FakeHost, link: LinkInfo, route: RouteInfo, target: IpAddress): Way | string {
  switch (link.kind) {
    case 'tun':
      return throughTunnel(from, link, target);
    case 'vxlan':
      return throughVxlan(from, link, route);
    case 'wireguard':
      return throughWireguard(from, link, target);
    default: {
      const { gateway } = route;
      if (gateway === undefined) return `${from.name} takes ${target.toString()} for a neighbour on ${link.name}`;
      const enter = (to: FakeHost): string | undefined =>
        link.kind === 'ipip' && !hasLink(to, ({ kind }) => kind === 'ipip') ? `${to.name} has no ipip` : undefined;
      return { outer: gateway, enter };
    }
  }
}

function throughTunnel(from: FakeHost, link: LinkInfo, target: IpAddress): Way | string {
  const tunnel = from.tunnels.find(({ device, isClosed }) => device === link.name && !isClosed);
  if (tunnel === undefined) return `${from.name} has nobody who reads from ${link.name}`;
  const { bindAddress, peers, port } = tunnel.spec;
  if (!from.owns(bindAddress)) return `${from.name} sends from ${bindAddress.toString()}, which it does not have`;
  const peer = peers
    .filter(({ subnet }) => subnet.contains(target))
    .sort((a, b) => b.subnet.length - a.subnet.length)[0];
  if (peer === undefined) return `${from.name} has no peer for ${target.toString()}`;
  const enter = (to: FakeHost): string | undefined => {
    const receiver = to.tunnels.find(({ spec, isClosed }) => {
      return !isClosed && spec.port === port && spec.bindAddress.equals(peer.publicIp);
    });
    if (receiver === undefined) return `${to.name} does not listen on port ${port}`;
    if (!hasLink(to, ({ name }) => name === receiver.device)) return `${to.name} has no ${receiver.device}`;
    const { spec } = receiver;
    const table = new ForwardingTable(spec.peers, spec.ownPrefixes);
    const sender = bindAddress.toString();
    const source = Number(containerOf(from)?.value ?? 0n);
    const drop =
      table.checkSender(spec.verifySource, sender) ?? table.checkInnerSource(spec.verifySource, sender, source);
    return drop === undefined ? undefined : `${to.name} drops it: ${drop}`;
  };
  return { outer: peer.publicIp, enter };
}

function throughVxlan(from: FakeHost, link: LinkInfo, { gateway }: RouteInfo): Way | string {
  const { details } = link;
  if (details?.kind !== 'vxlan' || gateway === undefined) return `${from.name} cannot send into ${link.name}`;
  const { local, port, vni } = details;
  if (local !== undefined && !from.owns(local)) {
    return `${from.name} sends from ${local.toString()}, which it does not have`;
  }
  const neighbours = [...from.kernel.neighbours.values()];
  const mac = neighbours.find(({ address, index }) => index === link.index && address.equals(gateway))?.mac;
  if (mac === undefined) return `${from.name} does not know the MAC of ${gateway.toString()}`;
  const outer = from.kernel.fdb.get(`${link.index} ${mac}`)?.destination;
  if (outer === undefined) return `${from.name} does not know where ${mac} is`;
  const enter = (to: FakeHost): string | undefined => {
    const isReceiver = ({ details: other, mac: own }: LinkInfo): boolean =>
      other?.kind === 'vxlan' && other.vni === vni && other.port === port && own === mac;
    return hasLink(to, isReceiver) ? undefined : `${to.name} has no device for VNI ${vni} with ${mac}`;
  };
  return { outer, enter };
}

function throughWireguard(from: FakeHost, { index, name }: LinkInfo, target: IpAddress): Way | string {
  const ownKey = from.kernel.wireguard.get(index)?.publicKey;
  const peer = peerFor(from, index, target);
  if (peer?.endpoint === undefined || ownKey === undefined) return `${from.name} has no peer for ${target.toString()}`;
  const { endpoint, presharedKey, publicKey } = peer;
  const enter = (to: FakeHost): string | undefined => {
    const receiver = [...to.kernel.wireguard.values()].find(({ listenPort }) => listenPort === endpoint.port);
    if (receiver === undefined || !hasLink(to, (link) => link.index === receiver.index)) {
      return `${to.name} does not listen on port ${endpoint.port}`;
    }
    if (receiver.publicKey !== publicKey) return `${to.name} has another key than ${from.name} has for ${name}`;
    const sender = to.kernel.wireguardPeers.get(`${receiver.index} ${ownKey}`);
    if (sender === undefined) return `${to.name} does not know the key of ${from.name}`;
    if (!isSame(sender.presharedKey, presharedKey)) return `${to.name} has another preshared key`;
    const source = containerOf(from);
    return source !== undefined && peerFor(to, receiver.index, source) === sender
      ? undefined
      : `${to.name} does not allow ${from.name} its subnet`;
  };
  return { outer: endpoint.address, enter };
}

/** The peer of a WireGuard device that is allowed an address. */
function peerFor({ kernel }: FakeHost, index: number, address: IpAddress): WireguardPeerInfo | undefined {
  return [...kernel.wireguardPeers.values()].find(
    (peer) => peer.index === index && peer.allowedIps.some((prefix) => prefix.contains(address)),
  );
}

/** A route of the overlay that is as specific as the containers' own would send the packet away again. */
function takenAwayAt(to: FakeHost, target: IpAddress): string | undefined {
  const subnet = subnetOf(to);
  const route = to.routeTo(target);
  const isTaken = route !== undefined && subnet !== undefined && route.destination.length >= subnet.length;
  return isTaken ? `${to.name} sends it on by ${route.destination.toString()}` : undefined;
}

function hasLink(host: FakeHost, isMeant: (link: LinkInfo) => boolean): boolean {
  return [...host.kernel.links.values()].some((link) => link.isUp && isMeant(link));
}

function subnetOf(host: FakeHost): ReturnType<typeof parseSubnetEnv>['subnet'] {
  return parseSubnetEnv(host.files.texts.get(SUBNET_FILE) ?? '').subnet;
}

function containerOf(host: FakeHost): IpAddress | undefined {
  return subnetOf(host)?.address.add(2n);
}
