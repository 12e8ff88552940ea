import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import path from 'node:path';
import koffi from 'koffi';
import { SYS, bind, close, errnoName, sockaddrUn, socket } from '../../src/sys/libc.js';
import { type Daemon, ctlFile } from './daemon.js';
import { DockerEngine } from './docker.js';
import { inNamespace } from './in-namespace.js';
import { Netns, type Output, type RunOptions, run } from './netns.js';
import { Program, type ProgramOptions } from './program.js';
import type { Host } from './rig.js';

const SOCKET = 'tsflannel.sock';
/** Of the IPAM driver that asks for no MAC addresses. */
const NO_MAC_SOCKET = 'tsflannel-ipvlan.sock';

/** As systemd's default. */
const BACKLOG = 4096;

/** A container that does nothing. */
const IDLE = ['--detach', '--log-driver', 'none', '--stop-signal', 'SIGKILL', 'busybox', 'busybox', 'sleep', '3600'];

/** The files of a daemon that keep what it knows of containers. */
export type StateFile = 'container-addresses.json' | 'docker-networks.json';

/** A container of {@link DockerNetworkHost.run}. */
export interface NetworkedContainer {
  readonly host: DockerNetworkHost;
  readonly id: string;
  readonly address: string;
  readonly address6: string;
  readonly mac: string;
}

/**
 * A host of a rig with a Docker engine and our daemon as its plugin. The listening sockets belong to neither: as with
 * tsflannel-docker-plugin.socket they are there before the daemon and after it.
 */
export class DockerNetworkHost {
  readonly engine: DockerEngine;
  readonly daemon: Daemon;
  #listeners: readonly number[] = [];

  /** @param args - further flags of the daemon. */
  constructor(
    readonly host: Host,
    args: readonly string[] = [],
  ) {
    this.engine = new DockerEngine(host);
    const netns = new EngineNetns(host.netns.name, this.engine, () => this.#listeners);
    this.daemon = host.makeDaemon({ args: ['--host-id', host.name, ...args] });
    // Docker's mounts are seen only in the engine's namespaces.
    Object.assign(this.daemon.options, { netns });
  }

  /** Where the plugin is asked, as this process sees it. */
  get pluginSocket(): string {
    return path.join(this.engine.pluginDirectory, SOCKET);
  }

  /** Power on: the sockets are there, and nothing else. On a host that is up, the sockets are opened anew. */
  async boot(): Promise<void> {
    await this.engine.boot();
    this.#closeSockets();
    const files = [SOCKET, NO_MAC_SOCKET].map((name) => path.join(this.engine.pluginDirectory, name));
    for (const file of files) rmSync(file, { force: true });
    this.#listeners = files.map(listenOn);
  }

  /** Power cut and power on: what is not on a disk is gone. */
  async reset(): Promise<void> {
    await Promise.all([this.daemon.kill(), this.engine.halt()]);
    this.#closeSockets();
    // One may go by itself, with its other end.
    for (const { ifname } of await this.links()) {
      await run(['ip', '-n', this.host.netns.name, 'link', 'del', ifname], { mayFail: true });
    }
    assert.deepEqual(await this.links(), []);
    await this.host.netns.run(['nft', 'flush', 'ruleset'], { mayFail: true });
    await this.boot();
  }

  /** Ends everything. Idempotent. */
  async close(): Promise<void> {
    await this.engine.close();
    this.#closeSockets();
  }

  /** Runs the `docker` client. */
  docker(args: readonly string[], options: RunOptions = {}): Promise<Output> {
    return this.engine.docker(args, { timeoutMs: 60_000, ...options });
  }

  /** Makes a network of our driver with our addresses. */
  createNetwork(name: string, options: readonly string[], mayFail = false): Promise<Output> {
    const drivers = ['--driver', 'tsflannel', '--ipam-driver', 'tsflannel'];
    return this.docker(['network', 'create', ...drivers, ...options, name], { mayFail });
  }

  /** Starts a container that does nothing. */
  async run(network: string, options: readonly string[] = []): Promise<NetworkedContainer> {
    const { stdout } = await this.docker(['run', '--network', network, ...options, ...IDLE]);
    return this.inspect(stdout.trim());
  }

  /** Whether a container could be started so, and what Docker said. */
  tryRun(network: string, options: readonly string[] = []): Promise<Output> {
    return this.docker(['run', '--network', network, ...options, ...IDLE], { mayFail: true });
  }

  /** Runs `tsflannelctl` on this host. */
  ctl(words: readonly string[]): Promise<Output> {
    const sockets = [
      ...['--status-socket', this.daemon.statusSocket],
      ...['--plugin-socket', path.join(this.engine.pluginDirectory, SOCKET)],
    ];
    return run([process.execPath, ctlFile(), ...words, ...sockets]);
  }

  /** A container as Docker knows it now. */
  async inspect(id: string): Promise<NetworkedContainer> {
    const fields = '{{.IPAddress}} {{.GlobalIPv6Address}} {{.MacAddress}}';
    const format = `{{range .NetworkSettings.Networks}}${fields}{{end}}`;
    const { stdout } = await this.docker(['inspect', '--format', format, id]);
    const [address = '', address6 = '', mac = ''] = stdout.trim().split(' ');
    return { host: this, id, address, address6, mac };
  }

  /** Whether an address answers a container of this host. */
  async reaches({ id }: NetworkedContainer, address: string): Promise<boolean> {
    const ping = ['busybox', address.includes(':') ? 'ping6' : 'ping', '-c', '1', '-W', '2', address];
    return (await this.docker(['exec', id, ...ping], { mayFail: true })).code === 0;
  }

  /** IPv4 addresses in the namespaces of containers, each with the file of the namespace. */
  addressesInside(): readonly (readonly [address: string, sandbox: string])[] {
    return this.engine
      .sandboxes()
      .flatMap((sandbox) => addressesOf(sandbox).map((address) => [address, sandbox] as const));
  }

  /** Ids of containers, running or not. */
  async containers(): Promise<readonly string[]> {
    return (await this.docker(['ps', '--all', '--quiet'])).stdout.split('\n').filter((id) => id !== '');
  }

  /** Removes all containers and all networks, as an operator does. */
  async removeAll(): Promise<void> {
    const ids = await this.containers();
    if (ids.length > 0) await this.docker(['rm', '--force', ...ids]);
    await this.docker(['network', 'prune', '--force']);
  }

  /** Interfaces on this host for containers. */
  async links(): Promise<readonly { readonly ifname: string }[]> {
    const links = await this.host.netns.ipJson(['link', 'show']);
    return links.map(({ ifname }) => ({ ifname: String(ifname) })).filter(({ ifname }) => /^tsf|-host$/.test(ifname));
  }

  /** Loses a file of the daemon, which must not run. */
  lose(file: StateFile): void {
    rmSync(path.join(this.daemon.options.directory, 'state', file));
  }

  #closeSockets(): void {
    for (const fd of this.#listeners) close(fd);
    this.#listeners = [];
  }
}

/** None in a namespace that is being made or has just ended. */
function addressesOf(sandbox: string): string[] {
  try {
    const devices = inNamespace(sandbox, () => Object.values(networkInterfaces()));
    return devices
      .flatMap((addresses) => addresses ?? [])
      .filter(({ family, internal }) => family === 'IPv4' && !internal)
      .map(({ address }) => address);
  } catch (error) {
    if (['EINVAL', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** Runs programs as systemd does on a host with Docker: with mounts of its own, and with the sockets. */
class EngineNetns extends Netns {
  constructor(
    name: string,
    private readonly engine: DockerEngine,
    private readonly listeners: () => readonly number[],
  ) {
    super(name);
  }

  override start(argv: readonly string[], options: ProgramOptions = {}): Program {
    const descriptors = this.listeners();
    // The process is in no PID namespace, other than the engine's /proc.
    const script = 'mount -t proc proc /proc && export LISTEN_PID=$$ && exec "$@"';
    const own = ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', script, 'sh'];
    const names = descriptors.map(() => 'docker-plugin').join(':');
    const env = { ...options.env, LISTEN_FDS: String(descriptors.length), LISTEN_FDNAMES: names };
    return new Program(this.engine.command([...own, ...argv]), {
      ...options,
      ...(descriptors.length === 0 ? {} : { env, descriptors }),
    });
  }
}

const listen = koffi.load('libc.so.6').func('int listen(int fd, int backlog)') as (
  fd: number,
  backlog: number,
) => number;

function listenOn(file: string): number {
  const fd = socket(SYS.AF_UNIX, SYS.SOCK_STREAM, 0);
  const result = fd < 0 ? fd : bind(fd, sockaddrUn(file));
  if (result < 0) throw new Error(`cannot listen on ${file}: ${errnoName(-result)}`);
  if (listen(fd, BACKLOG) < 0) throw new Error(`cannot listen on ${file}`);
  return fd;
}
