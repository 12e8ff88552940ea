import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Certificate } from './certificates.js';
import { run, type Netns, type Output } from './netns.js';
import { Program } from './program.js';

/** A key as etcd has it. */
export interface EtcdEntry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: bigint;
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
  /** CA and client certificate of etcdctl. */
  readonly clientTls?: { readonly caFile: string } & Partial<Certificate>;
  /** Of several; default a server of its own. */
  readonly member?: EtcdMember;
}

/** One member of a cluster. */
export interface EtcdMember {
  readonly name: string;
  /** Where the others reach it. */
  readonly peerUrl: string;
  /** Where its clients are told to reach it. */
  readonly clientUrl: string;
  /** `name=url,…` of all. */
  readonly cluster: string;
  /** `existing` for one that is added to a cluster that runs. Default `new`. */
  readonly state?: 'new' | 'existing';
}

/** Of the user root after {@link EtcdServer.enableAuthentication}. */
export const ETCD_ROOT_PASSWORD = 'root-secret';

/** A real etcd server in a namespace of its own, and etcdctl as its client. */
export class EtcdServer {
  /** Where a client reaches the server itself. */
  readonly endpoint: string;
  #program: Program | undefined;
  #hasAuthentication = false;

  constructor(readonly options: EtcdOptions) {
    const { scheme = 'http', address, port = 2379 } = options;
    this.endpoint = `${scheme}://${address}:${port}`;
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error('etcd has not been started');
    return this.#program;
  }

  /**
   * Starts it, with the data of its last run if there was one, and waits until it answers.
   *
   * @param args - more flags for this run only.
   */
  async start(args: readonly string[] = []): Promise<void> {
    const { netns, directory, address, port = 2379, scheme = 'http' } = this.options;
    const { name, peerUrl, clientUrl, cluster, state = 'new' } = this.#member;
    mkdirSync(directory, { recursive: true });
    this.#program = netns.start(
      [
        'etcd',
        ...['--name', name, '--data-dir', this.#dataDirectory],
        ...['--listen-client-urls', `${scheme}://${address}:${port}`, '--advertise-client-urls', clientUrl],
        ...['--listen-peer-urls', this.#peerListenUrl, '--initial-advertise-peer-urls', peerUrl],
        ...['--initial-cluster', cluster, '--initial-cluster-state', state],
        // One member elects itself after one time-out; the default would make every start wait a second.
        ...(this.options.member === undefined ? ['--heartbeat-interval', '20', '--election-timeout', '200'] : []),
        ...(this.options.args ?? []),
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

  /** Deletes the data of a server that does not run, as a mistake of an operator would. */
  wipe(): void {
    rmSync(this.#dataDirectory, { recursive: true, force: true });
  }

  /** Takes a backup. @returns its file. */
  async saveSnapshot(): Promise<string> {
    const file = path.join(this.options.directory, `${process.hrtime.bigint()}.snapshot`);
    await this.ctl(['snapshot', 'save', file]);
    return file;
  }

  /** Replaces the data of a server that does not run by a backup, as the operation guide of etcd says. */
  async restoreSnapshot(file: string): Promise<void> {
    const { name, peerUrl, cluster } = this.#member;
    this.wipe();
    await this.ctl([
      ...['snapshot', 'restore', file, '--name', name, '--data-dir', this.#dataDirectory],
      ...['--initial-cluster', cluster, '--initial-advertise-peer-urls', peerUrl],
    ]);
  }

  /** Turns authentication on with the user root; etcdctl runs as root from then on. */
  async enableAuthentication(): Promise<void> {
    await this.ctl(['user', 'add', `root:${ETCD_ROOT_PASSWORD}`]);
    await this.ctl(['user', 'grant-role', 'root', 'root'], { mayFail: true });
    await this.ctl(['auth', 'enable']);
    this.#hasAuthentication = true;
  }

  /** Runs etcdctl against it. */
  async ctl(
    args: readonly string[],
    options: { readonly input?: string; readonly mayFail?: boolean } = {},
  ): Promise<Output> {
    const { caFile, certFile, keyFile } = this.options.clientTls ?? {};
    const argv = [
      ...['etcdctl', '--endpoints', this.endpoint, '--command-timeout', '10s'],
      ...(caFile === undefined ? [] : ['--cacert', caFile]),
      ...(certFile === undefined || keyFile === undefined ? [] : ['--cert', certFile, '--key', keyFile]),
      ...(this.#hasAuthentication ? ['--user', `root:${ETCD_ROOT_PASSWORD}`] : []),
    ];
    return run(this.options.netns.command([...argv, ...args]), { ...options, env: { ETCDCTL_API: '3' } });
  }

  /** Writes a key, bound to an etcd lease if given. */
  async put(key: string, value: string, leaseId?: string): Promise<void> {
    await this.ctl(['put', ...(leaseId === undefined ? [] : ['--lease', leaseId]), '--', key, value]);
  }

  /** Writes a value that is too long for a command line, or has bytes that one cannot have. */
  async putText(key: string, value: string): Promise<void> {
    await this.ctl(['put', '--', key], { input: value });
  }

  /** Writes many keys with few requests; the server needs `--max-txn-ops` for more than 128 in one. */
  async putMany(entries: readonly (readonly [key: string, value: string])[], perRequest = 128): Promise<void> {
    const lines = entries.map(([key, value]) => `put ${quoted(key)} ${quoted(value)}\n`);
    await this.#transact(lines, perRequest);
  }

  /** Deletes many keys with few requests. */
  async deleteMany(keys: readonly string[], perRequest = 128): Promise<void> {
    const lines = keys.map((key) => `del ${quoted(key)}\n`);
    await this.#transact(lines, perRequest);
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

  /** Ids of all etcd leases, in hexadecimal. */
  async leaseIds(): Promise<string[]> {
    const { stdout } = await this.ctl(['lease', 'list']);
    return stdout.split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
  }

  /** Etcd leases that no key is bound to: nobody will ever ask for them, and each lives for its whole TTL. */
  async orphanLeaseIds(): Promise<string[]> {
    const bound = new Set((await this.list('/')).map(({ leaseId }) => leaseId));
    return (await this.leaseIds()).filter((id) => !bound.has(id.replace(/^0+/, '')));
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

  async #transact(lines: readonly string[], perRequest: number): Promise<void> {
    for (let from = 0; from < lines.length; from += perRequest) {
      await this.ctl(['txn'], { input: `\n${lines.slice(from, from + perRequest).join('')}\n\n` });
    }
  }

  get #member(): EtcdMember {
    const peerUrl = 'http://127.0.0.1:2380';
    return this.options.member ?? { name: 'rig', peerUrl, clientUrl: this.endpoint, cluster: `rig=${peerUrl}` };
  }

  get #peerListenUrl(): string {
    return this.options.member === undefined ? 'http://127.0.0.1:2380' : `http://${this.options.address}:2380`;
  }

  get #dataDirectory(): string {
    return path.join(this.options.directory, 'data');
  }

  async #query(args: readonly string[]): Promise<EtcdEntry[]> {
    const { stdout } = await this.ctl(['get', '-w', 'json', ...args]);
    // Lease ids and revisions have 64 bits: more than JSON.parse keeps, so they are made strings before.
    const exact = stdout.replace(/:(-?\d+)/g, ':"$1"');
    const answer = JSON.parse(exact) as {
      kvs?: { key: string; value?: string; create_revision: string; mod_revision: string; lease?: string }[];
    };
    const decode = (text: string): string => Buffer.from(text, 'base64').toString();
    return (answer.kvs ?? []).map((entry) => ({
      key: decode(entry.key),
      value: decode(entry.value ?? ''),
      createRevision: BigInt(entry.create_revision),
      modRevision: BigInt(entry.mod_revision),
      leaseId: entry.lease === undefined ? undefined : BigInt.asUintN(64, BigInt(entry.lease)).toString(16),
    }));
  }
}

/** A word of etcdctl's transactions: it reads double quotes as Go does, and cuts what stands in single ones. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
