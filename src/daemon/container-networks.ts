import path from 'node:path';
import { type Clock, backoffMs } from '../clock.js';
import { AddressPools } from '../container/address-pools.js';
import type { LanProbe } from '../container/addresses.js';
import type { HostPlace } from '../container/host-place.js';
import { probeLan } from '../container/probe-lan.js';
import type { ContainerRange } from '../config/network-config.js';
import { openAnnouncementPort } from '../docker/plugin/announcement-port.js';
import { DockerPlugin } from '../docker/plugin/docker-plugin.js';
import type { Family } from '../ip/address.js';
import type { Prefix } from '../ip/prefix.js';
import type { SharedValueStore } from '../lease/store.js';
import type { World } from '../lease/world.js';
import type { Logger } from '../log.js';
import type { Netlink } from '../netlink/netlink.js';
import { ContainerFirewall } from '../firewall/containers/container-firewall.js';
import type { Lease } from '../lease/lease.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';
import type { FormerValues } from '../reconcile/former-values.js';
import type { Kernel } from '../reconcile/kernel.js';
import type { TextFiles } from '../sys/text-files.js';
import { clusterFacts } from './cluster-facts.js';
import type { ReachNeighbourhood } from './container-reach.js';
import { describeContainerNetworks } from './container-status.js';

/** What networks of containers have to know of the daemon, now. */
export interface ContainerHost {
  /** Where networks without a subnet get theirs from. */
  readonly range: (family: Family) => ContainerRange | undefined;
  /** The networks of the overlay, which networks of containers must not overlap. */
  readonly overlay: () => readonly Prefix[];
  /** The device of the underlay. */
  readonly defaultParent: () => string | undefined;
  /** Bytes of the largest packet that the overlay carries; undefined while nobody knows. */
  readonly overlayMtu: () => number | undefined;
  /** Families in which the overlay carries networks of containers; undefined while nobody knows. */
  readonly overlayFamilies: () => readonly Family[] | undefined;
  /** Leases of the other hosts. */
  readonly peers: () => readonly Lease[];
  /** What is known of containers on them; undefined until something is. */
  readonly neighbourhood: () => ReachNeighbourhood | undefined;
  /** Where this host is, for those that send to its containers; undefined until it has a lease. */
  readonly place: () => HostPlace | undefined;
}

/** Networks of containers on this host, while they are served. */
export interface ContainerNetworks {
  status(): ContainerNetworksStatus;
  /** Takes what the store says now. */
  observe(world: World): void;
  /** Takes notice of what the overlay carries now. */
  review(): void;
  /** Takes notice of {@link ContainerHost.neighbourhood} being another one. */
  noteNeighbourhood(): void;
  /** Takes notice of {@link ContainerHost.place} being another one. */
  moved(): void;
  /** Networks, addresses and what lies on the host for them stay. */
  close(): Promise<void>;
}

/**
 * Begins to serve them.
 *
 * @throws {@link OverlayError} `ERR_PLUGIN_STATE`, `ERR_PLUGIN_SOCKET`, `ERR_NETLINK`
 */
export type OpenContainerNetworks = (host: ContainerHost) => Promise<ContainerNetworks>;

const RETRY_BASE_MS = 1000;
const RETRY_CAP_MS = 60_000;

/**
 * Networks of containers as a part of a daemon that has more to do: while they cannot be served, the overlay goes on.
 *
 * API: {@link start}, {@link observe}, {@link close}. What is in the way is told once, and it is tried again with growing delays.
 */
export class ContainerService {
  readonly #options: { readonly clock: Clock; readonly log: Logger; readonly open: OpenContainerNetworks };
  #served: ContainerNetworks | undefined;
  #world: World | undefined;
  #opening: Promise<void> = Promise.resolve();
  #cancelRetry = (): void => {};
  #isClosed = false;

  constructor(options: { readonly clock: Clock; readonly log: Logger; readonly open: OpenContainerNetworks }) {
    this.#options = options;
  }

  /** Resolves after the first attempt. */
  async start(host: ContainerHost, attempt = 0): Promise<void> {
    const { clock, log, open } = this.#options;
    const opening = open(host).then(
      async (served) => {
        if (this.#isClosed) return served.close();
        this.#served = served;
        if (this.#world !== undefined) served.observe(this.#world);
        if (attempt > 0) log.info('networks of containers are served now');
      },
      (error: unknown) => {
        if (attempt === 0) log.error('networks of containers are not served, trying again', { error });
        if (this.#isClosed) return;
        const delayMs = backoffMs(attempt + 1, RETRY_BASE_MS, RETRY_CAP_MS, () => clock.random());
        this.#cancelRetry = clock.after(delayMs, () => void this.start(host, attempt + 1));
      },
    );
    this.#opening = opening;
    await opening;
  }

  /** Undefined while they are not served. */
  status(): ContainerNetworksStatus | undefined {
    return this.#served?.status();
  }

  /** Takes what the store says now, also for networks that are served only later. */
  observe(world: World): void {
    this.#world = world;
    this.#served?.observe(world);
  }

  /** The overlay may carry larger or smaller packets than before. */
  review(): void {
    this.#served?.review();
  }

  /** Takes notice of {@link ContainerHost.neighbourhood} being another one. */
  noteNeighbourhood(): void {
    this.#served?.noteNeighbourhood();
  }

  /** Takes notice of {@link ContainerHost.place} being another one. */
  moved(): void {
    this.#served?.moved();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelRetry();
    await this.#opening;
    await this.#served?.close();
    this.#served = undefined;
  }
}

/** What networks of containers are made of. */
export interface ContainerNetworksParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly store: SharedValueStore;
  readonly netlink: Netlink;
  /** A kernel of their own, which is closed with them. */
  readonly openKernel: () => Kernel;
  readonly formerValues: FormerValues;
  readonly files: TextFiles;
  readonly stateDirectory: string;
  readonly etcdPrefix: string;
  readonly instance: string;
  /** Stands for this host in etcd, whatever its name and addresses are. */
  readonly host: string;
  /** For people. */
  readonly hostName: string;
  /** After which addresses of a host that is away come free. */
  readonly ttlSeconds: number;
  /** Time between two looks at rules of the packet filter. */
  readonly resyncMs: number;
  /** The listening sockets that systemd has opened, in the order of its unit; undefined: the plugin makes its own. */
  readonly inheritedSockets: readonly number[] | undefined;
}

/**
 * Serves networks of containers: Docker's plugin over the addresses of the cluster.
 *
 * @throws {@link OverlayError} `ERR_PLUGIN_STATE`, `ERR_PLUGIN_SOCKET`, `ERR_NETLINK`
 */
export async function openContainerNetworks(
  parts: ContainerNetworksParts,
  { range, overlay, defaultParent, overlayMtu, overlayFamilies, peers, neighbourhood, place }: ContainerHost,
): Promise<ContainerNetworks> {
  const { clock, log, store, netlink, files, stateDirectory: directory, host, instance } = parts;
  // Which device an address is asked for on is known to the plugin, which in turn gives out the addresses.
  const known: { plugin?: DockerPlugin } = {};
  const probe: LanProbe = async (pool, address) => {
    const device = known.plugin?.probeParentOf(pool);
    return device === undefined ? undefined : probeLan(device, address, clock);
  };
  const addresses = await AddressPools.open({
    host,
    hostName: parts.hostName,
    etcdPrefix: parts.etcdPrefix,
    store,
    clock,
    log,
    files,
    file: path.join(directory, 'container-addresses.json'),
    probe,
    register: () => known.plugin?.register,
    range,
    overlay,
    place,
    ttlSeconds: parts.ttlSeconds,
  });
  const kernel = parts.openKernel();
  const plugin = new DockerPlugin({
    clock,
    log,
    addresses,
    netlink,
    kernel,
    formerValues: parts.formerValues,
    files,
    announcementPort: openAnnouncementPort(netlink.links),
    directory,
    instance,
    hostIdentity: host,
    defaultParent,
    overlayMtu,
    overlayFamilies,
    firewall: new ContainerFirewall({ log, clock, instance, resyncMs: parts.resyncMs }),
    cluster: () => {
      const around = neighbourhood();
      return around && clusterFacts(overlay(), peers(), around);
    },
    ...(parts.inheritedSockets === undefined ? {} : { inherited: parts.inheritedSockets }),
  });
  known.plugin = plugin;
  try {
    await plugin.start();
  } catch (error) {
    await plugin.stop();
    await addresses.close();
    kernel.close();
    throw error;
  }
  return {
    status: () => describeContainerNetworks(host, plugin.status(), addresses.status()),
    observe: (world) => addresses.observe(world),
    review: () => plugin.review(),
    noteNeighbourhood: () => plugin.noteCluster(),
    moved: () => addresses.moved(),
    async close() {
      await plugin.stop();
      await addresses.close();
      kernel.close();
    },
  };
}
