import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import { STATE_FILES } from '../config/paths.js';
import { readSavedNetworks } from '../container/reach-follower.js';
import { PluginState } from '../docker/plugin/state.js';
import { describeError } from '../errors.js';
import type { Prefix } from '../ip/prefix.js';
import { systemFiles } from '../sys/text-files.js';

/** What files of a daemon that has ended tell of networks of containers. */
export interface ContainerRemains {
  /** Subnets of networks of this host. */
  readonly subnets: readonly Prefix[];
  /** Routed networks of the cluster. */
  readonly routed: readonly Prefix[];
  /** Why networks cannot just be removed; undefined if they can. */
  readonly inUse: string | undefined;
}

/** Reads them from the state directory. */
export async function containerRemains(stateDir: string, etcdPrefix: string): Promise<ContainerRemains> {
  const saved = await readFile(path.join(stateDir, STATE_FILES.containerReach), 'utf8').catch(() => '');
  const routed = readSavedNetworks(saved, etcdPrefix);
  const state = new PluginState({ directory: stateDir, files: systemFiles });
  try {
    await state.load();
  } catch (error) {
    return { subnets: [], routed, inUse: `nobody knows which containers are in them: ${describeError(error)}` };
  }
  const { networks, endpoints } = state.contents;
  const sandboxes = endpoints.flatMap(({ sandbox }) => sandbox ?? []);
  const isThere = await Promise.all(
    sandboxes.map((sandbox) =>
      access(sandbox).then(
        () => true,
        () => false,
      ),
    ),
  );
  const users = isThere.filter(Boolean).length;
  return {
    subnets: networks.flatMap(({ subnets }) => subnets.map(({ subnet }) => subnet)),
    routed,
    inUse: users === 0 ? undefined : `containers that run have interfaces in them (${users})`,
  };
}
