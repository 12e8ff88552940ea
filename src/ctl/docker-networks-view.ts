import { renewalSeconds } from '../container/address-pools.js';
import { usePath } from '../container/account-records.js';
import { type ClusterNetwork, type ClusterNetworks, networkTitle } from '../container/cluster-networks.js';
import { parsePoolId, poolPath } from '../container/pool-id.js';
import type { IpAddress } from '../ip/address.js';
import type { OperatorStore, ValueEntry } from '../lease/store.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';

/** A network as `docker-networks --json` prints it. */
export interface NetworkRow {
  /** The name that it was given, or else its subnet. */
  readonly network: string;
  readonly subnet: string;
  readonly range: string | null;
  /** What its hosts have agreed on, such as `type` and `gateway`; null where they have not yet. */
  readonly properties: Readonly<Record<string, string>> | null;
  readonly hosts: readonly string[];
  /** How this host connects containers to it; null where it is not on this host. */
  readonly here: {
    readonly type: string;
    readonly mode: string;
    readonly parent: string;
    readonly hasHostAccess: boolean;
  } | null;
}

/** A host with what it has leased. */
export interface HostRow {
  readonly host: string;
  /** What it is called, as it tells itself; null where it does not. */
  readonly hostName: string | null;
  readonly isThisHost: boolean;
  readonly network: string;
  readonly blocks: readonly string[];
  /** Leased one by one, gateways and auxiliary addresses included. */
  readonly addresses: readonly string[];
  /** Since its etcd lease was renewed; null if that has ended. */
  readonly silentSeconds: number | null;
  readonly isAlive: boolean;
}

/** An address that a container has. */
export interface AddressRow {
  readonly address: string;
  readonly network: string;
  readonly host: string;
  /** As in {@link HostRow}. */
  readonly hostName: string | null;
  /** As below, of other hosts what they tell, some seconds late; null where that is not known. */
  readonly owner: string | null;
  readonly mac: string | null;
  readonly since: string | null;
  /** Since when no container has it; null where one has it, or nobody can tell. */
  readonly abandonedSince: string | null;
  /** `leased`: of another host, by what it wrote to etcd. */
  readonly state: 'confirmed' | 'unconfirmed' | 'lost' | 'leased';
}

/** An address that a machine on the network has. */
export interface SeenRow {
  readonly address: string;
  readonly network: string;
  readonly mac: string;
  readonly seenAt: string;
}

/** Everything that `docker-networks` shows. */
export interface NetworksView {
  readonly networks: readonly NetworkRow[];
  readonly hosts: readonly HostRow[];
  readonly addresses: readonly AddressRow[];
  readonly seen: readonly SeenRow[];
  /** Keys in etcd that cannot be read. */
  readonly badKeys: readonly string[];
}

/** When hosts were last heard of. */
export type HostSilence = ReadonlyMap<string, Pick<HostRow, 'silentSeconds' | 'isAlive'>>;

/** A host that is up may miss one renewal. */
const MISSED_RENEWALS = 2;

/** Asks etcd when the hosts have renewed what they have. */
export async function readSilence(
  store: Pick<OperatorStore, 'etcdLeaseTimes'>,
  { entriesByHost }: Pick<ClusterNetworks, 'entriesByHost'>,
  signal: AbortSignal,
): Promise<HostSilence> {
  const silence = new Map<string, Pick<HostRow, 'silentSeconds' | 'isAlive'>>();
  for (const [host, entries] of entriesByHost) {
    const times = await Promise.all(etcdLeasesOf(entries).map((id) => store.etcdLeaseTimes(id, signal)));
    const [latest] = times
      .filter((each) => each !== undefined)
      .map(({ grantedSeconds, remainingSeconds }) => ({
        silentSeconds: Math.max(0, grantedSeconds - remainingSeconds),
        limitSeconds: MISSED_RENEWALS * renewalSeconds(grantedSeconds),
      }))
      .sort((a, b) => a.silentSeconds - b.silentSeconds);
    silence.set(
      host,
      latest === undefined
        ? { silentSeconds: null, isAlive: false }
        : { silentSeconds: latest.silentSeconds, isAlive: latest.silentSeconds <= latest.limitSeconds },
    );
  }
  return silence;
}

/** The etcd leases that some keys end with. */
export function etcdLeasesOf(entries: readonly ValueEntry[]): readonly NonNullable<ValueEntry['etcdLeaseId']>[] {
  return [...new Set(entries.flatMap(({ etcdLeaseId }) => etcdLeaseId ?? []))];
}

/**
 * Puts together what etcd and the daemon of this host know.
 *
 * @param here - undefined where no daemon serves networks of containers.
 */
export function viewNetworks(
  { networks, hostNames, uses, badPaths }: ClusterNetworks,
  silence: HostSilence,
  here: ContainerNetworksStatus | undefined,
): NetworksView {
  return {
    networks: networks.map((network) => networkRow(network, here)),
    hosts: networks.flatMap((network) =>
      hostsOf(network).map((host): HostRow => ({
        host,
        hostName: hostNames.get(host) ?? null,
        isThisHost: host === here?.host,
        network: networkTitle(network),
        blocks: network.blocks.filter((each) => each.host === host).map(({ block }) => block.toString()),
        addresses: network.addresses.filter((each) => each.host === host).map(({ address }) => address.toString()),
        ...(silence.get(host) ?? { silentSeconds: null, isAlive: false }),
      })),
    ),
    addresses: [
      ...localRows(here),
      ...networks.flatMap((network) => remoteRows(network, uses).filter(({ host }) => host !== here?.host)),
    ].map((row) => ({ ...row, hostName: hostNames.get(row.host) ?? null })),
    seen: (here?.pools ?? []).flatMap(({ network, seen }) => seen.map((each) => ({ network, ...each }))),
    badKeys: badPaths,
  };
}

function networkRow(network: ClusterNetwork, here: ContainerNetworksStatus | undefined): NetworkRow {
  const subnet = network.subnet.toString();
  const path = poolPath(network);
  const local = here?.networks.find(({ pools }) => pools.some((id) => poolPath(parsePoolId(id)) === path));
  return {
    network: networkTitle(network),
    subnet,
    range: network.record?.range.toString() ?? null,
    properties: network.record?.properties ?? null,
    hosts: network.hosts,
    here:
      local === undefined
        ? null
        : { type: local.type, mode: local.mode, parent: local.parent, hasHostAccess: local.hasHostAccess },
  };
}

function hostsOf({ hosts, blocks, addresses }: ClusterNetwork): readonly string[] {
  return [...new Set([...hosts, ...[...blocks, ...addresses].map(({ host }) => host)])].sort();
}

/** What a daemon of an earlier release does not tell. */
const LATER_FIELDS: Pick<AddressRow, 'abandonedSince'> = { abandonedSince: null };

type UnnamedRow = Omit<AddressRow, 'hostName'>;

function localRows(here: ContainerNetworksStatus | undefined): readonly UnnamedRow[] {
  if (here === undefined) return [];
  return here.pools.flatMap(({ network, uses }) =>
    uses.map((use) => ({ ...LATER_FIELDS, ...use, network, host: here.host })),
  );
}

function remoteRows(network: ClusterNetwork, uses: ClusterNetworks['uses']): readonly UnnamedRow[] {
  const places: { readonly host: string; readonly address: IpAddress }[] = [
    ...network.blocks.flatMap(({ host, used }) => used.map((address) => ({ host, address }))),
    ...network.addresses.filter(({ kind }) => kind === 'container'),
  ];
  return places.map(({ host, address }) => {
    const use = uses.get(usePath(host, network, address));
    return {
      address: address.toString(),
      network: networkTitle(network),
      host,
      owner: use?.owner ?? null,
      mac: use?.mac ?? null,
      since: use === undefined ? null : new Date(use.sinceMs).toISOString(),
      abandonedSince: null,
      state: 'leased',
    };
  });
}
