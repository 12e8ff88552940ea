import type { BackendContext, ConfiguredBackend, HostFacts } from '../../src/backend/backend.js';
import { findBackend } from '../../src/backend/registry.js';
import type { BackendOptions } from '../../src/config/backend-options.js';
import { readJson } from '../../src/config/json-reader.js';
import type { NetworkConfig } from '../../src/config/network-config.js';
import type { TunnelSpec } from '../../src/dataplane/tunnel-spec.js';
import { IpAddress } from '../../src/ip/address.js';
import { type MacAddress, macFromBytes } from '../../src/ip/mac.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { JsonValue } from '../../src/json.js';
import type { Lease, LeaseAttributes } from '../../src/lease/lease.js';
import type { VxlanLink } from '../../src/reconcile/desired.js';
import type { Underlay } from '../../src/underlay/underlay.js';

/** Short names for what tests are full of. */
export const ip = (text: string): IpAddress => IpAddress.parse(text);
export const net = (text: string): Prefix => Prefix.parse(text);

/** 02:00:00:00 and the number in two bytes. */
export const mac = (n: number): MacAddress => macFromBytes(Uint8Array.of(2, 0, 0, 0, n >> 8, n & 255));

/** A lease of 10.5.`n`.0/24 at 192.0.2.`n`, in dual-stack networks also fd00:10:5:`n`::/64 at 2001:db8::`n`. */
export function lease(
  n: number,
  options: {
    type?: string;
    data?: JsonValue;
    dataV6?: JsonValue;
    isDualStack?: boolean;
    attributes?: Partial<LeaseAttributes>;
  } = {},
): Lease {
  const { type = '', data, dataV6, isDualStack = false } = options;
  return {
    subnet: net(`10.5.${n}.0/24`),
    ipv6Subnet: isDualStack ? net(`fd00:10:5:${n.toString(16)}::/64`) : undefined,
    attributes: {
      publicIp: ip(`192.0.2.${n}`),
      publicIpv6: isDualStack ? ip(`2001:db8::${n.toString(16)}`) : undefined,
      backendType: type,
      backendData: data,
      backendV6Data: dataV6,
      ...options.attributes,
    },
    revision: '1',
    createdAt: '1',
    isReservation: false,
  };
}

/** The keys inside `Backend`, in lower case, with these values. */
export function backendOptions(values: Readonly<Record<string, JsonValue>>): BackendOptions {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, readJson(JSON.stringify(value))]));
}

/** The network 10.5.0.0/16 (and fd00:10:5::/48) with that backend. */
export function network(
  backendType = 'udp',
  options: Readonly<Record<string, JsonValue>> = {},
  isDualStack = false,
): NetworkConfig {
  return {
    ipv4: { network: net('10.5.0.0/16'), subnetLen: 24, min: ip('10.5.1.0'), max: ip('10.5.255.0') },
    ipv6: isDualStack
      ? { network: net('fd00:10:5::/48'), subnetLen: 64, min: ip('fd00:10:5:1::'), max: ip('fd00:10:5:ffff::') }
      : undefined,
    useNftables: false,
    backendType,
    backendOptions: backendOptions(options),
    containerNetworks: { ipv4: undefined, ipv6: undefined },
  };
}

/** eth0 with 192.0.2.1 and 2001:db8::1, MTU 1500. */
export function underlay(changes: Partial<Underlay> = {}): Underlay {
  return {
    device: 'eth0',
    ifindex: 2,
    mtu: 1500,
    address: ip('192.0.2.1'),
    addressV6: ip('2001:db8::1'),
    publicIp: ip('192.0.2.1'),
    publicIpv6: ip('2001:db8::1'),
    ...changes,
  };
}

/** A host that was found with nothing but flannel.1 with 02:00:00:00:00:09, with every peer on the link. */
export function hostFacts(changes: Partial<HostFacts> = {}): HostFacts {
  return {
    underlay: underlay(),
    atStart: {
      identity: 'host-a',
      devices: [{ name: 'flannel.1', kind: 'vxlan', mac: mac(9) }],
      tunDevices: [],
      published: undefined,
    },
    contested: new Set(),
    isOnLink: () => true,
    routeMtu: () => undefined,
    privateKey: undefined,
    ...changes,
  };
}

/** The backend of that type with its defaults. */
export function defaultBackend(type: string): ConfiguredBackend | undefined {
  return findBackend(type)?.parse({});
}

/** Input of a backend for the host with lease 1. */
export function backendContext(changes: Partial<BackendContext> = {}): BackendContext {
  return {
    network: network(),
    host: hostFacts(),
    own: lease(1),
    peers: [lease(2), lease(3)],
    isOwn: true,
    ...changes,
  };
}

/** The device flannel.1 of the host with 192.0.2.1 on interface 1. */
export function vxlanLink(changes: Partial<VxlanLink> = {}): VxlanLink {
  return {
    kind: 'vxlan',
    name: 'flannel.1',
    mtu: 1450,
    mac: mac(1),
    vni: 1,
    underlayIndex: 1,
    local: ip('192.0.2.1'),
    port: 0,
    learning: false,
    gbp: false,
    ...changes,
  };
}

/** The tunnel on flannel0 of the host with 192.0.2.1 and 10.5.1.0/24, without peers. */
export function tunnelSpec(changes: Partial<TunnelSpec> = {}): TunnelSpec {
  return {
    device: 'flannel0',
    bindAddress: ip('192.0.2.1'),
    port: 8285,
    mtu: 1472,
    verifySource: 'outer',
    icmpSource: ip('10.5.1.0'),
    ownPrefixes: [Prefix.parse('10.5.1.0/24'), Prefix.parse('192.0.2.1/32')],
    peers: [],
    ...changes,
  };
}
