import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { DOCKER_OPTIONS, type DropInForm } from '../../src/docker/drop-in.js';
import { onExit } from './cleanup.js';
import { type Output, type RunOptions, run } from './netns.js';
import { Program } from './program.js';
import type { Host } from './rig.js';
import { waitFor } from './wait.js';

const CGROUP_ROOT = '/sys/fs/cgroup';

// An idle machine takes a second for each; these are for one that compiles and measures at the same time.
const START_TIMEOUT_MS = 40_000;
const STOP_TIMEOUT_MS = 20_000;

/** Directories with the programs of another engine than that of this machine, in the form of `PATH`; see docs/testing.md. */
const ENGINE_PATH = process.env['TSFLANNEL_DOCKER_PATH'] ?? '';

/** Port of the host that leads to the web server of the container `published`. */
export const PUBLISHED_PORT = 8080;

/** A form of our drop-in for docker.service, and the file that takes the place of its `EnvironmentFile`. */
export interface DockerSettings {
  readonly dropIn: DropInForm;
  /** Options in place of the drop-in's, for an engine that is started by hand. */
  readonly options?: string;
  readonly environmentFile: string;
}

/** The command that gets a page and writes it to its output, with a time limit; `wget -T` of busybox 1.35 crashes. */
export function fetchCommand(url: string): string[] {
  return ['busybox', 'timeout', '10', 'busybox', 'wget', '-q', '-O', '-', url];
}

/** The containers of an engine; see {@link DockerEngine.startWebServers}. */
export type WebServer = 'web' | 'published';

/** What a container knows of its interface. */
export interface ContainerLink {
  readonly address: string;
  readonly mtu: number;
}

/**
 * A real Docker engine on one host of a rig, with everything of its own: data, containerd, socket and cgroup.
 *
 * ```
 *  network namespace of the host
 *  └─ PID and mount namespace of the engine, as long as docker-init lives: containers and mounts outlive dockerd
 *     ├─ docker-init ─ sleep
 *     ├─ dockerd ─ containerd
 *     └─ shim ─ busybox httpd in the container's own namespaces
 * ```
 *
 * `close()` ends all of it; so does every end of this process. What a killed process left is removed with its rig's
 * namespaces and directory, its cgroups by the next engine.
 */
export class DockerEngine {
  readonly #directory: string;
  readonly #cgroup: string;
  readonly #withdraw: () => void;
  #machine: Program | undefined;
  #program: Program | undefined;

  constructor(readonly host: Host) {
    sweepCgroups();
    this.#directory = path.join(host.rig.directory, `${host.name}-docker`);
    this.#cgroup = host.netns.name;
    mkdirSync(this.#directory, { recursive: true });
    // Neither the machine's daemon.json nor a user's client settings (contexts, proxies) have a say here.
    writeFileSync(this.#file('daemon.json'), '{}\n');
    this.#withdraw = onExit(() => {
      this.#machine?.signal('SIGKILL');
      removeCgroups(this.#cgroup);
    });
  }

  /** Why there can be no engine here, undefined if there can. */
  static async obstacle(): Promise<string | undefined> {
    if (ENGINE_PATH !== '' && !ENGINE_PATH.split(':').some((each) => existsSync(path.join(each, 'dockerd'))))
      throw new Error(`TSFLANNEL_DOCKER_PATH=${ENGINE_PATH}: there is no dockerd`);
    for (const program of ['dockerd', 'docker', 'docker-init', 'busybox']) {
      const { code } = await run(['sh', '-c', `command -v ${program}`], { mayFail: true });
      if (code !== 0) return `no ${program} on this machine: node .ci/setup.mjs base docker`;
    }
    return undefined;
  }

  /** Makes the namespaces in which dockerd runs; it makes them itself if this was not called. */
  async boot(): Promise<void> {
    if (this.#machine?.isRunning === true) return;
    // What is below /run on a host: a start finds nothing there.
    for (const name of ['docker.pid', 'exec']) rmSync(this.#file(name), { recursive: true, force: true });
    mkdirSync(this.pluginDirectory, { recursive: true });
    const mounts = [
      // Docker looks for plugins in one place, whatever its other directories are: each engine has one of its own there.
      ...['mkdir -p /run/docker', 'mount -t tmpfs tmpfs /run/docker', 'mkdir /run/docker/plugins'],
      `mount --bind '${this.pluginDirectory}' /run/docker/plugins`,
      // As systemd has it: what dockerd mounts is seen by those who have mount namespaces of their own.
      'mount --make-rshared /',
    ];
    this.#machine = new Program([
      // Not `ip netns exec`: that mounts a /sys of its own, without the cgroups.
      ...['nsenter', `--net=/run/netns/${this.host.netns.name}`],
      ...['unshare', '--mount', '--propagation=private', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc'],
      ...['sh', '-c', `${mounts.join(' && ')} && echo booted && exec docker-init -- sleep infinity`],
    ]);
    await this.#machine.waitForLine(/^booted$/, START_TIMEOUT_MS);
  }

  /**
   * Starts dockerd as docker.service does with one of our drop-ins, or without any, and waits until it answers.
   *
   * @throws Error with its log if it ends or is not ready in time.
   */
  async start(settings: Partial<DockerSettings> = {}): Promise<void> {
    await this.boot();
    const own = [
      ...['--host', this.endpoint, '--pidfile', this.#file('docker.pid')],
      ...['--data-root', this.#file('data'), '--exec-root', this.#file('exec')],
      ...['--config-file', this.#file('daemon.json'), '--cgroup-parent', `/${this.#cgroup}`],
      // The systemd driver would ask the machine's systemd.
      ...['--exec-opt', 'native.cgroupdriver=cgroupfs'],
    ];
    // The shell expands variables as systemd does: `$X` into words; our `${X}` hold no blanks.
    const { environmentFile = '/dev/null', dropIn } = settings;
    const options = settings.options ?? (dropIn === undefined ? '' : DOCKER_OPTIONS[dropIn]);
    const script = `set -a; . "$0"; exec dockerd "$@" ${options}`;
    const program = new Program(
      [...this.#enter(['--mount', '--net', '--pid']), 'sh', '-c', script, environmentFile, ...own],
      {
        logFile: this.#file('dockerd.log'),
        env: { PATH: [ENGINE_PATH, process.env['PATH']].filter(Boolean).join(':') },
      },
    );
    this.#program = program;
    await program.waitForLine(/API listen on /, START_TIMEOUT_MS);
  }

  /** Such as `20.10.24`, with what a distribution has added. */
  async version(): Promise<string> {
    return (await this.docker(['version', '--format', '{{.Server.Version}}'])).stdout.trim();
  }

  /** Directory in which this engine finds the sockets of its plugins. */
  get pluginDirectory(): string {
    return this.#file('plugins');
  }

  /** Files of the network namespaces of its containers, as this process sees them: none if the engine does not run. */
  sandboxes(): string[] {
    if (this.#machine?.isRunning !== true) return [];
    const directory = `/proc/${childOf(this.#machine)}/root${this.#file('exec/netns')}`;
    return existsSync(directory) ? readdirSync(directory).map((name) => path.join(directory, name)) : [];
  }

  /** The command line that runs a command among the mounts and devices that the engine sees. */
  command(argv: readonly string[]): string[] {
    return [...this.#enter(['--mount', '--net']), ...argv];
  }

  /** Makes the image `busybox`, which has one program under all of its names. */
  async importBusybox(): Promise<void> {
    const root = this.#file('image');
    mkdirSync(path.join(root, 'bin'), { recursive: true });
    const { stdout } = await run(['sh', '-c', 'command -v busybox && busybox --list']);
    const [program = '', ...names] = stdout.trim().split('\n');
    copyFileSync(program, path.join(root, 'bin/busybox'));
    for (const name of names.filter((each) => each !== 'busybox')) {
      const link = path.join(root, 'bin', name);
      rmSync(link, { force: true });
      symlinkSync('busybox', link);
    }
    await run(['tar', '-C', root, '-cf', `${root}.tar`, '.']);
    await this.docker(['import', `${root}.tar`, 'busybox']);
  }

  /** Stops dockerd as an operator does; containers that restart always come back with the next start. */
  async stop(): Promise<void> {
    const program = this.#program;
    if (program?.isRunning !== true) return;
    process.kill(childOf(program), 'SIGTERM');
    const isGone = await waitFor(() => !program.isRunning, {
      what: 'dockerd to end',
      timeoutMs: STOP_TIMEOUT_MS,
    }).catch(() => false);
    if (isGone) return;
    await this.kill();
    throw new Error(`dockerd ignored SIGTERM for ${STOP_TIMEOUT_MS / 1000} s; it said:\n${program.output}`);
  }

  /** Ends dockerd without letting it do anything more; containers live on. */
  async kill(): Promise<void> {
    const program = this.#program;
    if (program?.isRunning !== true) return;
    process.kill(childOf(program), 'SIGKILL');
    await program.exited;
  }

  /** `systemctl restart docker` with settings that may differ. */
  async restart(settings: DockerSettings): Promise<void> {
    await this.stop();
    await this.start(settings);
  }

  /** Ends dockerd and every container at once, as a power cut does; what is on disk stays. */
  async halt(): Promise<void> {
    await this.#machine?.kill();
    await this.#program?.exited;
  }

  /** Ends everything at once and removes what the kernel kept. Idempotent. */
  async close(): Promise<void> {
    await this.halt();
    this.#withdraw();
    removeCgroups(this.#cgroup);
  }

  /** Runs the `docker` client against this engine. */
  async docker(args: readonly string[], options: RunOptions = {}): Promise<Output> {
    const client = ['docker', '--config', this.#file('client'), '--host', this.endpoint];
    return run([...client, ...args], options);
  }

  /** Where it listens, as `DOCKER_HOST` names it. */
  get endpoint(): string {
    return `unix://${this.#file('docker.sock')}`;
  }

  /** The options dockerd runs with, as it got them. */
  commandLine(): string[] {
    if (this.#program === undefined) throw new Error(`Docker on ${this.host.name} has not been started`);
    const words = readFileSync(`/proc/${childOf(this.#program)}/cmdline`, 'utf8')
      .split('\0')
      .slice(0, -1);
    return words.slice(words.indexOf('dockerd'));
  }

  /**
   * Starts two web servers that come back with Docker: `web`, which only the overlay leads to, and `published`. Docker
   * opens its firewall for a published port, so only the first shows that others let the overlay in.
   *
   * @param page - what both serve as `/page`. Their image is made here, of busybox and this.
   */
  async startWebServers(page: string): Promise<void> {
    const pages = path.join(this.#file('image'), 'www');
    mkdirSync(pages, { recursive: true });
    writeFileSync(path.join(pages, 'page'), page);
    await this.importBusybox();
    for (const [name, options] of [
      ['web', []],
      ['published', ['--publish', `${PUBLISHED_PORT}:80`]],
    ] as const) {
      // The first process of a container ignores SIGTERM unless it handles it, and dockerd would wait for it.
      const lifetime = ['--detach', '--restart', 'always', '--stop-signal', 'SIGKILL'];
      const server = ['busybox', 'httpd', '-f', '-vv', '-p', '80', '-h', '/www'];
      await this.docker(['run', '--name', name, ...lifetime, ...options, 'busybox', ...server]);
    }
  }

  /** Waits until both run and answer on their own loopback. */
  async waitForWebServers(): Promise<void> {
    for (const container of ['web', 'published'] as const) {
      await waitFor(async () => (await this.fetch('http://127.0.0.1/page', container)) !== '', {
        what: `the container ${container} on ${this.host.name}`,
        timeoutMs: START_TIMEOUT_MS,
        intervalMs: 100,
      });
    }
  }

  /** What a container gets from that URL. */
  async fetch(url: string, container: WebServer = 'web'): Promise<string> {
    return (await this.docker(['exec', container, ...fetchCommand(url)])).stdout;
  }

  /** Address and MTU of the eth0 of `web`, as seen from inside. */
  async webServerLink(): Promise<ContainerLink> {
    const { stdout } = await this.docker(['exec', 'web', 'busybox', 'ip', 'addr', 'show', 'dev', 'eth0']);
    const [, mtu = ''] = / mtu (\d+) /.exec(stdout) ?? [];
    const [, address] = /inet ([\d.]+)\//.exec(stdout) ?? [];
    if (address === undefined) throw new Error(`no address on eth0 of ${this.host.name}: ${stdout}`);
    return { address, mtu: Number(mtu) };
  }

  /** What a web server has logged so far. */
  async webServerLog(container: WebServer): Promise<string> {
    const { stdout, stderr } = await this.docker(['logs', container]);
    return stdout + stderr;
  }

  #enter(namespaces: readonly string[]): string[] {
    if (this.#machine === undefined) throw new Error(`Docker on ${this.host.name} has not been started`);
    return ['nsenter', '--target', String(childOf(this.#machine)), ...namespaces];
  }

  #file(name: string): string {
    return path.join(this.#directory, name);
  }
}

/**
 * The addresses that asked a busybox httpd for a path, in order.
 *
 * @param log - output of `httpd -vv`, whose lines begin with `[::ffff:192.0.2.1]:49152:` or `192.0.2.1:49152:`.
 */
export function askersOf(log: string, urlPath: string): string[] {
  return log
    .split('\n')
    .filter((line) => line.includes(`url:${urlPath}`))
    .map((line) => /^\[?(?:::ffff:)?([\d.]+)\]?:\d+:/.exec(line)?.[1] ?? line);
}

/** What unshare or nsenter has forked, in a PID namespace. They do not pass signals on to it. */
function childOf({ pid }: Program): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
}

/** Every cgroup of that name, in whichever hierarchies there are. Synchronous: it also runs while this process exits. */
function removeCgroups(name: string): void {
  const giveUpAt = performance.now() + 3000;
  const parents = [CGROUP_ROOT, ...subdirectories(CGROUP_ROOT)];
  for (const directory of parents.map((parent) => path.join(parent, name)).filter((found) => existsSync(found))) {
    // The processes of a killed PID namespace take a moment to leave.
    while (!isTreeRemoved(directory) && performance.now() < giveUpAt) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}

function isTreeRemoved(directory: string): boolean {
  try {
    for (const child of subdirectories(directory)) isTreeRemoved(child);
    rmdirSync(directory);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return true;
    if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
    throw error;
  }
}

/** Cgroups named after a process that is gone. */
function sweepCgroups(): void {
  const parents = [CGROUP_ROOT, ...subdirectories(CGROUP_ROOT)];
  const names = new Set(parents.flatMap((parent) => subdirectories(parent).map((found) => path.basename(found))));
  for (const name of names) {
    const pid = /^tsf(\d+)-\d+-h\d+$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeCgroups(name);
  }
}

function subdirectories(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => path.join(directory, entry.name));
}
