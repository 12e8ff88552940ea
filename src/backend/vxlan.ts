import { readBackendOptions } from '../config/backend-options.js';
import { OverlayError } from '../errors.js';
import type { Family } from '../ip/address.js';
import { type MacAddress, isUnicastMac, parseMac } from '../ip/mac.js';
import type { JsonValue } from '../json.js';
import { type Lease, backendOf } from '../lease/lease.js';
import { isAfter } from '../lease/record.js';
import { SYSCTL } from '../netlink/sysctl-paths.js';
import type { DesiredState, LinkSpec } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';
import type { Backend, BackendOptions, Claim, PeerState } from './backend.js';
import { type OwnSide, type PeerSide, ownSides, peerSides } from './families.js';

/** Outer IP (20 or 40), UDP (8), VXLAN (8) and inner Ethernet (14) headers. flannel subtracts 50 for both, which is too little over IPv6. */
const ENCAP_OVERHEAD: Readonly<Record<Family, number>> = { 4: 50, 6: 70 };

/** IPv4's smallest MTU that every host must accept whole is 68 (RFC 791); IPv6's is 1280 (RFC 8200 5). */
const SMALLEST_MTU: Readonly<Record<Family, number>> = { 4: 68, 6: 1280 };

interface VxlanOptions {
  readonly vni: number;
  readonly port: number;
  readonly mtu: number;
  readonly gbp: boolean;
  readonly learning: boolean;
  readonly directRouting: boolean;
}

function readOptions(options: BackendOptions): VxlanOptions {
  return readBackendOptions('vxlan', options, {
    vni: { key: 'VNI', kind: 'int', min: 1, max: 0xffffff, default: 1 },
    port: { key: 'Port', kind: 'int', min: 0, max: 65535, default: 0 },
    mtu: { key: 'MTU', kind: 'int', min: 0, max: 65535, default: 0 },
    gbp: { key: 'GBP', kind: 'bool', default: false },
    learning: { key: 'Learning', kind: 'bool', default: false },
    directRouting: { key: 'DirectRouting', kind: 'bool', default: false },
  });
}

/** Name of the VXLAN device, as flannel names it. */
function deviceName(family: Family, vni: number): string {
  return family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

/** The MAC addresses that a lease has published for VXLAN devices, by the names of these devices. */
export function publishedMacs({ attributes }: Lease): ReadonlyMap<string, MacAddress> {
  const { backendData, backendV6Data } = attributes;
  const families: readonly (readonly [Family, JsonValue | undefined])[] = [
    [4, backendData],
    [6, backendV6Data],
  ];
  return new Map(
    families.flatMap(([family, data]): [string, MacAddress][] => {
      const vni = valueOf(data, 'vni') ?? 1;
      const mac = backendOf(attributes) === 'vxlan' ? vtepMacOf(data) : undefined;
      return mac === undefined || typeof vni !== 'number' ? [] : [[deviceName(family, vni), mac]];
    }),
  );
}

function deviceMtu(family: Family, options: VxlanOptions, underlay: Underlay): number {
  return (options.mtu === 0 ? underlay.mtu : options.mtu) - ENCAP_OVERHEAD[family];
}

/**
 * Kernel VXLAN: per peer one route, one neighbour and one forwarding entry, all permanent.
 *
 * @remarks A peer's subnet is routed *onlink* via its network address, which the neighbour entry maps to the peer's
 * VTEP MAC, which the forwarding entry maps to its public address: three look-ups, no ARP, no flooding.
 * @see flannel `pkg/backend/vxlan/vxlan_network.go` (since 0.9)
 */
export const vxlanBackend: Backend = {
  type: 'vxlan',

  check(network, raw, underlay) {
    const options = readOptions(raw);
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
      const mtu = deviceMtu(family, options, underlay);
      if (mtu < SMALLEST_MTU[family]) {
        throw new OverlayError(
          'ERR_BACKEND_OPTION',
          `cannot run backend vxlan: ${mtu} bytes are left for IPv${family} packets`,
          { hint: `Backend.MTU must be at least ${SMALLEST_MTU[family] + ENCAP_OVERHEAD[family]}` },
        );
      }
    }
  },

  mtu(network, raw, underlay) {
    return deviceMtu(network.ipv6 === undefined ? 4 : 6, readOptions(raw), underlay);
  },

  asksOnLink: (raw) => readOptions(raw).directRouting,

  leaseData(network, raw, host) {
    const { vni } = readOptions(raw);
    const data = (family: Family): JsonValue => ({ VNI: vni, VtepMAC: host.vtepMac(deviceName(family, vni)) });
    return {
      backendType: 'vxlan',
      backendData: network.ipv4 === undefined ? undefined : data(4),
      backendV6Data: network.ipv6 === undefined ? undefined : data(6),
    };
  },

  base(context): Partial<DesiredState> {
    const options = readOptions(context.options);
    // The outer source is the address on the device. flannel 0.27.4 and later take the announced one, which behind NAT
    // is not on the device, and then nothing is sent.
    const sides = ownSides(context);
    const device = (side: OwnSide): string => deviceName(side.family, options.vni);
    return {
      links: sides.map((side): LinkSpec => ({
        kind: 'vxlan',
        name: device(side),
        mtu: deviceMtu(side.family, options, context.host.underlay),
        mac: context.host.vtepMac(device(side)),
        vni: options.vni,
        underlayIndex: context.host.underlay.ifindex,
        local: side.local,
        port: options.port,
        learning: options.learning,
        gbp: options.gbp,
      })),
      addresses: sides.map((side) => ({
        device: device(side),
        address: side.subnet.address,
        length: side.family === 4 ? 32 : 128,
      })),
      // flannel 0.9 and later: a router advertisement must not give the VTEP addresses or routes.
      sysctls: sides.map((side) => ({ path: SYSCTL.acceptRouterAdvertisements(device(side)), value: '0' })),
    };
  },

  peer(context, lease): PeerState {
    const options = readOptions(context.options);
    const sides = peerSides(context, lease);
    if ('reason' in sides) return { state: {}, skipped: sides };
    const states: Partial<DesiredState>[] = [];
    const claims: Claim[] = [];
    for (const side of sides) {
      const { publicIp } = side;
      if (options.directRouting && context.host.isOnLink(publicIp)) {
        states.push(directRoute(side, publicIp, context.host.underlay.device));
        continue;
      }
      const mac = vtepMacOf(side.data);
      if (mac === undefined) {
        const reason = `its lease has no valid VNI and VtepMAC in ${side.family === 4 ? 'BackendData' : 'BackendV6Data'}`;
        const hint = 'restart the daemon on the peer, it will publish them';
        return { state: {}, skipped: { lease, cause: 'data', reason, hint } };
      }
      const device = deviceName(side.family, options.vni);
      const claim = claimOf(mac, device);
      // A VTEP drops what bears its own MAC as source (vxlan_set_mac() in drivers/net/vxlan/vxlan_core.c).
      if (mac === context.host.vtepMac(device)) {
        const { what, cause, hint } = claim;
        const skipped = { lease, cause, reason: `its ${what} is also that of this host`, hint };
        return isAfter(context.own.revision, lease.revision)
          ? { state: {}, skipped, contestedDevice: device }
          : { state: {}, skipped };
      }
      claims.push(claim);
      states.push({
        neighbours: [{ device, address: side.subnet.address, mac }],
        fdb: [{ device, mac, destination: publicIp }],
        routes: [
          {
            destination: side.subnet,
            type: 'unicast',
            device,
            gateway: side.subnet.address,
            isOnlink: true,
            scope: 'global',
          },
        ],
      });
    }
    return {
      state: {
        neighbours: states.flatMap((state) => state.neighbours ?? []),
        fdb: states.flatMap((state) => state.fdb ?? []),
        routes: states.flatMap((state) => state.routes ?? []),
      },
      claims,
    };
  },
};

function directRoute(
  side: PeerSide,
  publicIp: NonNullable<PeerSide['publicIp']>,
  device: string,
): Partial<DesiredState> {
  return {
    routes: [
      { destination: side.subnet, type: 'unicast', device, gateway: publicIp, isOnlink: false, scope: 'global' },
    ],
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
