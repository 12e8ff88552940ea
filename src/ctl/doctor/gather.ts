import { existsSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { NetworkConfig } from '../../config/network-config.js';
import { Deadline } from '../../deadline.js';
import { findRunningDocker } from '../../docker/running-docker.js';
import { readSubnetEnv } from '../../docker/subnet-env.js';
import { describeError } from '../../errors.js';
import { layoutKeys } from '../../etcd/endpoints.js';
import { bridgeNetfilterFinding } from '../../firewall/findings.js';
import { IpAddress } from '../../ip/address.js';
import type { ConfigVersion, OperatorStore } from '../../lease/store.js';
import { RT_TABLE_MAIN } from '../../netlink/constants.js';
import { Netlink } from '../../netlink/netlink.js';
import { SYSCTL } from '../../netlink/sysctl-paths.js';
import { readSysctl } from '../../netlink/sysctl.js';
import type { DaemonStatus } from '../../observe/status.js';
import { type CtlContext, type StoreOptions, withStore } from '../command.js';
import { checkConfig, tryCheckConfig } from '../config-validation.js';
import { readDaemonStatus } from '../daemon-client.js';
import { withContainerNames } from '../docker-containers.js';
import { type LeaseRow, readLeaseRows } from '../lease-rows.js';
import type { DoctorFacts, PeerProbe } from './facts.js';
import { readContainerFacts } from './gather-containers.js';
import { readProxied } from './gather-proxied.js';
import { readPolicy, readWays } from './gather-routes.js';
import { readRules } from './gather-rules.js';
import { type Ping, type ProbeOptions, probePeers } from './probe.js';

/** The Date of an HTTP answer has whole seconds; waiting longer would blur it further. */
const CLOCK_ANSWER_MS = 2000;

/** What to look at, and how hard. */
export interface GatherOptions extends StoreOptions {
  readonly statusSocket: string;
  readonly subnetFile: string;
  /** 0 probes nobody. */
  readonly maxPeers: number;
  readonly ping: Ping;
  /** MAC addresses that a switch port takes; 0: not known. */
  readonly macLimit: number;
  /** See {@link ProbeOptions}. */
  readonly onProgress: ProbeOptions['onProgress'];
}

/**
 * Collects everything the checks look at. What cannot be had is left out and said so in the facts.
 *
 * @throws {@link OverlayError} `ERR_NETLINK` if not even the kernel answers.
 */
export async function gatherFacts(context: CtlContext, options: GatherOptions): Promise<DoctorFacts> {
  const [stored, daemon, env, clockAheadSeconds] = await Promise.all([
    readStore(context, options),
    readDaemon(context, options.statusSocket),
    readSubnetEnv(options.subnetFile),
    clockAhead(context, options.etcdEndpoints),
  ]);
  const netlink = Netlink.open({ clock: context.clock });
  try {
    const links = await netlink.links.list();
    const addresses = await netlink.addresses.list();
    const routes = [
      ...(await netlink.routes.list({ family: 4, table: RT_TABLE_MAIN })),
      ...(await netlink.routes.list({ family: 6, table: RT_TABLE_MAIN })),
    ];
    const own = findOwn(
      stored.leases,
      env?.subnet?.toString(),
      new Set(addresses.map(({ address }) => address.toString())),
    );
    const peers = stored.leases.filter((lease) => lease !== own);
    const target = IpAddress.tryParse(peers[0]?.publicIp ?? '') ?? stored.network?.ipv4?.network.address;
    const index = target === undefined ? undefined : netlink.routes.lookup(target)?.index;
    const link = links.find((each) => each.index === index || each.name === daemon.status?.underlay?.device);
    const underlay = link === undefined ? undefined : { device: link.name, mtu: link.mtu };
    const { probes, probeNote } = await probe(peers, underlay?.mtu, options);
    const policy = await readPolicy();
    const rules = await readRules();
    const networks = daemon.status?.containerNetworks ?? undefined;
    const macLimit = options.macLimit === 0 ? undefined : options.macLimit;
    const sources = { links, addresses, routes, leases: stored.leases, macLimit, netlink };
    return {
      etcdPrefix: options.etcdPrefix,
      etcdEndpoints: options.etcdEndpoints,
      ...stored,
      clockAheadSeconds,
      nowMs: context.clock.wallMs(),
      daemon: daemon.status,
      daemonError: daemon.error,
      statusSocket: options.statusSocket,
      subnetFile: options.subnetFile,
      env,
      links,
      addresses,
      routes,
      ways: readWays(netlink, { peers: peers.slice(0, options.maxPeers), own, links, addresses, routes }),
      ...policy,
      sysctls: readSysctls(underlay?.device),
      ...rules,
      docker: await findRunningDocker(),
      containers: networks && (await readContainerFacts(context, options, { ...sources, containers: networks })),
      proxied: await readProxied({ netlink, links, addresses, ping: options.ping }),
      macLimit,
      hasSystemd: existsSync('/run/systemd/system'), // sd_booted(3)
      bridgeNetfilter: await bridgeNetfilterFinding({
        mode: stored.network?.useNftables === true ? 'nftables' : 'iptables',
      }),
      underlay,
      publicIpNeighbour: await findPublicIpNeighbour(daemon.status, { netlink, links, addresses, ping: options.ping }),
      own,
      probes,
      probeNote,
    };
  } finally {
    netlink.close();
  }
}

interface Stored {
  readonly storeError: string | undefined;
  readonly network: NetworkConfig | undefined;
  readonly configError: string | undefined;
  readonly lastValidConfig: ConfigVersion | undefined;
  readonly leases: readonly LeaseRow[];
}

async function readStore(context: CtlContext, options: GatherOptions): Promise<Stored> {
  try {
    return await withStore(context, options, async (store) => {
      const entry = await store.readConfig(context.signal);
      const { rows } = await readLeaseRows(store, { wallMs: context.clock.wallMs(), signal: context.signal });
      const common = { storeError: undefined, leases: rows };
      try {
        if (entry === undefined) throw new Error(`${layoutKeys(options.etcdPrefix).config} is empty`);
        const { network } = checkConfig(entry.text);
        return { ...common, network, configError: undefined, lastValidConfig: undefined };
      } catch (error) {
        const lastValidConfig = await readLastValid(store, context.signal);
        const network = lastValidConfig === undefined ? undefined : tryCheckConfig(lastValidConfig.text)?.network;
        return { ...common, network, configError: describeError(error), lastValidConfig };
      }
    });
  } catch (error) {
    context.signal.throwIfAborted();
    const nothing = { network: undefined, configError: undefined, lastValidConfig: undefined, leases: [] };
    return { storeError: describeError(error), ...nothing };
  }
}

/** So many versions are looked through for one that daemons could use. */
const MAX_VERSIONS = 20;

async function readLastValid(store: OperatorStore, signal: AbortSignal): Promise<ConfigVersion | undefined> {
  const { versions } = await store.configHistory(MAX_VERSIONS, signal);
  return versions.find(({ text }) => tryCheckConfig(text) !== undefined);
}

async function readDaemon(
  context: CtlContext,
  socket: string,
): Promise<{ readonly status: DaemonStatus | undefined; readonly error: string | undefined }> {
  try {
    const status = await readDaemonStatus(socket, context.signal);
    const { containerNetworks: networks } = status;
    const containerNetworks = networks && (await withContainerNames(networks));
    return { status: { ...status, containerNetworks }, error: undefined };
  } catch (error) {
    context.signal.throwIfAborted();
    return { status: undefined, error: describeError(error) };
  }
}

function findOwn(
  leases: readonly LeaseRow[],
  subnet: string | undefined,
  local: ReadonlySet<string>,
): LeaseRow | undefined {
  return leases.find((lease) => local.has(lease.publicIp)) ?? leases.find((lease) => lease.subnet === subnet);
}

/**
 * The public address of this host may be that of a NAT device somewhere, but not that of a neighbour: then two hosts
 * claim it.
 */
async function findPublicIpNeighbour(
  daemon: DaemonStatus | undefined,
  host: Pick<DoctorFacts, 'links' | 'addresses'> & { readonly netlink: Pick<Netlink, 'routes'>; readonly ping: Ping },
): Promise<string | undefined> {
  const publicIp = IpAddress.tryParse(daemon?.lease?.publicIp ?? '');
  if (publicIp === undefined || host.addresses.some(({ address }) => address.equals(publicIp))) return undefined;
  const route = host.netlink.routes.lookup(publicIp);
  if (route === undefined || route.gateway !== undefined) return undefined;
  const device = host.links.find(({ index }) => index === route.index)?.name;
  return (await host.ping(publicIp.toString())) === 'answer' ? device : undefined;
}

async function probe(
  peers: readonly LeaseRow[],
  underlayMtu: number | undefined,
  { maxPeers, ping, onProgress }: GatherOptions,
): Promise<{ readonly probes: readonly PeerProbe[]; readonly probeNote: string | undefined }> {
  if (maxPeers === 0) return { probes: [], probeNote: 'no peer was probed, as asked' };
  if (peers.length === 0) return { probes: [], probeNote: undefined };
  if (underlayMtu === undefined) return { probes: [], probeNote: 'no peer was probed: there is no route to them' };
  if ((await ping('127.0.0.1')) === undefined) {
    return { probes: [], probeNote: 'no peer was probed: there is no program ping; install iputils-ping' };
  }
  const chosen = peers.slice(0, maxPeers);
  const probeNote =
    chosen.length < peers.length ? `${chosen.length} of ${peers.length} peers were probed; see --max-peers` : undefined;
  return {
    probes: await probePeers(chosen, { underlayMtu, ping, ...(onProgress === undefined ? {} : { onProgress }) }),
    probeNote,
  };
}

function readSysctls(device: string | undefined): ReadonlyMap<string, string> {
  const paths = [
    SYSCTL.ipv4Forwarding,
    SYSCTL.ipv6Forwarding,
    SYSCTL.reversePathFilter('all'),
    ...(device === undefined ? [] : [SYSCTL.reversePathFilter(device), SYSCTL.acceptRouterAdvertisements(device)]),
  ];
  return new Map(
    paths.flatMap((path): [string, string][] => {
      const value = readSysctl(path);
      return value === undefined ? [] : [[path, value]];
    }),
  );
}

/**
 * Seconds that our clock is ahead of etcd's, which tells the time with every HTTP answer (RFC 9110 6.6.1).
 *
 * @internal
 */
export async function clockAhead(
  { clock, signal }: Pick<CtlContext, 'clock' | 'signal'>,
  endpoints: readonly string[],
): Promise<number | undefined> {
  const [url] = endpoints.filter((endpoint) => /^https?:/.test(endpoint) && URL.canParse('/version', endpoint));
  if (url === undefined) return undefined;
  const deadline = new Deadline(clock, CLOCK_ANSWER_MS, signal);
  const date = await new Promise<string | undefined>((resolve) => {
    const client = url.startsWith('https:') ? https : http;
    // Only the Date is read, so it does not matter who vouches for the server.
    const options = { method: 'HEAD', signal: deadline.signal, agent: false, rejectUnauthorized: false };
    const request = client.request(new URL('/version', url), options, (response) => {
      response.resume();
      resolve(response.headers.date);
    });
    request.on('error', () => resolve(undefined)); // the check of etcd itself tells what is wrong
    request.end();
  });
  deadline.clear();
  const theirMs = Date.parse(date ?? '');
  return Number.isNaN(theirMs) ? undefined : Math.round((clock.wallMs() - theirMs) / 1000);
}
