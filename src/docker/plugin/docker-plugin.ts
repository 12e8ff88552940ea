import { access } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '../../clock.js';
import { CoalescingTask } from '../../coalescing-task.js';
import type { ContainerAddresses, InterfaceRegister } from '../../container/addresses.js';
import type { PoolId } from '../../container/pool-id.js';
import { Deadline } from '../../deadline.js';
import type { ContainerFirewall, ContainerFirewallStatus } from '../../firewall/containers/container-firewall.js';
import { guarded } from '../../guard.js';
import type { Family } from '../../ip/address.js';
import type { Logger } from '../../log.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { NetlinkEvent } from '../../netlink/monitor.js';
import type { FormerValues } from '../../reconcile/former-values.js';
import type { Kernel } from '../../reconcile/kernel.js';
import { ALIAS_PREFIX } from '../../reconcile/ownership.js';
import { mergeStates } from '../../reconcile/desired.js';
import { Reconciler } from '../../reconcile/reconciler.js';
import type { ReconcilerStatus } from '../../reconcile/status.js';
import { NO_TUNNELS } from '../../reconcile/tunnels.js';
import type { TextFiles } from '../../sys/text-files.js';
import { type AnnouncementPort, Announcer, type AnnouncerStatistics } from './announcer.js';
import { CallCounters, type CallStatistics } from './call-counters.js';
import { EndpointRegister } from './endpoint-register.js';
import { HostLinks, type PluginNetlink } from './host-links.js';
import { hostState } from './host-state.js';
import { pluginInstances } from './instances.js';
import { InternalParents } from './internal-parents.js';
import { IPAM_NAMES, type IpamName, ipamDriver } from './ipam-driver.js';
import type { PluginInterface } from './method.js';
import { type ContainerNetwork, type Endpoint, isLayer3, isLinkName, linkNameOf } from './network.js';
import { networkDriver } from './network-driver.js';
import { PoolClaims } from './pool-claims.js';
import { localPortRange } from './ports/local-port-range.js';
import { loopbackState } from './ports/loopback.js';
import { type HoldPort, holdPort } from './ports/port-holder.js';
import { PublishedPorts, publishedBy } from './ports/published-ports.js';
import { type ClusterFacts, ruleInput } from './ports/rule-input.js';
import { ProxyAnnouncer, proxyScope } from './proxied-endpoints.js';
import { PLUGIN_SOCKET, PluginServer } from './server.js';
import { PluginState } from './state.js';

/** Addresses and devices change in bursts. */
const FOLLOW_MS = 50;

/** Hosts of a large cluster come and go in bursts, and the rules are written whole. */
const CLUSTER_MS = 1000;

/** A device is there within some ms of being desired. */
const SETTLE_MS = 2000;

/** The daemon knows of the cluster once it has made its first pass, without etcd by what it has saved. */
const CLUSTER_KNOWN_MS = 2000;

/**
 * Docker asks for an interface before it makes the namespace that this will be in (libnetwork `sandbox.go`, `SetKey()`,
 * from a hook of runc). By then it has, or never will.
 */
const UNDER_WAY_MS = 60_000;

/** What a {@link DockerPlugin} is made of. */
export interface DockerPluginParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly addresses: ContainerAddresses;
  readonly netlink: PluginNetlink;
  /** For what the reconciler keeps; stays the caller's to close. */
  readonly kernel: Kernel;
  /** What parameters of the kernel were before they were changed for networks; default in memory. */
  readonly formerValues?: FormerValues;
  readonly files: TextFiles;
  readonly announcementPort: AnnouncementPort;
  /** Where the networks are kept. */
  readonly directory: string;
  /** Names this daemon among those on the host, as in the alias of its devices. */
  readonly instance: string;
  /** Stays the same on this host and differs between hosts. */
  readonly hostIdentity: string;
  /** The interface that the daemon itself uses. */
  readonly defaultParent: () => string | undefined;
  /** Bytes of the largest packet that the overlay carries; undefined while nobody knows. */
  readonly overlayMtu: () => number | undefined;
  /** Families in which it carries networks of containers; undefined while nobody knows. */
  readonly overlayFamilies: () => readonly Family[] | undefined;
  readonly firewall: Pick<ContainerFirewall, 'apply' | 'status' | 'close'>;
  /** Undefined until something is known of it, from etcd or of what was saved; then {@link DockerPlugin.noteCluster}. */
  readonly cluster: () => ClusterFacts | undefined;
  /** For tests; default a socket of this host. */
  readonly holdPort?: HoldPort;
  /** Default where Docker looks. */
  readonly socket?: string;
  /** Listening sockets that systemd opened: in place of that one, and of the one beside it for {@link IPAM_NAMES | noMac}. */
  readonly inherited?: readonly number[];
}

/** The plugin's account of itself. */
export interface DockerPluginStatus {
  /** Where it listens. */
  readonly socket: string;
  readonly networks: readonly ContainerNetwork[];
  readonly endpoints: readonly Endpoint[];
  readonly calls: CallStatistics;
  readonly announcements: AnnouncerStatistics;
  /** Ports of this host that lead to containers. */
  readonly ports: number;
  readonly firewall: ContainerFirewallStatus;
  /** Of what lies on the host for its access to containers. */
  readonly kernel: ReconcilerStatus;
}

/**
 * Docker's network and IPAM driver.
 *
 * ```
 *  Docker ─sockets─▶ PluginServers ─┬▶ ipam drivers ───▶ ContainerAddresses (etcd, disk)
 *                                   └▶ network driver ─┬▶ PluginState (disk)
 *                                                      ├▶ netlink: the interface of a container
 *                                                      ├▶ Announcer: to the network and other containers
 *                                                      └▶ Reconciler: shims, routes, filters of the host
 * ```
 *
 * API: {@link start}, {@link stop}; {@link status}; {@link probeParentOf} and {@link register} for those who give addresses.
 * Threads: none.
 * Errors: {@link start} throws what an operator has to change; a call's error is its answer.
 */
export class DockerPlugin {
  private readonly state: PluginState;
  private readonly claims: PoolClaims;
  private readonly endpoints: EndpointRegister;
  private readonly server: PluginServer;
  /** Undefined where systemd, of an installation of before, opens no socket for it. */
  private readonly noMacServer: PluginServer | undefined;
  private readonly announcer: Announcer;
  private readonly ports: PublishedPorts;
  private readonly proxies: ProxyAnnouncer;
  private readonly internal: InternalParents;
  private readonly reconciler: Reconciler;
  private readonly following: CoalescingTask;
  /** Alias of what the reconciler makes. */
  private readonly hostMark: string;
  /** Alias of interfaces for containers. */
  private readonly mark: string;
  private isLoaded = false;
  /** Whether the rules have been made with something known of the cluster. */
  private isClusterFollowed = false;
  private overlayMtu: number | undefined;
  private cancelSecondLook = (): void => {};
  /** Resolves once something is known of the cluster, or has not become so in time. */
  private readonly clusterKnown: Promise<void>;
  private endClusterWait = (): void => {};
  private cancelClusterWait = (): void => {};
  private monitor: { close(): void } | undefined;

  constructor(private readonly parts: DockerPluginParts) {
    const { addresses, clock, directory, files, instance, kernel, log, netlink, announcementPort: port } = parts;
    const { host: own, container } = pluginInstances(instance);
    this.hostMark = `${ALIAS_PREFIX}${own}`;
    this.mark = `${ALIAS_PREFIX}${container}`;
    this.state = new PluginState({ directory, files });
    this.claims = new PoolClaims(this.state, addresses);
    this.endpoints = new EndpointRegister(this.state, log);
    this.internal = new InternalParents(netlink);
    this.reconciler = new Reconciler({
      kernel,
      clock,
      logger: log,
      instance: own,
      tunnels: NO_TUNNELS,
      ...(parts.formerValues && { formerValues: parts.formerValues }),
    });
    this.following = new CoalescingTask(clock, () => this.follow());
    this.announcer = new Announcer({ clock, log, port });
    this.ports = new PublishedPorts({ log, hold: parts.holdPort ?? holdPort, range: () => localPortRange(files) });
    this.proxies = new ProxyAnnouncer(port, log, clock);
    this.clusterKnown = new Promise((resolve) => (this.endClusterWait = resolve));
    const { claims, ports, state, mark } = this;
    const network = networkDriver({
      addresses,
      claims,
      state,
      netlink,
      links: new HostLinks(netlink, this.hostMark, parts.defaultParent),
      mark,
      log,
      onJoin: (endpoint, devices) => this.announcer.announce(endpoint, devices),
      onLeave: (endpointId) => this.announcer.cancel(endpointId),
      onChange: () => {
        this.following.schedule(0);
        addresses.review();
      },
      ports,
      filtered: async () => {
        await this.clusterKnown; // rules without the other hosts keep these out, and let containers reach other networks
        await this.filter(await netlink.links.list());
      },
      settled: () => this.settled(),
      overlayFamilies: parts.overlayFamilies,
      failureOf: (device) => this.reconciler.status.failures.find((each) => each.device === device)?.error,
    });
    const { socket = PLUGIN_SOCKET, inherited } = parts;
    const ipam = (name: IpamName): PluginInterface => ipamDriver({ name, addresses, claims, register: this.endpoints });
    const common = { counters: new CallCounters(clock), clock, log };
    this.server = new PluginServer({
      ...common,
      interfaces: [network, ipam(IPAM_NAMES.mac)],
      onActivate: () => void this.endpoints.noteStart().then(() => addresses.review()),
      socket,
      inherited: inherited?.[0],
    });
    if (inherited?.length === 1) return;
    this.noMacServer = new PluginServer({
      ...common,
      interfaces: [ipam(IPAM_NAMES.noMac)],
      socket: path.join(path.dirname(socket), `${IPAM_NAMES.noMac}.sock`),
      inherited: inherited?.[1],
    });
  }

  /**
   * Takes up what an earlier process left, and begins to answer.
   *
   * @throws {@link OverlayError} `ERR_PLUGIN_STATE`, `ERR_PLUGIN_SOCKET`, `ERR_NETLINK`
   */
  async start(): Promise<void> {
    const { clock, log: logger, netlink } = this.parts;
    await this.state.load();
    const present = new Set((await netlink.links.list()).map(({ name }) => name));
    await this.forgetGoneSandboxes(({ id }) => present.has(linkNameOf(id)));
    await this.removeLeftovers(() => false);
    const known = new Set(this.state.contents.endpoints.map(({ id }) => id));
    this.cancelSecondLook = clock.after(UNDER_WAY_MS, () => void this.lookAgain(({ id }) => !known.has(id)));
    this.isLoaded = true;
    this.parts.addresses.review();
    const onEvent = guarded({ clock, logger, what: 'devices and addresses for containers' }, (event: NetlinkEvent) => {
      if (event.type === 'resync' || event.type === 'address' || event.type === 'link') {
        this.following.schedule(FOLLOW_MS);
      }
    });
    this.monitor = netlink.subscribe(['link', 'address'], onEvent);
    await this.following.runNow();
    if (this.isClusterFollowed) this.endClusterWait();
    else this.cancelClusterWait = clock.after(CLUSTER_KNOWN_MS, this.endClusterWait);
    await this.server.start();
    await this.noMacServer?.start();
  }

  /** Answers what was asked; networks, and what lies on the host for them, stay. Idempotent. */
  async stop(): Promise<void> {
    this.cancelSecondLook();
    this.cancelClusterWait();
    this.endClusterWait();
    await Promise.all([this.server.close(), this.noMacServer?.close()]);
    this.announcer.close();
    this.monitor?.close();
    await this.following.close();
    await this.reconciler.close();
    await this.parts.firewall.close();
    this.ports.close();
  }

  status(): DockerPluginStatus {
    const { networks, endpoints } = this.state.contents;
    return {
      socket: this.server.place,
      networks,
      endpoints,
      calls: this.server.statistics,
      announcements: this.announcer.statistics,
      ports: publishedBy(endpoints).length,
      firewall: this.parts.firewall.status(),
      kernel: this.reconciler.status,
    };
  }

  /** Takes notice of what the overlay carries now. */
  review(): void {
    if (this.isLoaded && this.parts.overlayMtu() !== this.overlayMtu) this.following.schedule(0);
  }

  /** Hosts or networks have come or gone: the rules name them. */
  noteCluster(): void {
    this.endClusterWait();
    if (this.isLoaded) this.following.schedule(this.isClusterFollowed ? CLUSTER_MS : 0);
  }

  /** Which interfaces there are; undefined until what an earlier process left was taken up. */
  get register(): InterfaceRegister | undefined {
    return this.isLoaded ? this.endpoints : undefined;
  }

  /** The device on which an address of the pool is to be looked for; undefined where it is not to be. */
  probeParentOf(pool: PoolId): string | undefined {
    const networks = this.state.contents.networks.filter(({ subnets }) => subnets.some((each) => each.pool === pool));
    const isWanted = networks.every((network) => network.isProbed && !isLayer3(network));
    return isWanted ? networks.find(({ isInternal }) => !isInternal)?.parent : undefined;
  }

  /** Has the host look as it should for the present networks and containers. */
  private async follow(): Promise<void> {
    const { defaultParent, hostIdentity: identity, log, netlink } = this.parts;
    this.overlayMtu = this.parts.overlayMtu();
    try {
      const [links, addresses] = [await netlink.links.list(), await netlink.addresses.list()];
      const { contents } = this.state;
      const { overlayMtu, hostMark: mark } = this;
      const facts = { links, addresses, defaultParent: defaultParent(), overlayMtu, identity, mark };
      this.ports.keep(contents.endpoints);
      this.isClusterFollowed = this.parts.cluster() !== undefined;
      await this.filter(links, !this.isClusterFollowed).catch(() => {}); // told, and tried again, by the firewall
      const isFiltered = this.parts.firewall.status().isInPlace;
      const desired = mergeStates([hostState(contents, facts, this.internal), loopbackState(contents, isFiltered)]);
      // Without a scope: its routes lie on its devices, and those to other hosts are the daemon's.
      this.reconciler.setDesired(desired, { proxyScope: proxyScope(contents) });
      this.proxies.follow(desired.proxyNeighbours, links);
    } catch (error) {
      log.warn('devices and addresses of the host could not be listed, trying again', { error });
      this.following.schedule(1000);
    }
  }

  /** Has the rules of this host be those of the present networks and ports. */
  private async filter(links: readonly LinkInfo[], isProvisional = false): Promise<void> {
    const { cluster, firewall } = this.parts;
    const facts = cluster() ?? { overlay: [], routed: [], hosts: [] };
    await firewall.apply(ruleInput(this.state.contents, links, facts), { isProvisional });
  }

  /** Resolves when the host looks as it should, or does not get there in time. */
  private async settled(): Promise<void> {
    const deadline = new Deadline(this.parts.clock, SETTLE_MS);
    await this.following.runNow();
    await this.reconciler.whenConverged(deadline.signal).catch(() => {}); // what is missing, whoever needs it will say
    deadline.clear();
  }

  /** After the host was started anew the containers of before are gone, whatever Docker will still say of them. */
  private async forgetGoneSandboxes(isUnderWay: (endpoint: Endpoint) => boolean): Promise<void> {
    const gone = new Set<string>();
    for (const endpoint of this.state.contents.endpoints) {
      const { sandbox } = endpoint;
      if (sandbox === undefined || isUnderWay(endpoint)) continue;
      const isThere = await access(sandbox).then(
        () => true,
        () => false,
      );
      if (!isThere) gone.add(sandbox);
    }
    await this.state.change((before) => {
      if (gone.size === 0) return before;
      const endpoints = before.endpoints.map((each) =>
        each.sandbox !== undefined && gone.has(each.sandbox) ? { ...each, sandbox: undefined } : each,
      );
      return { ...before, endpoints };
    });
  }

  /** What was taken to be under way at the start has had its time; what came since then may be under way now. */
  private async lookAgain(isSince: (endpoint: Endpoint) => boolean): Promise<void> {
    try {
      await this.forgetGoneSandboxes(isSince);
      await this.removeLeftovers(isSince);
      this.following.schedule(0);
      this.parts.addresses.review();
    } catch (error) {
      this.parts.log.warn('interfaces that no container took were not removed', { error });
    }
  }

  /** Interfaces that a crash left on their way into, or back from, a container. */
  private async removeLeftovers(isUnderWay: (endpoint: Endpoint) => boolean): Promise<void> {
    const { log, netlink } = this.parts;
    const links = await netlink.links.list();
    const joined = this.state.contents.endpoints.filter((each) => each.sandbox !== undefined || isUnderWay(each));
    const wanted = new Set(joined.map(({ id }) => linkNameOf(id)));
    for (const link of links) {
      if (link.alias !== this.mark || !isLinkName(link.name) || wanted.has(link.name)) continue;
      netlink.links.del(link);
      log.info('removed an interface that no container took', { dev: link.name });
    }
  }
}
