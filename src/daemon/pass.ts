import {
  type BackendLookup,
  OverlayState,
  type OverlayResult,
  commandInputs,
  onLinkQuestions,
} from '../backend/overlay-state.js';
import type { ConfiguredBackend, ContestedDevice, HostFacts } from '../backend/backend.js';
import type { Clock } from '../clock.js';
import type { DaemonOptions } from '../config/flags.js';
import type { NetworkConfig } from '../config/network-config.js';
import { versionText } from '../config/version.js';
import { wantsKernelPath } from '../dataplane/open.js';
import type { BackendCommands } from '../extension/backend-commands.js';
import type { FirewallSpec } from '../firewall/firewall.js';
import { type Family, IpAddress } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';
import { type AdmissionContext, networksOf, whyUnreachable } from '../lease/admission.js';
import { type HostPlace, encodePlace } from '../container/host-place.js';
import { ASIDE_MS } from '../lease/decide.js';
import { HostAnnouncement } from '../lease/host-announcement.js';
import { announcesKernelPath, kernelPathAddresses } from '../lease/kernel-announcement.js';
import type { Lease, LeaseAttributes } from '../lease/lease.js';
import { formatSubnetKey } from '../lease/subnet-key.js';
import { newestMark } from '../lease/world.js';
import { finishInTurns } from '../pace.js';
import type { PeerProber } from '../reach/peer-prober.js';
import { type DesiredState, EMPTY_STATE, type RouteSpec } from '../reconcile/desired.js';
import { keepsDefaultRoute } from '../reconcile/uplink-parameters.js';
import type { Reconciler } from '../reconcile/reconciler.js';
import { netlinkHostNetwork } from '../underlay/host-network.js';
import type { Underlay } from '../underlay/underlay.js';
import { UnderlayWatcher } from '../underlay/watcher.js';
import { type ContainerReach, NO_REACH, type Reach } from './container-reach.js';
import type { AdmissionSource } from './admission-source.js';
import type { DockerWatch } from './docker-watch.js';
import type { Footing } from './footing.js';
import type { HostFactsSource } from './host-facts.js';
import { BACKEND_LINGER_MS, Lingering } from './lingering.js';
import type { Membership } from './membership.js';
import type { NetworkSource } from './network-source.js';
import type { DaemonParts } from './parts.js';
import type { Here } from './saved-origin.js';
import type { StateDirectory, StateToSave } from './saved-state.js';
import { SkippedPeers } from './skipped-peers.js';
import type { SubnetFile } from './subnet-file.js';
import type { WireguardSamples } from './wireguard-samples.js';

/** How long a change of backend waits for the kernel before the peers are told; they retry anyway. */
const CONVERGE_TIMEOUT_MS = 5000;

/**
 * Leaves the blackhole behind the connected route of the containers' bridge, which has the same destination: with equal
 * metrics one of the two could not be made, or the blackhole would swallow every packet. It is the metric that the
 * kernel recommends for such routes (Documentation/networking/vrf.rst): routing daemons read it as distance 255.
 */
const BLACKHOLE_METRIC = 0xff002000;

const UNSPECIFIED_V4 = IpAddress.parse('0.0.0.0');

/** What a {@link Pass} reads and has changed; whoever made them closes them. */
export interface PassContext {
  readonly options: DaemonOptions;
  readonly parts: DaemonParts;
  readonly facts: HostFactsSource;
  readonly config: NetworkSource;
  readonly admission: AdmissionSource;
  readonly footing: Footing;
  readonly membership: Membership;
  readonly reconciler: Reconciler;
  readonly prober: PeerProber | undefined;
  readonly commands: BackendCommands;
  readonly subnetFile: SubnetFile;
  readonly dockerWatch: DockerWatch;
  readonly stateDirectory: StateDirectory;
  readonly wireguard: WireguardSamples;
  /** Absent where the operator has not switched networks of containers on. */
  readonly containerReach: ContainerReach | undefined;
  /** {@link Pass.place} has become another. */
  readonly onPlace: () => void;
  /** {@link ContainerReach.neighbourhood} has become another. */
  readonly onNeighbourhood: () => void;
  /** Where the host and its etcd are, and when. */
  readonly here: () => Here;
  /** The lease is in force, perhaps another one than before. */
  readonly onLease: () => void;
  /** Asks for another pass. */
  readonly trigger: () => void;
}

/**
 * What one reconciliation does: it reads what should be now, and has everything agree with it.
 *
 * ```
 *  config ──┐                                  ┌─▶ reconciler ─▶ kernel, tunnel
 *  underlay ┼─▶ pass: what should be now? ─────┼─▶ firewall
 *  lease ───┤   (one at a time, level-         ├─▶ keeper.publish
 *  peers ───┘    triggered)                    └─▶ subnet.env, saved state
 * ```
 *
 * API: {@link run}, never twice at a time; what it remembers from one run to the next is what the next must know of it.
 */
export class Pass {
  private readonly clock: Clock;
  private readonly log: DaemonParts['log'];
  private readonly overlay = new OverlayState();
  private readonly lingering: Lingering;
  /** Networks that peers and containers may still use after the configuration was changed. */
  private readonly formerNetworks: Lingering;
  private readonly skippedPeers: SkippedPeers;
  private readonly announcement: HostAnnouncement;
  private underlayWatcher: UnderlayWatcher | undefined;
  private underlayFamilies = '';
  private staleDevices: readonly string[] = [];
  private current: OverlayResult | undefined;
  private publishedBackend: string | undefined;
  /** Epoch and revision of the lease that was saved last. */
  private savedLease: string | undefined;
  private lastFirewall = '';
  private reach: Reach = NO_REACH;
  /** What takes no backend of what leads to containers on other hosts. */
  private containerPart: Partial<DesiredState> = {};
  private currentPlace: HostPlace | undefined;

  constructor(private readonly context: PassContext) {
    const { parts, trigger } = context;
    const { clock, hostName, log, store } = parts;
    this.clock = clock;
    this.log = log;
    this.lingering = new Lingering(clock, BACKEND_LINGER_MS, trigger);
    this.formerNetworks = new Lingering(clock, ASIDE_MS, trigger);
    this.skippedPeers = new SkippedPeers(log, clock);
    this.announcement = new HostAnnouncement({ store, clock, log, hostName, version: versionText() });
  }

  /** Where this host is; undefined as long as it has no lease. */
  get place(): HostPlace | undefined {
    return this.currentPlace;
  }

  /** The real network under the overlay; undefined as long as none was found. */
  get underlay(): Underlay | undefined {
    return this.underlayWatcher?.state.underlay;
  }

  /** The overlay as the kernel is to have it; undefined while the host is to have none. */
  get result(): OverlayResult | undefined {
    return this.current;
  }

  /**
   * @returns false if there is no network to carry yet.
   * @throws {@link OverlayError} what keeps the overlay from being carried as configured.
   */
  async run(): Promise<boolean> {
    const { admission, commands, config, dockerWatch, facts: source, footing, membership } = this.context;
    const { options, subnetFile } = this.context;
    if (config.carried === undefined) return false;
    const { network, backend } = config.carried;
    const { underlay } = (await this.followUnderlay(network)).state;
    admission.assertSafe(network, underlay);
    backend.check(network, underlay);
    const startupOutput = backend.commands === undefined ? '' : commands.start(backend.commands);
    if (startupOutput === undefined) return false;
    await admission.refresh(underlay);
    const questions = onLinkQuestions(membership.peers, (type) => config.backendFor(type));
    const kernelPath = wantsKernelPath(options.datapath) ? { isAnnounced: this.isKernelReceiving() } : undefined;
    const facts = await source.refresh({
      underlay,
      onLinkAddresses: kernelPath === undefined ? questions : [...questions, ...kernelPathAddresses(membership.peers)],
      needsPrivateKey: backend.usesPrivateKey === true,
      kernelPath,
    });
    const attributes = attributesFor(backend, network, facts, startupOutput);
    const context = this.admissionContext(network, underlay, attributes);
    membership.keep(network, attributes, context, subnetFile.previousSubnets);
    await this.followContainers(context, underlay);
    const own = membership.ownLease(network, attributes);
    const { keeper, world } = membership;
    if (own === undefined) {
      // A lease that is still sought has to name the host as it is now: by its address the keeper knows its own.
      keeper?.publish(attributes);
      if (world !== undefined && footing.isTaken(world, attributes.publicIp)) this.desireNothing(network);
      return true;
    }
    if (membership.isLeaseHeld && keeper?.lease !== undefined) footing.confirm(keeper.lease);
    this.tellPlace(own, attributes);
    if (footing.useNow === 'subnet') this.desireNothing(network);
    else await this.desire(network, facts, own, membership.peers);
    // What peers and Docker are told holds only once the command has made it so; then there is another pass.
    if (backend.commands !== undefined && commands.isStarting) return true;
    if (this.publishedBackend !== undefined && this.publishedBackend !== network.backendType) {
      // Peers send the new way as soon as they see the lease: receive that way first.
      await this.waitForKernel(network);
    }
    this.publishedBackend = network.backendType;
    keeper?.publish(attributes);
    await this.applyFirewall(network, own);
    const mtu = backend.mtu(network, underlay);
    await subnetFile.update({ network, lease: own, mtu, isMasquerading: options.ipMasq });
    dockerWatch.start();
    this.context.onLease();
    this.save(own);
    return true;
  }

  /** Nothing asks for another pass from now on; one that is under way goes on. */
  close(): void {
    this.lingering.close();
    this.formerNetworks.close();
    this.underlayWatcher?.close();
  }

  /** Tells what is still to be told; after the last pass. */
  flush(): void {
    this.skippedPeers.close();
  }

  // Inputs

  private async followUnderlay(network: NetworkConfig): Promise<UnderlayWatcher> {
    const families: Family[] = [];
    if (network.ipv4 !== undefined) families.push(4);
    if (network.ipv6 !== undefined) families.push(6);
    if (this.underlayWatcher !== undefined && this.underlayFamilies === families.join()) {
      return this.underlayWatcher;
    }
    const { parts, trigger } = this.context;
    const { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6 } = this.context.options;
    const watcher = await UnderlayWatcher.start({
      source: netlinkHostNetwork(parts.netlink),
      request: { iface, ifaceRegex, ifaceCanReach, publicIp, publicIpv6, families },
      clock: this.clock,
      logger: this.log,
      onChange: (state) => {
        if (state.isUsable) parts.store.networkChanged();
        trigger();
      },
    });
    this.underlayWatcher?.close();
    this.underlayWatcher = watcher;
    this.underlayFamilies = families.join();
    return watcher;
  }

  /**
   * Whether this host's kernel takes datagrams apart. Until that is tried it is as the host published last: a service
   * manager has kept the programs at work meanwhile.
   */
  private isKernelReceiving(): boolean {
    const { facts, reconciler } = this.context;
    const states = reconciler.tunnels.flatMap(({ kernelPath }) => kernelPath?.state ?? []);
    const { published } = facts;
    if (states.length === 0) return published !== undefined && announcesKernelPath(published);
    return states.some(({ isActive }) => isActive);
  }

  private admissionContext(
    network: NetworkConfig,
    underlay: Underlay,
    { publicIp }: LeaseAttributes,
  ): AdmissionContext {
    this.formerNetworks.use(networksOf(network).map((prefix) => prefix.toString()));
    const networks = this.formerNetworks.names.map((text) => Prefix.parse(text));
    const { admission, footing, membership } = this.context;
    return admission.context({
      network,
      networks,
      underlay,
      publicIp,
      own: membership.keeper?.lease ?? footing.claim,
    });
  }

  /** Brings what is known of containers on other hosts up to date, and what of it takes no backend. */
  private async followContainers(context: AdmissionContext, underlay: Underlay): Promise<void> {
    const { admission, containerReach, facts, membership, onNeighbourhood } = this.context;
    if (containerReach === undefined) return;
    const isFit = (address: IpAddress): boolean => whyUnreachable(address, context) === undefined;
    const before = containerReach.neighbourhood;
    this.reach = containerReach.update(
      admission.reachContext(containerReach.host, context, underlay),
      membership.peers,
      isFit,
    );
    if (containerReach.neighbourhood !== before) onNeighbourhood();
    const isOnLink = await facts.directLinks(containerReach.onLinkQuestions, underlay);
    this.containerPart = containerReach.desire(underlay.device, isOnLink);
  }

  /** Others send to containers here as soon as they know where that is. */
  private tellPlace(own: Lease, { publicIp, publicIpv6 }: LeaseAttributes): void {
    const { admission, onPlace } = this.context;
    const v6 = publicIpv6 ?? admission.underlayV6;
    const addresses = { ...(!publicIp.isUnspecified && { 4: publicIp }), ...(v6 && { 6: v6 }) };
    const place: HostPlace = { addresses, leaseKey: formatSubnetKey(own) };
    if (this.currentPlace !== undefined && encodePlace(this.currentPlace) === encodePlace(place)) return;
    this.currentPlace = place;
    onPlace();
  }

  // Outputs

  private async desire(network: NetworkConfig, host: HostFacts, own: Lease, peers: readonly Lease[]): Promise<void> {
    const { commands, config, containerReach, facts, footing, options, prober, reconciler, subnetFile } = this.context;
    const networks = [network.ipv4?.network, network.ipv6?.network].filter((prefix) => prefix !== undefined);
    if (this.current === undefined) this.staleDevices = await facts.flannelDevices(networks);
    const backendFor: BackendLookup = (type) => config.backendFor(type);
    const { additional, ownAdditional } = this.reach;
    const lingering = this.lingering.names;
    const input = { network, host, own, peers, additional, ownAdditional, backendFor, lingering };
    const result = await finishInTurns(this.overlay.compute(input), this.clock);
    const isFirst = this.current === undefined;
    this.current = result;
    this.lingering.use(result.backends);
    this.context.wireguard.follow(result.base.links);
    this.skippedPeers.tell(result.skipped);
    containerReach?.note(result.skippedPrefixes);
    for (const each of result.contested) this.giveUpMac(each);
    const probed = { network, host, own, peers, skipped: result.skipped };
    if (prober !== undefined) await finishInTurns(prober.follow(probed), this.clock);
    const blackholes = options.ipBlackholeRoute ? blackholeRoutes(own) : [];
    const { base } = result;
    // Whoever routes for IPv6 containers, Docker as a rule, is about to have the host forward.
    const uplink = own.ipv6Subnet === undefined ? [] : [keepsDefaultRoute(host.underlay.device)];
    const state: DesiredState = {
      ...base,
      routes: [...base.routes, ...blackholes],
      sysctls: [...base.sysctls, ...uplink],
    };
    // Routes via peers have no name: those of the network that this host belonged to before are found by its addresses.
    const scope = [...networks, ...subnetFile.previousNetworks, ...this.reach.scope];
    const parts = [...result.peers, this.containerPart];
    reconciler.setDesired(state, { scope, staleDevices: this.staleDevices, parts });
    const former = isFirst ? commandInputs(input, footing.peersOfThisBoot) : [];
    commands.follow(result.commands && { ...result.commands, ...(isFirst && { former }) });
  }

  private giveUpMac({ device, replacement }: ContestedDevice): void {
    this.context.facts.giveUp(device);
    this.log.warn('another host had the MAC address of this device first, taking another one', {
      dev: device,
      vtepMac: replacement,
    });
    this.context.trigger();
  }

  /** Takes the overlay off this host, so that nothing has addresses that are another host's. */
  private desireNothing({ ipv4, ipv6 }: NetworkConfig): void {
    const commands = this.context.config.carried?.backend.commands;
    this.context.commands.follow(commands && { commands, own: undefined, peers: [] });
    this.current = undefined;
    const networks = [ipv4?.network, ipv6?.network].filter((prefix) => prefix !== undefined);
    const options = { scope: [...networks, ...this.reach.scope], parts: [this.containerPart] };
    this.context.reconciler.setDesired(EMPTY_STATE, options);
  }

  private async applyFirewall(network: NetworkConfig, own: Lease): Promise<void> {
    const { options, parts, subnetFile } = this.context;
    const pairs: readonly (readonly [Prefix | undefined, Prefix | undefined])[] = [
      [network.ipv4?.network, own.subnet],
      [network.ipv6?.network, own.ipv6Subnet],
    ];
    const spec: FirewallSpec = {
      mode: network.useNftables ? 'nftables' : 'iptables',
      networks: pairs.flatMap(([overlay, subnet]) =>
        overlay === undefined || subnet === undefined ? [] : [{ network: overlay, subnet }],
      ),
      previousNetworks: subnetFile.previousNetworks,
      ipMasq: options.ipMasq,
      forwardRules: options.iptablesForwardRules,
      isFullyRandom: !options.ipMasqFullyRandomDisable,
    };
    const text = JSON.stringify(spec);
    if (text === this.lastFirewall) return;
    this.lastFirewall = text;
    await parts.firewall.apply(spec).catch((error: unknown) => {
      // It looks again by itself; packets go on without the rules meanwhile.
      this.log.error('traffic rules not in place, trying again', { error });
    });
  }

  /** The clock holds on to the deadline: a timer that only a signal refers to may be collected before it fires. */
  private async waitForKernel({ backendType }: NetworkConfig): Promise<void> {
    const deadline = new AbortController();
    const cancel = this.clock.after(CONVERGE_TIMEOUT_MS, () => deadline.abort());
    try {
      await this.context.reconciler.whenConverged(deadline.signal);
    } catch {
      this.log.warn('kernel state not complete, publishing the lease all the same', { backend: backendType });
    } finally {
      cancel();
    }
  }

  /** Saves what a start without the store would go on with, and tells the operator whose lease it is. */
  private save(own: Lease): void {
    const { membership, stateDirectory } = this.context;
    const held = membership.keeper?.lease;
    if (!membership.isLeaseHeld || held === undefined) return;
    void this.announcement.announce(held);
    stateDirectory.save(() => this.stateToSave());
    // The successor of a process that is killed must know its lease, else it takes it for a stranger's at another
    // address; and the history, else it keeps peers that were given up in this one.
    const written = `${membership.world?.epoch ?? 0} ${own.revision}`;
    if (written !== this.savedLease) void stateDirectory.flush();
    this.savedLease = written;
  }

  /** Undefined while no lease is held. */
  private stateToSave(): StateToSave | undefined {
    const { config, here, membership } = this.context;
    const { keeper, peerSet, world } = membership;
    const own = keeper?.lease;
    if (keeper?.heldSinceMs === undefined || own === undefined || peerSet === undefined) return undefined;
    const { expiresAtMs: endMs } = keeper;
    const { nowMs: savedAtMs, ...where } = here();
    const expiresAtMs = endMs === undefined ? undefined : Math.round(savedAtMs + endMs - this.clock.monotonicMs());
    const origin = { ...where, savedAtMs, expiresAtMs };
    return { config: config.text, own, origin, peers: peerSet.peers, mark: world && newestMark(world) };
  }
}

function attributesFor(
  backend: ConfiguredBackend,
  network: NetworkConfig,
  facts: HostFacts,
  startupOutput: string,
): LeaseAttributes {
  const { publicIp, publicIpv6 }: Underlay = facts.underlay;
  return {
    publicIp: publicIp ?? UNSPECIFIED_V4,
    publicIpv6: network.ipv6 === undefined ? undefined : publicIpv6,
    backendType: backend.publishedType,
    ...backend.leaseData(network, facts, startupOutput),
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
