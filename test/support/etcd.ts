import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { run, type Netns, type Output } from './netns.js';
import { Program } from './program.js';

/** A key as etcd has it. */
export interface EtcdEntry {
  readonly key: string;
  readonly value: string;
  readonly modRevision: bigint;
  /** Hexadecimal; `undefined` for a key that never expires. */
  readonly leaseId: string | undefined;
}

/** Where an etcd server runs and what it is started with. */
export interface EtcdOptions {
  readonly netns: Netns;
  /** Address its clients use. */
  readonly address: string;
  /** Holds data and log; made if missing. */
  readonly directory: string;
  /** Default 2379. */
  readonly port?: number;
  /** More etcd flags, such as TLS files. */
  readonly args?: readonly string[];
  /** Default `http`. */
  readonly scheme?: 'http' | 'https';
}

/** A real etcd server with one member, in a namespace of its own, and etcdctl as its client. */
export class EtcdServer {
  readonly endpoint: string;
  #program: Program | undefined;

  constructor(readonly options: EtcdOptions) {
    const { scheme = 'http', address, port = 2379 } = options;
    this.endpoint = `${scheme}://${address}:${port}`;
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error('etcd has not been started');
    return this.#program;
  }

  /** Starts it, with the data of its last run if there was one, and waits until it answers. */
  async start(): Promise<void> {
    const { netns, directory, address, port = 2379, args = [], scheme = 'http' } = this.options;
    mkdirSync(directory, { recursive: true });
    this.#program = netns.start(
      [
        'etcd',
        ...['--name', 'rig', '--data-dir', path.join(directory, 'data')],
        ...['--listen-client-urls', `${scheme}://${address}:${port}`, '--advertise-client-urls', this.endpoint],
        ...['--listen-peer-urls', 'http://127.0.0.1:2380', '--initial-advertise-peer-urls', 'http://127.0.0.1:2380'],
        ...['--initial-cluster', 'rig=http://127.0.0.1:2380'],
        // One member elects itself after one time-out; the default would make every start wait a second.
        ...['--heartbeat-interval', '20', '--election-timeout', '200'],
        ...args,
      ],
      // Debian builds etcd for processors that etcd itself calls unsupported.
      { logFile: path.join(directory, 'etcd.log'), env: { ETCD_UNSUPPORTED_ARCH: process.arch } },
    );
    await this.#program.waitForLine(
      /ready to serve client requests|serving (insecure )?client (requests|traffic)/,
      20_000,
    );
  }

  /** Ends it in order (SIGTERM); the data stays. */
  async stop(): Promise<void> {
    await this.program.stop();
  }

  /** Ends it as a power cut does (SIGKILL); the data stays. */
  async kill(): Promise<void> {
    await this.program.kill();
  }

  /** Freezes it: connections stay open and nothing answers. */
  pause(): void {
    this.program.signal('SIGSTOP');
  }

  /** Ends {@link pause}. */
  resume(): void {
    this.program.signal('SIGCONT');
  }

  /** Ends it and starts it on the same data. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Runs etcdctl against it. */
  async ctl(
    args: readonly string[],
    options: { readonly input?: string; readonly mayFail?: boolean } = {},
  ): Promise<Output> {
    const argv = ['etcdctl', '--endpoints', this.endpoint, '--command-timeout', '10s', ...args];
    return run(this.options.netns.command(argv), { ...options, env: { ETCDCTL_API: '3' } });
  }

  /** Writes a key, bound to an etcd lease if given. */
  async put(key: string, value: string, leaseId?: string): Promise<void> {
    await this.ctl(['put', ...(leaseId === undefined ? [] : ['--lease', leaseId]), '--', key, value]);
  }

  /** A key's entry; `undefined` if there is no such key. */
  async get(key: string): Promise<EtcdEntry | undefined> {
    return (await this.#query([key]))[0];
  }

  /** All entries whose key begins so, in the order of keys. */
  async list(prefix: string): Promise<EtcdEntry[]> {
    return this.#query(['--prefix', prefix]);
  }

  /** Deletes a key, or all that begin so. */
  async delete(key: string, options: { readonly isPrefix?: boolean } = {}): Promise<void> {
    await this.ctl(['del', ...(options.isPrefix === true ? ['--prefix'] : []), '--', key]);
  }

  /** Makes an etcd lease and gives its id in hexadecimal. */
  async grantLease(ttlSeconds: number): Promise<string> {
    const { stdout } = await this.ctl(['lease', 'grant', String(ttlSeconds)]);
    const id = /lease ([0-9a-f]+) granted/.exec(stdout)?.[1];
    if (id === undefined) throw new Error(`etcdctl lease grant said: ${stdout}`);
    return id;
  }

  /** The revision of the last change. */
  async revision(): Promise<bigint> {
    const { stdout } = await this.ctl(['get', '-w', 'json', 'no-such-key']);
    return BigInt(/"revision":(\d+)/.exec(stdout)?.[1] ?? '0');
  }

  /** Forgets all history before the present revision. */
  async compact(): Promise<void> {
    await this.ctl(['compaction', '--physical', String(await this.revision())]);
  }

  async #query(args: readonly string[]): Promise<EtcdEntry[]> {
    const { stdout } = await this.ctl(['get', '-w', 'json', ...args]);
    // Lease ids and revisions have 64 bits: more than JSON.parse keeps, so they are made strings before.
    const exact = stdout.replace(/:(-?\d+)/g, ':"$1"');
    const answer = JSON.parse(exact) as {
      kvs?: { key: string; value?: string; mod_revision: string; lease?: string }[];
    };
    const decode = (text: string): string => Buffer.from(text, 'base64').toString();
    return (answer.kvs ?? []).map((entry) => ({
      key: decode(entry.key),
      value: decode(entry.value ?? ''),
      modRevision: BigInt(entry.mod_revision),
      leaseId: entry.lease === undefined ? undefined : BigInt.asUintN(64, BigInt(entry.lease)).toString(16),
    }));
  }
}
