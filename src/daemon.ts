import { OverlayState, type OverlayResult } from './backend/overlay-state.js';
import { backendFor } from './backend/registry.js';
import type { Backend, BackendOptions, HostFacts, SkippedPeer } from './backend/backend.js';
import type { Clock } from './clock.js';
import type { DaemonOptions } from './config/flags.js';
import { type NetworkConfig, parseNetworkConfig, unknownConfigKeys } from './config/network-config.js';
import { HostFactsSource } from './daemon/host-facts.js';
import { readHostIdentity } from './daemon/host-identity.js';
import { ProblemLog } from './daemon/problem-log.js';
import { describeDaemon } from './daemon/status.js';
import { LingeringBackends } from './daemon/lingering.js';
import { type SavedState, StateDirectory } from './daemon/saved-state.js';
import { inheritedTunnels, storeTunnels } from './daemon/tunnel-store.js';
import { openTunnelFor } from './dataplane/open.js';
import { type PreviousSubnetEnv, formatSubnetEnv, readSubnetEnv, writeSubnetEnv } from './docker/subnet-env.js';
import { OverlayError, describeError, isOverlayError } from './errors.js';
import { EtcdStore } from './etcd/store.js';
import { Firewall, type FirewallSpec } from './firewall/firewall.js';
import { type Family, IpAddress } from './ip/address.js';
import type { Prefix } from './ip/prefix.js';
import { doesFit } from './lease/allocator.js';

import { LeaseKeeper } from './lease/keeper.js';
import { type Lease, type LeaseAttributes, backendOf } from './lease/lease.js';
import { PeerSet } from './lease/peers.js';
import type { LeaseStore, Subscription, TextEntry } from './lease/store.js';
import type { Logger } from './log.js';
import { Netlink } from './netlink/netlink.js';
import type { DesiredState, RouteSpec } from './reconcile/desired.js';
import { NetlinkKernel } from './reconcile/kernel.js';
import { kindOf } from './reconcile/object-key.js';
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

/** Time from the first of several causes to the pass that handles all of them. */
const PASS_DELAY_MS = 5;

/** A pass that failed for a reason that may go away by itself is made again after this time. */
const PASS_RETRY_MS = 2000;

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
  private readonly inheritedDevice: string | undefined;
  private facts: HostFactsSource | undefined;
  private underlay: UnderlayWatcher | undefined;
  private underlayFamilies = '';
  private keeper: LeaseKeeper | undefined;
  private peers: PeerSet | undefined;
  private following: Subscription | undefined;
  private server: ObserveServer | undefined;

  private network: NetworkConfig | undefined;
  private networkText = '';
  private readonly optionsByType = new Map<string, BackendOptions>();
  private saved: SavedState | undefined;
  private previousEnv: PreviousSubnetEnv | undefined;
  private writtenEnv: string | undefined;
  private writtenAtMs: number | undefined;
  private subnetFileError: string | undefined;
  private mtu: number | undefined;
  private dockerHint: string | undefined;
  private rejectedConfig: string | undefined;
  private staleDevices: readonly string[] = [];
  private result: OverlayResult | undefined;
  private skippedTold = new Map<string, string>();
  private publishedBackend: string | undefined;
  private lastFirewall = '';
  private problem: string | undefined;

  private cancelPass: (() => void) | undefined;
  private passing: Promise<void> | undefined;
  private isStale = false;
  private isStopping = false;
  private hasStarted = false;
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
    this.lingering = new LingeringBackends(clock, () => this.trigger());
  }

  /**
   * Begins to work; resolves once the daemon runs by itself, which may be before etcd has answered.
   *
   * @throws {@link OverlayError} `ERR_ETCD_AUTH`, `ERR_UNDERLAY`, `ERR_SUBNET_FILE`
   */
  async start(): Promise<void> {
    const { healthzIp: ip, healthzPort: port, statusSocket } = this.options;
    this.server = await ObserveServer.start({ ip, port, statusSocket, source: this, log: this.log, clock: this.clock });
    this.previousEnv = await this.readPreviousEnv();
    this.facts = await HostFactsSource.open({
      netlink: this.netlink,
      tunDevice: this.inheritedDevice,
      identity: await readHostIdentity(),
      onRoutesChanged: () => this.trigger(),
    });
    this.saved = await this.stateDirectory.load();
    this.service.status('waiting for etcd');
    if (!(await this.hasStoreAnswered()) && this.saved !== undefined) {
      this.log.warn('etcd does not answer, going on with the last known configuration and peers', {
        count: this.saved.peers.length,
      });
      this.takeConfig(this.saved.config);
    }
    const failed = new Promise<never>((_resolve, reject) => {
      this.failStart = reject;
    });
    this.following = this.store.followConfig((entry) => this.onConfig(entry));
    this.hasStarted = true;
    this.trigger();
    this.service.startWatchdog(() => !this.isStopping);
    await Promise.race([failed, this.firstPass()]);
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
    this.cancelPass?.();
    this.lingering.close();
    this.following?.close();
    this.underlay?.close();
    this.facts?.close();
    await this.passing;
    this.peers?.close();
    await this.keeper?.close();
    await this.stateDirectory.flush();
    await this.firewall.close();
    await this.reconciler.close();
    this.kernel.close();
    await this.store.close();
    await this.server?.close();
    this.netlink.close();
  }

  /** The daemon's account of itself. */
  status(): DaemonStatus {
    return describeDaemon({
      clock: this.clock,
      pid: this.pid,
      startedAtMs: this.startedAtMs,
      notReadyBecause: this.reasonsNotReady(),
      network: this.network,
      rejectedConfig: this.rejectedConfig,
      keeper: this.keeper,
      underlay: this.underlay?.state.underlay,
      mtu: this.mtu,
      overlay: this.result,
      peers: this.peers?.peers ?? [],
      peerSet: this.peers,
      netlink: this.netlink,
      reconciler: this.reconciler,
      disabledOffloads: this.options.disableOffloads,
      firewall: this.firewall,
      store: this.store,
      subnetFile: {
        path: this.options.subnetFile,
        writtenAt: this.writtenAtMs === undefined ? null : new Date(this.writtenAtMs).toISOString(),
        error: this.subnetFileError ?? null,
      },
      dockerHint: this.dockerHint,
      problems: this.log.problems,
    });
  }

  /** What is still missing until lease, kernel and packet path are all in place, in words. */
  private reasonsNotReady(): readonly string[] {
    const reasons: string[] = [];
    if (this.network === undefined) reasons.push('no valid network configuration');
    if (this.problem !== undefined) reasons.push(this.problem);
    if (!this.isLeaseHeld) reasons.push('no lease');
    if (this.writtenEnv === undefined) reasons.push('subnet file not written');
    const { isConverged, failures } = this.reconciler.status;
    const essential = new Set(['link', 'address', 'tunnel', 'sysctl']);
    const missing = failures.filter(({ key }) => essential.has(kindOf(key)));
    if (missing.length > 0) reasons.push(...missing.map(({ key, error }) => `${key}: ${describeError(error)}`));
    else if (!isConverged && !this.hasToldReady) reasons.push('kernel state is being set up');
    return reasons;
  }

  // Inputs

  private async readPreviousEnv(): Promise<PreviousSubnetEnv | undefined> {
    const file = this.options.subnetFile;
    const env = await readSubnetEnv(file);
    for (const detail of env?.problems ?? []) this.log.warn('value in subnet file ignored', { file, detail });
    return env;
  }

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

  private onConfig(entry: TextEntry | undefined): void {
    if (this.isStopping) return;
    if (entry === undefined) {
      this.log.error('network configuration missing', {
        key: `${this.options.etcdPrefix}/config`,
        hint: `etcdctl put ${this.options.etcdPrefix}/config '{"Network": "10.5.0.0/16"}'`,
        ...(this.network === undefined ? {} : { detail: 'going on with the last one' }),
      });
      return;
    }
    this.takeConfig(entry.text);
  }

  private takeConfig(text: string): void {
    this.rejectedConfig = undefined;
    if (text === this.networkText) return;
    let network: NetworkConfig;
    try {
      network = parseNetworkConfig(text);
      backendFor(network.backendType);
    } catch (error) {
      this.rejectedConfig = describeError(error);
      this.log.error('network configuration not valid', {
        key: `${this.options.etcdPrefix}/config`,
        error,
        ...(this.network === undefined ? {} : { kind: 'going on with the last one' }),
      });
      return;
    }
    for (const key of unknownConfigKeys(text)) this.log.warn('key of the network configuration is not used', { key });
    this.log.info(this.network === undefined ? 'network configuration read' : 'network configuration changed', {
      subnet: network.ipv4?.network.toString(),
      ipv6Subnet: network.ipv6?.network.toString(),
      backend: network.backendType,
      ...(this.network === undefined ? {} : { from: this.network.backendType }),
    });
    this.network = network;
    this.networkText = text;
    this.optionsByType.set(network.backendType, network.backendOptions);
    this.trigger();
  }

  // The pass

  /** Has a pass made soon; causes that come together become one pass. */
  private trigger(delayMs = PASS_DELAY_MS): void {
    this.isStale = true;
    if (this.isStopping || !this.hasStarted || this.passing !== undefined || this.cancelPass !== undefined) return;
    this.cancelPass = this.clock.after(delayMs, () => {
      this.cancelPass = undefined;
      this.isStale = false;
      this.passing = this.passAndReport().finally(() => {
        this.passing = undefined;
        if (this.isStale) this.trigger();
      });
    });
  }

  private async firstPass(): Promise<void> {
    while (!this.isStopping && (this.isStale || this.passing !== undefined)) {
      await this.passing;
      await this.clock.sleep(PASS_DELAY_MS);
    }
  }

  private async passAndReport(): Promise<void> {
    try {
      await this.pass();
      if (this.problem !== undefined) this.log.info('works again after an earlier problem');
      this.problem = undefined;
    } catch (error) {
      if (isOverlayError(error, 'ERR_UNDERLAY') && this.underlay === undefined) {
        this.failStart(error);
        return;
      }
      const text = describeError(error);
      if (text !== this.problem) this.log.error('cannot carry the overlay as configured', { error });
      this.problem = text;
      this.cancelPass ??= this.clock.after(PASS_RETRY_MS, () => {
        this.cancelPass = undefined;
        this.trigger();
      });
    }
  }

  private async pass(): Promise<void> {
    const { network, facts: source } = this;
    if (network === undefined || source === undefined) return;
    const { underlay } = (await this.followUnderlay(network)).state;
    const backend = backendFor(network.backendType);
    backend.check(network, network.backendOptions, underlay);
    const peers = this.peers?.peers ?? this.saved?.peers ?? [];
    const facts = await source.refresh({ underlay, onLinkAddresses: this.onLinkAddresses(backend, peers) });
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
    await this.writeEnv(network, own, backend.mtu(network, network.backendOptions, underlay));
    if (this.isLeaseHeld) {
      this.stateDirectory.save({ config: this.networkText, own, peers: this.peers?.peers ?? peers });
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
      onChange: () => this.trigger(),
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
    const { subnet, ipv6Subnet } = this.previousEnv ?? {};
    this.keeper = new LeaseKeeper({
      store,
      clock,
      log,
      network,
      attributes,
      previousSubnets: {
        ...(subnet === undefined ? {} : { subnet }),
        ...(ipv6Subnet === undefined ? {} : { ipv6Subnet }),
      },
      renewMarginMinutes: this.options.subnetLeaseRenewMargin,
    });
    this.keeper.onChange(() => this.trigger());
    this.keeper.start();
    this.peers = new PeerSet({ store, clock, log, own: { subnets: undefined, publicIp: attributes.publicIp } });
    if (this.saved !== undefined) this.peers.seed(this.saved.peers);
    this.peers.onChange(() => this.trigger());
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

  private onLinkAddresses(own: Backend, peers: readonly Lease[]): IpAddress[] {
    const asking = new Set<string>();
    const types = new Set([own.type, ...peers.map((peer) => backendOf(peer.attributes))]);
    for (const type of types) {
      const options = this.optionsByType.get(type) ?? {};
      if (isKnown(type) && backendFor(type).asksOnLink(options)) asking.add(type);
    }
    return peers
      .filter((peer) => asking.has(backendOf(peer.attributes)))
      .flatMap(({ attributes: { publicIp, publicIpv6 } }) =>
        publicIpv6 === undefined ? [publicIp] : [publicIp, publicIpv6],
      );
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
      optionsFor: (type) => this.optionsByType.get(type) ?? {},
      lingering: this.lingering.types,
    });
    this.result = result;
    this.lingering.use(result.backends);
    this.tellSkipped(result.skipped);
    const blackholes = this.options.ipBlackholeRoute ? blackholeRoutes(own) : [];
    const state: DesiredState = { ...result.state, routes: [...result.state.routes, ...blackholes] };
    this.reconciler.setDesired(state, { scope: networks, staleDevices: this.staleDevices });
  }

  private tellSkipped(skipped: readonly SkippedPeer[]): void {
    const told = new Map<string, string>();
    for (const { lease, reason, hint } of skipped) {
      const key = lease.subnet.toString();
      told.set(key, reason);
      if (this.skippedTold.get(key) === reason) continue;
      this.log.warn('peer cannot be reached', {
        peer: key,
        publicIp: lease.attributes.publicIp.toString(),
        detail: reason,
        hint,
      });
    }
    for (const peer of this.skippedTold.keys()) {
      if (!told.has(peer)) this.log.info('peer no longer in the way of anything', { peer });
    }
    this.skippedTold = told;
  }

  private async applyFirewall(network: NetworkConfig, own: Lease): Promise<void> {
    const { network: previousV4, ipv6Network: previousV6 } = this.previousEnv ?? {};
    const pairs: readonly (readonly [Prefix | undefined, Prefix | undefined])[] = [
      [network.ipv4?.network, own.subnet],
      [network.ipv6?.network, own.ipv6Subnet],
    ];
    const spec: FirewallSpec = {
      mode: network.useNftables ? 'nftables' : 'iptables',
      networks: pairs.flatMap(([overlay, subnet]) =>
        overlay === undefined || subnet === undefined ? [] : [{ network: overlay, subnet }],
      ),
      previousNetworks: [previousV4, previousV6].filter((prefix) => prefix !== undefined),
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

  private async writeEnv(network: NetworkConfig, lease: Lease, mtu: number): Promise<void> {
    const env = { network, lease, mtu, isMasquerading: this.options.ipMasq };
    const text = formatSubnetEnv(env);
    if (text === this.writtenEnv) return;
    try {
      await writeSubnetEnv(this.options.subnetFile, env);
    } catch (error) {
      this.subnetFileError = describeError(error);
      throw error;
    }
    this.tellDocker(lease, mtu);
    this.subnetFileError = undefined;
    this.writtenEnv = text;
    this.writtenAtMs = this.clock.wallMs();
    this.mtu = mtu;
    this.log.info('subnet file written', {
      file: this.options.subnetFile,
      subnet: lease.subnet.toString(),
      ipv6Subnet: lease.ipv6Subnet?.toString(),
      mtu,
    });
  }

  /** Docker reads its bridge's address and MTU at its start only. */
  private tellDocker({ subnet, ipv6Subnet }: Lease, mtu: number): void {
    const before = this.previousEnv;
    this.previousEnv = { network: undefined, ipv6Network: undefined, ...before, subnet, ipv6Subnet, mtu, problems: [] };
    if (before?.subnet === undefined || before.mtu === undefined) return;
    const changes: string[] = [];
    if (!subnet.equals(before.subnet)) changes.push(`subnet ${before.subnet.toString()} → ${subnet.toString()}`);
    if (mtu !== before.mtu) changes.push(`MTU ${before.mtu} → ${mtu}`);
    if (changes.length === 0) return;
    this.dockerHint = `${changes.join(', ')}: systemctl restart docker`;
    this.log.warn('containers need a restart of Docker', {
      detail: changes.join(', '),
      file: this.options.subnetFile,
      hint: 'systemctl restart docker',
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
    this.log.info('ready', { subnet: lease?.subnet.toString(), backend: this.network?.backendType });
  }
}

function isKnown(type: string): boolean {
  try {
    backendFor(type);
    return true;
  } catch {
    return false; // a peer's lease may name anything; the overlay state reports it
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
