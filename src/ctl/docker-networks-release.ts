import {
  type ClusterNetworks,
  type LeasedBlock,
  networkTitle,
  readClusterNetworks,
} from '../container/cluster-networks.js';
import { maskOf } from '../container/pool-layout.js';
import { encodeBlock } from '../container/records.js';
import { OverlayError, isOverlayError } from '../errors.js';
import { IpAddress } from '../ip/address.js';
import type { OperatorStore, ValueEntry, ValueTransaction } from '../lease/store.js';
import { optionalTextFlag, switchFlag } from '../config/flag-values.js';
import {
  type CtlContext,
  defineCommand,
  EXIT,
  type ExitCode,
  printJson,
  STORE_FLAGS,
  type StoreOptions,
  withStore,
  YES_FLAG,
} from './command.js';
import { readDaemonStatus } from './daemon-client.js';
import { etcdLeasesOf, readSilence } from './docker-networks-view.js';
import { PLUGIN_FLAGS, PluginClient } from './plugin-client.js';
import { formatDuration } from './text-table.js';
import type { ContainerNetworksStatus } from '../observe/container-status.js';

/** What to do about an address that is not freed. */
const ADVICE =
  '; look at docker network inspect and tsflannelctl docker-networks, detach a namespace with tsflannelctl detach, or give --force if it is nobody’s';

/** Conditions in one step; etcd takes 128 (`--max-txn-ops`). */
const STEP = 100;

/** `docker-networks release HOST|ADDRESS...` */
export const dockerNetworksRelease = defineCommand({
  name: 'docker-networks release',
  summary: 'Free addresses of containers at once: of a host that is gone, or of no container',
  description:
    'A host frees all that it has leased, an address itself alone. A host that comes back later finds out from etcd, which it must be able to ask; make sure that it is off, or cut off for good. An address that this host has given is freed by its daemon if no container has it.',
  operands: [
    {
      name: 'HOST|ADDRESS',
      isOptional: false,
      isRepeatable: true,
      help: 'a host or an address as tsflannelctl docker-networks lists them',
      values: 'none',
    },
  ],
  flags: {
    ...STORE_FLAGS,
    ...YES_FLAG,
    ...PLUGIN_FLAGS,
    network: optionalTextFlag({
      group: 'containers',
      placeholder: 'NAME|SUBNET',
      help: 'The network of the addresses, where several have them.',
    }),
    force: switchFlag(false, {
      group: 'observe',
      help: 'Also while the host is alive, and an address of this host also if nobody can tell whether a container has it.',
    }),
  },
  exits: ['unreachable', 'refused'],
  async run(context, { operands, options }) {
    const here = await readHere(options.statusSocket, context.signal);
    const local = operands.flatMap((word) => findLocal(here, word, options.network) ?? []);
    if (local.length === 0) return releaseInStore(context, operands, options);
    if (local.length === operands.length) return releaseHere(context, local, options);
    throw new OverlayError('ERR_FLAG', 'cannot free what this host has given together with what others have', {
      hint: `free ${local.map(({ address }) => address).join(' and ')} by a command of their own`,
    });
  },
});

/** What the command line says besides what to free. */
type ReleaseOptions = StoreOptions & {
  readonly yes: boolean;
  readonly force: boolean;
  readonly json: boolean;
  readonly network: string | undefined;
};

/** Frees what hosts have leased that are gone, in etcd. */
function releaseInStore(context: CtlContext, operands: readonly string[], options: ReleaseOptions): Promise<ExitCode> {
  return withStore(context, options, async (store) => {
    const { signal } = context;
    const cluster = await readClusterNetworks(store, signal);
    const releases = operands.map((word) => findRelease(cluster, word, options.network));
    const silence = await readSilence(store, cluster, signal);
    const alive = releases.find(({ host }) => silence.get(host)?.isAlive === true);
    if (alive !== undefined && !options.force) {
      const seconds = silence.get(alive.host)?.silentSeconds ?? 0;
      context.err.line(
        `nothing is freed: host ${alive.host} is alive, it renewed its lease ${formatDuration(seconds)} ago; stop its daemon, or give --force`,
      );
      return EXIT.refused;
    }
    if (!options.yes) {
      for (const { what } of releases) context.err.line(`to be freed: ${what}`);
      if ((await context.confirm('Free them? No container may use them any more.')) !== true) {
        context.err.line('nothing is freed; say yes, or give --yes');
        return EXIT.refused;
      }
    }
    for (const release of releases) await carryOut(store, release, signal);
    if (options.json) printJson(context, { released: releases.map(({ host, what }) => ({ host, what })) });
    else for (const { what } of releases) context.out.line(`freed ${what}`);
    return EXIT.ok;
  });
}

/** An address that this host has given to a container. */
interface LocalUse {
  readonly host: string;
  readonly pool: string;
  readonly network: string;
  readonly address: string;
}

/** What the daemon of this host knows; undefined where none serves such networks, as on a host without Docker. */
async function readHere(socket: string, signal: AbortSignal): Promise<ContainerNetworksStatus | undefined> {
  try {
    return (await readDaemonStatus(socket, signal)).containerNetworks ?? undefined;
  } catch (error) {
    signal.throwIfAborted();
    if (isOverlayError(error, 'ERR_DAEMON_UNREACHABLE') || isOverlayError(error, 'ERR_NOT_PRIVILEGED'))
      return undefined;
    throw error;
  }
}

function findLocal(
  here: ContainerNetworksStatus | undefined,
  word: string,
  title: string | undefined,
): LocalUse | undefined {
  const address = IpAddress.tryParse(word)?.toString();
  const found = (here?.pools ?? [])
    .filter(({ network, subnet }) => title === undefined || title === network || title === subnet)
    .filter(({ uses }) => uses.some((use) => use.address === address));
  const [pool] = found;
  if (here === undefined || pool === undefined || address === undefined) return undefined;
  if (found.length === 1) return { host: here.host, pool: pool.id, network: pool.network, address };
  throw ambiguous(
    address,
    found.map(({ network }) => network),
  );
}

/** Has the daemon of this host free what no container has. */
async function releaseHere(
  context: CtlContext,
  uses: readonly LocalUse[],
  options: ReleaseOptions & { readonly pluginSocket: string },
): Promise<ExitCode> {
  const plugin = new PluginClient(options.pluginSocket, context.signal);
  const what = ({ address, network }: LocalUse): string => `${address} of network ${network}`;
  if (!options.yes) {
    for (const use of uses) context.err.line(`to be freed: ${what(use)}, which this host has given`);
    if ((await context.confirm('Free them? No container may use them any more.')) !== true) {
      context.err.line('nothing is freed; say yes, or give --yes');
      return EXIT.refused;
    }
  }
  const released: LocalUse[] = [];
  for (const use of uses) {
    const request = { PoolID: use.pool, Address: use.address, Force: options.force };
    const { Refusal: why } = await plugin.call('IpamDriver.FreeAddress', request);
    if (typeof why !== 'string') released.push(use);
    else context.err.line(`${what(use)} is not freed: ${why}${options.force ? '' : ADVICE}`);
  }
  if (options.json) printJson(context, { released: released.map((use) => ({ host: use.host, what: what(use) })) });
  else for (const use of released) context.out.line(`freed ${what(use)}`);
  return released.length === uses.length ? EXIT.ok : EXIT.refused;
}

/** What one word asks to free. */
interface Release {
  readonly host: string;
  /** For people. */
  readonly what: string;
  readonly deletes: readonly ValueEntry[];
  /** A block that an address is struck out of. */
  readonly put: { readonly entry: ValueEntry; readonly text: string } | undefined;
}

function findRelease(cluster: ClusterNetworks, word: string, title: string | undefined): Release {
  const address = IpAddress.tryParse(word);
  if (address !== undefined) return findAddress(cluster, address, title);
  const deletes = cluster.entriesByHost.get(word);
  if (deletes === undefined) throw notFound(word, 'no host has that name, and it is no address');
  const blocks = cluster.networks.flatMap((network) => network.blocks.filter(({ host }) => host === word));
  const singles = cluster.networks.flatMap((network) => network.addresses.filter(({ host }) => host === word));
  const places = [...blocks.map(({ block }) => block), ...singles.map((each) => each.address)];
  const list = places.length === 0 ? 'no addresses' : places.map((each) => each.toString()).join(', ');
  return { host: word, what: `all of host ${word}: ${list}`, deletes, put: undefined };
}

function findAddress({ networks }: ClusterNetworks, address: IpAddress, title: string | undefined): Release {
  const wanted = networks.filter(
    (network) => title === undefined || title === networkTitle(network) || title === network.subnet.toString(),
  );
  const found = wanted.flatMap((network): Release[] => {
    const describe = (host: string): string =>
      `${address.toString()} of network ${networkTitle(network)}, which host ${host} has`;
    const keys = network.addresses.filter((each) => each.address.equals(address));
    const blocks = network.blocks.filter(
      ({ block, own }) => block.contains(address) && (own & maskOf(block, address)) > 0n,
    );
    return [
      ...keys.map(({ host, entry }) => ({ host, what: describe(host), deletes: [entry], put: undefined })),
      ...blocks.map((block) => ({
        host: block.host,
        what: describe(block.host),
        deletes: [],
        put: { entry: block.entry, text: without(block, address) },
      })),
    ];
  });
  const [release] = found;
  if (release === undefined) throw notFound(address.toString(), 'no host has leased that address');
  if (found.length === 1) return release;
  throw notFound(
    address.toString(),
    `it is leased ${found.length} times, in several networks (give --network) or by several hosts`,
  );
}

function without({ host, block, own, used }: LeasedBlock, address: IpAddress): string {
  const mask = maskOf(block, address);
  const rest = used.filter((each) => !each.equals(address)).reduce((sum, each) => sum | maskOf(block, each), 0n);
  return encodeBlock({ host, own: own & ~mask, used: rest });
}

/** Nothing is freed that has changed since it was looked at: its host is alive. */
async function carryOut(store: OperatorStore, { host, deletes, put }: Release, signal: AbortSignal): Promise<void> {
  const steps: ValueTransaction[] = [];
  for (let begin = 0; begin < deletes.length; begin += STEP) {
    const entries = deletes.slice(begin, begin + STEP);
    steps.push({
      conditions: entries.map(({ path, revision }) => ({ path, revision })),
      deletes: entries.map(({ path }) => path),
    });
  }
  if (put !== undefined) {
    const { path, revision, etcdLeaseId } = put.entry;
    steps.push({ conditions: [{ path, revision }], puts: [{ path, text: put.text, etcdLeaseId }] });
  }
  for (const step of steps) {
    if ((await store.transactValues(step, signal)) !== undefined) continue;
    throw new OverlayError('ERR_CONFLICT', `cannot free addresses of host ${host}: they changed in the meantime`, {
      hint: 'look at tsflannelctl docker-networks, then run this again',
    });
  }
  // So the host cannot go on with it: what it believes to have it compares with etcd first.
  for (const id of etcdLeasesOf(deletes)) await store.revokeEtcdLease(id, signal);
}

function ambiguous(address: string, networks: readonly string[]): OverlayError {
  return new OverlayError('ERR_NOT_FOUND', `cannot free ${address}: ${networks.join(' and ')} have it`, {
    hint: 'say which one with --network',
  });
}

function notFound(word: string, why: string): OverlayError {
  return new OverlayError('ERR_NOT_FOUND', `cannot free ${word}: ${why}`, { hint: 'see tsflannelctl docker-networks' });
}
