import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { ConnectionPool } from 'etcd3/lib/connection-pool.js';
import { AuthClient, KVClient, LeaseClient } from 'etcd3/lib/rpc.js';
import { CertificateAuthority } from './certificates.js';
import { onExit } from './cleanup.js';
import { Program } from './program.js';
import { waitFor } from './wait.js';

/** Certificates for 127.0.0.1 and localhost, made by openssl. */
export interface TestCertificates {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** What an {@link EtcdServer} is started with. */
export interface EtcdOptions {
  /** `server`: TLS with a server certificate; `mutual`: a client certificate is demanded as well. */
  readonly tls?: 'server' | 'mutual';
  /** Turns authentication on with this user, who may do everything; root has the same password. */
  readonly user?: { readonly name: string; readonly password: string };
  /** Seconds that a log-in token lives when it is not used. */
  readonly tokenTtlSeconds?: number;
}

/** One member of an etcd cluster on loopback. Its data outlives a restart and goes away with {@link EtcdServer.destroy}. */
export class EtcdServer {
  #program: Program | undefined;
  #isSuspended = false;

  /** @internal */
  constructor(
    readonly name: string,
    /** `http://127.0.0.1:port`, or https. */
    readonly endpoint: string,
    private readonly args: readonly string[],
    private readonly release: () => void,
    readonly certificates: TestCertificates | undefined,
  ) {}

  get pid(): number {
    if (this.#program === undefined) throw new Error(`${this.name} does not run`);
    return this.#program.pid;
  }

  /** Starts it without waiting. */
  launch(): void {
    this.#program = new Program(['etcd', ...this.args]);
  }

  /** Waits until it serves clients. */
  async ready(): Promise<void> {
    await this.#program?.waitForLine(/ready to serve client requests|serving client traffic/, 20_000);
  }

  async start(): Promise<void> {
    this.launch();
    await this.ready();
  }

  /** As a crash or a power cut would end it. */
  async kill(): Promise<void> {
    this.resume();
    await this.#program?.kill();
    this.#program = undefined;
  }

  /** Makes it hang: connections stay open, nothing is answered. Returns once every thread stands still. */
  async suspend(): Promise<void> {
    this.#isSuspended = true;
    this.#program?.signal('SIGSTOP');
    const tasks = `/proc/${this.pid}/task`;
    const isStopped = (id: string): boolean => /\) T /.test(readFileSync(`${tasks}/${id}/stat`, 'utf8'));
    await waitFor(() => readdirSync(tasks).every(isStopped), { what: `${this.name} to stand still` });
  }

  resume(): void {
    if (this.#isSuspended) this.#program?.signal('SIGCONT');
    this.#isSuspended = false;
  }

  /** Deletes the data of a server that does not run, as a mistake of an operator would. */
  wipe(): void {
    const directory = this.args[this.args.indexOf('--data-dir') + 1];
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  }

  /** Ends it and deletes its data. */
  async destroy(): Promise<void> {
    await this.kill();
    this.release();
  }
}

/** Starts one etcd on free loopback ports with data in memory. */
export async function startEtcd(options: EtcdOptions = {}): Promise<EtcdServer> {
  const [server] = await startEtcdCluster(1, options);
  if (server === undefined) throw new Error('a cluster of one has a member');
  return server;
}

/** Starts a cluster and waits until every member serves clients. */
export async function startEtcdCluster(size: number, options: EtcdOptions = {}): Promise<readonly EtcdServer[]> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-etcd-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  const withdraw = onExit(remove);
  let left = size;
  const release = (): void => {
    if (--left > 0) return;
    withdraw();
    remove();
  };
  const certificates = options.tls === undefined ? undefined : makeCertificates(directory);
  const scheme = options.tls === undefined ? 'http' : 'https';
  const ports = await freePorts(2 * size);
  const members = Array.from({ length: size }, (_, index) => ({
    name: `m${index}`,
    client: `${scheme}://127.0.0.1:${ports[2 * index] ?? 0}`,
    peer: `http://127.0.0.1:${ports[2 * index + 1] ?? 0}`,
  }));
  const cluster = members.map(({ name, peer }) => `${name}=${peer}`).join(',');
  const servers = members.map(({ name, client, peer }) => {
    const args = [
      ...['--name', name, '--data-dir', path.join(directory, name), '--initial-cluster', cluster],
      ...['--listen-client-urls', client, '--advertise-client-urls', client],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ...['--heartbeat-interval', '50', '--election-timeout', '500', '--logger', 'zap', '--log-outputs', 'stderr'],
      ...(options.tokenTtlSeconds === undefined ? [] : ['--auth-token-ttl', String(options.tokenTtlSeconds)]),
      ...(certificates === undefined ? [] : ['--cert-file', certificates.caFile.replace('ca.pem', 'server.pem')]),
      ...(certificates === undefined ? [] : ['--key-file', certificates.caFile.replace('ca.pem', 'server.key')]),
      ...(options.tls === 'mutual' ? ['--client-cert-auth', '--trusted-ca-file', certificates?.caFile ?? ''] : []),
    ];
    return new EtcdServer(name, client, args, release, certificates);
  });
  for (const server of servers) server.launch();
  await Promise.all(servers.map((server) => server.ready()));
  const [first] = servers;
  if (options.user !== undefined && first !== undefined) await enableAuth(first, options.user);
  return servers;
}

/** Raw access for what a test does behind the store's back. */
export interface RawEtcd {
  readonly kv: KVClient;
  readonly lease: LeaseClient;
  readonly auth: AuthClient;
  put(key: string, value: string, leaseId?: string): Promise<void>;
  get(key: string): Promise<{ readonly value: string; readonly lease: string; readonly revision: string } | undefined>;
  delete(key: string): Promise<void>;
  /** Deletes the history up to now. */
  compact(): Promise<void>;
  close(): void;
}

/** A client of the etcd3 package on one server. */
export function rawEtcd(server: EtcdServer, user?: { readonly name: string; readonly password: string }): RawEtcd {
  const { certificates } = server;
  const pool = new ConnectionPool({
    hosts: server.endpoint,
    ...(user && { auth: { username: user.name, password: user.password } }),
    ...(certificates && {
      credentials: {
        rootCertificate: readFileSync(certificates.caFile),
        certChain: readFileSync(certificates.certFile),
        privateKey: readFileSync(certificates.keyFile),
      },
    }),
  });
  const kv = new KVClient(pool);
  return {
    kv,
    lease: new LeaseClient(pool),
    auth: new AuthClient(pool),
    async put(key, value, leaseId = '0') {
      await kv.put({ key: Buffer.from(key), value: Buffer.from(value), lease: leaseId });
    },
    async get(key) {
      const [entry] = (await kv.range({ key: Buffer.from(key) })).kvs;
      return entry && { value: entry.value.toString(), lease: entry.lease, revision: entry.mod_revision };
    },
    async delete(key) {
      await kv.deleteRange({ key: Buffer.from(key) });
    },
    async compact() {
      const { header } = await kv.range({ key: Buffer.from('-') });
      await kv.compact({ revision: header.revision, physical: true });
    },
    close: () => pool.close(),
  };
}

async function enableAuth(
  server: EtcdServer,
  user: { readonly name: string; readonly password: string },
): Promise<void> {
  const raw = rawEtcd(server);
  const everything = { key: Buffer.from([0]), range_end: Buffer.from([0]) };
  await raw.auth.userAdd({ name: 'root', password: user.password });
  await raw.auth.userGrantRole({ user: 'root', role: 'root' });
  await raw.auth.roleAdd({ name: 'all' });
  await raw.auth.roleGrantPermission({ name: 'all', perm: { permType: 'Readwrite', ...everything } });
  await raw.auth.userAdd({ name: user.name, password: user.password });
  await raw.auth.userGrantRole({ user: user.name, role: 'all' });
  await raw.auth.authEnable();
  raw.close();
}

function makeCertificates(directory: string): TestCertificates {
  const authority = new CertificateAuthority(directory);
  authority.issue('server');
  return { caFile: authority.caFile, ...authority.issue('client') };
}

/** Ports that are free now; all are held until the last one is known, so that they differ. */
async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await waitFor(() => servers.every((server) => server.listening), { what: 'free ports' });
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
