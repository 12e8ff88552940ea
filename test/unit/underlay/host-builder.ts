import { type Family, IpAddress } from '../../../src/ip/address.js';
import type { HostAddress, HostNetwork, UnderlayRequest } from '../../../src/underlay/select.js';

/** An address with flags behind a blank: d(eprecated), (d)y(namic), t(emporary), u(nfinished detection). */
type AddressText = string;

/** A device by name with the rest of what it has. The index is its place in the list, from 1. */
export interface DeviceText {
  readonly name: string;
  readonly addresses?: readonly AddressText[];
  readonly mtu?: number;
  readonly isUp?: boolean;
  readonly index?: number;
}

/** A host with these devices; default routes as `4 eth0` or `4 eth0 eth1 metric 100`. The loopback device comes first. */
export function host(devices: readonly DeviceText[], defaultRoutes: readonly string[] = []): HostNetwork {
  const all: readonly DeviceText[] = [{ name: 'lo', mtu: 65536, addresses: ['127.0.0.1', '::1'] }, ...devices];
  const links = all.map(({ name, mtu = 1500, isUp = true, index }, place) => {
    return { name, mtu, isUp, index: index ?? place + 1, isLoopback: name === 'lo' };
  });
  const indexOf = (name: string): number => links.find((link) => link.name === name)?.index ?? 99;
  return {
    links,
    addresses: all.flatMap(({ name, addresses = [] }) => addresses.map((text) => hostAddress(indexOf(name), text))),
    defaultRoutes: defaultRoutes.map((text) => {
      const [route = '', metric = '0'] = text.split(' metric ');
      const [family, ...names] = route.split(' ');
      return { family: Number(family) as Family, metric: Number(metric), ifindexes: names.map(indexOf) };
    }),
  };
}

function hostAddress(ifindex: number, text: string): HostAddress {
  const [address = '', flags = ''] = text.split(' ');
  return {
    ifindex,
    address: IpAddress.parse(address),
    isDeprecated: flags.includes('d'),
    isPermanent: !flags.includes('y'),
    isTemporary: flags.includes('t'),
    isTentative: flags.includes('u'),
  };
}

/** What the operator asks for; nothing, in an IPv4 network, if not told otherwise. */
export function request(given: Partial<UnderlayRequest> = {}): UnderlayRequest {
  return {
    families: [4],
    iface: [],
    ifaceRegex: [],
    ifaceCanReach: undefined,
    publicIp: undefined,
    publicIpv6: undefined,
    ...given,
  };
}
