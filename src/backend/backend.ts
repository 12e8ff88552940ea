import {
  type BackendOptions,
  type OptionRules,
  type OptionValues,
  readBackendOptions,
} from '../config/backend-options.js';
import type { NetworkConfig } from '../config/network-config.js';
import type { CommandValues } from '../extension/command-text.js';
import type { HostCommands, PeerInput } from '../extension/host-commands.js';
import type { Carrier } from '../firewall/carrier.js';
import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import type { WireguardSecret } from '../ip/wireguard-key.js';
import type { Lease, LeaseAttributes } from '../lease/lease.js';
import type { DesiredState, LinkSpec } from '../reconcile/desired.js';
import type { Underlay } from '../underlay/underlay.js';

/** A device of a backend, of this program or of flannel, as it was found. */
export interface FoundDevice {
  readonly name: string;
  /** As the kernel names it, such as `vxlan`; empty for physical ones. */
  readonly kind: string;
  readonly mac: MacAddress | undefined;
}

/** What the daemon found when it started. */
export interface HostAtStart {
  /** What tells this host from all others, the same at every start. */
  readonly identity: string;
  /** Devices whose names begin with `flannel`. */
  readonly devices: readonly FoundDevice[];
  /** Names of the TUN devices that were handed down. */
  readonly tunDevices: readonly string[];
  /** What the host published last: peers send to it until they have been told otherwise, also after a reboot. */
  readonly published: LeaseAttributes | undefined;
}

/** What a backend may know of the host besides leases; everything that would otherwise be I/O. */
export interface HostFacts {
  readonly underlay: Underlay;
  readonly atStart: HostAtStart;
  /** Devices that leave the link address they were found with to the host that had it first. */
  readonly contested: ReadonlySet<string>;
  /** Whether the kernel reaches the address without a gateway, over the underlay device. */
  readonly isOnLink: (address: IpAddress) => boolean;
  /** MTU of the kernel's route to the address, where that has one of its own. */
  readonly routeMtu: (address: IpAddress) => number | undefined;
  /** By which peers know this host; undefined unless a backend with {@link BackendFacts.usesPrivateKey} was configured. */
  readonly privateKey: WireguardSecret | undefined;
  /** Absent unless the kernel is to carry what it can of the udp backend. */
  readonly kernelPath?: KernelPathFacts;
}

/** What backend udp has to know of the kernel path. */
export interface KernelPathFacts {
  /** Whether this host's kernel takes apart what another one has put together: then peers are told so. */
  readonly isAnnounced: boolean;
}

/**
 * Networks of containers that peers have besides the subnets of their leases, each list the same object as long as
 * nothing in it has changed; peers without any are left out.
 */
export type AdditionalPrefixes = ReadonlyMap<Lease, readonly Prefix[]>;

/** Input of {@link ConfiguredBackend.desired}. */
export interface BackendContext {
  readonly network: NetworkConfig;
  readonly host: HostFacts;
  readonly own: Lease;
  /** Leases of all other hosts, whatever backend they name. */
  readonly peers: readonly Lease[];
  /** What peers carry besides their subnets; default nothing. */
  readonly additional?: AdditionalPrefixes;
  /** What this host alone has besides its subnet: nobody else sends from there. Default nothing. */
  readonly ownAdditional?: readonly Prefix[];
  /** Whether the network configuration names this backend; if not, it only serves the peers that still (or already) do. */
  readonly isOwn: boolean;
}

/**
 * Why a peer is not reached: its public address is missing or unusable, it is behind a router, its backend data is not
 * valid, another host has its VTEP MAC or public key, or this host cannot use its backend.
 */
export const SKIP_CAUSES = ['address', 'off-link', 'data', 'vtep-mac', 'public-key', 'backend'] as const;

/** One of {@link SKIP_CAUSES}; the `cause` label of metrics. */
export type SkipCause = (typeof SKIP_CAUSES)[number];

/** A peer that cannot be reached, and why, for one log line and one gauge. */
export interface SkippedPeer {
  readonly lease: Lease;
  readonly cause: SkipCause;
  /** What is wrong, as *what: why*. */
  readonly reason: string;
  readonly hint: string;
}

/** Networks of containers that a peer has and that are not reached, though the peer itself may be. */
export interface SkippedPrefixes extends SkippedPeer {
  readonly prefixes: readonly Prefix[];
}

/** Something that the kernel can give to one peer only. */
export interface Claim {
  /** Equal for those who claim the same: `VtepMAC 02:… (flannel.1)`. */
  readonly what: string;
  /** For those who do not get it. */
  readonly cause: SkipCause;
  readonly hint: string;
}

/** A device of this host whose link address a peer published before this host did. */
export interface ContestedDevice {
  readonly device: string;
  /** The address it gets once it is in {@link HostFacts.contested}. */
  readonly replacement: MacAddress;
}

/** What one peer adds to the state of the host. */
export interface PeerState {
  readonly state: Partial<DesiredState>;
  /** What it must have alone: where several claim the same, one of them is reached. */
  readonly claims?: readonly Claim[];
  readonly skipped?: SkippedPeer;
  /** What the backend's commands are told of it. */
  readonly input?: PeerInput;
  /** Undefined also where the device has no other address to go on with. */
  readonly contested?: ContestedDevice;
}

/** What the host should look like for one backend. */
export interface BackendState {
  /** Devices and whatever else does not belong to one peer. */
  readonly base: Partial<DesiredState>;
  /** What the backend's commands are told of this host; absent without {@link BackendActions.commands}. */
  readonly ownValues?: CommandValues;
  /** Routes, neighbours and forwarding entries towards one peer whose lease names this backend. */
  readonly peer: (lease: Lease) => PeerState;
}

/** What a host tells its peers about its end of the overlay. */
export type LeaseData = Pick<LeaseAttributes, 'backendData' | 'backendV6Data'>;

/** Lease data of the backends that publish nothing but their type. */
export const NO_LEASE_DATA: LeaseData = { backendData: undefined, backendV6Data: undefined };

/** What is known of a backend whatever its options are. */
export interface BackendFacts {
  /** `Backend.Type` in lower case. */
  readonly type: string;
  /** `BackendType` in leases; empty for those that flannel publishes so, which then look like `udp`. */
  readonly publishedType: string;
  /** Families of the overlay that it carries; none if packets are carried by something outside. */
  readonly families: readonly Family[];
  /**
   * Kind of its device, which has the network address of the host's subnet and answers echoes there; undefined where
   * packets leave through the underlay's device, and only the bridge or the public address can answer.
   */
  readonly deviceKind: LinkSpec['kind'] | undefined;
  /** Names of its devices that outlive the daemon, as flannel gives them; undefined if there are none. */
  readonly deviceNames: RegExp | undefined;
  /** Whether peers know this host by the key in {@link HostFacts.privateKey}. Default false. */
  readonly usesPrivateKey?: boolean;
  /** Whether it carries {@link BackendContext.additional}, in its families. Default true. */
  readonly carriesAdditional?: boolean;
}

/** What a backend with given options does. */
interface BackendActions {
  /** What packets are put into; undefined where they travel as they are. */
  readonly carrier: Carrier | undefined;
  /** Whether {@link HostFacts.isOnLink} decides how, or whether, a peer is reached. */
  readonly asksOnLink: boolean;
  /** What it has run on the host besides, or instead of, what it desires of the kernel; absent if nothing. */
  readonly commands?: HostCommands;
  /**
   * Checks that this host can run it in this network.
   *
   * @throws {@link OverlayError} `ERR_BACKEND_OPTION`, `ERR_BACKEND_HOST`
   */
  check(network: NetworkConfig, underlay: Underlay): void;
  /** MTU for containers, as written to subnet.env. */
  mtu(network: NetworkConfig, underlay: Underlay): number;
  /** @param startupOutput - what the backend's PreStartupCommand has written. */
  leaseData(network: NetworkConfig, host: HostFacts, startupOutput?: string): LeaseData;
  /**
   * The host's state is `base` plus `peer` for each lease that names this backend; the two are apart so that one
   * changed peer among thousands costs one call.
   */
  desired(context: BackendContext): BackendState;
}

/**
 * A strategy that carries packets between hosts, with options that have been checked.
 *
 * @remarks Pure: no I/O, no clock, no chance.
 */
export interface ConfiguredBackend extends BackendFacts, BackendActions {}

/** A strategy that carries packets between hosts. */
export interface Backend extends BackendFacts {
  /** The keys inside `Backend` that it reads, as flannel's documentation spells them. */
  readonly optionKeys: readonly string[];
  /** @throws {@link OverlayError} `ERR_BACKEND_OPTION` */
  parse(options: BackendOptions): ConfiguredBackend;
}

/** Everything that there is to know of one backend; what others know of it, they know from here. */
export interface BackendDefinition<Rules extends OptionRules> extends BackendFacts {
  /** How its keys inside `Backend` are read. */
  readonly rules: Rules;
  readonly configure: (options: OptionValues<Rules>) => BackendActions;
}

/** Makes a backend of its definition: the types of its options follow from their rules. */
export function defineBackend<const Rules extends OptionRules>(definition: BackendDefinition<Rules>): Backend {
  const { rules, configure, ...facts } = definition;
  return {
    ...facts,
    optionKeys: Object.values(rules).map(({ key }) => key),
    parse: (options) => ({ ...facts, ...configure(readBackendOptions(facts.type, options, rules)) }),
  };
}
