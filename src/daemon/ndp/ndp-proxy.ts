import type { Clock } from '../../clock.js';
import { CoalescingTask } from '../../coalescing-task.js';
import { TokenBucket } from '../../dataplane/token-bucket.js';
import { proxyAnnouncements } from '../../docker/plugin/announcement.js';
import type { AnnouncementPort } from '../../docker/plugin/announcer.js';
import { guarded } from '../../guard.js';
import type { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import type { Logger } from '../../log.js';
import type { AddressInfo } from '../../netlink/address.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { NetlinkEvent } from '../../netlink/monitor.js';
import type { FdbInfo } from '../../netlink/neighbour.js';
import type { Netlink } from '../../netlink/netlink.js';
import { netlinkErrno } from '../../netlink/socket.js';
import type { NdpProxyStatus } from '../../observe/ndp-status.js';
import { RateLimitedLog } from '../../rate-limited-log.js';
import { type DesiredState, EMPTY_STATE, type ProxyNeighSpec, ROUTE_PROTOCOL } from '../../reconcile/desired.js';
import type { FormerValues } from '../../reconcile/former-values.js';
import type { Kernel } from '../../reconcile/kernel.js';
import { ALIAS_PREFIX } from '../../reconcile/ownership.js';
import { Reconciler } from '../../reconcile/reconciler.js';
import { NO_TUNNELS } from '../../reconcile/tunnels.js';
import { answersForOthers } from '../../reconcile/uplink-parameters.js';
import { onLinkDevice } from '../../underlay/on-link-device.js';
import { MAX_PROXIED, type ProxiedBridge, ProxiedAddresses } from './proxied-addresses.js';
import { MAX_FILTERED } from './question-filter.js';
import type { OpenQuestions } from './question-socket.js';

/** Devices change in bursts. */
const FOLLOW_MS = 50;

/** After which time what could not be read or heard is tried again. */
const RETRY_MS = 5000;

/** After which time those are asked whom too many others were asked before. */
const NEXT_ASK_MS = 1000;

/**
 * Questions to a bridge on behalf of strangers. Each that nobody answers fills an entry of the host's neighbour table for
 * 3 s, and that has room for 1024 (`gc_thresh3`): a flood takes at most a tenth of it.
 */
const ASK = { perSecond: 30, burst: 30 } as const;

/** Questions about addresses that were answered for before: each is asked at most once for each change of its own. */
const ASK_AGAIN = { perSecond: 200, burst: 200 } as const;

/** Announcements are sent so many at a time: a switch drops what comes all at once. */
const ANNOUNCE = { count: 64, everyMs: 50 } as const;

/** What an {@link NdpProxy} is made of. */
export interface NdpProxyParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly netlink: {
    readonly links: Pick<Netlink['links'], 'list'>;
    readonly addresses: Pick<Netlink['addresses'], 'list'>;
    readonly neighbours: Pick<Netlink['neighbours'], 'list' | 'ask' | 'del'>;
    readonly subscribe: Netlink['subscribe'];
  };
  /** Of its own; stays the caller's to close. */
  readonly kernel: Kernel;
  /** Names this daemon among those on the host. */
  readonly instance: string;
  readonly formerValues: FormerValues;
  readonly announcements: Pick<AnnouncementPort, 'send'>;
  readonly openQuestions: OpenQuestions;
  /** The subnet of this host, whose addresses are its containers'. */
  readonly leased: () => Prefix | undefined;
}

/**
 * Answers neighbour solicitations on the uplink for the containers on Docker's bridges, where the router takes their
 * addresses to be on the link: exactly for those that are alive.
 *
 * ```
 *  router ──who has C?──▶ uplink: proxy entry of the kernel ──▶ answer
 *                            │ no entry yet
 *                            ▼
 *                        question ──▶ kernel asks on the bridge ──▶ neighbour there ──▶ proxy entry, announced
 * ```
 *
 * API: {@link start}, {@link stop}; {@link status}.
 * Threads: none.
 * Limits: 10 000 addresses; 30 questions of strangers a second reach a bridge.
 * Errors: what cannot be done is tried again, logged once a minute and told by {@link status}. The entries stay when it
 * stops, and go on answering.
 */
export class NdpProxy {
  private readonly table = new ProxiedAddresses();
  private readonly reconciler: Reconciler;
  private readonly looks: CoalescingTask;
  private readonly applies: CoalescingTask;
  private readonly announces: CoalescingTask;
  private readonly strangers: TokenBucket;
  private readonly doubts: TokenBucket;
  private readonly complaints: RateLimitedLog;
  private readonly scope = new Map<string, Prefix>();
  private readonly listening = new Map<string, { readonly key: string; close(): void }>();
  private bridges: readonly ProxiedBridge[] = [];
  private links: ReadonlyMap<string, LinkInfo> = new Map();
  private ownAddresses: ReadonlySet<string> = new Set();
  /** Forwarding entries that went, since the last look. */
  private gone: FdbInfo[] = [];
  private toAnnounce: ProxyNeighSpec[] = [];
  private monitor: { close(): void } | undefined;
  private hasInherited = false;
  private questions = 0;
  private droppedQuestions = 0;
  private refusedAddresses = 0;
  private problem: string | null = null;

  constructor(private readonly parts: NdpProxyParts) {
    const { clock, formerValues, instance, kernel, log } = parts;
    this.reconciler = new Reconciler({
      kernel,
      clock,
      logger: log,
      instance: `${instance}:ndp`,
      tunnels: NO_TUNNELS,
      formerValues,
    });
    this.looks = new CoalescingTask(clock, () => this.look());
    this.applies = new CoalescingTask(clock, () => this.apply());
    this.announces = new CoalescingTask(clock, () => this.announce());
    this.strangers = new TokenBucket(ASK.perSecond, ASK.burst, () => clock.monotonicMs());
    this.doubts = new TokenBucket(ASK_AGAIN.perSecond, ASK_AGAIN.burst, () => clock.monotonicMs());
    this.complaints = new RateLimitedLog(clock);
  }

  /**
   * Takes up what an earlier process left.
   *
   * @throws {@link OverlayError} `ERR_NETLINK`
   */
  async start(): Promise<void> {
    const { clock, log: logger, netlink } = this.parts;
    const onEvent = guarded({ clock, logger, what: 'neighbours of containers' }, (event: NetlinkEvent) =>
      this.takeEvent(event),
    );
    this.monitor = netlink.subscribe(['link', 'address', 'neighbour'], onEvent);
    await this.looks.runNow();
  }

  /** The entries, and the parameters of the uplink, stay. Idempotent. */
  async stop(): Promise<void> {
    this.monitor?.close();
    await this.looks.close();
    await this.applies.close();
    await this.announces.close();
    for (const socket of this.listening.values()) socket.close();
    this.listening.clear();
    await this.reconciler.close();
  }

  /** The subnet of this host may be another one now. */
  review(): void {
    this.looks.schedule(0);
  }

  status(): NdpProxyStatus {
    const devices = [...new Set(this.bridges.map(({ uplink }) => uplink))];
    return {
      uplinks: devices.map((device) => ({
        device,
        subnets: this.bridges.filter(({ uplink }) => uplink === device).map(({ subnet }) => subnet.toString()),
      })),
      addresses: this.table.size,
      questions: this.questions,
      droppedQuestions: this.droppedQuestions,
      refusedAddresses: this.refusedAddresses,
      problem: this.problem,
    };
  }

  // What happens

  private takeEvent(event: NetlinkEvent): void {
    if (event.type === 'neighbour') {
      const change = this.table.take(event.neighbour, event.isDeleted);
      if (change === 'added') this.added(event.neighbour.address);
      if (change === 'refused') this.refuse();
      if (change === 'doubtful') this.ask(event.neighbour.address);
      if (change === 'added' || change === 'removed') this.applies.schedule(0);
    } else if (event.type === 'fdb') {
      if (!event.isDeleted || this.gone.length >= MAX_PROXIED) return;
      if (!this.bridges.some(({ index }) => index === event.entry.masterIndex)) return;
      this.gone.push(event.entry);
      this.looks.schedule(FOLLOW_MS);
    } else {
      this.looks.schedule(FOLLOW_MS);
    }
  }

  /** Somebody asks on the uplink for an address that this host does not answer for. */
  private takeQuestion(address: IpAddress): void {
    if (this.table.has(address) || this.ownAddresses.has(address.toString())) return;
    const bridge = this.table.bridgeOf(address);
    if (bridge === undefined) return;
    this.questions++;
    if (!this.table.isFull && this.strangers.take()) this.attempt(() => this.askOn(bridge.index, address));
    else this.droppedQuestions++;
  }

  private added(address: IpAddress): void {
    const uplink = this.table.bridgeOf(address)?.uplink;
    if (uplink !== undefined && this.toAnnounce.length < MAX_PROXIED) this.toAnnounce.push({ device: uplink, address });
  }

  private refuse(): void {
    this.refusedAddresses++;
    this.complain(`more than ${MAX_PROXIED} addresses behind bridges`);
  }

  /** Asks whether an address that is answered for is still there; without an answer it goes. */
  private ask(address: IpAddress): void {
    const bridge = this.table.bridgeOf(address);
    if (bridge === undefined) return;
    // Whoever is not among the neighbours at the next look is asked for again.
    if (!this.doubts.take()) this.looks.schedule(NEXT_ASK_MS);
    else if (!this.attempt(() => this.askOn(bridge.index, address))) this.looks.schedule(RETRY_MS);
  }

  private askOn(index: number, address: IpAddress): void {
    this.parts.netlink.neighbours.ask({ index, address });
  }

  // What should be

  /** Looks at the bridges, uplinks and neighbours, level-triggered: events only say that there is something to see. */
  private async look(): Promise<void> {
    const { netlink } = this.parts;
    try {
      const [links, addresses] = [await netlink.links.list(), await netlink.addresses.list()];
      this.links = new Map(links.map((link) => [link.name, link]));
      this.ownAddresses = new Set(addresses.map(({ address }) => address.toString()));
      this.bridges = bridgesIn(links, addresses);
      this.table.setBridges(this.bridges);
      for (const { subnet } of this.bridges) this.scope.set(subnet.toString(), subnet);
      const leased = this.parts.leased();
      if (leased !== undefined) this.scope.set(leased.toString(), leased);
      await this.inherit();
      const heard = await this.hear();
      this.dismiss(links);
      for (const { address } of this.table.all) if (!heard.has(address.toString())) this.ask(address);
      this.listen();
      this.problem = null;
    } catch (error) {
      this.complain('the bridges of this host could not be looked at, trying again', error);
      this.looks.schedule(RETRY_MS);
    }
    await this.applies.runNow();
  }

  /** What an earlier process has answered for may be there still, though its neighbour is forgotten. */
  private async inherit(): Promise<void> {
    if (this.hasInherited) return;
    for (const { address, protocol } of await this.parts.kernel.listProxies()) {
      if (protocol === ROUTE_PROTOCOL) this.table.inherit(address);
    }
    this.hasInherited = true;
  }

  /** Takes the neighbours as they are; what the kernel has of them, asked for or answered. */
  private async hear(): Promise<ReadonlySet<string>> {
    const heard = new Set<string>();
    for (const { index } of this.bridges) {
      for (const neighbour of await this.parts.netlink.neighbours.list(6, index)) {
        const change = this.table.take(neighbour, false);
        if (change === 'added') this.added(neighbour.address);
        if (change === 'refused') this.refuse();
        heard.add(neighbour.address.toString());
      }
    }
    return heard;
  }

  /** A machine whose forwarding entry went is gone if its port is, and is asked otherwise: it may only have been silent. */
  private dismiss(links: readonly LinkInfo[]): void {
    const gone = this.gone;
    this.gone = [];
    for (const { index: port, mac, masterIndex } of gone) {
      const hasPort = links.some(({ index, masterIndex: master }) => index === port && master === masterIndex);
      for (const { address } of this.table.behind(masterIndex, mac)) {
        const { neighbours } = this.parts.netlink;
        if (hasPort) {
          if (this.doubts.take()) this.attempt(() => neighbours.ask({ index: masterIndex, address, mac }));
        } else {
          this.table.remove(address);
          this.attempt(() => forget(neighbours, masterIndex, address)); // else it would be taken up again
        }
      }
    }
  }

  private listen(): void {
    const wanted = new Map<string, readonly Prefix[]>();
    for (const { uplink, subnet } of this.bridges) wanted.set(uplink, [...(wanted.get(uplink) ?? []), subnet]);
    const keyOf = (device: string): string =>
      `${this.links.get(device)?.index ?? 0} ${(wanted.get(device) ?? []).map(String).join(' ')}`;
    for (const [device, socket] of this.listening) {
      if (wanted.has(device) && socket.key === keyOf(device)) continue;
      socket.close();
      this.listening.delete(device);
    }
    for (const [device, subnets] of wanted) {
      const link = this.links.get(device);
      if (link === undefined || this.listening.has(device)) continue;
      const { clock, log: logger, openQuestions } = this.parts;
      const onQuestion = guarded({ clock, logger, what: 'questions for containers' }, (address: IpAddress) =>
        this.takeQuestion(address),
      );
      const socket = openQuestions(link, subnets.slice(0, MAX_FILTERED), onQuestion);
      this.listening.set(device, { key: keyOf(device), close: () => socket.close() });
    }
  }

  private async apply(): Promise<void> {
    const uplinks = [...new Set(this.bridges.map(({ uplink }) => uplink))];
    const state: DesiredState = {
      ...EMPTY_STATE,
      sysctls: uplinks.flatMap((device) => answersForOthers(device)),
      proxyNeighbours: Array.from(this.table.all, ({ address, bridge }) => ({ device: bridge.uplink, address })),
    };
    this.reconciler.setDesired(state, { proxyScope: [...this.scope.values()] });
    if (this.toAnnounce.length > 0) this.announces.schedule(0);
    return Promise.resolve();
  }

  /**
   * Tells the link of addresses that are answered for from now on: a router that asks at this moment need not ask again,
   * and one that knows where the container was before sends here at once. The kernel's answers as a proxy do not say that
   * they override what is known (RFC 4861 7.2.8).
   */
  private async announce(): Promise<void> {
    const batch = this.toAnnounce.splice(0, ANNOUNCE.count);
    const answered = batch.filter(({ address }) => this.table.has(address));
    for (const [link, frames] of proxyAnnouncements(answered, this.links.values())) {
      this.attempt(() => this.parts.announcements.send(link, frames));
    }
    if (this.toAnnounce.length > 0) this.announces.schedule(ANNOUNCE.everyMs);
    return Promise.resolve();
  }

  /** @returns whether it succeeded. */
  private attempt(work: () => void): boolean {
    try {
      work();
      return true;
    } catch (error) {
      this.complain('a container could not be asked for, or announced', error);
      return false;
    }
  }

  private complain(what: string, error?: unknown): void {
    this.problem = what;
    this.complaints.tell((count) =>
      this.parts.log.warn('answering for containers on the uplink is incomplete', {
        detail: what,
        count,
        ...(error === undefined ? {} : { error }),
      }),
    );
  }
}

function forget(neighbours: NdpProxyParts['netlink']['neighbours'], index: number, address: IpAddress): void {
  try {
    neighbours.del({ index, address });
  } catch (error) {
    if (!['ENOENT', 'ENODEV'].includes(netlinkErrno(error) ?? '')) throw error; // gone by itself
  }
}

/** Bridges with a subnet that is a part of another device's; those of our own plugin answer for themselves. */
function bridgesIn(links: readonly LinkInfo[], addresses: readonly AddressInfo[]): readonly ProxiedBridge[] {
  return links
    .filter(({ kind, alias }) => kind === 'bridge' && !alias.startsWith(ALIAS_PREFIX))
    .flatMap(({ index }) => {
      const own = addresses.filter((each) => each.index === index && each.address.isGlobalUnicast);
      return own
        .filter(({ address }) => address.family === 6)
        .flatMap(({ address, length }) => {
          const subnet = Prefix.of(address, length);
          const uplink = onLinkDevice(subnet, { links, addresses }, (link) => link.index !== index);
          return uplink === undefined ? [] : [{ index, subnet, uplink: uplink.name }];
        });
    });
}
