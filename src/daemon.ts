import { additionalFamilies } from './backend/families.js';
import type { Clock } from './clock.js';
import { type DaemonOptions, formerStateDirectory } from './config/flags.js';
import { Footing } from './daemon/footing.js';
import { HostFactsSource } from './daemon/host-facts.js';
import { Membership } from './daemon/membership.js';
import { NetworkSource } from './daemon/network-source.js';
import { Pass } from './daemon/pass.js';
import { PrivateKeyFile } from './daemon/private-key.js';
import { WireguardSamples } from './daemon/wireguard-samples.js';
import { PassLoop } from './daemon/pass-loop.js';
import { isReadyForOthers, reasonsNotReady } from './daemon/readiness.js';
import { SubnetFile } from './daemon/subnet-file.js';
import { assertCommandsAllowed } from './daemon/allowed-commands.js';
import { DockerWatch } from './daemon/docker-watch.js';
import type { DaemonParts, Observer } from './daemon/parts.js';
import { describeDaemon, describeTraffic } from './daemon/status.js';
import { AdmissionSource } from './daemon/admission-source.js';
import { ContainerReach } from './daemon/container-reach.js';
import { ContainerService } from './daemon/container-networks.js';
import type { Here } from './daemon/saved-origin.js';
import { StateDirectory } from './daemon/saved-state.js';
import { storeTunnels } from './daemon/tunnel-store.js';
import { OverlayError, describeError, isOverlayError } from './errors.js';
import { BackendCommands } from './extension/backend-commands.js';
import { layoutKeys } from './etcd/endpoints.js';
import { guarded } from './guard.js';
import { HostNames } from './lease/host-names.js';
import type { Subscription } from './lease/store.js';
import type { World } from './lease/world.js';
import { PeerProber } from './reach/peer-prober.js';
import { instanceOf } from './reconcile/ownership.js';
import { Reconciler } from './reconcile/reconciler.js';
import { History, type HistorySource } from './observe/history.js';
import { noRefusals } from './observe/refusals.js';
import type { DaemonStatus, HistoryEntry, StatusSource } from './observe/status.js';
import type { Steps } from './pace.js';

/**
 * How long the store may take to answer at start before the saved state is used instead: subnet.env is to be there
 * within two seconds of the start, and on a machine that boots, Node takes most of them.
 */
const STORE_GRACE_MS = 500;

/** How long the end of the start waits, at most, for the world of a store that has answered, and how often it looks. */
const FIRST_WORLD_MS = 5000;
const FIRST_WORLD_STEP_MS = 5;

/**
 * The daemon: what it is made of, in which order that starts and stops, and what it tells. What it does all the time is
 * the {@link Pass}.
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
  private readonly admission: AdmissionSource;
  private readonly config: NetworkSource;
  private readonly subnetFile: SubnetFile;
  private readonly dockerWatch: DockerWatch;
  private readonly passes: PassLoop;
  private readonly prober: PeerProber | undefined;
  private readonly commands: BackendCommands;
  private facts: HostFactsSource | undefined;
  private readonly membership: Membership;
  private pass: Pass | undefined;
  private following: Subscription | undefined;
  private storeHealth: Subscription | undefined;
  private server: Observer | undefined;
  private traffic: History | undefined;
  private readonly hostNames: HostNames;
  private readonly containers: ContainerService | undefined;
  private readonly ndpProxy: ReturnType<NonNullable<DaemonParts['openNdpProxy']>> | undefined;
  private readonly containerReach: ContainerReach | undefined;
  private readonly privateKey: PrivateKeyFile;
  private readonly wireguard: WireguardSamples;

  private readonly footing: Footing;
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
    const { clock, files, kernel, log, service, store } = parts;
    this.log = log;
    this.clock = clock;
    this.startedAtMs = clock.wallMs();
    this.reconciler = new Reconciler({
      kernel,
      clock,
      logger: log,
      instance: instanceOf(options.etcdPrefix),
      tunnels: {
        ...parts.tunnels,
        onKernelPath: () => {
          storeTunnels(service, this.reconciler.tunnels);
          this.passes.trigger();
        },
      },
      ...(parts.formerValues && { formerValues: parts.formerValues }),
      onStatus: () => {
        storeTunnels(service, this.reconciler.tunnels);
        this.tellReady();
      },
    });
    const { stateDir: directory } = options;
    this.stateDirectory = new StateDirectory({ directory, former: formerStateDirectory(directory), log, clock, files });
    this.footing = new Footing(log);
    this.membership = new Membership({
      store,
      clock,
      log,
      footing: this.footing,
      renewMarginMinutes: options.subnetLeaseRenewMargin,
      onChange: () => this.passes.trigger(),
    });
    this.config = new NetworkSource(layoutKeys(options.etcdPrefix).config, log);
    this.subnetFile = new SubnetFile(options.subnetFile, clock, log, files);
    this.dockerWatch = new DockerWatch(this.subnetFile, clock, parts.netlink);
    this.passes = new PassLoop(clock, () => this.passAndReport());
    const { peerProbeInterval } = options;
    if (peerProbeInterval > 0) {
      const { openEchoPort: openPort } = parts;
      this.prober = new PeerProber({ clock, log, openPort, intervalMs: peerProbeInterval * 1000 });
    }
    this.commands = new BackendCommands({ ...parts.programs, clock, log, onChange: () => this.passes.trigger() });
    this.hostNames = new HostNames(store, clock, log);
    const { openContainerNetworks: open, containerReach } = parts;
    if (open !== undefined) this.containers = new ContainerService({ clock, log, open });
    this.ndpProxy = parts.openNdpProxy?.(() => this.membership.keeper?.lease?.ipv6Subnet);
    if (containerReach !== undefined) {
      const onReach = (): void => this.passes.trigger();
      this.containerReach = new ContainerReach({ parts: containerReach, clock, log, onChange: onReach });
    }
    this.admission = new AdmissionSource(parts.netlink);
    const { privateKeyFile: file, secretFiles } = parts;
    const onChange = (): void => this.passes.trigger();
    this.privateKey = new PrivateKeyFile({ file, files: secretFiles, clock, log, onChange });
    this.wireguard = new WireguardSamples(kernel, clock, this.privateKey);
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
      privateKey: this.privateKey,
      onRoutesChanged: () => this.passes.trigger(),
    });
    await this.containers?.start({
      range: (family) => this.config.network?.containerNetworks[family === 4 ? 'ipv4' : 'ipv6'],
      overlay: () => [this.config.network?.ipv4, this.config.network?.ipv6].flatMap((each) => each?.network ?? []),
      defaultParent: () => this.pass?.underlay?.device,
      overlayMtu: () => this.subnetFile.containerMtu,
      overlayFamilies: () => {
        const { carried } = this.config;
        return carried && additionalFamilies(carried.backend, carried.network);
      },
      peers: () => this.membership.peers,
      neighbourhood: () => this.containerReach?.neighbourhood,
      place: () => this.pass?.place,
    });
    await this.ndpProxy?.start();
    await this.containerReach?.start();
    this.pass = new Pass({
      options: this.options,
      parts: this.parts,
      facts: this.facts,
      config: this.config,
      admission: this.admission,
      footing: this.footing,
      membership: this.membership,
      reconciler: this.reconciler,
      prober: this.prober,
      commands: this.commands,
      subnetFile: this.subnetFile,
      dockerWatch: this.dockerWatch,
      stateDirectory: this.stateDirectory,
      wireguard: this.wireguard,
      containerReach: this.containerReach,
      onPlace: () => this.containers?.moved(),
      onNeighbourhood: () => this.containers?.noteNeighbourhood(),
      here: () => this.here(),
      onLease: () => this.ndpProxy?.review(),
      trigger: () => this.passes.trigger(),
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
      this.membership.keeper?.retryNow();
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
    this.pass?.close();
    this.following?.close();
    this.storeHealth?.close();
    this.facts?.close();
    await this.passes.close();
    this.prober?.close();
    this.pass?.flush();
    await this.commands.close();
    this.privateKey.close();
    this.wireguard.close();
    await this.containers?.close();
    await this.ndpProxy?.stop();
    await this.containerReach?.close();
    await this.membership.close();
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

  /** The daemon's account of itself, peer by peer. */
  status(): Steps<DaemonStatus> {
    const { deviceCounters, firewall, hostName, netlink, pid, store } = this.parts;
    return describeDaemon({
      clock: this.clock,
      pid,
      hostName,
      startedAtMs: this.startedAtMs,
      notReadyBecause: this.reasonsNotReady(),
      network: this.config.network,
      rejectedConfig: this.config.rejected,
      keeper: this.membership.keeper,
      underlay: this.pass?.underlay,
      mtu: this.subnetFile.mtu,
      overlay: this.pass?.result,
      peers: this.membership.peerSet?.peers ?? [],
      peerSet: this.membership.peerSet,
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
      wireguard: this.wireguard,
      containerReach: this.containerReach?.state,
      containers: this.containers?.status(),
      ndpProxy: this.ndpProxy?.status(),
      commands: this.commands.status,
      refused: this.server?.refused ?? noRefusals(),
    });
  }

  /** Traffic of the last hour, as long as somebody can ask for it. */
  history(): readonly HistoryEntry[] {
    return this.traffic?.entries ?? [];
  }

  /** Has the names of the other hosts read, for the next look. */
  noteLook(): void {
    const peers = this.membership.peerSet?.peers ?? [];
    void this.hostNames.refresh(new Set(peers.map(({ attributes }) => attributes.publicIp.toString())));
  }

  private currentTraffic(): HistorySource {
    const { deviceCounters, netlink, store } = this.parts;
    const { reconciler } = this;
    const overlay = this.pass?.result;
    const { disableOffloads: disabledOffloads } = this.options;
    return describeTraffic({ overlay, netlink, deviceCounters, reconciler, disabledOffloads, store });
  }

  private reasonsNotReady(): readonly string[] {
    return reasonsNotReady({
      hasNetwork: this.config.network !== undefined,
      rejectedConfig: this.config.rejected,
      problem: this.problem,
      pendingCommand: this.config.carried?.backend.commands === undefined ? undefined : this.commands.notReadyBecause,
      isLeaseHeld: this.membership.isLeaseHeld,
      savedUse: this.footing.useNow,
      isLeasePublished: this.membership.keeper?.isPublished ?? false,
      isSubnetFileWritten: this.subnetFile.mtu !== undefined,
      kernel: this.reconciler.status,
      lingeringDevices: this.pass?.result?.lingeringDevices ?? [],
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
    while (this.membership.world === undefined && !this.isStopping && this.clock.monotonicMs() < untilMs) {
      await this.clock.sleep(FIRST_WORLD_STEP_MS);
    }
  }

  private canGoOnWithoutStore(): boolean {
    const canGoOn = this.footing.useInstead();
    if (!canGoOn) this.parts.service.status('waiting for etcd, without a saved state to go on with');
    return canGoOn;
  }

  private takeWorld(world: World): void {
    this.takeConfig(world.config?.text);
    this.membership.observe(world);
    this.containers?.observe(world);
    this.containerReach?.observe(world);
  }

  private takeConfig(text: string | undefined): void {
    const isNew = this.config.take(text, ({ network, backend }) => {
      this.admission.assertSafe(network, this.pass?.underlay);
      assertCommandsAllowed(backend, this.options);
    });
    if (isNew) this.passes.trigger();
  }

  /** Where etcd is may change with names and with the way to it. */
  private async learnStoreAddresses(): Promise<void> {
    this.admission.setStore(await this.parts.storeAddresses());
    this.passes.trigger();
  }

  // Passes

  private async passAndReport(): Promise<'done' | 'retry'> {
    try {
      if ((await this.pass?.run()) !== true) return 'done';
      this.containers?.review();
      if (this.problem !== undefined) this.log.info('works again after an earlier problem');
      this.problem = undefined;
      this.tellReady();
      return 'done';
    } catch (error) {
      // After a reboot, and before etcd was heard of, the network may not be up yet.
      const isFinal = this.pass?.underlay === undefined && this.membership.world !== undefined;
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

  private here(): Here {
    return { ...this.parts.machine, etcdPrefix: `/${instanceOf(this.options.etcdPrefix)}`, nowMs: this.clock.wallMs() };
  }

  private tellReady(): void {
    const { service } = this.parts;
    const reasons = this.reasonsNotReady();
    const lease = this.membership.keeper?.lease;
    const status =
      reasons.join('; ') || `lease ${lease?.subnet.toString() ?? ''}, ${this.membership.peers.length} peers`;
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
