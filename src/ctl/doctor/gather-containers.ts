import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { type ClusterNetworks, readClusterNetworks } from '../../container/cluster-networks.js';
import { shimNameOf } from '../../docker/plugin/host-access.js';
import { isRouted } from '../../docker/plugin/network.js';
import { isOverlayError } from '../../errors.js';
import { IpAddress } from '../../ip/address.js';
import { type MacAddress, deriveMac, isUnicastMac, parseMac } from '../../ip/mac.js';
import { Prefix } from '../../ip/prefix.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { Netlink } from '../../netlink/netlink.js';
import type { ContainerNetworksStatus } from '../../observe/container-status.js';
import { oneLine } from '../../printable.js';
import { type CtlContext, type StoreOptions, withStore } from '../command.js';
import { askDocker } from '../docker-containers.js';
import { readSilence } from '../docker-networks-view.js';
import type { ContainerFacts, ParentFacts, StrandedContainer } from './container-facts.js';
import type { DoctorFacts } from './facts.js';
import { probeForeignMac } from './foreign-mac.js';

/** What has been gathered before. */
export interface ContainerSources extends Pick<DoctorFacts, 'links' | 'addresses' | 'routes' | 'leases' | 'macLimit'> {
  readonly containers: ContainerNetworksStatus;
  readonly netlink: Pick<Netlink, 'fdb'>;
}

/** Looks at what networks of containers need: their interfaces, the range in etcd, and Docker's containers. */
export async function readContainerFacts(
  context: CtlContext,
  options: StoreOptions,
  sources: ContainerSources,
): Promise<ContainerFacts> {
  const [parents, cluster, stranded, machine] = await Promise.all([
    readParents(context, sources),
    readCluster(context, options),
    readStranded(sources.containers),
    readMachine(),
  ]);
  return { parents, ...cluster, stranded, machine };
}

async function readParents(context: CtlContext, sources: ContainerSources): Promise<readonly ParentFacts[]> {
  const networks = sources.containers.networks.filter(({ isInternal, type }) => !isInternal && !isRouted({ type }));
  const names = new Set(networks.map(({ parent }) => parent));
  const parents = sources.links.filter(({ name, isUp }) => isUp && names.has(name));
  return Promise.all(
    parents.map(async (link): Promise<ParentFacts> => {
      const macs = await macsBehind(link, sources);
      const foreign = await probe(context, link, macs, sources);
      return { name: link.name, macs, foreign, isWireless: existsSync(`/sys/class/net/${link.name}/phy80211`) };
    }),
  );
}

/**
 * Macvlan has its device receive what is for its interfaces (`dev_uc_add()`), also for those in namespaces that nobody
 * sees; the kernel lists these addresses among the device's forwarding entries (`ndo_dflt_fdb_dump()`). The interface of
 * {@link shimNameOf} sends nothing outside.
 */
async function macsBehind(
  link: LinkInfo,
  { links, netlink }: Pick<ContainerSources, 'links' | 'netlink'>,
): Promise<readonly MacAddress[]> {
  const shim = links.find(({ name, lowerIndex }) => name === shimNameOf(link.name) && lowerIndex === link.index)?.mac;
  const entries = await netlink.fdb.list(link.index);
  const received = entries.filter(({ mac, isSelf }) => isSelf && isUnicastMac(mac) && mac !== shim);
  return [...new Set([...(link.mac === undefined ? [] : [link.mac]), ...received.map(({ mac }) => mac)])];
}

async function probe(
  { clock }: CtlContext,
  link: LinkInfo,
  macs: readonly MacAddress[],
  sources: ContainerSources,
): Promise<ParentFacts['foreign']> {
  const { containers, macLimit } = sources;
  const networks = containers.networks.filter(
    ({ type, parent, mode }) => type === 'macvlan' && parent === link.name && mode !== 'passthru',
  );
  if (link.mac === undefined || networks.length === 0) return undefined;
  const running = networks.flatMap(({ endpoints }) => endpoints.filter(({ isJoined }) => isJoined));
  // A container's address is known to the switch already: one more could be one too many for it.
  const known = running.map(({ mac }) => parseMac(mac)).find((mac) => macs.includes(mac));
  if (known === undefined && macLimit !== undefined && macs.length >= macLimit) return undefined;
  return probeForeignMac({
    device: link.name,
    own: link.mac,
    foreign: known ?? deriveMac(containers.host, `${link.name} doctor`),
    neighbours: neighboursOf(
      link,
      networks.flatMap(({ gateways }) => gateways),
      sources,
    ),
    clock,
  });
}

/** IPv4 addresses of routers and other hosts that should be on the network of a device. */
function neighboursOf(
  { index }: LinkInfo,
  gateways: readonly string[],
  { addresses, routes, leases }: Pick<ContainerSources, 'addresses' | 'routes' | 'leases'>,
): readonly IpAddress[] {
  const onLink = addresses.filter((each) => each.index === index).map((each) => Prefix.of(each.address, each.length));
  const hosts = leases.map(({ publicIp }) => publicIp).filter((text) => isIn(onLink, text));
  const hops = routes.filter((route) => route.index === index).flatMap(({ gateway }) => gateway?.toString() ?? []);
  const own = new Set(addresses.map(({ address }) => address.toString()));
  return [...new Set([...gateways, ...hops, ...hosts])]
    .filter((text) => !own.has(text))
    .flatMap((text) => IpAddress.tryParse(text) ?? [])
    .filter(({ family }) => family === 4);
}

function isIn(prefixes: readonly Prefix[], text: string): boolean {
  const address = IpAddress.tryParse(text);
  return address !== undefined && prefixes.some((each) => each.contains(address));
}

async function readCluster(
  context: CtlContext,
  options: StoreOptions,
): Promise<Pick<ContainerFacts, 'cluster' | 'silentHosts'>> {
  try {
    return await withStore(context, options, async (store) => {
      const cluster: ClusterNetworks = await readClusterNetworks(store, context.signal);
      const silence = await readSilence(store, cluster, context.signal);
      const silentHosts = [...silence].filter(([, { isAlive }]) => !isAlive).map(([host]) => host);
      return { cluster: cluster.networks, silentHosts: silentHosts.sort() };
    });
  } catch (error) {
    context.signal.throwIfAborted();
    if (!isOverlayError(error)) throw error;
    return { cluster: undefined, silentHosts: [] }; // the check of etcd says what is wrong
  }
}

/** Errors of Docker that come from this plugin, or from its absence. */
const OF_PLUGIN = /tsflannel|NetworkDriver\.|IpamDriver\.|No address returned/;

/** Policies by which Docker starts a container with itself. */
const RESTARTING: ReadonlySet<string> = new Set(['always', 'unless-stopped', 'on-failure']);

async function readStranded({ networks }: ContainerNetworksStatus): Promise<readonly StrandedContainer[]> {
  if (networks.length === 0) return [];
  const inThese = networks.flatMap(({ id }) => ['--filter', `network=${id}`]);
  const isDown = ['exited', 'created'].flatMap((status) => ['--filter', `status=${status}`]);
  const ids = await askDocker(['ps', '--all', '--quiet', '--no-trunc', ...isDown, ...inThese]);
  if (ids.length === 0) return [];
  const format = '[{{json .HostConfig.RestartPolicy.Name}},{{json .Name}},{{json .State.Error}}]';
  return (await askDocker(['inspect', '--type', 'container', '--format', format, ...ids]))
    .map((line) => JSON.parse(line) as [policy: string, name: string, error: string])
    .filter(([policy, , error]) => RESTARTING.has(policy) && OF_PLUGIN.test(error))
    .map(([, name, error]) => ({ name: name.replace(/^\//, ''), error: oneLine(error) }));
}

/** SMBIOS, which virtual machines have from their hypervisor. */
async function readMachine(): Promise<string> {
  const files = ['sys_vendor', 'product_name'].map((name) => `/sys/class/dmi/id/${name}`);
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
  return oneLine(
    texts
      .map((text) => text.trim())
      .filter(Boolean)
      .join(' '),
    100,
  );
}
