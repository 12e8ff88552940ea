import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { readNetwork } from '../backend/network.js';
import { UnfitValue, repeatableFlag, switchFlag } from '../config/flag-values.js';
import { FLAGS, formerStateDirectory } from '../config/flags.js';
import { parseNetworkConfig } from '../config/network-config.js';
import { STATE_FILES } from '../config/paths.js';
import { Deadline } from '../deadline.js';
import { restoreGro } from '../dataplane/kernel-tunnel.js';
import { DockerService } from '../docker/docker-service.js';
import { pluginInstances } from '../docker/plugin/instances.js';
import { readSubnetEnv } from '../docker/subnet-env.js';
import { OverlayError, describeError } from '../errors.js';
import { ContainerFirewall } from '../firewall/containers/container-firewall.js';
import { Firewall } from '../firewall/firewall.js';
import { Prefix } from '../ip/prefix.js';
import { silentLogger } from '../log.js';
import { describeAspect } from '../reconcile/aspects.js';
import { EMPTY_STATE, ROUTE_PROTOCOL } from '../reconcile/desired.js';
import type { FormerValues } from '../reconcile/former-values.js';
import { FormerValuesFile, PARAMETERS_OF } from '../reconcile/former-values-file.js';
import type { Kernel } from '../reconcile/kernel.js';
import { NetlinkKernel } from '../reconcile/netlink-kernel.js';
import { ALIAS_PREFIX, instanceOf } from '../reconcile/ownership.js';
import { Reconciler } from '../reconcile/reconciler.js';
import { errnoOf } from '../sys/errno.js';
import { type RunningDaemon, flannelDaemons } from '../sys/flannel-daemons.js';
import { requirePrivileges } from '../sys/privileges.js';
import { systemctl } from '../systemd/systemctl.js';
import { type CtlContext, defineCommand, EXIT, HOST_FLAGS, printJson, STORE_FLAGS, withStore } from './command.js';
import { containerRemains } from './container-remains.js';
import { isDaemonListening } from './daemon-client.js';
import { recordingKernel } from './recording-kernel.js';
import { requireRoot } from './rights.js';

/** Time for etcd to tell the network; without it, the files have to do. */
const STORE_PATIENCE_MS = 2000;

/** Removing thousands of routes takes about a second; what is not gone by then needs a person. */
const REMOVAL_PATIENCE_MS = 20_000;

/** What `cleanup --json` prints. */
interface CleanupReport {
  /** Overlay networks that were looked at. */
  readonly networks: readonly string[];
  readonly removed: readonly string[];
  /** What looks like ours and stays, and why. */
  readonly left: readonly string[];
}

/** `cleanup` */
export const cleanup = defineCommand({
  name: 'cleanup',
  summary: 'Remove everything of the overlay from this host: devices, routes, neighbours, firewall rules',
  description:
    'For a host that leaves the overlay. Its lease stays; see leases release. The overlay networks come from --network, the subnet file, the state directory and etcd, whichever is there. Objects of others, and those of daemons with another --etcd-prefix, are left alone.',
  operands: [],
  flags: {
    ...HOST_FLAGS,
    'state-dir': FLAGS['state-dir'],
    ...STORE_FLAGS,
    network: repeatableFlag(
      { group: 'lease', placeholder: 'NETWORK', help: 'Network of the overlay, such as 10.5.0.0/16. Can be repeated.' },
      (text) => {
        if (Prefix.tryParse(text) === undefined) throw new UnfitValue('it is no network', 'use the form 10.5.0.0/16');
      },
    ),
    'remove-files': switchFlag(false, {
      group: 'files',
      help: 'Remove the subnet file and the state directory as well.',
    }),
    force: switchFlag(false, {
      group: 'observe',
      help: 'Do it although a daemon runs, which will repair what it needs, or containers are in its networks, which lose their interfaces.',
    }),
  },
  exits: ['refused'],
  async run(context, { options }) {
    requireRoot('clean up this host');
    requirePrivileges();
    const daemon = await runningDaemon(options.statusSocket, context.signal);
    if (!options.force && daemon !== undefined) {
      throw new OverlayError('ERR_DAEMON_RUNNING', `cannot clean up this host: ${daemon.description}`, {
        hint: `run systemctl stop ${daemon.unit} first, or give --force`,
      });
    }
    const known = await knownNetworks(context, options);
    for (const note of known.notes) context.err.line(note);
    const removed: string[] = [];
    const kernel = recordingKernel(new NetlinkKernel(context.clock), (object) => removed.push(object));
    const left: string[] = [];
    const errors: unknown[] = [];
    const instance = instanceOf(options.etcdPrefix);
    const former = FormerValuesFile.open(options.stateDir);
    const containers = await containerRemains(options.stateDir, options.etcdPrefix);
    const inUse = options.force ? undefined : containers.inUse;
    try {
      const formerValues = former.of(PARAMETERS_OF.overlay, PARAMETERS_OF.ndpProxy);
      const networks = [...known.networks, ...containers.routed];
      await removeObjects(context, kernel, { instance, networks, formerValues });
      if (inUse === undefined)
        await removeContainerNetworks(context, kernel, { instance, former, subnets: containers.subnets });
    } catch (error) {
      errors.push(error);
    }
    const uplinks = restoreGro(former.of(PARAMETERS_OF.kernelPath));
    removed.push(...uplinks.map((device) => `receive offload of ${device} for the kernel path`));
    const remains = await leftovers(kernel, instance);
    left.push(...remains.objects);
    kernel.close();
    if (inUse !== undefined) {
      const advice = 'remove the containers, or give --force, and they lose their interfaces';
      left.push(`networks of containers, with their rules: ${inUse}; ${advice}`);
    } else {
      try {
        const firewall = new ContainerFirewall({ log: silentLogger, clock: context.clock, instance, resyncMs: 0 });
        removed.push(...(await firewall.cleanup()));
      } catch (error) {
        errors.push(error);
      }
    }
    if (remains.hasOtherDaemon && !options.force) {
      left.push('firewall rules: they may belong to the other daemon on this host; remove them with --force');
    } else {
      try {
        const firewall = new Firewall({ log: silentLogger, clock: context.clock, resyncMs: 0 });
        removed.push(...(await firewall.cleanup(known.networks)));
      } catch (error) {
        errors.push(error);
      }
    }
    left.push(...known.commands);
    if (options.removeFiles) {
      const files = await removeFiles(
        options,
        daemon?.description ?? (inUse && 'its networks of containers are in use'),
      );
      removed.push(...files.removed);
      left.push(...files.left);
    }
    report(context, options.json, { networks: known.networks.map(String), removed, left });
    if (errors.length > 0) {
      throw new OverlayError('ERR_CLEANUP', `cannot clean up this host: ${errors.map(describeError).join('; ')}`, {
        cause: errors[0],
        hint: 'fix that and run this again',
      });
    }
    return EXIT.ok;
  },
});

/** A daemon to which the devices, rules and files of this host belong; it may be the original, after a way back. */
async function runningDaemon(
  statusSocket: string,
  signal: AbortSignal,
): Promise<{ readonly description: string; readonly unit: string } | undefined> {
  if (await isDaemonListening(statusSocket, signal)) {
    return { description: `a daemon answers on ${statusSocket}`, unit: 'tsflanneld' };
  }
  // Ours with another socket look after another network, and are told from this one by their marks.
  const original = (await flannelDaemons()).find(({ name }) => name === 'flanneld');
  if (original === undefined) return undefined;
  return { description: describeDaemon(original), unit: original.name };
}

function describeDaemon({ name, pid }: RunningDaemon): string {
  return `${name} runs (process ${pid})`;
}

async function removeObjects(
  context: CtlContext,
  kernel: Kernel,
  target: {
    readonly instance: string;
    readonly networks: readonly Prefix[];
    readonly formerValues: FormerValues;
  },
): Promise<void> {
  const reconciler = new Reconciler({
    kernel,
    clock: context.clock,
    logger: silentLogger,
    instance: target.instance,
    formerValues: target.formerValues,
    tunnels: {
      open: () => Promise.reject(new Error('an empty state has no tunnel')),
      workers: 0,
      disabledOffloads: [],
    },
  });
  const deadline = new Deadline(context.clock, REMOVAL_PATIENCE_MS, context.signal);
  try {
    reconciler.setDesired(EMPTY_STATE, { scope: target.networks, proxyScope: target.networks });
    await reconciler.whenConverged(deadline.signal);
  } catch (cause) {
    context.signal.throwIfAborted();
    const reasons = reconciler.status.failures.map(
      ({ key, aspect, error }) => `${describeAspect(key, aspect)}: ${describeError(error)}`,
    );
    const reason = reasons.length > 0 ? reasons.join(', ') : describeError(cause);
    throw new OverlayError('ERR_CLEANUP', `cannot remove objects of the overlay: ${reason}`, { cause });
  } finally {
    deadline.clear();
    await reconciler.close();
  }
}

/** Bridges, interfaces and parameters of this host that are there for networks of containers. */
async function removeContainerNetworks(
  context: CtlContext,
  kernel: Kernel,
  options: { readonly instance: string; readonly former: FormerValuesFile; readonly subnets: readonly Prefix[] },
): Promise<void> {
  const formerValues = options.former.of(PARAMETERS_OF.containers);
  const { host, container } = pluginInstances(options.instance);
  for (const instance of [host, container]) {
    await removeObjects(context, kernel, { instance, networks: options.subnets, formerValues });
  }
}

/** What carries the mark of such a daemon and was not removed, without what is there for its own networks of containers. */
async function leftovers(
  kernel: Kernel,
  instance: string,
): Promise<{ readonly objects: readonly string[]; readonly hasOtherDaemon: boolean }> {
  const links = await kernel.listLinks();
  const marked = links.filter(({ alias }) => alias.startsWith(ALIAS_PREFIX));
  const otherIndexes = new Set(marked.map(({ index }) => index));
  const { host, container } = pluginInstances(instance);
  const own = [host, container].map((each) => `${ALIAS_PREFIX}${each}`);
  const others = marked.filter(({ alias }) => !own.includes(alias));
  const routes = [...(await kernel.listRoutes(4)), ...(await kernel.listRoutes(6))].filter(
    ({ protocol, index }) => protocol === ROUTE_PROTOCOL && !otherIndexes.has(index),
  );
  const proxies = (await kernel.listProxies()).filter(({ protocol }) => protocol === ROUTE_PROTOCOL);
  const objects = [
    ...others.map(({ name, alias }) => {
      const prefix = alias.slice(ALIAS_PREFIX.length);
      return `link ${name}: it belongs to the daemon with --etcd-prefix=/${prefix}`;
    }),
    ...routes.map(
      ({ destination }) => `route ${destination.toString()}: no known overlay network holds it; name it with --network`,
    ),
    ...proxies.map(
      ({ address }) => `proxy entry ${address.toString()}: no known overlay network holds it; name it with --network`,
    ),
  ];
  return { objects, hasOtherDaemon: others.length > 0 };
}

async function knownNetworks(
  context: CtlContext,
  options: {
    readonly network: readonly string[];
    readonly subnetFile: string;
    readonly stateDir: string;
  } & Parameters<CtlContext['openStore']>[0],
): Promise<{
  readonly networks: readonly Prefix[];
  /** What commands may have made, which nobody but their author knows. */
  readonly commands: readonly string[];
  readonly notes: readonly string[];
}> {
  const notes: string[] = [];
  const found: (Prefix | undefined)[] = options.network.map((text) => Prefix.parse(text));
  const env = await readSubnetEnv(options.subnetFile);
  found.push(env?.network, env?.ipv6Network);
  // The daemon's copy of the configuration; see its state directory.
  const saved = await readFile(path.join(options.stateDir, STATE_FILES.config), 'utf8').catch(() => undefined);
  found.push(...networksOf(saved));
  const deadline = new Deadline(context.clock, STORE_PATIENCE_MS, context.signal);
  try {
    found.push(...networksOf((await withStore(context, options, (store) => store.readConfig(deadline.signal)))?.text));
  } catch (error) {
    context.signal.throwIfAborted();
    if (found.every((prefix) => prefix === undefined)) {
      notes.push(
        `the overlay networks are not known, so routes without a device of ours stay: etcd does not answer (${describeError(error)}); give --network`,
      );
    }
  } finally {
    deadline.clear();
  }
  const networks = new Map(found.flatMap((prefix) => (prefix === undefined ? [] : [[prefix.toString(), prefix]])));
  return { networks: [...networks.values()], commands: commandsOf(saved), notes };
}

/**
 * What the commands of the backend may have left that the daemon ran last: nobody but their author knows.
 *
 * @param config - as the daemon saved it.
 */
function commandsOf(config: string | undefined): readonly string[] {
  if (config === undefined) return [];
  try {
    const { network, backend } = readNetwork(config);
    if (backend.commands === undefined) return [];
    const shutdown = network.backendOptions['shutdowncommand'];
    const advice =
      shutdown?.kind === 'string' && shutdown.value !== ''
        ? `run its ShutdownCommand if you trust it: ${shutdown.value}`
        : 'it has no ShutdownCommand, so look for it yourself';
    return [`what commands of backend ${network.backendType} have made: ${advice}`];
  } catch (error) {
    if (error instanceof OverlayError) return []; // no daemon could have used it
    throw error;
  }
}

function networksOf(config: string | undefined): readonly (Prefix | undefined)[] {
  if (config === undefined) return [];
  try {
    const { ipv4, ipv6 } = parseNetworkConfig(config);
    return [ipv4?.network, ipv6?.network];
  } catch (error) {
    if (error instanceof OverlayError) return []; // no daemon could have used it
    throw error;
  }
}

/** Removes subnet file and state directory, unless somebody else lives on them. */
async function removeFiles(
  { subnetFile, stateDir }: { readonly subnetFile: string; readonly stateDir: string },
  daemon: string | undefined,
): Promise<{ readonly removed: readonly string[]; readonly left: readonly string[] }> {
  const [other] = await flannelDaemons();
  const user = daemon ?? (other === undefined ? undefined : describeDaemon(other));
  if (user !== undefined) return { removed: [], left: [subnetFile, stateDir].map((file) => `file ${file}: ${user}`) };
  const removed: string[] = [];
  for (const file of [stateDir, formerStateDirectory(stateDir)]) {
    if (file !== undefined && (await remove(file))) removed.push(`file ${file}`);
  }
  const reader = await new DockerService(systemctl).readerOf(subnetFile);
  if (reader !== undefined) {
    const reason = `${reader} keeps Docker from starting without it; run tsflannelctl docker disable first`;
    return { removed, left: [`file ${subnetFile}: ${reason}`] };
  }
  return { removed: (await remove(subnetFile)) ? [`file ${subnetFile}`, ...removed] : removed, left: [] };
}

async function remove(file: string): Promise<boolean> {
  try {
    await rm(file, { recursive: true });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

function report(context: CtlContext, isJson: boolean, document: CleanupReport): void {
  if (isJson) {
    printJson(context, document);
    return;
  }
  for (const object of document.removed) context.out.line(`removed ${object}`);
  for (const object of document.left) context.out.line(`left ${object}`);
  if (document.removed.length === 0) context.out.line('nothing to remove');
}
