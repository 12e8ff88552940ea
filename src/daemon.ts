import { OverlayState, type OverlayResult, onLinkQuestions } from './backend/overlay-state.js';
import type { ConfiguredBackend, ContestedDevice, HostFacts } from './backend/backend.js';
import type { Clock } from './clock.js';
import { type DaemonOptions, formerStateDirectory } from './config/flags.js';
import type { NetworkConfig } from './config/network-config.js';
import { versionText } from './config/version.js';
import { Footing } from './daemon/footing.js';
import { HostFactsSource } from './daemon/host-facts.js';
import { NetworkSource } from './daemon/network-source.js';
import { PassLoop } from './daemon/pass-loop.js';
import { isReadyForOthers, reasonsNotReady } from './daemon/readiness.js';
import { SkippedPeers } from './daemon/skipped-peers.js';
import { SubnetFile } from './daemon/subnet-file.js';
import { DockerWatch } from './daemon/docker-watch.js';
import type { DaemonParts, Observer } from './daemon/parts.js';
import { describeDaemon, describeTraffic } from './daemon/status.js';
import { AdmissionSource } from './daemon/admission-source.js';
import { BACKEND_LINGER_MS, Lingering } from './daemon/lingering.js';
import type { Here } from './daemon/saved-origin.js';
import { StateDirectory, type StateToSave } from './daemon/saved-state.js';
import { storeTunnels } from './daemon/tunnel-store.js';
import { OverlayError, describeError, isOverlayError } from './errors.js';
import type { FirewallSpec } from './firewall/firewall.js';
import { guarded } from './guard.js';
import { type Family, IpAddress } from './ip/address.js';
import { Prefix } from './ip/prefix.js';
import { type AdmissionContext, networksOf } from './lease/admission.js';
import { doesFit } from './lease/allocator.js';
import { ASIDE_MS } from './lease/decide.js';
import { HostAnnouncement } from './lease/host-announcement.js';
import { HostNames } from './lease/host-names.js';
import { LeaseKeeper } from './lease/keeper.js';
import type { Lease, LeaseAttributes } from './lease/lease.js';
import { PeerSet } from './lease/peers.js';
import type { Subscription } from './lease/store.js';
import { type World, newestMark } from './lease/world.js';
import { PeerProber } from './reach/peer-prober.js';
import { type DesiredState, EMPTY_STATE, type RouteSpec } from './reconcile/desired.js';
import { instanceOf } from './reconcile/ownership.js';
import { Reconciler } from './reconcile/reconciler.js';
import { History, type HistorySource } from './observe/history.js';
import { noRefusals } from './observe/refusals.js';
import type { DaemonStatus, HistoryEntry, StatusSource } from './observe/status.js';
import { netlinkHostNetwork } from './underlay/host-network.js';
import type { Underlay } from './underlay/underlay.js';
import { UnderlayWatcher } from './underlay/watcher.js';

/**
 * How long the store may take to answer at start before the saved state is used instead: subnet.env is to be there
 * within two seconds of the start, and on a machine that boots, Node takes most of them.
 */
const STORE_GRACE_MS = 500;

/** How long the end of the start waits, at most, for the world of a store that has answered, and how often it looks. */
const FIRST_WORLD_MS = 5000;
const FIRST_WORLD_STEP_MS = 5;

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
  private readonly log: DaemonParts['log'];
  private readonly clock: Clock;
  private readonly startedAtMs: number;
  private readonly reconciler: Reconciler;
  private readonly stateDirectory: StateDirectory;
  private readonly overlay = new OverlayState();
  private readonly lingering: Lingering;
  /** Networks that peers and containers may still use after the configuration was changed. */
  private readonly formerNetworks: Lingering;
  private readonly admission: AdmissionSource;
  private readonly config: NetworkSource;
  private readonly subnetFile: SubnetFile;
  private readonly dockerWatch: DockerWatch;
  private readonly skippedPeers: SkippedPeers;
  private readonly passes: PassLoop;
  private readonly announcement: HostAnnouncement;
  private readonly prober: PeerProber | undefined;
  private facts: HostFactsSource | undefined;
  private underlay: UnderlayWatcher | undefined;
  private underlayFamilies = '';
  private keeper: LeaseKeeper | undefined;
  private peers: PeerSet | undefined;
  private following: Subscription | undefined;
  private storeHealth: Subscription | undefined;
  private world: World | undefined;
  private server: Observer | undefined;
  private traffic: History | undefined;
  private readonly hostNames: HostNames;

  private readonly footing: Footing;
  private staleDevices: readonly string[] = [];
  private result: OverlayResult | undefined;
  private publishedBackend: string | undefined;
  /** Epoch and revision of the lease that was saved last. */
  private savedLease: string | undefined;
  private lastFirewall = '';
  private problem: string | undefined;

  private isStopping = false;
  private hasToldReady = false;
  private hasToldService = false;
  /** Ends {@link start} with an error, as long as it has not ended. */
  private failStart: ((error: unknown) => void) | undefined;

  /** @param parts - the daemon's from now on: {@link stop} closes them. */
  constructor(
    private readonly options: DaemonOptions,
    private readonly parts: DaemonParts,
  ) {
    const { clock, files, log, service, store } = parts;
    this.log = log;
    this.clock = clock;
    this.startedAtMs = clock.wallMs();
    this.reconciler = new Reconciler({
      kernel: parts.kernel,
      clock,
      logger: log,
      instance: instanceOf(options.etcdPrefix),
      tunnels: parts.tunnels,
      onStatus: () => {
        storeTunnels(service, this.reconciler.tunnels);
        this.tellReady();
      },
    });
    const { stateDir: directory } = options;
    this.stateDirectory = new StateDirectory({ directory, former: formerStateDirectory(directory), log, clock, files });
    this.footing = new Footing(log);
    this.config = new NetworkSource(`${options.etcdPrefix}/config`, log);
    this.subnetFile = new SubnetFile(options.subnetFile, clock, log, files);
    this.dockerWatch = new DockerWatch(this.subnetFile, clock, parts.netlink);
    this.skippedPeers = new SkippedPeers(log, clock);
    this.passes = new PassLoop(clock, () => this.passAndReport());
    this.announcement = new HostAnnouncement({ store, clock, log, hostName: parts.hostName, version: versionText() });
    const { peerProbeInterval } = options;
    if (peerProbeInterval > 0) {
      const { openEchoPort: openPort } = parts;
      this.prober = new PeerProber({ clock, log, openPort, intervalMs: peerProbeInterval * 1000 });
    }
    this.hostNames = new HostNames(store, clock, log);
    this.lingering = new Lingering(clock, BACKEND_LINGER_MS, () => this.passes.trigger());
    this.formerNetworks = new Lingering(clock, ASIDE_MS, () => this.passes.trigger());
    this.admission = new AdmissionSource(parts.netlink);
  }

  /**
   * Begins to work; resolves once the daemon runs by itself, which may be before etcd has answered.
   *
   * @throws {@link OverlayError} `ERR_ETCD_AUTH`, `ERR_UNDERLAY`, `ERR_SUBNET_FILE`
   */
  async start(): Promise<void> {
    const { hostIdentity: identity, netlink, observe, service, store, tunnels } = this.parts;
    this.server = await observe?.(this);
    if (this.server !== undefined) this.traffic = new History(this.clock, () => this.currentTraffic(), this.log);
    await this.subnetFile.load();
    this.footing.take(await this.stateDirectory.load(), this.here());
    const { claim } = this.footing;
    this.facts = await HostFactsSource.open({
      netlink,
      identity,
      tunDevices: [...(tunnels.inherited?.keys() ?? [])],
      published: claim?.attributes,
      onRoutesChanged: () => this.passes.trigger(),
    });
    service.status('waiting for etcd');
    const { clock, log: logger } = this;
    const learn = guarded({ clock, logger, what: 'the addresses of etcd' }, () => this.learnStoreAddresses());
    learn(); // not waited for: without a name server, looking for a name takes longer than carrying packets may wait
    const hasAnswered = await this.hasStoreAnswered();
    if (!hasAnswered && this.canGoOnWithoutStore()) this.takeConfig(this.footing.config);
    const failed = new Promise<never>((_resolve, reject) => {
      this.failStart = reject;
    });
    this.following = store.followWorld((world) => this.takeWorld(world), this.footing.mark);
    this.storeHealth = store.onHealth(({ isConnected }) => {
      if (!isConnected) return;
      learn();
      this.keeper?.retryNow();
    });
    this.passes.start();
    service.startWatchdog(() => !this.isStopping);
    if (hasAnswered) await Promise.race([failed, this.firstWorld()]);
    await Promise.race([failed, this.passes.settled()]);
    this.failStart = undefined;
  }

  /**
   * Orderly end: the lease, routes, rules and kernel devices stay, so that a restart finds them; the TUN goes with its
   * descriptors.
   */
  async stop(): Promise<void> {
    if (this.isStopping) return;
    this.isStopping = true;
    const { firewall, kernel, netlink, service, store } = this.parts;
    service.stopping();
    this.dockerWatch.close();
    this.lingering.close();
    this.formerNetworks.close();
    this.following?.close();
    this.storeHealth?.close();
    this.underlay?.close();
    this.facts?.close();
    await this.passes.close();
    this.prober?.close();
    this.peers?.close();
    this.skippedPeers.close();
    await this.keeper?.close();
    await this.stateDirectory.close();
    await firewall.close();
    await this.reconciler.close();
    kernel.close();
    await store.close();
    this.traffic?.close();
    await this.server?.close();
    netlink.close();
    service.close();
  }

  /** The daemon's account of itself. */
  status(): DaemonStatus {
    const { deviceCounters, firewall, hostName, netlink, pid, store } = this.parts;
    return describeDaemon({
      clock: this.clock,
      pid,
      hostName,
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
      prober: this.prober,
      netlink,
      deviceCounters,
      reconciler: this.reconciler,
      disabledOffloads: this.options.disableOffloads,
      firewall,
      store,
      subnetFile: this.subnetFile.status,
      savedState: this.footing.status,
      dockerHint: this.subnetFile.pendingRestart?.hint,
      problems: this.log.problems,
      hostNames: this.hostNames,
      refused: this.server?.refused ?? noRefusals(),
    });
  }

  /** Traffic of the last hour, as long as somebody can ask for it. */
  history(): readonly HistoryEntry[] {
    return this.traffic?.entries ?? [];
  }

  /** Has the names of the other hosts read, for the next look. */
  noteLook(): void {
    const peers = this.peers?.peers ?? [];
    void this.hostNames.refresh(new Set(peers.map(({ attributes }) => attributes.publicIp.toString())));
  }

  private currentTraffic(): HistorySource {
    const { deviceCounters, netlink, store } = this.parts;
    const { reconciler, result: overlay } = this;
    const { disableOffloads: disabledOffloads } = this.options;
    return describeTraffic({ overlay, netlink, deviceCounters, reconciler, disabledOffloads, store });
  }

  private reasonsNotReady(): readonly string[] {
    return reasonsNotReady({
      hasNetwork: this.config.network !== undefined,
      problem: this.problem,
      isLeaseHeld: this.isLeaseHeld,
      savedUse: this.footing.useNow,
      isLeasePublished: this.keeper?.isPublished ?? false,
      isSubnetFileWritten: this.subnetFile.mtu !== undefined,
      kernel: this.reconciler.status,
      lingeringDevices: this.result?.lingeringDevices ?? [],
      wasReady: this.hasToldService,
    });
  }

  // Inputs

  /** @throws {@link OverlayError} `ERR_ETCD_AUTH`: no retry can fix wrong credentials. */
  private async hasStoreAnswered(): Promise<boolean> {
    const deadline = new AbortController();
    const answer = this.parts.store.readConfig(deadline.signal).then(
      () => true,
      (error: unknown) => {
        if (isOverlayError(error, 'ERR_ETCD_AUTH')) throw error;
        return false; // told by the store's own log line
      },
    );
    let cancel = (): void => {};
    const patience = new Promise<false>((resolve) => {
      cancel = this.clock.after(STORE_GRACE_MS, () => {
        if (this.canGoOnWithoutStore()) resolve(false);
      });
    });
    try {
      return await Promise.race([answer, patience]);
    } finally {
      cancel();
      deadline.abort(new OverlayError('ERR_STORE_CLOSED', 'the answer is no longer waited for'));
      answer.catch(() => {}); // its outcome was either returned or is no longer waited for
    }
  }

  /** Resolves with the first world, or when a store that has just answered no longer does. */
  private async firstWorld(): Promise<void> {
    const untilMs = this.clock.monotonicMs() + FIRST_WORLD_MS;
    while (this.world === undefined && !this.isStopping && this.clock.monotonicMs() < untilMs) {
      await this.clock.sleep(FIRST_WORLD_STEP_MS);
    }
  }

  private canGoOnWithoutStore(): boolean {
    const canGoOn = this.footing.useInstead();
    if (!canGoOn) this.parts.service.status('waiting for etcd, without a saved state to go on with');
    return canGoOn;
  }

  private takeWorld(world: World): void {
    this.world = world;
    this.takeConfig(world.config?.text);
    this.peers?.observe(world);
    this.tellKeeper();
  }

  private takeConfig(text: string | undefined): void {
    const isNew = this.config.take(text, (network) => {
      this.admission.assertSafe(network, this.underlay?.state.underlay);
    });
    if (isNew) this.passes.trigger();
  }

  /** The keeper learns of the peers that may come back for their subnets before it may choose one. */
  private tellKeeper(): void {
    if (this.keeper === undefined || this.peers === undefined || this.world === undefined) return;
    this.keeper.setAvoid(this.peers.kept.map(({ subnet }) => subnet));
    this.keeper.observe(this.world);
  }

  /** Where etcd is may change with names and with the way to it. */
  private async learnStoreAddresses(): Promise<void> {
    this.admission.setStore(await this.parts.storeAddresses());
    this.passes.trigger();
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
      // After a reboot, and before etcd was heard of, the network may not be up yet.
      const isFinal = this.underlay === undefined && this.world !== undefined;
      if (isOverlayError(error, 'ERR_UNDERLAY') && isFinal && this.failStart !== undefined) {
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
      config: { carried },
    } = this;
    if (carried === undefined || source === undefined) return;
    const { network, backend } = carried;
    const { underlay } = (await this.followUnderlay(network)).state;
    this.admission.assertSafe(network, underlay);
    backend.check(network, underlay);
    await this.admission.refresh(underlay);
    const peers = this.peers?.peers ?? this.footing.peers;
    const facts = await source.refresh({
      underlay,
      onLinkAddresses: onLinkQuestions(peers, (type) => this.config.backendFor(type)),
    });
    const attributes = attributesFor(backend, network, facts);
    this.keepLease(network, attributes, this.admissionContext(network, underlay, attributes));
    const own = this.ownLease(network, attributes);
    if (own === undefined) {
      // A lease that is still sought has to name the host as it is now: by its address the keeper knows its own.
      this.keeper?.publish(attributes);
      const isTaken = this.world !== undefined && this.footing.isTaken(this.world, attributes.publicIp);
      if (isTaken) this.desireNothing(network);
      this.tellReady();
      return;
    }
    if (this.isLeaseHeld && this.keeper?.lease !== undefined) this.footing.confirm(this.keeper.lease);
    if (this.footing.useNow === 'subnet') this.desireNothing(network);
    else await this.desire(network, facts, own, this.peers?.peers ?? peers);
    if (this.publishedBackend !== undefined && this.publishedBackend !== network.backendType) {
      // Peers send the new way as soon as they see the lease: receive that way first.
      await this.waitForKernel(network);
    }
    this.publishedBackend = network.backendType;
    this.keeper?.publish(attributes);
    await this.applyFirewall(network, own);
    const mtu = backend.mtu(network, underlay);
    await this.subnetFile.update({ network, lease: own, mtu, isMasquerading: this.options.ipMasq });
    this.dockerWatch.start();
    const held = this.keeper?.lease;
    if (this.isLeaseHeld && held !== undefined) {
      void this.announcement.announce(held);
      this.stateDirectory.save(() => this.stateToSave());
      // The successor of a process that is killed must know its lease, else it takes it for a stranger's at another
      // address; and the history, else it keeps peers that were given up in this one.
      const written = `${this.world?.epoch ?? 0} ${own.revision}`;
      if (written !== this.savedLease) void this.stateDirectory.flush();
      this.savedLease = written;
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
      source: netlinkHostNetwork(this.parts.netlink),
      request: { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6, families },
      clock: this.clock,
      logger: this.log,
      onChange: (state) => {
        if (state.isUsable) this.parts.store.networkChanged();
        this.passes.trigger();
      },
    });
    this.underlay?.close();
    this.underlay = watcher;
    this.underlayFamilies = families.join();
    return watcher;
  }

  private admissionContext(
    network: NetworkConfig,
    underlay: Underlay,
    { publicIp }: LeaseAttributes,
  ): AdmissionContext {
    this.formerNetworks.use(networksOf(network).map((prefix) => prefix.toString()));
    const networks = this.formerNetworks.names.map((text) => Prefix.parse(text));
    return this.admission.context({
      network,
      networks,
      underlay,
      publicIp,
      own: this.keeper?.lease ?? this.footing.claim,
    });
  }

  private keepLease(network: NetworkConfig, attributes: LeaseAttributes, context: AdmissionContext): void {
    if (this.keeper !== undefined) {
      this.keeper.setNetwork(network);
      this.peers?.setContext(context);
      return;
    }
    const {
      clock,
      log,
      parts: { store },
    } = this;
    this.keeper = new LeaseKeeper({
      store,
      clock,
      log,
      network,
      attributes,
      previousSubnets: { ...this.footing.subnets, ...this.subnetFile.previousSubnets },
      former: this.footing.former,
      renewMarginMinutes: this.options.subnetLeaseRenewMargin,
    });
    this.keeper.onChange(() => this.passes.trigger());
    this.peers = new PeerSet({ clock, log, context });
    this.peers.seed(this.footing.peers);
    this.peers.onChange(() => this.passes.trigger());
    if (this.world !== undefined) this.peers.observe(this.world);
    this.tellKeeper();
    this.keeper.start();
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
    return this.peers?.isSynced === true ? undefined : this.footing.standIn(network, attributes.publicIp);
  }

  private here(): Here {
    return { ...this.parts.machine, etcdPrefix: `/${instanceOf(this.options.etcdPrefix)}`, nowMs: this.clock.wallMs() };
  }

  /** What a start without the store would go on with; undefined while no lease is held. */
  private stateToSave(): StateToSave | undefined {
    const { clock, keeper, peers, world } = this;
    const own = keeper?.lease;
    if (keeper?.heldSinceMs === undefined || own === undefined || peers === undefined) return undefined;
    const { expiresAtMs: endMs } = keeper;
    const { nowMs: savedAtMs, ...where } = this.here();
    const expiresAtMs = endMs === undefined ? undefined : Math.round(savedAtMs + endMs - clock.monotonicMs());
    const origin = { ...where, savedAtMs, expiresAtMs };
    return { config: this.config.text, own, origin, peers: peers.peers, mark: world && newestMark(world) };
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
      backendFor: (type) => this.config.backendFor(type),
      lingering: this.lingering.names,
    });
    this.result = result;
    this.lingering.use(result.backends);
    this.skippedPeers.tell(result.skipped);
    for (const each of result.contested) this.giveUpMac(each);
    this.prober?.follow({ network, host, own, peers, skipped: result.skipped });
    const blackholes = this.options.ipBlackholeRoute ? blackholeRoutes(own) : [];
    const state: DesiredState = { ...result.base, routes: [...result.base.routes, ...blackholes] };
    // Routes via peers have no name: those of the network that this host belonged to before are found by its addresses.
    const scope = [...networks, ...this.subnetFile.previousNetworks];
    this.reconciler.setDesired(state, { scope, staleDevices: this.staleDevices, parts: result.peers });
  }

  private giveUpMac({ device, replacement }: ContestedDevice): void {
    this.facts?.giveUp(device);
    this.log.warn('another host had the MAC address of this device first, taking another one', {
      dev: device,
      vtepMac: replacement,
    });
    this.passes.trigger();
  }

  /** Takes the overlay off this host, so that nothing has addresses that are another host's. */
  private desireNothing({ ipv4, ipv6 }: NetworkConfig): void {
    this.result = undefined;
    const scope = [ipv4?.network, ipv6?.network].filter((prefix) => prefix !== undefined);
    this.reconciler.setDesired(EMPTY_STATE, { scope });
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
    await this.parts.firewall.apply(spec).catch((error: unknown) => {
      // It looks again by itself; packets go on without the rules meanwhile.
      this.log.error('traffic rules not in place, trying again', { error });
    });
  }

  /** The clock holds on to the deadline: a timer that only a signal refers to may be collected before it fires. */
  private async waitForKernel({ backendType }: NetworkConfig): Promise<void> {
    const deadline = new AbortController();
    const cancel = this.clock.after(CONVERGE_TIMEOUT_MS, () => deadline.abort());
    try {
      await this.reconciler.whenConverged(deadline.signal);
    } catch {
      this.log.warn('kernel state not complete, publishing the lease all the same', { backend: backendType });
    } finally {
      cancel();
    }
  }

  private tellReady(): void {
    const { service } = this.parts;
    const reasons = this.reasonsNotReady();
    const lease = this.keeper?.lease;
    const status =
      reasons.join('; ') || `lease ${lease?.subnet.toString() ?? ''}, ${this.peers?.peers.length ?? 0} peers`;
    if (this.hasToldService || !isReadyForOthers(reasons)) {
      service.status(status);
    } else {
      this.hasToldService = true;
      service.ready(status);
    }
    if (this.hasToldReady || reasons.length > 0) return;
    this.hasToldReady = true;
    this.noteLook(); // so that the first look has the names already
    this.log.info('ready', { subnet: lease?.subnet.toString(), backend: this.config.network?.backendType });
  }
}

function attributesFor(backend: ConfiguredBackend, network: NetworkConfig, facts: HostFacts): LeaseAttributes {
  const { publicIp, publicIpv6 }: Underlay = facts.underlay;
  return {
    publicIp: publicIp ?? UNSPECIFIED_V4,
    publicIpv6: network.ipv6 === undefined ? undefined : publicIpv6,
    backendType: backend.publishedType,
    ...backend.leaseData(network, facts),
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
      metric: BLACKHOLE_METRIC,
    }));
}
