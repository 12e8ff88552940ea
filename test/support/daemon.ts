import { mkdirSync, readFileSync, readdirSync, statSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { PLUGIN_SOCKET } from '../../src/docker/plugin/server.js';
import type { DaemonStatus } from '../../src/observe/status.js';
import type { DescriptorKeeper } from './descriptor-keeper.js';
import { distFile } from './dist.js';
import type { Netns } from './netns.js';
import { patient } from './patience.js';
import type { ExitStatus, Program } from './program.js';
import { waitFor } from './wait.js';

/** The compiled daemon. */
export const daemonFile = (): string => distFile('bin/tsflanneld.js');

/** The compiled `tsflannelctl`. */
export const ctlFile = (): string => distFile('bin/tsflannelctl.js');

/** Where a daemon runs and what it is started with. */
export interface DaemonOptions {
  readonly netns: Netns;
  /** Holds subnet.env, state, socket and log of this daemon. */
  readonly directory: string;
  readonly etcdEndpoints: string;
  /** More flags; they come last, so they win. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Working directory. Default that of this process. */
  readonly cwd?: string;
  /** Command that executes the daemon, such as one that takes rights from it. Default none. */
  readonly within?: readonly string[];
  /** Program to run instead of ours: a stock flanneld, which does not know the flags of our own. */
  readonly stock?: string;
  /** Puts subnet.env and state on a disk of that size, which only this daemon has and which ends with it. */
  readonly diskBytes?: number;
  /** Has what a run leaves for the next one. */
  readonly keeper?: DescriptorKeeper;
  /** Serves networks of containers, on a socket of {@link Daemon.pluginSocket} that no other daemon has. */
  readonly hasPlugin?: boolean;
}

/** Contents of a subnet.env. */
export type SubnetEnv = Readonly<Record<string, string>>;

/** A daemon that did not come up; the message ends with its log. */
export class DaemonStartError extends Error {}

/** One run after the other of a daemon on one host: a restart finds the files of the run before. */
export class Daemon {
  readonly statusSocket: string;
  readonly logFile: string;
  /** Where it answers what Docker asks, with `hasPlugin`. */
  readonly pluginSocket: string;
  #program: Program | undefined;

  constructor(readonly options: DaemonOptions) {
    mkdirSync(options.directory, { recursive: true });
    this.statusSocket = path.join(options.directory, 'status.sock');
    this.logFile = path.join(options.directory, 'daemon.log');
    this.pluginSocket = path.join(options.directory, 'plugins', path.basename(PLUGIN_SOCKET));
  }

  /** Holds {@link subnetFile} and {@link stateDirectory}. */
  get filesDirectory(): string {
    if (this.options.diskBytes === undefined) return this.options.directory;
    return `/proc/${this.program.pid}/root${this.#diskDirectory}`;
  }

  get subnetFile(): string {
    return path.join(this.filesDirectory, 'subnet.env');
  }

  get stateDirectory(): string {
    return path.join(this.filesDirectory, 'state');
  }

  /** The present or last run. */
  get program(): Program {
    if (this.#program === undefined) throw new Error('the daemon has not been started');
    return this.#program;
  }

  get log(): string {
    return this.program.output;
  }

  /**
   * Starts the process; returns at once.
   *
   * @param args - more flags for this run only.
   */
  start(args: readonly string[] = []): Program {
    const { options } = this;
    const directory = options.diskBytes === undefined ? options.directory : this.#diskDirectory;
    const own = ['--state-dir', path.join(directory, 'state'), '--status-socket', this.statusSocket];
    const command = options.stock === undefined ? [process.execPath, daemonFile(), ...own] : [options.stock];
    const kept = options.keeper?.nextRun();
    this.#program = options.netns.start(
      [
        ...this.#mountDisk(),
        ...this.#mountPlugins(),
        ...(options.keeper === undefined ? [] : ['sh', '-c', 'export LISTEN_PID=$$; exec "$@"', 'sh']),
        ...(options.within ?? []),
        ...command,
        ...[`--etcd-endpoints=${options.etcdEndpoints}`, `--subnet-file=${path.join(directory, 'subnet.env')}`],
        ...(options.hasPlugin === true ? ['--docker-plugin'] : []),
        ...(options.args ?? []),
        ...args,
      ],
      {
        logFile: this.logFile,
        env: { WIREGUARD_KEY_FILE: path.join(options.directory, 'wgkey'), ...kept?.env, ...options.env },
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        ...(kept && { descriptors: kept.descriptors }),
      },
    );
    return this.#program;
  }

  /**
   * Starts it and waits until it has written subnet.env anew.
   *
   * @throws DaemonStartError with its log when it ends before or the time is up.
   */
  async startAndWait(args: readonly string[] = [], timeoutMs = 20_000): Promise<SubnetEnv> {
    const before = this.options.diskBytes === undefined ? this.#subnetFileStamp() : '';
    const program = this.start(args);
    const isThere = await waitFor(() => !program.isRunning || this.#subnetFileStamp() !== before, {
      what: this.subnetFile,
      timeoutMs,
      intervalMs: 10,
    }).catch(() => false);
    if (!isThere || !program.isRunning) {
      const why = program.isRunning ? `wrote no subnet.env in ${patient(timeoutMs) / 1000} s` : 'ended';
      throw new DaemonStartError(`${program.argv.join(' ')} ${why}; its log:\n${program.output}`);
    }
    return this.subnetEnv();
  }

  /** What subnet.env says now. */
  subnetEnv(): SubnetEnv {
    const lines = readFileSync(this.subnetFile, 'utf8').split('\n');
    return Object.fromEntries(
      lines
        .filter((line) => line.includes('='))
        .map((line) => [line.split('=')[0] ?? '', line.split('=').slice(1).join('=')]),
    );
  }

  /** Waits for a line in the log of this run. */
  async waitForLog(pattern: RegExp, timeoutMs = 20_000, from = 0): Promise<RegExpMatchArray> {
    return this.program.waitForLine(pattern, timeoutMs, from);
  }

  /** The daemon's own account of itself (`GET /status` on its Unix socket). */
  async status(): Promise<DaemonStatus> {
    return JSON.parse(await this.get('/status')) as DaemonStatus;
  }

  /**
   * Waits until it is ready and the kernel is as desired.
   *
   * @remarks That is so, too, before it has heard of its peers, and before they have heard of it: wait for what those
   * bring with `eventually`.
   */
  async waitUntilReady(): Promise<void> {
    await waitFor(
      async () => {
        const { isReady, reconcile } = await this.status();
        return isReady && reconcile.isConverged;
      },
      { what: `readiness; log:\n${this.log}` },
    );
  }

  /** The body of a page of its status server, such as `/metrics`. */
  async get(page: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const request = http.get({ socketPath: this.statusSocket, path: page, timeout: 5000 }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => (body += text));
        response.on('end', () => {
          if (response.statusCode === 200) resolve(body);
          else reject(new Error(`GET ${page}: ${String(response.statusCode)} ${body}`));
        });
      });
      request.on('timeout', () => request.destroy(new Error(`GET ${page}: no answer`)));
      request.on('error', reject);
    });
  }

  /** Stands still, as on a host that is suspended; returns once every thread does. */
  async suspend(): Promise<void> {
    this.program.signal('SIGSTOP');
    const tasks = `/proc/${this.program.pid}/task`;
    const isStopped = (id: string): boolean => /\) T /.test(readFileSync(`${tasks}/${id}/stat`, 'utf8'));
    await waitFor(() => readdirSync(tasks).every(isStopped), { what: 'the daemon to stand still' });
  }

  /** Ends {@link suspend}. */
  resume(): void {
    this.program.signal('SIGCONT');
  }

  /** Ends it as an operator does and gives its exit status. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<ExitStatus> {
    return this.program.stop(signal);
  }

  /** Ends it without letting it do anything more. */
  async kill(): Promise<ExitStatus> {
    return this.program.kill();
  }

  /** Resident memory in bytes. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.program.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  get #diskDirectory(): string {
    return path.join(this.options.directory, 'disk');
  }

  /** `ip netns exec` has given the daemon a mount namespace already. */
  #mountDisk(): string[] {
    if (this.options.diskBytes === undefined) return [];
    mkdirSync(this.#diskDirectory, { recursive: true });
    const mount = `mount -t tmpfs -o size=${this.options.diskBytes} tmpfs ${this.#diskDirectory}`;
    return ['sh', '-c', `${mount} && exec "$@"`, 'sh'];
  }

  #mountPlugins(): string[] {
    if (this.options.hasPlugin !== true) return [];
    const [source, target] = [path.dirname(this.pluginSocket), path.dirname(PLUGIN_SOCKET)];
    for (const directory of [source, target]) mkdirSync(directory, { recursive: true, mode: 0o700 });
    return ['sh', '-c', `mount --bind ${source} ${target} && exec "$@"`, 'sh'];
  }

  /** A run that writes the same text again still makes a new file or a new time. */
  #subnetFileStamp(): string {
    const found = statSync(this.subnetFile, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? '' : `${found.ino}:${found.mtimeNs}`;
  }
}
