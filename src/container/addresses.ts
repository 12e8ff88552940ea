import type { Family, IpAddress } from '../ip/address.js';
import type { MacAddress } from '../ip/mac.js';
import type { Prefix } from '../ip/prefix.js';
import type { Subscription } from '../lease/store.js';
import type { PoolId } from './pool-id.js';

/** An address with the length of its subnet. */
export interface InterfaceAddress {
  readonly address: IpAddress;
  readonly length: number;
}

/** Docker's RequestPool. */
export interface PoolRequest {
  /** The subnet; undefined asks for a new one out of `ContainerNetworks` of the network configuration. */
  readonly pool: Prefix | undefined;
  /** The part of the subnet that addresses are given out of by themselves; default all of it. */
  readonly range: Prefix | undefined;
  /** Tells two segments with the same subnet apart; the subnet alone is the identity without it. */
  readonly name: string | undefined;
  readonly family: Family;
}

/** A pool that was given. */
export interface GivenPool {
  readonly id: PoolId;
  readonly subnet: Prefix;
  /** Of containers, unless another one is asked for: the first address of the subnet that a host can have. */
  readonly gateway: InterfaceAddress;
}

/**
 * What an address is for. `gateway` and `auxiliary` are shared by all hosts, and never given to containers; a
 * `container` has its address alone in the cluster.
 */
export type AddressKind = 'gateway' | 'auxiliary' | 'container';

/** Docker's RequestAddress. */
export interface AddressRequest {
  readonly kind: AddressKind;
  /** Undefined: any free one, or the usual gateway. */
  readonly address: IpAddress | undefined;
  /** Of the container's interface, where it has one of its own. */
  readonly mac: MacAddress | undefined;
  /** Whose it is: the name or id of a container. Interfaces without a MAC address of their own are known again by it. */
  readonly owner: string | undefined;
  /** The {@link InterfaceRegister} in which it will turn up soon; absent where nobody sees what becomes of it. */
  readonly register?: string | undefined;
}

/** What a network driver of this host knows of the interfaces of containers. */
export interface InterfaceRegister {
  /** Another one after what was known is lost: then nothing follows from an interface not being there. */
  readonly id: string;
  /**
   * The interface with an address: in its container, or made for one that will come; undefined if there is none.
   *
   * @param mac - of that interface; undefined: any.
   */
  interfaceOf(address: IpAddress, mac: MacAddress | undefined): 'joined' | 'made' | undefined;
  /** The address was given back: an interface that no container has is none any more. */
  forget(address: IpAddress, mac: MacAddress | undefined): Promise<void>;
}

/**
 * What the hosts of a network have to agree on, as names and values for people, such as `type` and `macvlan`, `vlan` and
 * `19`, `gateway` and `10.10.10.1`. At most 32, each at most 256 characters. What may differ by host has no place here.
 */
export type NetworkProperties = Readonly<Record<string, string>>;

/** An address that a container of this host has. */
export interface AddressUse {
  readonly address: IpAddress;
  readonly mac: MacAddress | undefined;
  /** Undefined where the book was lost and etcd alone tells that it is in use. */
  readonly owner: string | undefined;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  /**
   * `confirmed`: nobody else can have it; `unconfirmed`: the lease of this host has run out and etcd has not been asked
   * since; `lost`: another host has it by now.
   */
  readonly state: 'confirmed' | 'unconfirmed' | 'lost';
  /** Since when no interface has it, in milliseconds since the epoch; undefined if one has it, or nobody can tell. */
  readonly abandonedSinceMs: number | undefined;
}

/** An address that a machine on the network was seen with which is no container of ours. */
export interface SeenAddress {
  readonly address: IpAddress;
  readonly mac: MacAddress;
  /** Milliseconds since the epoch. */
  readonly seenAtMs: number;
}

/** How this host stands with one pool. */
export interface PoolStatus {
  readonly id: PoolId;
  readonly subnet: Prefix;
  readonly range: Prefix;
  /** Leased by this host. */
  readonly blocks: readonly Prefix[];
  /** Addresses that can be given now without etcd. */
  readonly free: number;
  readonly uses: readonly AddressUse[];
  readonly shared: readonly { readonly address: IpAddress; readonly kind: 'gateway' | 'auxiliary' }[];
  readonly seen: readonly SeenAddress[];
  /** Released by the engine, and kept only for the addresses that are still in use. */
  readonly isReleased: boolean;
}

/** Numbers that only grow. */
export interface AddressCounters {
  readonly given: number;
  readonly released: number;
  /** Requests that were answered with an error. */
  readonly refused: number;
  readonly blocksLeased: number;
  readonly blocksReturned: number;
  /** Other hosts were asked for an address that they could have given out. */
  readonly asked: number;
  /** Addresses that this host left to another one that asked. */
  readonly yielded: number;
  readonly probes: number;
  /** Addresses found on the network. */
  readonly seen: number;
  /** Uses that another host got after this host's lease had run out. */
  readonly lost: number;
  /** Addresses that were taken back since no container had them. */
  readonly orphaned: number;
}

/** How this host stands with the addresses of containers. */
export interface AddressStatus {
  readonly pools: readonly PoolStatus[];
  /** When, in milliseconds since the epoch, what this host has leased comes free unless etcd is asked before. */
  readonly expiresAtMs: number | undefined;
  /** Whether etcd has confirmed what this host has leased, and its time has not run out since. */
  readonly isConfirmed: boolean;
  readonly counters: AddressCounters;
}

/**
 * Addresses of container networks, each given once in the cluster.
 *
 * @remarks
 * *API.* Calls may be repeated, in any order, after any crash: what was asked for is then the same as before. An answer
 * is on disk before it is given. Nothing takes longer than {@link REQUEST_TIMEOUT_MS}.
 *
 * *Errors.* All calls reject with an {@link OverlayError}: `ERR_ADDRESS_POOL` (what was asked for cannot be),
 * `ERR_ADDRESS_TAKEN`, `ERR_OUT_OF_ADDRESSES`, `ERR_NETWORK_DIFFERS`, `ERR_ADDRESSES_UNCONFIRMED`, `ERR_ADDRESS_BOOK`,
 * and those of the store, where it is needed and does not answer.
 */
export interface ContainerAddresses {
  /** Joins a pool, as the first host or a later one. Needs the store unless this host is in it already. */
  requestPool(request: PoolRequest): Promise<GivenPool>;
  /** Leaves a pool; addresses in use stay until they are released. One that is not known is none to leave. */
  releasePool(id: PoolId): Promise<void>;
  /**
   * Gives an address; one that the same container has already is given again.
   *
   * @param asker - aborted when nobody waits for it any more: what was to be given is taken back.
   */
  requestAddress(id: PoolId, request: AddressRequest, asker?: AbortSignal): Promise<IpAddress>;
  /**
   * Takes an address back, or gives up a shared one; one that is not given is none to take back. One that an interface in
   * a container has stays: an engine gives an address back after the interface, so this is an earlier container's.
   */
  releaseAddress(id: PoolId, address: IpAddress): Promise<void>;
  /**
   * Takes an address back that no container has, for an operator.
   *
   * @param isForced - also if nobody can tell whether a container has it, or something answers for it on the network.
   * @returns why not; undefined if that is done.
   */
  freeAddress(id: PoolId, address: IpAddress, isForced: boolean): Promise<string | undefined>;
  /** Whether this host has given an address to somebody with that MAC address (undefined: to anybody), or shares it. */
  isGiven(address: IpAddress, mac: MacAddress | undefined): boolean;
  /** Takes notice of a change in the {@link InterfaceRegister}. */
  review(): void;
  /**
   * Compares the properties of a network with those that the first host wrote; writes them as the first one.
   *
   * @throws {@link OverlayError} `ERR_NETWORK_DIFFERS` with both values, while another host is in the network.
   */
  agree(id: PoolId, properties: NetworkProperties): Promise<void>;
  status(): AddressStatus;
  /** Calls back after every change of what {@link status} tells, apart from counters. */
  onChange(callback: () => void): Subscription;
}

/** Every call is answered by then: Docker itself would wait for ever, and its users give up after 10 s. */
export const REQUEST_TIMEOUT_MS = 8000;

/**
 * Asks the network of a pool whether a machine has an address already.
 *
 * @returns its MAC address, undefined if nobody answers within half a second, or if nobody is to be asked.
 * @throws {@link OverlayError} `ERR_LAN_PROBE` if it could not be asked.
 */
export type LanProbe = (pool: PoolId, address: IpAddress) => Promise<MacAddress | undefined>;
