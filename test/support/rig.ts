import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Certificate } from './certificates.js';
import { onExit } from './cleanup.js';
import { Daemon, type DaemonOptions, type SubnetEnv } from './daemon.js';
import { type EtcdOptions, EtcdServer } from './etcd.js';
import { Netns, deleteNamespaces, directoryPrefix, namePrefix, sweepLeftovers } from './netns.js';
import { Relay } from './relay.js';

/**
 * How the links of the underlay behave.
 *
 * - `veth`: as the kernel makes them; super-packets of 64 KB cross unsplit, which no real link does
 * - `wire`: frames of at most one MTU leave, and the receiver merges them again, as a NIC without TSO does
 */
export type LinkModel = 'veth' | 'wire';

/** What a {@link Rig} is made of. */
export interface RigOptions {
  /** Default 2; at most 200. */
  readonly hosts?: number;
  /** Default `veth`. */
  readonly link?: LinkModel;
  /**
   * - `switch` (default): hosts, etcd and router hang on one bridge
   * - `pair`: two hosts on the two ends of one veth pair, etcd inside the first: the shortest path, for measuring
   */
  readonly topology?: 'switch' | 'pair';
  /** Gives every host a default route through a router namespace (192.0.2.1). Default true with a switch. */
  readonly hasRouter?: boolean;
  /** Gives the underlay IPv6 addresses too. Default false. */
  readonly hasIpv6?: boolean;
  /** MTU of the underlay. Default 1500. */
  readonly mtu?: number;
  /**
   * The hosts' `rp_filter`: `loose` (2, default) is what systemd sets, `strict` (1, RFC 3704 2.2) what distributions of
   * the Red Hat family and hardening guides do.
   */
  readonly reversePath?: 'loose' | 'strict';
  /**
   * 1 (default): one etcd. 3: a cluster of three in namespaces of their own, each reached through a relay of
   * {@link Rig.memberRelays}, so that the network of one of them can be made slow.
   */
  readonly etcdMembers?: 1 | 3;
  /** More flags of etcd. */
  readonly etcdArgs?: readonly string[];
  /** Has etcd demand TLS of its clients, with the files that this gives; called with the directory of the rig. */
  readonly etcdTls?: (directory: string) => EtcdTls;
  /** Key prefix of the network. Default flannel's. */
  readonly etcdPrefix?: string;
}

const UNDERLAY = { prefix: '192.0.2', prefix6: '2001:db8::', router: 1, etcd: 2, firstHost: 11 } as const;

/** Files of an etcd that demands client certificates. */
export interface EtcdTls {
  readonly caFile: string;
  readonly server: Certificate;
  readonly client: Certificate;
}

/** Ports of the relay before a member of an etcd cluster, for its clients and for the other members. */
export const MEMBER_PORTS = { client: 2389, peer: 2390 } as const;

let serial = 0;

/**
 * Some hosts, a switch between them and an etcd, all of it in network namespaces with names of this process:
 *
 * ```
 *   h1 ns              h1c1 ns             sw ns: bridge            h2 ns
 *  ┌────────────────┐  ┌──────────┐      ┌─────────────┐      ┌────────────────┐
 *  │ tsflanneld     │  │ eth0 .2  │      │ h1  h2  gw  │      │ tsflanneld     │
 *  │ docker0 .1 ────┼──┤ of the   │      │  │   │   │  │      │ docker0 …      │
 *  │ eth0 192.0.2.11├──┼─ subnet ─┼──────┤  └───┴───┘  ├──────┤ eth0 192.0.2.12│
 *  └────────────────┘  └──────────┘      └──────┬──────┘      └────────────────┘
 *                                        etcd ns 192.0.2.2, gw ns 192.0.2.1 (default route)
 * ```
 *
 * Nothing is changed in the machine's own namespace. `close()` removes everything; so does every end of this process,
 * and what a killed process left is removed by the next rig.
 */
export class Rig {
  readonly #namespaces: Netns[] = [];
  readonly #withdraw: () => void;
  readonly #name = namePrefix(serial++);
  readonly directory = mkdtempSync(directoryPrefix());
  readonly hosts: Host[] = [];
  readonly etcdPrefix: string;
  /** The etcd servers; one unless asked for more. */
  readonly etcdMembers: EtcdServer[] = [];
  /** In front of each member of a cluster, see {@link MEMBER_PORTS}. */
  readonly memberRelays: Relay[] = [];
  #router: Netns | undefined;
  #switch: Netns | undefined;

  private constructor(readonly options: RigOptions) {
    this.etcdPrefix = options.etcdPrefix ?? '/coreos.com/network';
    this.#withdraw = onExit(() => {
      this.#remove();
    });
  }

  /** Makes namespaces and links and starts etcd; no daemon runs yet. */
  static async create(options: RigOptions = {}): Promise<Rig> {
    sweepLeftovers();
    const rig = new Rig(options);
    try {
      await (options.topology === 'pair' ? rig.#layPair() : rig.#laySwitch());
      await Promise.all(rig.etcdMembers.map(async (member) => member.start()));
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  get etcd(): EtcdServer {
    const [etcd] = this.etcdMembers;
    if (etcd === undefined) throw new Error('the rig has no etcd');
    return etcd;
  }

  /** The namespace behind the hosts' default route. */
  get router(): Netns {
    if (this.#router === undefined) throw new Error('the rig was made without a router');
    return this.#router;
  }

  /**
   * Has the port of a host send frames back to where they came from, as switches do for 802.1Qbg (VEPA); bridges do not
   * by themselves.
   */
  async setReflecting(host: Host, isOn: boolean): Promise<void> {
    await this.#switch?.run(['bridge', 'link', 'set', 'dev', host.name, 'hairpin', isOn ? 'on' : 'off']);
  }

  /**
   * The n-th host, counted from 1.
   *
   * @throws RangeError if there is none.
   */
  host(number: number): Host {
    const host = this.hosts[number - 1];
    if (host === undefined) throw new RangeError(`the rig has ${this.hosts.length} hosts, not ${number}`);
    return host;
  }

  /** Writes the network configuration under `<prefix>/config`. */
  async putConfig(config: object | string): Promise<void> {
    await this.etcd.put(`${this.etcdPrefix}/config`, typeof config === 'string' ? config : JSON.stringify(config));
  }

  /** Another namespace of this rig, removed with it. */
  async addNamespace(name: string): Promise<Netns> {
    const [netns] = await Netns.create([`${this.#name}-${name}`]);
    if (netns === undefined) throw new Error(`no namespace ${name}`);
    this.#namespaces.push(netns);
    return netns;
  }

  /** Stops what runs and removes everything. Idempotent. */
  async close(): Promise<void> {
    const daemons = this.hosts.flatMap((host) => (host.daemon === undefined ? [] : [host.daemon]));
    await Promise.all(daemons.map(async (daemon) => daemon.kill().catch(() => undefined)));
    this.#withdraw();
    this.#remove();
  }

  #remove(): void {
    deleteNamespaces(this.#namespaces.map(({ name }) => name));
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #addNamespaces(names: readonly string[]): Promise<Netns[]> {
    const full = names.map((name) => `${this.#name}-${name}`);
    // Noted first: a namespace that was made before a later one failed must go too.
    this.#namespaces.push(...full.map((name) => new Netns(name)));
    return Netns.create(full);
  }

  async #laySwitch(): Promise<void> {
    const { hosts: count = 2, hasRouter = true, etcdMembers = 1 } = this.options;
    const etcds = ['etcd', 'etcd2', 'etcd3'].slice(0, etcdMembers);
    const names = ['sw', ...etcds, ...(hasRouter ? ['gw'] : []), ...numbered(count)];
    const made = await this.#addNamespaces(names);
    const netns = new Map(names.map((name, index) => [name, made[index] as Netns]));
    const at = (name: string): Netns => netns.get(name) as Netns;
    const stations: [string, number][] = etcds.map((name, index) => [name, UNDERLAY.etcd + index]);
    if (hasRouter) stations.push(['gw', UNDERLAY.router]);
    for (const [index, name] of numbered(count).entries()) stations.push([name, UNDERLAY.firstHost + index]);

    const ports = stations.flatMap(([name]) => [
      `link add ${name} ${this.#mtuWords()} type veth peer name eth0 netns ${at(name).name}${this.#mtuWords(' ')}`,
      `link set ${name} master br0 up`,
    ]);
    await at('sw').ip([`link add br0 ${this.#mtuWords()} type bridge`, 'link set br0 up', ...ports]);
    await Promise.all(stations.map(async ([name, number]) => this.#addressUnderlay(at(name), number)));
    this.#router = netns.get('gw');
    this.#switch = at('sw');
    await this.#addEtcd(etcds.map((name) => [name, at(name)]));
    await this.#addHosts(numbered(count).map(at), hasRouter);
  }

  async #addEtcd(places: readonly (readonly [name: string, netns: Netns])[]): Promise<void> {
    const { client, peer } = MEMBER_PORTS;
    const members = places.map(([name, netns], index) => {
      const address = `${UNDERLAY.prefix}.${UNDERLAY.etcd + index}`;
      return { name, netns, address, peerUrl: `http://${address}:${peer}`, clientUrl: `http://${address}:${client}` };
    });
    const cluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join();
    for (const { name, netns, address, peerUrl, clientUrl } of members) {
      const directory = path.join(this.directory, name);
      const member = members.length === 1 ? {} : { member: { name, peerUrl, clientUrl, cluster } };
      const tls = this.options.etcdTls === undefined ? {} : tlsOptions(this.options.etcdTls(this.directory));
      const args = [...(this.options.etcdArgs ?? []), ...(tls.args ?? [])];
      this.etcdMembers.push(new EtcdServer({ netns, address, directory, ...member, ...tls, args }));
      if (members.length === 1) continue;
      const routes = new Map([
        [client, 2379],
        [peer, 2380],
      ]);
      this.memberRelays.push(await Relay.start(netns, address, routes));
    }
  }

  async #layPair(): Promise<void> {
    if ((this.options.hosts ?? 2) !== 2) throw new RangeError('a pair has two hosts');
    const [first, second] = await this.#addNamespaces(numbered(2));
    if (first === undefined || second === undefined) throw new Error('no namespaces');
    await first.ip([
      `link add eth0 ${this.#mtuWords()} type veth peer name eth0 netns ${second.name}${this.#mtuWords(' ')}`,
    ]);
    await Promise.all(
      [first, second].map(async (netns, index) => this.#addressUnderlay(netns, UNDERLAY.firstHost + index)),
    );
    const address = `${UNDERLAY.prefix}.${UNDERLAY.firstHost}`;
    this.etcdMembers.push(new EtcdServer({ netns: first, address, directory: path.join(this.directory, 'etcd') }));
    await this.#addHosts([first, second], false);
  }

  async #addressUnderlay(netns: Netns, number: number): Promise<void> {
    await netns.ip([
      'link set eth0 up',
      `addr add ${UNDERLAY.prefix}.${number}/24 dev eth0`,
      ...(this.options.hasIpv6 === true
        ? [`addr add ${UNDERLAY.prefix6}${number.toString(16)}/64 dev eth0 nodad`]
        : []),
    ]);
  }

  async #addHosts(namespaces: readonly Netns[], hasRouter: boolean): Promise<void> {
    for (const [index, netns] of namespaces.entries()) {
      this.hosts.push(new Host(this, netns, `h${index + 1}`, UNDERLAY.firstHost + index));
    }
    await Promise.all(
      this.hosts.map(async ({ netns }) => {
        if (hasRouter) {
          await netns.ip([
            `route add default via ${UNDERLAY.prefix}.${UNDERLAY.router}`,
            ...(this.options.hasIpv6 === true ? [`route add default via ${UNDERLAY.prefix6}1`] : []),
          ]);
        } else {
          // The daemon looks for the interface of the default route.
          await netns.ip(['route add default dev eth0']);
        }
        if (this.options.link === 'wire') await makeWireLike(netns, 'eth0');
        if (this.options.reversePath === 'strict') filterStrictly(netns, ['all', 'default', 'eth0']);
      }),
    );
  }

  #mtuWords(before = ''): string {
    return this.options.mtu === undefined ? '' : `${before}mtu ${this.options.mtu}`;
  }
}

/** Drops what comes in where its answer would not leave; of `all` and the device's own value the larger counts. */
function filterStrictly(netns: Netns, scopes: readonly string[]): void {
  netns.setParameters(Object.fromEntries(scopes.map((scope) => [`net/ipv4/conf/${scope}/rp_filter`, 1])));
}

function tlsOptions({ caFile, server, client }: EtcdTls): Pick<EtcdOptions, 'args' | 'scheme' | 'clientTls'> {
  const files = ['--cert-file', server.certFile, '--key-file', server.keyFile, '--trusted-ca-file', caFile];
  return { args: [...files, '--client-cert-auth'], scheme: 'https', clientTls: { caFile, ...client } };
}

/**
 * Makes a veth end send frames of at most one MTU and merge what it receives, as on a link whose NIC has no TSO.
 * Checksums stay offloaded, as they are on every NIC.
 */
export async function makeWireLike(netns: Netns, device: string): Promise<void> {
  const off = ['tso', 'gso', 'tx-udp-segmentation'].flatMap((feature) => [feature, 'off']);
  await netns.run(['ethtool', '-K', device, ...off, 'gro', 'on']);
}

/** One host of a {@link Rig}: a namespace with an address on the underlay, and at most one daemon of ours. */
export class Host {
  #daemon: Daemon | undefined;
  #containers = 0;
  #hasBridge = false;
  readonly publicIp: string;
  readonly publicIpv6: string;

  constructor(
    readonly rig: Rig,
    readonly netns: Netns,
    readonly name: string,
    number: number,
  ) {
    this.publicIp = `${UNDERLAY.prefix}.${number}`;
    this.publicIpv6 = `${UNDERLAY.prefix6}${number.toString(16)}`;
  }

  /** The daemon made last. */
  get daemon(): Daemon | undefined {
    return this.#daemon;
  }

  /**
   * Makes a daemon for this host; it is not started.
   *
   * @param options.directory - under the rig's; for a second daemon on one host. Default the host's name.
   */
  makeDaemon(options: Partial<Omit<DaemonOptions, 'netns'>> = {}): Daemon {
    const args = this.rig.etcdPrefix === '/coreos.com/network' ? [] : [`--etcd-prefix=${this.rig.etcdPrefix}`];
    this.#daemon = new Daemon({
      etcdEndpoints: this.rig.etcd.endpoint,
      ...options,
      args: [...args, ...(options.args ?? [])],
      netns: this.netns,
      directory: path.join(this.rig.directory, options.directory ?? this.name),
    });
    return this.#daemon;
  }

  /** Makes a daemon, starts it and waits for its subnet.env. */
  async startDaemon(options: Partial<Omit<DaemonOptions, 'netns'>> = {}): Promise<Daemon> {
    const daemon = this.makeDaemon(options);
    await daemon.startAndWait();
    return daemon;
  }

  /**
   * Makes a container as Docker would from the daemon's subnet.env: a bridge with the first address of the subnet, and
   * behind it a namespace with the next free one, the MTU, and a default route.
   *
   * @param env - default: what the daemon's subnet.env says now.
   */
  async addContainer(env: SubnetEnv | undefined = this.#daemon?.subnetEnv()): Promise<Container> {
    const { FLANNEL_SUBNET: gateway, FLANNEL_MTU: mtu = '1500', FLANNEL_IPV6_SUBNET: gateway6 } = env ?? {};
    if (gateway === undefined) throw new Error(`${this.name}: no FLANNEL_SUBNET to make a container from`);
    const number = ++this.#containers;
    const netns = await this.rig.addNamespace(`${this.name}c${number}`);
    if (!this.#hasBridge) {
      this.#hasBridge = true;
      await this.netns.ip([
        'link add docker0 type bridge',
        `addr add ${gateway} dev docker0`,
        ...(gateway6 === undefined ? [] : [`addr add ${gateway6} dev docker0 nodad`]),
        'link set docker0 up',
      ]);
    }
    // A bridge takes over the smallest MTU of its ports.
    await this.netns.ip([
      `link add c${number} mtu ${mtu} type veth peer name eth0 netns ${netns.name} mtu ${mtu}`,
      `link set c${number} master docker0 up`,
    ]);
    const address = nthAddress(gateway, number);
    const address6 = gateway6 === undefined ? undefined : nthAddress6(gateway6, number);
    await netns.ip([
      'link set eth0 up',
      `addr add ${address}/${gateway.split('/')[1] ?? ''} dev eth0`,
      `route add default via ${gateway.split('/')[0] ?? ''}`,
      ...(gateway6 === undefined || address6 === undefined
        ? []
        : [
            `addr add ${address6}/${gateway6.split('/')[1] ?? ''} dev eth0 nodad`,
            `route add default via ${gateway6.split('/')[0] ?? ''}`,
          ]),
    ]);
    return { netns, address, address6 };
  }
}

/** A namespace behind a host, reached through the overlay. */
export interface Container {
  readonly netns: Netns;
  readonly address: string;
  readonly address6: string | undefined;
}

function numbered(count: number): string[] {
  if (!Number.isInteger(count) || count < 1 || count > 200)
    throw new RangeError(`a rig has 1 to 200 hosts, not ${count}`);
  return Array.from({ length: count }, (_, index) => `h${index + 1}`);
}

/** The address that many after the gateway's. */
function nthAddress(gateway: string, offset: number): string {
  const bytes = (gateway.split('/')[0] ?? '').split('.').map(Number);
  const value = bytes.reduce((sum, byte) => sum * 256 + byte, 0) + offset;
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

/** The same for IPv6, where the gateway's text ends in a number below 100 after `::`. */
function nthAddress6(gateway: string, offset: number): string {
  const text = gateway.split('/')[0] ?? '';
  const at = text.lastIndexOf(':') + 1;
  return `${text.slice(0, at)}${(Number.parseInt(text.slice(at) || '0', 16) + offset).toString(16)}`;
}
