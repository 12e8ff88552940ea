import type { SkipCause } from '../backend/backend.js';
import type { RefusalReason } from '../container/reach-admission.js';

/** How this host stands with containers of routed networks on other hosts. */
export interface ContainerReachStatus {
  /** Prefixes that packets are sent to: as the real network carries them, or through the overlay. */
  readonly routed: { readonly direct: number; readonly overlay: number };
  /** Prefixes that are not sent to, since the peer, or they, cannot be reached; by peer, as many as are listed. */
  readonly skipped: readonly SkippedPrefixesStatus[];
  /** How many there are in all, by cause. */
  readonly skippedByCause: Readonly<Record<SkipCause, number>>;
  /** Prefixes of hosts of which nobody knows where they are. */
  readonly unplaced: readonly { readonly host: string; readonly prefixes: number; readonly detail: string }[];
  readonly unplacedPrefixes: number;
  /** What hosts tell and is not believed, as much as is listed. */
  readonly refused: readonly { readonly what: string; readonly reason: RefusalReason; readonly detail: string }[];
  /** How much there is in all, by reason. */
  readonly refusedByReason: Readonly<Record<RefusalReason, number>>;
}

/** Containers behind one peer that are not reached. */
export interface SkippedPrefixesStatus {
  /** Subnet of the peer. */
  readonly peer: string;
  readonly publicIp: string;
  readonly prefixes: readonly string[];
  readonly cause: SkipCause;
  readonly reason: string;
  readonly hint: string;
}
