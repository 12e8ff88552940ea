import type { Context } from 'mocha';
import { DockerEngine } from './docker.js';
import { DockerNetworkHost } from './docker-network-host.js';
import type { Host } from './rig.js';
import { skipBecause } from './skip.js';

/** How {@link DockerHosts.start} starts them. */
export interface DockerHostsOptions {
  /** Further flags of the daemons. */
  readonly args?: readonly string[];
  /** Options of a host's engine that are known once its daemon has a subnet; without, both start at the same time. */
  readonly engineOptions?: (on: DockerNetworkHost) => string;
}

/** Skips all tests of a suite where no engine can be started; to be called from its `before` hook. */
export async function skipWithoutDocker(context: Context): Promise<void> {
  const obstacle = await DockerEngine.obstacle();
  if (obstacle !== undefined) skipBecause(context, obstacle);
}

/**
 * Hosts of a rig with a Docker engine each, our daemon as its plugin, and the image `busybox`.
 *
 * ```ts
 * const hosts = new DockerHosts();
 * before(async function () {
 *   await skipWithoutDocker(this);
 *   rig = await Rig.create();
 *   await rig.putConfig(CONFIG);
 *   await hosts.start(rig.hosts);
 * });
 * afterEach(() => hosts.removeAll());
 * after(() => hosts.close().then(() => rig.close()));
 * ```
 */
export class DockerHosts implements Iterable<DockerNetworkHost> {
  #hosts: readonly DockerNetworkHost[] = [];

  /** Starts everything on all of them side by side, and says with which release of Docker. */
  async start(hosts: readonly Host[], { args, engineOptions }: DockerHostsOptions = {}): Promise<void> {
    this.#hosts = hosts.map((each) => new DockerNetworkHost(each, args));
    await this.onEach(async (on) => {
      await on.boot();
      const daemon = on.daemon.startAndWait();
      const engine = async (): Promise<void> => {
        if (engineOptions !== undefined) await daemon;
        await on.engine.start(engineOptions && { options: engineOptions(on) });
        await on.engine.importBusybox();
      };
      await Promise.all([daemon, engine()]);
    });
    process.stdout.write(`      Docker ${await this.host(1).engine.version()}\n`);
  }

  /**
   * The n-th of them, counted from 1 as {@link Rig.host} does.
   *
   * @throws RangeError if there is none.
   */
  readonly host = (number: number): DockerNetworkHost => {
    const host = this.#hosts[number - 1];
    if (host === undefined) throw new RangeError(`there are ${this.#hosts.length} hosts with an engine, not ${number}`);
    return host;
  };

  /** Does something on all of them at the same time; results in their order. */
  readonly onEach = <T>(action: (on: DockerNetworkHost) => Promise<T>): Promise<T[]> =>
    Promise.all(this.#hosts.map(action));

  [Symbol.iterator](): Iterator<DockerNetworkHost> {
    return this.#hosts[Symbol.iterator]();
  }

  /** Removes all containers and all networks, as an operator does. */
  async removeAll(): Promise<void> {
    await this.onEach((on) => on.removeAll());
  }

  /** Ends everything on them. Idempotent. */
  async close(): Promise<void> {
    await this.onEach((on) => on.close());
  }
}
