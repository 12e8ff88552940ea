import { findBackend } from '../../backend/registry.js';
import type { NetworkConfig } from '../../config/network-config.js';
import type { PreviousSubnetEnv } from '../../docker/subnet-env.js';
import type { RunningDocker } from '../../docker/running-docker.js';
import type { Carrier } from '../../firewall/carrier.js';
import type { FirewallFinding } from '../../firewall/findings.js';
import type { SavedTables } from '../../firewall/iptables-plan.js';
import type { TracedTable } from '../../firewall/trace/ruleset.js';
import type { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import type { ConfigVersion } from '../../lease/store.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { RouteInfo } from '../../netlink/route.js';
import type { DaemonStatus } from '../../observe/status.js';
import { ALIAS_PREFIX } from '../../reconcile/ownership.js';
import type { LeaseRow } from '../lease-rows.js';
import type { ContainerFacts } from './container-facts.js';

/**
 * What comes back for an echo: an answer; that the host cannot be reached, which the last router says after it has
 * looked for it in vain; that somebody refuses to let it through; or nothing.
 */
export type Echo = 'answer' | 'absent' | 'refused' | 'silence';

/**
 * What came back from a peer's side:
 *
 * - `underlay`: an echo with few bytes to the public address
 * - `underlayFull`: one that fills the underlay's MTU and must not be fragmented
 * - `overlay`: an echo to the peer's own address in the overlay, carried by the backend
 * - `bridge`: an echo to the first address of the peer's subnet, which the bridge of its containers has
 * - `forward`: what comes back for an address that has no container: that it cannot be reached, if packets get through
 * - `tcp`, `udp`: whether the peer's kernel refuses a connection there, which shows that it gets such packets intact
 */
export interface PeerProbe {
  readonly lease: LeaseRow;
  readonly underlay: boolean;
  readonly underlayFull: boolean;
  /** Largest packet that reaches the public address whole, where the full one does not. */
  readonly pathMtu: number | undefined;
  /** Undefined where the backend gives the peer no address that answers. */
  readonly overlay: boolean | undefined;
  /** Undefined where the peer's own device does not answer, so that there is no need to ask. */
  readonly bridge: boolean | undefined;
  /** Undefined where the bridge does not answer. */
  readonly forward: Echo | undefined;
  readonly tcp: boolean | undefined;
  readonly udp: boolean | undefined;
}

/** Where the kernel sends packets for a peer's subnet. */
export interface PeerWay {
  readonly subnet: Prefix;
  /** Whether it was asked for a packet of a container; otherwise for one of this host. */
  readonly isOfContainer: boolean;
  /** The daemon's route in the main table, undefined if there is none. */
  readonly expected: RouteInfo | undefined;
  /** The kernel's answer, undefined if it sends them nowhere. */
  readonly taken: RouteInfo | undefined;
}

/** A rule of policy routing (`ip rule`), as far as the checks need it. */
export interface PolicyRule {
  readonly priority: number;
  /** Undefined for all. */
  readonly destination: Prefix | undefined;
  /** `lookup`, or `blackhole`, `unreachable`, `prohibit`. */
  readonly action: string;
  /** Name or number of the table that is looked up. */
  readonly table: string;
  /** Selectors and action as `ip rule` takes them. */
  readonly text: string;
}

/** A route outside of the main table. */
export interface PolicyRoute {
  readonly table: string;
  /** Undefined for a default route. */
  readonly destination: Prefix | undefined;
}

/** An IPv6 address, and a device on which this host answers for it, or should. */
export interface ProxiedNeighbour {
  readonly address: IpAddress;
  readonly device: string;
}

/** A neighbour of a bridge that a router asks for on another device, and finds nobody. */
export interface UnansweredNeighbour extends ProxiedNeighbour {
  readonly bridge: string;
}

/** Whom this host answers neighbour solicitations for. */
export interface ProxiedFacts {
  readonly proxied: readonly ProxiedNeighbour[];
  /** Those of them that nobody has. */
  readonly stale: readonly ProxiedNeighbour[];
  readonly missing: readonly UnansweredNeighbour[];
}

/** Everything the checks look at; gathered once, so that they are pure. */
export interface DoctorFacts {
  readonly etcdPrefix: string;
  readonly etcdEndpoints: readonly string[];
  /** Why etcd could not be asked. */
  readonly storeError: string | undefined;
  /** Undefined if there is none or it is not valid; `configError` tells which. */
  readonly network: NetworkConfig | undefined;
  readonly configError: string | undefined;
  /** The newest version that daemons can use, where the present one cannot be used. */
  readonly lastValidConfig: ConfigVersion | undefined;
  readonly leases: readonly LeaseRow[];
  /** Seconds that this host's clock is ahead of etcd's. */
  readonly clockAheadSeconds: number | undefined;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  readonly daemon: DaemonStatus | undefined;
  readonly daemonError: string | undefined;
  readonly statusSocket: string;
  readonly subnetFile: string;
  readonly env: PreviousSubnetEnv | undefined;
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  /** Of the main table. */
  readonly routes: readonly RouteInfo[];
  /** Where the kernel sends packets for the peers that are probed. */
  readonly ways: readonly PeerWay[];
  /** IPv4 rules of policy routing, and the routes in the tables they name besides the usual ones. */
  readonly policyRules: readonly PolicyRule[];
  readonly policyRoutes: readonly PolicyRoute[];
  /** By path below `/proc/sys`. */
  readonly sysctls: ReadonlyMap<string, string>;
  /** IPv4; undefined where iptables is not installed. */
  readonly iptables: SavedTables | undefined;
  /** Likewise for IPv6. */
  readonly ip6tables: SavedTables | undefined;
  /** All rules that see IPv4 packets, of iptables and nftables. */
  readonly rulesets: readonly TracedTable[];
  /** The Docker engine of this host, undefined if none runs. */
  readonly docker: RunningDocker | undefined;
  /** Undefined where the daemon serves no networks of containers. */
  readonly containers: ContainerFacts | undefined;
  readonly proxied: ProxiedFacts;
  /** MAC addresses that a switch port takes, as the operator says; undefined where nobody said. */
  readonly macLimit: number | undefined;
  /** Whether systemd runs this host. */
  readonly hasSystemd: boolean;
  readonly bridgeNetfilter: FirewallFinding | undefined;
  /** Device, index and MTU that packets to peers leave through. */
  readonly underlay: { readonly device: string; readonly mtu: number } | undefined;
  /** Device behind which another host answers for the public address of this one; undefined where none does. */
  readonly publicIpNeighbour: string | undefined;
  /** The own lease, by the subnet file or the public address. */
  readonly own: LeaseRow | undefined;
  readonly probes: readonly PeerProbe[];
  /** Why no peer was probed, or not all of them. */
  readonly probeNote: string | undefined;
}

/** How bad a finding is: `error` something does not work, `warning` it will not for long or not for all, `note` good to know. */
export type Severity = 'error' | 'warning' | 'note';

/** Something wrong on this host, with what shows it and what fixes it. */
export interface Finding {
  readonly check: string;
  readonly severity: Severity;
  readonly message: string;
  /** What was seen. */
  readonly evidence: string;
  /** The command that fixes it. */
  readonly command: string;
  /** Subnets of the peers concerned; undefined if it is about this host, or all of them. */
  readonly subnets?: readonly string[];
  /** What would not have been found without it. */
  readonly consequences: readonly Finding[];
}

/** A {@link Finding} as a check gives it. */
export type Found = Omit<Finding, 'check' | 'consequences'>;

/** One thing to look for. */
export interface Check {
  readonly id: string;
  /** What it looks for, for the manual. */
  readonly title: string;
  /** Checks whose findings explain what this one finds, at the same peers. */
  readonly follows?: readonly string[];
  readonly run: (facts: DoctorFacts) => readonly Found[];
}

/** The overlay's IPv4 network, from etcd or else from the subnet file. */
export function overlayNetwork({ network, env }: DoctorFacts): Prefix | undefined {
  return network?.ipv4?.network ?? env?.network;
}

/** The containers of this host, by its lease or else by the subnet file. */
export function ownSubnet({ own, env }: DoctorFacts): Prefix | undefined {
  return own === undefined ? env?.subnet : Prefix.parse(own.subnet);
}

/** The bridge that the containers of a subnet hang on. */
export function bridgeOf(
  { links, addresses }: Pick<DoctorFacts, 'links' | 'addresses'>,
  subnet: Prefix,
): LinkInfo | undefined {
  return links.find(
    ({ kind, index }) =>
      kind === 'bridge' && addresses.some((each) => each.index === index && subnet.contains(each.address)),
  );
}

/** The device that carries packets to peers with that backend; undefined where the underlay's does. */
export function overlayDevice(links: readonly LinkInfo[], backend: string | undefined): LinkInfo | undefined {
  const kind = findBackend(backend ?? '')?.deviceKind;
  const isOurs = ({ alias, name }: LinkInfo): boolean => alias.startsWith(ALIAS_PREFIX) || /^flannel/.test(name);
  return kind === undefined ? undefined : links.find((link) => link.kind === kind && isOurs(link));
}

/** What packets to peers with that backend are put into; undefined where they travel as they are. */
export function overlayCarrier({ network }: Pick<DoctorFacts, 'network'>, type: string): Carrier | undefined {
  return findBackend(type)?.parse(network?.backendType === type ? network.backendOptions : {}).carrier;
}
