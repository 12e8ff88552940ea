import type { NetworkConfig } from '../config/network-config.js';
import { OverlayError } from '../errors.js';
import type { Family, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { type WireguardPublicKey, WireguardSecret, parseWireguardPublicKey } from '../ip/wireguard-key.js';
import type { JsonValue } from '../json.js';
import { type Lease, backendOf } from '../lease/lease.js';
import type { AddressSpec, RouteSpec } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';
import {
  type BackendContext,
  type Claim,
  type HostFacts,
  NO_LEASE_DATA,
  type PeerState,
  type SkippedPeer,
  defineBackend,
} from './backend.js';
import { type PeerDestination, destinationsOf } from './families.js';

/** Outer IPv6 (40), UDP (8), WireGuard's header (16) and authentication tag (16); flannel takes it for IPv4 as well. */
const ENCAP_OVERHEAD = 80;

/** IPv4's smallest MTU that every host must accept whole is 68 (RFC 791); IPv6's is 1280 (RFC 8200 5). */
const SMALLEST_MTU: Readonly<Record<Family, number>> = { 4: 68, 6: 1280 };

/** Names of the devices, as flannel names them; the second one is there with `Mode` `separate` only. */
const DEVICES: Readonly<Record<Family, string>> = { 4: 'flannel-wg', 6: 'flannel-wg-v6' };

const MODES = ['separate', 'auto', 'ipv4', 'ipv6'] as const;

type Mode = (typeof MODES)[number];

/** One device of this host. */
interface Tunnel {
  readonly device: string;
  readonly port: number;
  /** Families of the overlay that it carries. */
  readonly families: readonly Family[];
}

/** What is configured, besides the network. */
interface Settings {
  readonly mode: Mode;
  readonly listenPort: number;
  readonly listenPortV6: number;
  readonly presharedKey: WireguardSecret | undefined;
  readonly keepaliveSeconds: number;
}

/**
 * WireGuard in the kernel: packets between hosts are encrypted and authentic.
 *
 * @remarks A host is known by the public key in its lease. The whole network is routed to the device, so that a packet
 * for a subnet that nobody has is refused there rather than sent out in the clear; which peer a packet is for, and
 * whether it may have come from there, the device decides by the peers' subnets.
 * @see flannel `pkg/backend/wireguard/wireguard_network.go` (since 0.16)
 */
export const wireguardBackend = defineBackend({
  type: 'wireguard',
  publishedType: 'wireguard',
  families: [4, 6],
  deviceKind: 'wireguard',
  deviceNames: /^flannel-wg(-v6)?$/,
  usesPrivateKey: true,
  rules: {
    listenPort: { key: 'ListenPort', kind: 'int', min: 1, max: 65535, default: 51820 },
    listenPortV6: { key: 'ListenPortV6', kind: 'int', min: 1, max: 65535, default: 51821 },
    mtu: { key: 'MTU', kind: 'int', min: 0, max: 65535, default: 0 },
    psk: { key: 'PSK', kind: 'secret', default: '' },
    keepaliveSeconds: { key: 'PersistentKeepaliveInterval', kind: 'int', min: 0, max: 65535, default: 0 },
    mode: { key: 'Mode', kind: 'choice', choices: MODES, default: 'separate' },
  },

  configure({ mtu, psk, ...options }) {
    const settings: Settings = { ...options, presharedKey: psk === '' ? undefined : presharedKeyOf(psk) };
    const deviceMtu = (underlay: Underlay): number => (mtu === 0 ? underlay.mtu : mtu) - ENCAP_OVERHEAD;
    return {
      carrier: { protocol: 'udp', port: settings.listenPort },
      asksOnLink: false,

      check(network, underlay) {
        checkAddresses(network, underlay, settings.mode);
        const tunnels = tunnelsOf(network, settings);
        if (new Set(tunnels.map(({ port }) => port)).size < tunnels.length) {
          throw new OverlayError(
            'ERR_BACKEND_OPTION',
            `cannot run backend wireguard: ListenPort and ListenPortV6 are both ${settings.listenPort}`,
            { hint: 'give the two devices different ports, or choose Mode auto, ipv4 or ipv6, which has one device' },
          );
        }
        const needed = SMALLEST_MTU[network.ipv6 === undefined ? 4 : 6];
        if (deviceMtu(underlay) >= needed) return;
        throw new OverlayError(
          'ERR_BACKEND_OPTION',
          `cannot run backend wireguard: ${deviceMtu(underlay)} bytes are left for packets`,
          { hint: `Backend.MTU must be at least ${needed + ENCAP_OVERHEAD}` },
        );
      },

      mtu: (_network, underlay) => deviceMtu(underlay),

      leaseData(network, host) {
        const key = host.privateKey?.publicKey;
        if (key === undefined) return NO_LEASE_DATA;
        const data = (family: Family): JsonValue | undefined => {
          const tunnel = tunnelsOf(network, settings).find(({ families }) => families.includes(family));
          return tunnel && { PublicKey: key, Port: tunnel.port };
        };
        return { backendData: data(4), backendV6Data: data(6) };
      },

      desired(context) {
        const { host, network } = context;
        const { privateKey } = host;
        if (privateKey === undefined)
          return { base: {}, peer: (lease) => ({ state: {}, skipped: unknownThere(lease) }) };
        const tunnels = tunnelsOf(network, settings);
        return {
          base: {
            links: tunnels.map(({ device: name }) => ({ kind: 'wireguard', name, mtu: deviceMtu(host.underlay) })),
            wireguard: tunnels.map(({ device, port: listenPort }) => ({ device, privateKey, listenPort })),
            addresses: tunnels.flatMap((tunnel) => addressesOf(tunnel, context)),
            routes: context.isOwn ? tunnels.flatMap((tunnel) => networkRoutes(tunnel, network)) : [],
          },
          peer: (lease) => peerState(lease, { context, settings, tunnels, ownKey: privateKey.publicKey }),
        };
      },
    };
  },
});

/** @throws {@link OverlayError} `ERR_BACKEND_OPTION`, without the key: it is one all the same, if spoilt. */
function presharedKeyOf(text: string): WireguardSecret {
  const key = WireguardSecret.parse(text);
  if (key !== undefined) return key;
  throw new OverlayError('ERR_BACKEND_OPTION', 'cannot use backend wireguard: Backend.PSK is not a key of WireGuard', {
    hint: 'set it to what wg genpsk prints, 44 characters with = at the end, or leave it out',
  });
}

function checkAddresses(network: NetworkConfig, { device, address, addressV6 }: Underlay, mode: Mode): void {
  const lacking = (family: Family): boolean => (family === 4 ? address : addressV6) === undefined;
  const needed: readonly Family[] =
    mode === 'separate' ? familiesOf(network) : mode === 'auto' ? [] : [mode === 'ipv4' ? 4 : 6];
  const missing = needed.find(lacking) ?? (lacking(4) && lacking(6) ? 4 : undefined);
  if (missing === undefined) return;
  const isOff = missing === 6 && network.ipv6 === undefined;
  throw new OverlayError(
    'ERR_BACKEND_HOST',
    isOff
      ? 'cannot run backend wireguard over IPv6: hosts have IPv6 addresses in networks with IPv6 only'
      : `cannot run backend wireguard over IPv${missing}: ${device} has no IPv${missing} address`,
    {
      hint: isOff
        ? 'set EnableIPv6 and IPv6Network, or another Backend.Mode'
        : `give ${device} one, choose another interface with --iface, or set Backend.Mode`,
    },
  );
}

function familiesOf({ ipv4, ipv6 }: NetworkConfig): Family[] {
  return [...(ipv4 === undefined ? [] : [4 as const]), ...(ipv6 === undefined ? [] : [6 as const])];
}

/** One device for each family, or one for all: a peer of WireGuard has one endpoint. */
function tunnelsOf(network: NetworkConfig, { mode, listenPort, listenPortV6 }: Settings): readonly Tunnel[] {
  const families = familiesOf(network);
  if (mode !== 'separate') return [{ device: DEVICES[4], port: listenPort, families }];
  return families.map((family) => ({
    device: DEVICES[family],
    port: family === 4 ? listenPort : listenPortV6,
    families: [family],
  }));
}

function addressesOf({ device, families }: Tunnel, { own }: BackendContext): AddressSpec[] {
  return subnetsOf(own, families).map(({ address, family }) => ({ device, address, length: family === 4 ? 32 : 128 }));
}

function networkRoutes({ device, families }: Tunnel, { ipv4, ipv6 }: NetworkConfig): RouteSpec[] {
  return families.flatMap((family) => {
    const destination = (family === 4 ? ipv4 : ipv6)?.network;
    return destination === undefined ? [] : [routeThrough(device, { destination })];
  });
}

function routeThrough(device: string, to: PeerDestination): RouteSpec {
  return { ...to, type: 'unicast', device, gateway: undefined, isOnlink: false };
}

function subnetsOf({ subnet, ipv6Subnet }: Lease, families: readonly Family[]): Prefix[] {
  return families.map((family) => (family === 4 ? subnet : ipv6Subnet)).filter((prefix) => prefix !== undefined);
}

/** What {@link peerState} needs of this host. */
interface PeerInput {
  readonly context: BackendContext;
  readonly settings: Settings;
  readonly tunnels: readonly Tunnel[];
  readonly ownKey: WireguardPublicKey;
}

function peerState(lease: Lease, { context, settings, tunnels, ownKey }: PeerInput): PeerState {
  const { host, isOwn, own } = context;
  const parts = [];
  const routes: RouteSpec[] = [];
  const claims: Claim[] = [];
  for (const tunnel of tunnels) {
    const { device } = tunnel;
    const destinations = tunnel.families.flatMap((family) => destinationsOf(lease, family, context));
    if (subnetsOf(own, tunnel.families).length === 0 || destinations.length === 0) continue;
    const data = readData(lease, tunnel);
    if ('reason' in data) return { state: {}, skipped: data };
    const { publicKey, port } = data;
    const claim = claimOf(publicKey, device);
    if (publicKey === ownKey) {
      const { what, cause, hint } = claim;
      return { state: {}, skipped: { lease, cause, reason: `its ${what} is also that of this host`, hint } };
    }
    const address = endpointOf(lease, tunnel, { host, mode: settings.mode });
    if ('reason' in address) return { state: {}, skipped: address };
    const { presharedKey, keepaliveSeconds } = settings;
    const endpoint = { address, port: port === 0 ? tunnel.port : port };
    claims.push(claim);
    const allowedIps = destinations.map(({ destination }) => destination);
    parts.push({ device, publicKey, presharedKey, endpoint, keepaliveSeconds, allowedIps });
    routes.push(...destinations.map((to) => routeThrough(device, to)));
  }
  const state = { wireguardPeers: parts, routes };
  // It believes only hosts whose leases tell it their keys.
  const isKnown = isOwn || backendOf(own.attributes) === 'wireguard';
  return { state, claims, ...(isKnown ? {} : { skipped: unknownThere(lease) }) };
}

/** The key has to be of one lease: two peers of a device cannot have the same, and the second would replace the first. */
function claimOf(publicKey: WireguardPublicKey, device: string): Claim {
  return {
    what: `PublicKey ${publicKey} (${device})`,
    cause: 'public-key',
    hint: 'a copied host needs a key of its own: on the copy, remove the key file (tsflannelctl status names it) and restart the daemon',
  };
}

/** A host that does not publish a key is a stranger to those that ask for one. */
function unknownThere(lease: Lease): SkippedPeer {
  return {
    lease,
    cause: 'backend',
    reason: 'its lease names backend wireguard, which lets in only hosts whose leases name it, too',
    hint: 'see there why it has not taken over the configuration: tsflannelctl status',
  };
}

/** Key and port as the peer publishes them; 0 is the port that this host listens on, as older flannel publishes none. */
function readData(
  lease: Lease,
  { families }: Tunnel,
): { readonly publicKey: WireguardPublicKey; readonly port: number } | SkippedPeer {
  const { backendData, backendV6Data } = lease.attributes;
  const [field, data] =
    families.includes(4) && backendData !== undefined
      ? (['BackendData', backendData] as const)
      : families.includes(6)
        ? (['BackendV6Data', backendV6Data] as const)
        : (['BackendData', undefined] as const);
  const key = valueOf(data, 'publickey');
  const publicKey = typeof key === 'string' ? parseWireguardPublicKey(key) : undefined;
  const port = valueOf(data, 'port') ?? 0;
  if (publicKey !== undefined && typeof port === 'number' && Number.isInteger(port) && port >= 0 && port <= 65535) {
    return { publicKey, port };
  }
  const reason = `its lease has no valid PublicKey and Port in ${field}`;
  return { lease, cause: 'data', reason, hint: 'restart the daemon on the peer, it will publish them' };
}

/** @param key - in lower case; keys match in any case, as in Go. */
function valueOf(data: JsonValue | undefined, key: string): JsonValue | undefined {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return undefined;
  return Object.entries(data).findLast(([name]) => name.toLowerCase() === key)?.[1];
}

function endpointOf(
  lease: Lease,
  { families }: Tunnel,
  { host, mode }: { readonly host: HostFacts; readonly mode: Mode },
): IpAddress | SkippedPeer {
  const { publicIp, publicIpv6 } = lease.attributes;
  const v4 = publicIp.isUnspecified ? undefined : publicIp;
  const wanted = mode === 'separate' ? families[0] : mode === 'auto' ? undefined : mode === 'ipv4' ? 4 : 6;
  const address =
    wanted === undefined ? likeliestEndpoint(v4, publicIpv6, host.underlay) : wanted === 4 ? v4 : publicIpv6;
  if (address === undefined) {
    const reason = `its lease has no Public${wanted === 6 ? 'IPv6' : 'IP'}`;
    const hint = `start the peer with --public-ip${wanted === 6 ? 'v6 or give it an IPv6 address' : ''}`;
    return { lease, cause: 'address', reason, hint };
  }
  const { underlay } = host;
  const isOurs = [underlay.address, underlay.addressV6, underlay.publicIp, underlay.publicIpv6].some((own) =>
    address.equals(own),
  );
  if (!isOurs) return address;
  const reason = `its public address ${address.toString()} is one of this host`;
  return { lease, cause: 'address', reason, hint: 'give each host a public address of its own' };
}

/**
 * Of a peer's two addresses the one that is likelier to be reached, as flannel chooses: public IPv4, else public IPv6 if
 * this host has that as well, else IPv4.
 */
function likeliestEndpoint(v4: IpAddress | undefined, v6: IpAddress | undefined, own: Underlay): IpAddress | undefined {
  if (v4 === undefined || v6 === undefined) return v4 ?? v6;
  if (own.address === undefined) return v6;
  if (!isPrivate(v4)) return v4;
  return own.publicIpv6 !== undefined && !isPrivate(v6) && !isPrivate(own.publicIpv6) ? v6 : v4;
}

/** RFC 1918 and RFC 4193. */
const PRIVATE_NETWORKS = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'].map((text) =>
  Prefix.parse(text),
);

function isPrivate(address: IpAddress): boolean {
  return PRIVATE_NETWORKS.some((network) => network.contains(address));
}
