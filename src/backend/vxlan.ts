import { append } from '../append.js';
import { OverlayError } from '../errors.js';
import type { Family } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { type MacAddress, deriveMac, isUnicastMac, parseMac } from '../ip/mac.js';
import type { JsonValue } from '../json.js';
import { type Lease, type LeaseAttributes, backendOf } from '../lease/lease.js';
import { isAfter } from '../lease/record.js';
import { SYSCTL } from '../netlink/sysctl-paths.js';
import type { DesiredState } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';
import { type BackendContext, type Claim, type HostFacts, type PeerState, defineBackend } from './backend.js';
import { ownSides, peerSides } from './families.js';
import { directRoute } from './host-gw.js';

/** Outer IP (20 or 40), UDP (8), VXLAN (8) and inner Ethernet (14) headers. flannel subtracts 50 for both, which is too little over IPv6. */
const ENCAP_OVERHEAD: Readonly<Record<Family, number>> = { 4: 50, 6: 70 };

/** IPv4's smallest MTU that every host must accept whole is 68 (RFC 791); IPv6's is 1280 (RFC 8200 5). */
const SMALLEST_MTU: Readonly<Record<Family, number>> = { 4: 68, 6: 1280 };

/** The port of a device that was made without one: what Linux had before IANA assigned 4789 (`vxlan_port` in drivers/net/vxlan/vxlan_core.c). */
const KERNEL_PORT = 8472;

/** Name of the VXLAN device, as flannel names it. */
function deviceName(family: Family, vni: number): string {
  return family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

/**
 * Kernel VXLAN: per peer one route, one neighbour and one forwarding entry, all permanent.
 *
 * @remarks A peer's subnet is routed *onlink* via its network address, which the neighbour entry maps to the peer's
 * VTEP MAC, which the forwarding entry maps to its public address: three look-ups, no ARP, no flooding.
 * @see flannel `pkg/backend/vxlan/vxlan_network.go` (since 0.9)
 */
export const vxlanBackend = defineBackend({
  type: 'vxlan',
  publishedType: 'vxlan',
  families: [4, 6],
  deviceKind: 'vxlan',
  deviceNames: /^flannel(-v6)?\.\d+$/,
  rules: {
    vni: { key: 'VNI', kind: 'int', min: 1, max: 0xffffff, default: 1 },
    port: { key: 'Port', kind: 'int', min: 0, max: 65535, default: 0 },
    mtu: { key: 'MTU', kind: 'int', min: 0, max: 65535, default: 0 },
    gbp: { key: 'GBP', kind: 'bool', default: false },
    learning: { key: 'Learning', kind: 'bool', default: false },
    directRouting: { key: 'DirectRouting', kind: 'bool', default: false },
  },

  configure({ vni, port, mtu, gbp, learning, directRouting }) {
    const deviceMtu = (family: Family, underlay: Underlay): number =>
      (mtu === 0 ? underlay.mtu : mtu) - ENCAP_OVERHEAD[family];
    return {
      carrier: { protocol: 'udp', port: port === 0 ? KERNEL_PORT : port },
      asksOnLink: directRouting,

      check(network, underlay) {
        const families: Family[] = [];
        if (network.ipv4 !== undefined) families.push(4);
        if (network.ipv6 !== undefined) families.push(6);
        for (const family of families) {
          if ((family === 4 ? underlay.address : underlay.addressV6) === undefined) {
            throw new OverlayError(
              'ERR_BACKEND_HOST',
              `cannot run backend vxlan for IPv${family}: ${underlay.device} has no IPv${family} address`,
              { hint: `give ${underlay.device} one, or choose another interface with --iface` },
            );
          }
          const left = deviceMtu(family, underlay);
          if (left >= SMALLEST_MTU[family]) continue;
          throw new OverlayError(
            'ERR_BACKEND_OPTION',
            `cannot run backend vxlan: ${left} bytes are left for IPv${family} packets`,
            { hint: `Backend.MTU must be at least ${SMALLEST_MTU[family] + ENCAP_OVERHEAD[family]}` },
          );
        }
      },

      mtu: (network, underlay) => deviceMtu(network.ipv6 === undefined ? 4 : 6, underlay),

      leaseData(network, host) {
        const data = (family: Family): JsonValue => ({ VNI: vni, VtepMAC: vtepOf(family, vni, host).mac });
        return {
          backendData: network.ipv4 === undefined ? undefined : data(4),
          backendV6Data: network.ipv6 === undefined ? undefined : data(6),
        };
      },

      desired(context) {
        const { host } = context;
        const vteps: Readonly<Record<Family, Vtep>> = { 4: vtepOf(4, vni, host), 6: vtepOf(6, vni, host) };
        // The outer source is the address on the device. flannel 0.27.4 and later take the announced one, which behind
        // NAT is not on the device, and then nothing is sent.
        const sides = ownSides(context).map((side) => ({ ...side, ...vteps[side.family] }));
        return {
          base: {
            links: sides.map(({ family, device, mac, local }) => ({
              kind: 'vxlan',
              name: device,
              mtu: deviceMtu(family, host.underlay),
              mac,
              vni,
              underlayIndex: host.underlay.ifindex,
              local,
              port,
              learning,
              gbp,
            })),
            addresses: sides.map(({ family, device, subnet }) => ({
              device,
              address: subnet.address,
              length: family === 4 ? 32 : 128,
            })),
            ...(sides.some(({ family }) => family === 6) && wholeNetwork(context, vteps[6].device)),
            // flannel 0.9 and later: a router advertisement must not give the VTEP addresses or routes.
            sysctls: sides.map(({ device }) => ({ path: SYSCTL.acceptRouterAdvertisements(device), value: '0' })),
          },
          peer: (lease) => entriesFor(lease, context, { vteps, directRouting }),
        };
      },
    };
  },
});

/** This host's end of the overlay in one family. */
interface Vtep {
  readonly device: string;
  /** That of the device as it was found or, where it is gone, as it was published; without either, the derived one. */
  readonly mac: MacAddress;
  /** Contains the public address: hosts that were copied share everything else. */
  readonly derivedMac: MacAddress;
}

function vtepOf(family: Family, vni: number, { atStart, contested, underlay }: HostFacts): Vtep {
  const device = deviceName(family, vni);
  const derivedMac = deriveMac(`${atStart.identity} ${underlay.publicIp?.toString() ?? ''}`, device);
  const found = atStart.devices.find(({ name, kind }) => name === device && kind === 'vxlan')?.mac;
  const known = contested.has(device) ? undefined : (found ?? publishedMac(family, vni, atStart.published));
  return { device, mac: known ?? derivedMac, derivedMac };
}

function publishedMac(family: Family, vni: number, attributes: LeaseAttributes | undefined): MacAddress | undefined {
  if (attributes === undefined || backendOf(attributes) !== 'vxlan') return undefined;
  const data = family === 4 ? attributes.backendData : attributes.backendV6Data;
  return (valueOf(data, 'vni') ?? 1) === vni ? vtepMacOf(data) : undefined;
}

/**
 * A route to the whole network where that is a part of the underlay's own prefix, as a provider's on-link /64: the kernel
 * takes no gateway of IPv6 that it finds behind another device (`ip6_route_check_nh_onlink()`), and those of the peers
 * are addresses of the network.
 */
function wholeNetwork({ network, host }: BackendContext, device: string): Partial<DesiredState> {
  const destination = network.ipv6?.network;
  const { addressV6 } = host.underlay;
  if (destination === undefined || addressV6 === undefined || !Prefix.of(addressV6, 64).covers(destination)) return {};
  return { routes: [{ destination, type: 'unicast', device, gateway: undefined, isOnlink: false }] };
}

function entriesFor(
  lease: Lease,
  context: BackendContext,
  { vteps, directRouting }: { readonly vteps: Readonly<Record<Family, Vtep>>; readonly directRouting: boolean },
): PeerState {
  const sides = peerSides(context, lease);
  if ('reason' in sides) return { state: {}, skipped: sides };
  const states: Partial<DesiredState>[] = [];
  let claims: readonly Claim[] = [];
  for (const side of sides) {
    const { publicIp } = side;
    if (directRouting && context.host.isOnLink(publicIp)) {
      const { device } = context.host.underlay;
      states.push({ routes: side.destinations.map((to) => directRoute(to, publicIp, device)) });
      continue;
    }
    const mac = vtepMacOf(side.data);
    if (mac === undefined) {
      const reason = `its lease has no valid VNI and VtepMAC in ${side.family === 4 ? 'BackendData' : 'BackendV6Data'}`;
      const hint = 'restart the daemon on the peer, it will publish them';
      return { state: {}, skipped: { lease, cause: 'data', reason, hint } };
    }
    const vtep = vteps[side.family];
    const { device } = vtep;
    const claim = claimOf(mac, device);
    // A VTEP drops what has its own MAC as source (vxlan_set_mac() in drivers/net/vxlan/vxlan_core.c).
    if (mac === vtep.mac) {
      const { what, cause, hint } = claim;
      const skipped = { lease, cause, reason: `its ${what} is also that of this host`, hint };
      const { derivedMac: replacement } = vtep;
      const mayGiveWay = isAfter(context.own.createdAt, lease.createdAt) && mac !== replacement;
      return { state: {}, skipped, ...(mayGiveWay ? { contested: { device, replacement } } : {}) };
    }
    claims = append(claims, claim);
    states.push({
      neighbours: [{ device, address: side.subnet.address, mac }],
      fdb: [{ device, mac, destination: publicIp }],
      routes: side.destinations.map((to) => ({
        ...to,
        type: 'unicast',
        device,
        gateway: side.subnet.address,
        isOnlink: true,
      })),
    });
  }
  const [only, second] = states;
  if (only !== undefined && second === undefined) return { state: only, claims };
  return {
    state: {
      neighbours: states.flatMap((state) => state.neighbours ?? []),
      fdb: states.flatMap((state) => state.fdb ?? []),
      routes: states.flatMap((state) => state.routes ?? []),
    },
    claims,
  };
}

/** A forwarding table has one destination for each MAC. */
function claimOf(mac: MacAddress, device: string): Claim {
  return {
    what: `VtepMAC ${mac} (${device})`,
    cause: 'vtep-mac',
    hint: `on that host: ip link del ${device}, then restart the daemon; if it is a copy of another host, give it a machine id of its own first`,
  };
}

/**
 * The six-byte unicast VtepMAC inside a lease's backend data; keys match in any case, as in Go.
 *
 * @returns undefined also if there is a VNI or Port that no VTEP can have; both may be absent. Another VNI than ours is let
 * through: while it is being changed, hosts publish the new one at different times.
 */
function vtepMacOf(data: JsonValue | undefined): MacAddress | undefined {
  const text = valueOf(data, 'vtepmac');
  if (
    typeof text !== 'string' ||
    !isWithin(valueOf(data, 'vni'), 1, 0xffffff) ||
    !isWithin(valueOf(data, 'port'), 0, 65535)
  ) {
    return undefined;
  }
  try {
    const mac = parseMac(text);
    return isUnicastMac(mac) ? mac : undefined;
  } catch {
    return undefined; // not a MAC: the caller says so, with the peer's name
  }
}

/** @param key - in lower case. */
function valueOf(data: JsonValue | undefined, key: string): JsonValue | undefined {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return undefined;
  return Object.entries(data).findLast(([name]) => name.toLowerCase() === key)?.[1];
}

/** Whether the value is absent or a whole number in that range. */
function isWithin(value: JsonValue | undefined, min: number, max: number): boolean {
  if (value === undefined || value === null) return true;
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max;
}
