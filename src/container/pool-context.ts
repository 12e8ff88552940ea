import type { Clock } from '../clock.js';
import type { IpAddress } from '../ip/address.js';
import type { SharedValueStore } from '../lease/store.js';
import type { Logger } from '../log.js';
import type { AddressCounters, InterfaceRegister, LanProbe } from './addresses.js';
import type { HostLease } from './host-lease.js';

/** What all pools of a host share. */
export interface PoolContext {
  readonly host: string;
  /** Tells this process from any other one that serves a host of that name. */
  readonly instance: string;
  readonly store: SharedValueStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly lease: HostLease;
  readonly probe: LanProbe | undefined;
  readonly register: () => InterfaceRegister | undefined;
  /** After which an address without an interface is taken back by itself. */
  readonly orphanMs: number;
  readonly counters: { -readonly [K in keyof AddressCounters]: AddressCounters[K] };
  /** Whether this host has had a book that is lost: then etcd alone knows what it has given. */
  readonly isBookLost: boolean;
  /** Has all that is so now on disk. */
  save(): Promise<void>;
  /** Renews the etcd lease; those who ask meanwhile get the same answer. */
  renew(): Promise<void>;
  /** An address was to be taken back that an interface in a container has. */
  kept(address: IpAddress): void;
  /** Another process serves a host of the same name. */
  rivalFound(): void;
  /** Something is to be told to etcd soon, or to whoever follows the status. */
  changed(): void;
}
