import { hostname } from 'node:os';
import { OverlayState, type OverlayResult, onLinkQuestions } from './backend/overlay-state.js';
import { backendFor } from './backend/registry.js';
import type { Backend, HostFacts } from './backend/backend.js';
import type { Clock } from './clock.js';
import type { DaemonOptions } from './config/flags.js';
import type { NetworkConfig } from './config/network-config.js';
import { versionText } from './config/version.js';
import { HostFactsSource } from './daemon/host-facts.js';
import { readHostIdentity } from './daemon/host-identity.js';
import { NetworkSource } from './daemon/network-source.js';
import { PassLoop } from './daemon/pass-loop.js';
import { reasonsNotReady } from './daemon/readiness.js';
import { SkippedPeers } from './daemon/skipped-peers.js';
import { SubnetFile } from './daemon/subnet-file.js';
import { ProblemLog } from './daemon/problem-log.js';
import { describeDaemon } from './daemon/status.js';
import { LingeringBackends } from './daemon/lingering.js';
import { type SavedState, StateDirectory } from './daemon/saved-state.js';
import { inheritedTunnels, storeTunnels } from './daemon/tunnel-store.js';
import { openTunnelFor } from './dataplane/open.js';
import { OverlayError, describeError, isOverlayError } from './errors.js';
import { EtcdStore } from './etcd/store.js';
import { Firewall, type FirewallSpec } from './firewall/firewall.js';
import { type Family, IpAddress } from './ip/address.js';
import type { Prefix } from './ip/prefix.js';
import { doesFit } from './lease/allocator.js';
import { HostAnnouncement } from './lease/host-announcement.js';
import { LeaseKeeper } from './lease/keeper.js';
import type { Lease, LeaseAttributes } from './lease/lease.js';
import { PeerSet } from './lease/peers.js';
import type { LeaseStore, Subscription } from './lease/store.js';
import type { Logger } from './log.js';
import { Netlink } from './netlink/netlink.js';
import type { DesiredState, RouteSpec } from './reconcile/desired.js';
import { NetlinkKernel } from './reconcile/kernel.js';
import { Reconciler } from './reconcile/reconciler.js';
import { ObserveServer } from './observe/server.js';
import type { DaemonStatus, StatusSource } from './observe/status.js';
import { ServiceManager, takeInheritedDescriptors } from './systemd/notify.js';
import { netlinkHostNetwork } from './underlay/host-network.js';
import type { Underlay } from './underlay/underlay.js';
import { UnderlayWatcher } from './underlay/watcher.js';

/** What the process gives its daemon. */
export interface DaemonRuntime {
  readonly log: Logger;
  readonly clock: Clock;
  readonly environment: Record<string, string | undefined>;
  readonly pid: number;
}

/** How long the store may take to answer at start before the last known state is used instead. */
const STORE_GRACE_MS = 1000;

/** How long a change of backend waits for the kernel before the peers are told; they retry anyway. */
const CONVERGE_TIMEOUT_MS = 5000;

/**
 * Leaves the blackhole behind the connected route of the containers' bridge, which has the same destination: with equal
 * metrics one of the two could not be made, or the blackhole would swallow every packet. It is the metric that the
 * kernel recommends for such routes (Documentation/networking/vrf.rst): routing daemons read it as distance 255.
 */
const BLACKHOLE_METRIC = 0xff002000;

const UNSPECIFIED_V4 = IpAddress.parse('0.0.0.0');

/**
 * The daemon: everything it is made of, and the one pass that makes all of it agree.
 *
 * ```
 *  config ──┐                                  ┌─▶ reconciler ─▶ kernel, tunnel
 *  underlay ┼─▶ pass: what should be now? ─────┼─▶ firewall
 *  lease ───┤   (one at a time, level-         ├─▶ keeper.publish
 *  peers ───┘    triggered)                    └─▶ subnet.env, saved state, readiness
 * ```
 *
 * API: {@link start}, {@link stop}. Losing etcd, a device or the lease is a state and never ends the process.
 * Errors: {@link start} throws what an operator has to change first: privileges, files, credentials, the interface.
 */
export class Daemon implements StatusSource {
  private readonly log: ProblemLog;
  private readonly clock: Clock;
  private readonly pid: number;
  private readonly startedAtMs: number;
  private readonly service: ServiceManager;
  private readonly store: LeaseStore;
  private readonly netlink: Netlink;
  private readonly kernel: NetlinkKernel;
  private readonly reconciler: Reconciler;
  private readonly firewall: Firewall;
  private readonly stateDirectory: StateDirectory;
  private readonly overlay = new OverlayState();
  private readonly lingering: LingeringBackends;
  private readonly config: NetworkSource;
  private readonly subnetFile: SubnetFile;
  private readonly skippedPeers: SkippedPeers;
  private readonly passes: PassLoop;
  private readonly announcement: HostAnnouncement;
  private readonly inheritedDevice: string | undefined;
  private facts: HostFactsSource | undefined;
  private underlay: UnderlayWatcher | undefined;
  private underlayFamilies = '';
  private keeper: LeaseKeeper | undefined;
  private peers: PeerSet | undefined;
  private following: Subscription | undefined;
  private server: ObserveServer | undefined;

  private saved: SavedState | undefined;
  private staleDevices: readonly string[] = [];
  private result: OverlayResult | undefined;
  private publishedBackend: string | undefined;
  private lastFirewall = '';
  private problem: string | undefined;

  private isStopping = false;
  private hasToldReady = false;
  private failStart: (error: unknown) => void = () => {};

  /** @throws {@link OverlayError} `ERR_ETCD_ENDPOINT`, `ERR_TLS_FILE`, `ERR_NETLINK` */
  constructor(
    private readonly options: DaemonOptions,
    runtime: DaemonRuntime,
  ) {
    const { clock, environment, pid } = runtime;
    const log = new ProblemLog(runtime.log, () => clock.wallMs());
    this.log = log;
    this.pid = pid;
    this.startedAtMs = clock.wallMs();
    this.clock = clock;
    this.service = new ServiceManager({ environment, pid, clock, logger: log });
    const inherited = inheritedTunnels(takeInheritedDescriptors(environment, pid));
    [this.inheritedDevice] = inherited.keys();
    this.store = new EtcdStore({
      endpoints: options.etcdEndpoints.join(','),
      prefix: options.etcdPrefix,
      caFile: options.etcdCafile,
      certFile: options.etcdCertfile,
      keyFile: options.etcdKeyfile,
      username: options.etcdUsername,
      password: options.etcdPassword,
      log,
      clock,
    });
    this.netlink = Netlink.open({ clock });
    this.kernel = new NetlinkKernel(clock);
    this.reconciler = new Reconciler({
      kernel: this.kernel,
      clock,
      logger: log,
      instance: options.etcdPrefix.replace(/^\/+|\/+$/g, ''),
      tunnels: {
        open: openTunnelFor(options.datapath, log),
        workers: options.udpWorkers,
        disabledOffloads: options.disableOffloads,
        inherited,
      },
      onStatus: () => {
        storeTunnels(this.service, this.reconciler.tunnels);
        this.tellReady();
      },
    });
    this.firewall = new Firewall({ log, clock, resyncMs: options.iptablesResync * 1000 });
    this.stateDirectory = new StateDirectory(options.stateDir, log, (ms, callback) => clock.after(ms, callback));
    this.config = new NetworkSource(`${options.etcdPrefix}/config`, log);
    this.subnetFile = new SubnetFile(options.subnetFile, clock, log);
    this.skippedPeers = new SkippedPeers(log);
    this.passes = new PassLoop(clock, () => this.passAndReport());
    const words = { hostName: hostname(), version: versionText() };
    this.announcement = new HostAnnouncement({ store: this.store, clock, log, ...words });
    this.lingering = new LingeringBackends(clock, () => this.passes.trigger());
  }

  /**
   * Begins to work; resolves once the daemon runs by itself, which may be before etcd has answered.
   *
   * @throws {@link OverlayError} `ERR_ETCD_AUTH`, `ERR_UNDERLAY`, `ERR_SUBNET_FILE`
   */
  async start(): Promise<void> {
    const { healthzIp: ip, healthzPort: port, statusSocket } = this.options;
    this.server = await ObserveServer.start({ ip, port, statusSocket, source: this, log: this.log, clock: this.clock });
    await this.subnetFile.load();
    this.facts = await HostFactsSource.open({
      netlink: this.netlink,
      tunDevice: this.inheritedDevice,
      identity: await readHostIdentity(),
      onRoutesChanged: () => this.passes.trigger(),
    });
    this.saved = await this.stateDirectory.load();
    this.service.status('waiting for etcd');
    if (!(await this.hasStoreAnswered()) && this.saved !== undefined) {
      this.log.warn('etcd does not answer, going on with the last known configuration and peers', {
        count: this.saved.peers.length,
      });
      this.config.take(this.saved.config);
    }
    const failed = new Promise<never>((_resolve, reject) => {
      this.failStart = reject;
    });
    this.following = this.store.followConfig((entry) => {
      if (this.config.take(entry?.text)) this.passes.trigger();
    });
    this.passes.start();
    this.service.startWatchdog(() => !this.isStopping);
    await Promise.race([failed, this.passes.settled()]);
    this.failStart = () => {};
  }

  /**
   * Orderly end: the lease, routes, rules and kernel devices stay, so that a restart finds them; the TUN goes with its
   * descriptors.
   */
  async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    this.service.stopping();
    this.lingering.close();
    this.following?.close();
    this.underlay?.close();
    this.facts?.close();
    await this.passes.close();
    this.peers?.close();
    await this.keeper?.close();
    await this.stateDirectory.flush();
    await this.firewall.close();
    await this.reconciler.close();
    this.kernel.close();
    await this.store.close();
    await this.server?.close();
    this.netlink.close();
    this.service.close();
  }

  /** The daemon's account of itself. */
  status(): DaemonStatus {
    return describeDaemon({
      clock: this.clock,
      pid: this.pid,
      startedAtMs: this.startedAtMs,
      notReadyBecause: this.reasonsNotReady(),
      network: this.config.network,
      rejectedConfig: this.config.rejected,
      keeper: this.keeper,
      underlay: this.underlay?.state.underlay,
      mtu: this.subnetFile.mtu,
      overlay: this.result,
      peers: this.peers?.peers ?? [],
      peerSet: this.peers,
      netlink: this.netlink,
      reconciler: this.reconciler,
      disabledOffloads: this.options.disableOffloads,
      firewall: this.firewall,
      store: this.store,
      subnetFile: this.subnetFile.status,
      dockerHint: this.subnetFile.dockerHint,
      problems: this.log.problems,
    });
  }

  private reasonsNotReady(): readonly string[] {
    return reasonsNotReady({
      hasNetwork: this.config.network !== undefined,
      problem: this.problem,
      isLeaseHeld: this.isLeaseHeld,
      isSubnetFileWritten: this.subnetFile.mtu !== undefined,
      kernel: this.reconciler.status,
      lingeringDevices: this.result?.lingeringDevices ?? [],
      wasReady: this.hasToldReady,
    });
  }

  // Inputs

  /** @throws {@link OverlayError} `ERR_ETCD_AUTH`: no retry can mend wrong credentials. */
  private async hasStoreAnswered(): Promise<boolean> {
    const deadline = new AbortController();
    const answer = this.store.readConfig(deadline.signal).then(
      () => true,
      (error: unknown) => {
        if (isOverlayError(error, 'ERR_ETCD_AUTH')) throw error;
        return false; // told by the store's own log line
      },
    );
    const patience = this.saved === undefined ? undefined : this.clock.sleep(STORE_GRACE_MS).then(() => false);
    try {
      return await (patience === undefined ? answer : Promise.race([answer, patience]));
    } finally {
      deadline.abort(new OverlayError('ERR_STORE_CLOSED', 'the answer is no longer waited for'));
      answer.catch(() => {}); // its outcome was either returned or is no longer waited for
    }
  }

  // The pass

  private async passAndReport(): Promise<'done' | 'retry'> {
    try {
      await this.pass();
      if (this.problem === undefined) return 'done';
      this.problem = undefined;
      this.log.info('works again after an earlier problem');
      this.tellReady();
      return 'done';
    } catch (error) {
      if (isOverlayError(error, 'ERR_UNDERLAY') && this.underlay === undefined) {
        this.failStart(error);
        return 'done';
      }
      const text = describeError(error);
      if (text !== this.problem) this.log.error('cannot carry the overlay as configured', { error });
      this.problem = text;
      return 'retry';
    }
  }

  private async pass(): Promise<void> {
    const {
      facts: source,
      config: { network },
    } = this;
    if (network === undefined || source === undefined) return;
    const { underlay } = (await this.followUnderlay(network)).state;
    const backend = backendFor(network.backendType);
    backend.check(network, network.backendOptions, underlay);
    const peers = this.peers?.peers ?? this.saved?.peers ?? [];
    const facts = await source.refresh({
      underlay,
      onLinkAddresses: onLinkQuestions(peers, (type) => this.config.optionsFor(type)),
    });
    const attributes = attributesFor(backend, network, facts);
    this.keepLease(network, attributes);
    const own = this.ownLease(network, attributes);
    if (own === undefined) return;
    this.peers?.setOwn({ subnets: own, publicIp: attributes.publicIp });

    await this.desire(network, facts, own, this.peers?.peers ?? peers);
    if (this.publishedBackend !== undefined && this.publishedBackend !== network.backendType) {
      // Peers send the new way as soon as they see the lease: receive that way first.
      await this.reconciler.whenConverged(AbortSignal.timeout(CONVERGE_TIMEOUT_MS)).catch(() => {
        this.log.warn('kernel state not complete, publishing the lease all the same', { backend: network.backendType });
      });
    }
    this.publishedBackend = network.backendType;
    this.keeper?.publish(attributes);
    await this.applyFirewall(network, own);
    const mtu = backend.mtu(network, network.backendOptions, underlay);
    await this.subnetFile.update({ network, lease: own, mtu, isMasquerading: this.options.ipMasq });
    const held = this.keeper?.lease;
    if (this.isLeaseHeld && held !== undefined) {
      void this.announcement.announce(held);
      this.stateDirectory.save({ config: this.config.text, own, peers: this.peers?.peers ?? peers });
    }
    this.tellReady();
  }

  private async followUnderlay(network: NetworkConfig): Promise<UnderlayWatcher> {
    const families: Family[] = [];
    if (network.ipv4 !== undefined) families.push(4);
    if (network.ipv6 !== undefined) families.push(6);
    if (this.underlay !== undefined && this.underlayFamilies === families.join()) return this.underlay;
    const { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6 } = this.options;
    const watcher = await UnderlayWatcher.start({
      source: netlinkHostNetwork(this.netlink),
      request: { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6, families },
      clock: this.clock,
      logger: this.log,
      onChange: (state) => {
        if (state.isUsable) this.store.networkChanged();
        this.passes.trigger();
      },
    });
    this.underlay?.close();
    this.underlay = watcher;
    this.underlayFamilies = families.join();
    return watcher;
  }

  private keepLease(network: NetworkConfig, attributes: LeaseAttributes): void {
    if (this.keeper !== undefined) {
      this.keeper.setNetwork(network);
      return;
    }
    const { store, clock, log } = this;
    this.keeper = new LeaseKeeper({
      store,
      clock,
      log,
      network,
      attributes,
      previousSubnets: this.subnetFile.previousSubnets,
      renewMarginMinutes: this.options.subnetLeaseRenewMargin,
    });
    this.keeper.onChange(() => this.passes.trigger());
    this.keeper.start();
    this.peers = new PeerSet({ store, clock, log, own: { subnets: undefined, publicIp: attributes.publicIp } });
    if (this.saved !== undefined) this.peers.seed(this.saved.peers);
    this.peers.onChange(() => this.passes.trigger());
    this.peers.start();
  }

  private get isLeaseHeld(): boolean {
    return this.keeper?.state === 'held' || this.keeper?.state === 'renewing';
  }

  /**
   * The lease that the host works with: the one it has (or, while another is sought, had) in the store; before the
   * store has answered, the saved one of the same host.
   */
  private ownLease(network: NetworkConfig, attributes: LeaseAttributes): Lease | undefined {
    const lease = this.keeper?.lease;
    if (lease !== undefined) return doesFit(network, lease) ? lease : undefined;
    const saved = this.saved?.own;
    const isUsable =
      saved?.attributes.publicIp.equals(attributes.publicIp) === true &&
      doesFit(network, saved) &&
      this.peers?.isSynced !== true;
    return isUsable ? saved : undefined;
  }

  // Outputs

  private async desire(network: NetworkConfig, host: HostFacts, own: Lease, peers: readonly Lease[]): Promise<void> {
    const networks = [network.ipv4?.network, network.ipv6?.network].filter((prefix) => prefix !== undefined);
    if (this.result === undefined) this.staleDevices = (await this.facts?.flannelDevices(networks)) ?? [];
    const result = this.overlay.compute({
      network,
      host,
      own,
      peers,
      optionsFor: (type) => this.config.optionsFor(type),
      lingering: this.lingering.types,
    });
    this.result = result;
    this.lingering.use(result.backends);
    this.skippedPeers.tell(result.skipped);
    const blackholes = this.options.ipBlackholeRoute ? blackholeRoutes(own) : [];
    const state: DesiredState = { ...result.base, routes: [...result.base.routes, ...blackholes] };
    // Routes via peers bear no name: those of the network that this host belonged to before are found by its addresses.
    const scope = [...networks, ...this.subnetFile.previousNetworks];
    this.reconciler.setDesired(state, { scope, staleDevices: this.staleDevices, parts: result.peers });
  }

  private async applyFirewall(network: NetworkConfig, own: Lease): Promise<void> {
    const pairs: readonly (readonly [Prefix | undefined, Prefix | undefined])[] = [
      [network.ipv4?.network, own.subnet],
      [network.ipv6?.network, own.ipv6Subnet],
    ];
    const spec: FirewallSpec = {
      mode: network.useNftables ? 'nftables' : 'iptables',
      networks: pairs.flatMap(([overlay, subnet]) =>
        overlay === undefined || subnet === undefined ? [] : [{ network: overlay, subnet }],
      ),
      previousNetworks: this.subnetFile.previousNetworks,
      ipMasq: this.options.ipMasq,
      forwardRules: this.options.iptablesForwardRules,
      isFullyRandom: !this.options.ipMasqFullyRandomDisable,
    };
    const text = JSON.stringify(spec);
    if (text === this.lastFirewall) return;
    this.lastFirewall = text;
    await this.firewall.apply(spec).catch((error: unknown) => {
      // It looks again by itself; packets go on without the rules meanwhile.
      this.log.error('traffic rules not in place, trying again', { error });
    });
  }

  private tellReady(): void {
    const reasons = this.reasonsNotReady();
    if (reasons.length > 0) {
      this.service.status(reasons.join('; '));
      return;
    }
    const lease = this.keeper?.lease;
    const status = `lease ${lease?.subnet.toString() ?? ''}, ${this.peers?.peers.length ?? 0} peers`;
    if (this.hasToldReady) {
      this.service.status(status);
      return;
    }
    this.hasToldReady = true;
    this.service.ready(status);
    this.log.info('ready', { subnet: lease?.subnet.toString(), backend: this.config.network?.backendType });
  }
}

function attributesFor(backend: Backend, network: NetworkConfig, facts: HostFacts): LeaseAttributes {
  const { publicIp, publicIpv6 }: Underlay = facts.underlay;
  return {
    publicIp: publicIp ?? UNSPECIFIED_V4,
    publicIpv6: network.ipv6 === undefined ? undefined : publicIpv6,
    ...backend.leaseData(network, network.backendOptions, facts),
  };
}

function blackholeRoutes({ subnet, ipv6Subnet }: Lease): RouteSpec[] {
  return [subnet, ipv6Subnet]
    .filter((destination) => destination !== undefined)
    .map((destination) => ({
      destination,
      type: 'blackhole',
      device: undefined,
      gateway: undefined,
      isOnlink: false,
      scope: 'global',
      metric: BLACKHOLE_METRIC,
    }));
}
