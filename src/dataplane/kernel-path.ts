/** What the programs count; the names of `KernelCounter` in `native/core/kernel_path/layout.h`, where each is explained. */
export const KERNEL_COUNTERS = [
  'sent',
  'send-not-plain',
  'send-probe',
  'send-no-route',
  'send-no-peer',
  'send-ttl',
  'send-unprotected',
  'send-oversize',
  'send-bulk',
  'send-refused',
  'send-failed',
  'received',
  'receive-not-plain',
  'receive-tunnel',
  'receive-length',
  'receive-source',
  'receive-ttl',
  'receive-refused',
  'receive-failed',
  'receive-other-host',
] as const;

/** One of {@link KERNEL_COUNTERS}. */
export type KernelCounter = (typeof KERNEL_COUNTERS)[number];

/** Inner packets and their bytes; a super-packet counts as those it stands for. */
export interface KernelTraffic {
  readonly packets: number;
  readonly bytes: number;
}

/** Totals of the programs by what became of packets. */
export type KernelCounters = Readonly<Record<KernelCounter, KernelTraffic>>;

/** What takes datagrams off the uplink: in the driver, before GRO; or after it. */
export const KERNEL_RECEIVERS = ['xdp', 'tc'] as const;

/** One of {@link KERNEL_RECEIVERS}. */
export type KernelReceiver = (typeof KERNEL_RECEIVERS)[number];

/**
 * Why the kernel carries nothing:
 *
 * - `programs-missing`: they were not compiled for this installation
 * - `not-permitted`: the kernel refuses this process to load or attach programs
 * - `kernel`: it refuses the programs themselves, or what they need
 * - `driver`: the uplink's driver takes no program, and the kernel has no other place for it
 * - `foreign-program`: somebody else's program has that place
 * - `uplink-kind`: the uplink is no device on which datagrams arrive as they were sent
 * - `gro`: the uplink cannot merge what it receives
 */
export const KERNEL_PATH_REASONS = [
  'programs-missing',
  'not-permitted',
  'kernel',
  'driver',
  'foreign-program',
  'uplink-kind',
  'gro',
] as const;

/** One of {@link KERNEL_PATH_REASONS}. */
export type KernelPathReason = (typeof KERNEL_PATH_REASONS)[number];

/** Why the kernel carries nothing, for a person. */
export interface KernelPathRefusal {
  readonly reason: KernelPathReason;
  /** What was found. */
  readonly detail: string;
  /** What would enable it, as an imperative sentence without a full stop. */
  readonly hint: string;
}

/** Whether the kernel carries packets beside a tunnel. */
export type KernelPathState =
  | { readonly isActive: true; readonly receiver: KernelReceiver }
  | ({
      readonly isActive: false;
      /** Whether it was asked for by name, and not only used where it can be had. */
      readonly isDemanded: boolean;
    } & KernelPathRefusal);

/** The kernel path of a tunnel, as it is now. */
export interface KernelPath {
  /** Undefined until it is known. */
  readonly state: KernelPathState | undefined;
  /** Since the programs were attached, by whichever process; undefined while they are not. */
  counters(): KernelCounters | undefined;
  /** Descriptors for the service manager's store; another object whenever they are others. */
  readonly descriptors: KernelPathDescriptors;
}

/** What the kernel path lives by: it goes with the last copy of them. */
export interface KernelPathDescriptors {
  readonly maps: readonly number[];
  readonly links: readonly number[];
}
