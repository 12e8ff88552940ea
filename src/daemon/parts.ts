import type { Clock } from '../clock.js';
import type { CommandRunnerOptions } from '../extension/command-runner.js';
import type { RuleKeeper } from '../firewall/firewall.js';
import type { IpAddress } from '../ip/address.js';
import type { OwnLeaseStore, ValueStore, WorldStore } from '../lease/store.js';
import type { DeviceCounters } from '../netlink/device-counters.js';
import type { Refusals } from '../observe/refusals.js';
import type { StatusSource } from '../observe/status.js';
import type { OpenEchoPort } from '../reach/echo-socket.js';
import type { Prefix } from '../ip/prefix.js';
import type { FormerValues } from '../reconcile/former-values.js';
import type { Kernel } from '../reconcile/kernel.js';
import type { TunnelSettings } from '../reconcile/tunnels.js';
import type { SecretFiles } from '../sys/secret-file.js';
import type { TextFiles } from '../sys/text-files.js';
import type { ServiceManager } from '../systemd/notify.js';
import type { HostNetlink } from '../underlay/host-network.js';
import type { ContainerReachParts } from './container-reach.js';
import type { OpenContainerNetworks } from './container-networks.js';
import type { NdpProxy } from './ndp/ndp-proxy.js';
import type { MachineIdentity } from './machine.js';
import type { ProblemLog } from './problem-log.js';

/** What answers questions about the daemon. */
export interface Observer {
  readonly refused: Refusals;
  close(): Promise<void>;
}

/** Everything through which a daemon touches the world; with other parts a whole daemon runs without one. */
export interface DaemonParts {
  readonly log: ProblemLog;
  /** The only time and chance that the daemon has. */
  readonly clock: Clock;
  readonly pid: number;
  readonly hostName: string;
  /** Stays the same on this host over reboots and differs between hosts. */
  readonly hostIdentity: string;
  readonly machine: MachineIdentity;
  readonly store: WorldStore & OwnLeaseStore & ValueStore;
  /** Where the store is now: addresses that the overlay must never take. */
  readonly storeAddresses: () => Promise<readonly IpAddress[]>;
  /** The host's own devices, addresses and routes, which the daemon only reads. */
  readonly netlink: HostNetlink;
  /** What the overlay consists of, which the daemon makes. */
  readonly kernel: Kernel;
  /** What parameters of the kernel were before the overlay changed them; default in memory. */
  readonly formerValues?: FormerValues;
  readonly tunnels: TunnelSettings;
  readonly firewall: RuleKeeper;
  /** Runs what a backend has commands for. */
  readonly programs: Pick<CommandRunnerOptions, 'run' | 'environment'>;
  /** What peers are probed through. */
  readonly openEchoPort: OpenEchoPort;
  /** Where subnet file and saved state lie. */
  readonly files: TextFiles;
  /** Where the private key lies that peers know this host by. */
  readonly privateKeyFile: string;
  readonly secretFiles: SecretFiles;
  readonly service: ServiceManager;
  /** Serves networks of containers; absent where the operator has not switched them on. */
  readonly openContainerNetworks?: OpenContainerNetworks;
  /** Answers on the uplink for containers on bridges; absent where the operator has not switched it on. */
  readonly openNdpProxy?: (leased: () => Prefix | undefined) => Pick<NdpProxy, 'start' | 'stop' | 'review' | 'status'>;
  /** Follows containers on other hosts; absent where the operator has not switched networks of containers on. */
  readonly containerReach?: ContainerReachParts;
  readonly deviceCounters: () => ReadonlyMap<string, DeviceCounters>;
  /** Begins to answer questions about the daemon; without it nobody can ask. */
  readonly observe?: (source: StatusSource) => Promise<Observer>;
}
