import { compileRe2 } from '../config/re2.js';
import type { DaemonOptions } from '../config/flags.js';
import { OverlayError } from '../errors.js';
import { type Family, IpAddress } from '../ip/address.js';
import type { Underlay } from './underlay.js';

/** A network device of the host. */
export interface HostLink {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly isUp: boolean;
  readonly isLoopback: boolean;
}

/** An address on a device. */
export interface HostAddress {
  readonly ifindex: number;
  readonly address: IpAddress;
  /** Still works, but is not meant for new connections any more. */
  readonly isDeprecated: boolean;
  /** Not made with a life time, as those of DHCP and router advertisements are. */
  readonly isPermanent: boolean;
  /** An IPv6 privacy address, or an IPv4 address beside another one of the same network. */
  readonly isTemporary: boolean;
  /** Cannot be used: duplicate address detection has not finished or has failed. */
  readonly isTentative: boolean;
}

/** A default route of the main table. */
export interface DefaultRoute {
  readonly family: Family;
  readonly metric: number;
  /** Devices of its next hops. */
  readonly ifindexes: readonly number[];
}

/** What a host's devices, addresses and default routes are at one moment. */
export interface HostNetwork {
  readonly links: readonly HostLink[];
  /** In the kernel's order, which decides among equals. */
  readonly addresses: readonly HostAddress[];
  readonly defaultRoutes: readonly DefaultRoute[];
}

/** How the kernel would send to an address; undefined when it has no route. */
export type RouteTo = (
  address: IpAddress,
) => { readonly ifindex: number; readonly source: IpAddress | undefined } | undefined;

/** What the operator asks for, and the families that the network has. */
export interface UnderlayRequest extends Pick<
  DaemonOptions,
  'iface' | 'ifaceRegex' | 'ifaceCanReach' | 'publicIp' | 'publicIpv6'
> {
  readonly families: readonly Family[];
}

/** A chosen underlay. */
export interface Selection {
  readonly underlay: Underlay;
  /** Candidates that were tried before, as *what: why not*. */
  readonly rejected: readonly string[];
}

/**
 * Chooses the interface that carries the overlay: each `--iface` in order, each `--iface-regex`, `--iface-can-reach`;
 * without any of them the interface that carries `--public-ip` or `--public-ipv6`, else that of the default route.
 *
 * @throws {@link OverlayError} `ERR_UNDERLAY` with every candidate's reason and what there is to choose from.
 * @see flannel `pkg/ipmatch/match.go`
 */
export function selectUnderlay(host: HostNetwork, request: UnderlayRequest, routeTo: RouteTo): Selection {
  const rejected: string[] = [];
  let hint: string | undefined;
  for (const { label, find } of candidates(host, request, routeTo)) {
    try {
      return { underlay: complete(host, request, find()), rejected };
    } catch (error) {
      if (!(error instanceof Rejection)) throw error;
      rejected.push(`${label}: ${error.message}`);
      hint = error.hint ?? hint;
    }
  }
  const choices = listChoices(host, request.families);
  throw new OverlayError('ERR_UNDERLAY', `cannot choose an interface for the overlay: ${rejected.join(', ')}`, {
    hint: `${hint ?? 'name one with --iface'}: ${choices}`,
    isRetryable: true,
  });
}

/**
 * The addresses of a device that can carry the overlay, best first: global before link-local, then permanent before
 * dynamic, then lasting before temporary ones, else in the kernel's order.
 */
export function usableAddresses(host: Pick<HostNetwork, 'addresses'>, ifindex: number, family: Family): IpAddress[] {
  const isUsable = ({ address, isDeprecated, isTentative }: HostAddress): boolean =>
    (address.isGlobalUnicast || address.isLinkLocal) && !isDeprecated && !isTentative;
  const rank = ({ address, isPermanent, isTemporary }: HostAddress): number =>
    (address.isGlobalUnicast ? 0 : 4) + (isPermanent ? 0 : 2) + (isTemporary ? 1 : 0);
  return host.addresses
    .filter((entry) => entry.ifindex === ifindex && entry.address.family === family && isUsable(entry))
    .sort((left, right) => rank(left) - rank(right))
    .map(({ address }) => address);
}

/** Why a candidate does not fit; stays inside this module. */
class Rejection extends Error {
  constructor(
    reason: string,
    /** What to do about it in general, before the list of interfaces. */
    readonly hint?: string,
  ) {
    super(reason);
  }
}

/** A device, and those of its addresses that the operator or the kernel has fixed. */
interface Found {
  readonly link: HostLink;
  readonly fixed: readonly IpAddress[];
}

interface Candidate {
  readonly label: string;
  /** @throws Rejection */
  readonly find: () => Found;
}

function candidates(host: HostNetwork, request: UnderlayRequest, routeTo: RouteTo): readonly Candidate[] {
  const { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6 } = request;
  const named: Candidate[] = [
    ...iface.map((text) => ({ label: `--iface ${text}`, find: () => byNameOrAddress(host, request, text) })),
    ...ifaceRegex.map((pattern) => ({
      label: `--iface-regex ${pattern}`,
      find: () => byPattern(host, request, pattern),
    })),
  ];
  if (ifaceCanReach !== undefined) {
    const label = `--iface-can-reach ${ifaceCanReach.toString()}`;
    named.push({ label, find: () => byRoute(host, ifaceCanReach, routeTo) });
  }
  if (named.length > 0) return named;
  const announced = publicIp ?? publicIpv6;
  if (announced === undefined) return [{ label: 'default route', find: () => byDefaultRoute(host, request) }];
  const label = `--public-ip${announced.family === 6 ? 'v6' : ''} ${announced.toString()}`;
  return [{ label, find: () => byPublicAddress(host, request, announced) }];
}

function byNameOrAddress(host: HostNetwork, request: UnderlayRequest, text: string): Found {
  const link = host.links.find(({ name }) => name === text);
  if (link !== undefined) return { link, fixed: [] };
  const owner = ownerOf(host, IpAddress.tryParse(text));
  if (owner === undefined) throw new Rejection('there is no such interface or address');
  return withPublicIpv6(host, request, owner);
}

function byPublicAddress(host: HostNetwork, request: UnderlayRequest, announced: IpAddress): Found {
  const owner = ownerOf(host, announced);
  if (owner === undefined) {
    throw new Rejection(
      'no interface has this address',
      'if it is translated on the way, name the interface with --iface',
    );
  }
  return withPublicIpv6(host, request, owner);
}

/** Holds `--public-ipv6` to the same device, if it is on a device of this host at all. */
function withPublicIpv6(host: HostNetwork, request: UnderlayRequest, found: Found): Found {
  const { publicIpv6, families } = request;
  if (publicIpv6 === undefined || !families.includes(6)) return found;
  const owner = ownerOf(host, publicIpv6);
  if (owner === undefined) return found;
  if (owner.link.index === found.link.index) return { link: found.link, fixed: [...found.fixed, publicIpv6] };
  throw new Rejection(
    `it is on ${found.link.name}, but --public-ipv6 is on ${owner.link.name}`,
    'give both addresses to one interface, or name another one with --iface',
  );
}

/** The first device, in the order of their indexes, that has exactly this address. */
function ownerOf(host: HostNetwork, wanted: IpAddress | undefined): Found | undefined {
  if (wanted === undefined) return undefined;
  const owners = host.addresses.filter(({ address }) => address.equals(wanted)).map(({ ifindex }) => ifindex);
  const links = host.links.filter(({ index }) => owners.includes(index));
  const [link] = links.sort((left, right) => left.index - right.index);
  return link === undefined ? undefined : { link, fixed: [wanted] };
}

/** First pass over addresses: of each wanted family one on the same device must match. Second pass over names. */
function byPattern(host: HostNetwork, request: UnderlayRequest, pattern: string): Found {
  const expression = compileRe2(pattern);
  const links = [...host.links].sort((left, right) => left.index - right.index);
  for (const link of links) {
    const fixed = request.families.map((family) =>
      usableAddresses(host, link.index, family).find((address) => expression.test(address.toString())),
    );
    if (!fixed.includes(undefined)) return { link, fixed: fixed.filter((address) => address !== undefined) };
  }
  const link = links.find(({ name }) => expression.test(name));
  if (link === undefined) throw new Rejection('no interface matches');
  return { link, fixed: [] };
}

function byRoute(host: HostNetwork, target: IpAddress, routeTo: RouteTo): Found {
  const answer = routeTo(target);
  if (answer === undefined) throw new Rejection('the kernel has no route to it');
  const link = linkWith(host, answer.ifindex);
  if (link.isLoopback) throw new Rejection('it is an address of this host', 'give the address of another host');
  return { link, fixed: answer.source === undefined ? [] : [answer.source] };
}

function byDefaultRoute(host: HostNetwork, request: UnderlayRequest): Found {
  const links = request.families.map((family) => {
    const routes = host.defaultRoutes.filter((route) => route.family === family);
    const [best] = routes.sort((left, right) => left.metric - right.metric);
    if (best === undefined) throw new Rejection(`there is none for IPv${family}`);
    const devices = [...new Set(best.ifindexes)].map((index) => linkWith(host, index));
    const [device, ...others] = devices;
    if (device === undefined) throw new Rejection(`the one for IPv${family} has no device`);
    if (others.length === 0) return device;
    throw new Rejection(`the one for IPv${family} is spread over ${devices.map(({ name }) => name).join(' and ')}`);
  });
  const [link, ...others] = links;
  if (link === undefined) throw new Rejection('the network has neither IPv4 nor IPv6');
  const differing = others.find(({ index }) => index !== link.index);
  if (differing !== undefined) {
    throw new Rejection(`IPv4 leaves through ${link.name}, but IPv6 through ${differing.name}`);
  }
  return { link, fixed: [] };
}

function linkWith(host: HostNetwork, index: number): HostLink {
  const link = host.links.find((candidate) => candidate.index === index);
  if (link === undefined) throw new Rejection(`its device with index ${index} is gone`);
  return link;
}

function complete(host: HostNetwork, request: UnderlayRequest, { link, fixed }: Found): Underlay {
  if (link.mtu === 0) throw new Rejection(`${link.name} has no MTU`);
  const addressOf = (family: Family): IpAddress | undefined => {
    if (!request.families.includes(family)) return undefined;
    const address =
      fixed.find((candidate) => candidate.family === family) ?? usableAddresses(host, link.index, family)[0];
    if (address === undefined) throw new Rejection(`${link.name} has no usable IPv${family} address`);
    return address;
  };
  const address = addressOf(4);
  const addressV6 = addressOf(6);
  return {
    device: link.name,
    ifindex: link.index,
    mtu: link.mtu,
    address,
    addressV6,
    publicIp: request.publicIp ?? address,
    publicIpv6: request.publicIpv6 ?? addressV6,
  };
}

/** Enough to find one's own, on a host with a device per container. */
const MAX_CHOICES = 12;

function listChoices(host: HostNetwork, families: readonly Family[]): string {
  const choices = host.links
    .map(({ name, index, isLoopback }) => {
      const addresses = families.flatMap((family) => usableAddresses(host, index, family));
      return isLoopback || addresses.length === 0 ? undefined : `${name} (${addresses.join(', ')})`;
    })
    .filter((choice) => choice !== undefined);
  if (choices.length === 0) return 'no interface has a usable address yet';
  return choices.slice(0, MAX_CHOICES).join(', ') + (choices.length > MAX_CHOICES ? ', …' : '');
}
