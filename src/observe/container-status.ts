import type { AddressCounters, AddressUse } from '../container/addresses.js';

/** Networks of containers with addresses of their own, on this host; see {@link DaemonStatus} for the kinds of values. */
export interface ContainerNetworksStatus {
  /** What stands for this host in etcd. */
  readonly host: string;
  /** Where Docker asks the plugin. */
  readonly socket: string;
  readonly networks: readonly ContainerNetworkStatus[];
  readonly pools: readonly AddressPoolStatus[];
  /** Whether etcd has confirmed which addresses this host may give, and its time has not run out since. */
  readonly isConfirmed: boolean;
  /** When what this host has comes free unless etcd is asked before. */
  readonly expiresAt: string | null;
  /** What Docker asked, by method. */
  readonly calls: Readonly<Record<string, PluginCallStatus>>;
  readonly addresses: AddressCounters;
  /** Interfaces of containers whose addresses were announced, and those whose addresses could not be. */
  readonly announcements: { readonly announced: number; readonly failed: number };
  /** The rules of routed networks in the packet filter. */
  readonly firewall: ContainerFirewallSummary;
  /** What is not on this host as it should be, one sentence each. */
  readonly problems: readonly string[];
}

/** Whether the rules of routed networks are there. */
export interface ContainerFirewallSummary {
  /** Family and name, as for `nft list table`. */
  readonly table: string;
  readonly isInPlace: boolean;
  /** How often something had to be repaired since the start, by kind. */
  readonly repaired: Readonly<Record<string, number>>;
  readonly lastError: string | null;
}

/** A network that Docker has made with the network driver, or tsflannelctl where there is no Docker. */
export interface ContainerNetworkStatus {
  /** Docker's; that of a network without Docker ends in `.made` or `.attach`. */
  readonly id: string;
  readonly type: string;
  /** Empty where the type has none. */
  readonly mode: string;
  /** Device of the host that its interfaces lie on, or are ports of. */
  readonly parent: string;
  /** Id of the VLAN that the parent is a sub-interface for. */
  readonly vlan: number | null;
  readonly subnets: readonly string[];
  /** Ids of the pools that its addresses come from. */
  readonly pools: readonly string[];
  /** Where containers send what leads out. */
  readonly gateways: readonly string[];
  /** What else containers are told; null: it is on their link. */
  readonly routes: readonly { readonly destination: string; readonly gateway: string | null }[];
  readonly isInternal: boolean;
  readonly hasHostAccess: boolean;
  /** Interfaces of containers in it. */
  readonly endpoints: readonly EndpointStatus[];
}

/** An interface of a container. */
export interface EndpointStatus {
  /** Docker's. */
  readonly id: string;
  readonly mac: string;
  readonly addresses: readonly string[];
  /** Whether it is in a container that runs. */
  readonly isJoined: boolean;
  /** Ports of this host that lead to it, as `80/tcp -> 0.0.0.0:8080`. */
  readonly ports: readonly string[];
}

/** Addresses of one subnet, as this host has them. */
export interface AddressPoolStatus {
  readonly id: string;
  /** What the cluster knows the network by: the name that was given, or else the subnet. */
  readonly network: string;
  readonly subnet: string;
  readonly range: string;
  /** Leased by this host. */
  readonly blocks: readonly string[];
  /** Addresses that can be given without etcd. */
  readonly free: number;
  readonly uses: readonly AddressUseStatus[];
  /** Gateway and auxiliary addresses. */
  readonly shared: readonly string[];
  /** Addresses that are no container's and that a machine on the network has. */
  readonly seen: readonly { readonly address: string; readonly mac: string; readonly seenAt: string }[];
}

/** An address that a container of this host has. */
export interface AddressUseStatus {
  readonly address: string;
  readonly mac: string | null;
  /** Name or id of the container, as far as Docker told it. */
  readonly owner: string | null;
  readonly since: string;
  readonly state: AddressUse['state'];
  /** Since when no container has it, where that can be told. */
  readonly abandonedSince: string | null;
}

/** What one method of the plugin was asked. */
export interface PluginCallStatus {
  readonly calls: number;
  readonly errors: number;
  /** Of all calls together. */
  readonly totalSeconds: number;
  readonly maxSeconds: number;
}
