import type {
  CallError,
  EtcdConnection,
  EtcdDialer,
  EtcdService,
  StreamCall,
  StreamMethod,
  UnaryMethod,
} from '../../src/etcd/connection.js';
import { waitFor } from './wait.js';

/** What a call came to. */
export type Outcome = { readonly response: Response } | { readonly error: { code: number; details: string } };

/** A message of etcd, decoded. */
export type Response = Readonly<Record<string, unknown>>;

/** Calls to etcd as they are, without the retries and the interpretation of the client. */
export class RawRpc {
  readonly #connection: EtcdConnection;
  readonly #tokens: string[] = [];

  constructor(dial: EtcdDialer, target: string) {
    this.#connection = dial(target, { tls: undefined, pingIntervalMs: 10_000, pingTimeoutMs: 5000 });
  }

  /** Sends this token with everything from now on; undefined for none. */
  useToken(token: string | undefined): void {
    this.#tokens.splice(0, 1, ...(token === undefined ? [] : [token]));
  }

  async call(service: EtcdService, method: string, request: object): Promise<Outcome> {
    const { stub, metadata } = await this.#open(service);
    const send = (stub as Record<string, UnaryMethod>)[method];
    if (send === undefined) throw new Error(`there is no ${service}.${method}`);
    return new Promise((resolve) => {
      send.call(stub, request, metadata, {}, (error, response) => {
        resolve(error === null ? { response: response as Response } : { error: toPlain(error) });
      });
    });
  }

  /** Like {@link call}, for what must not fail. */
  async must(service: EtcdService, method: string, request: object): Promise<Response> {
    const outcome = await this.call(service, method, request);
    if ('error' in outcome) throw new Error(`${service}.${method}: ${outcome.error.details}`);
    return outcome.response;
  }

  /** Opens a stream of changes and waits for the first response. */
  async watch(request: object): Promise<RawStream> {
    const { stub, metadata } = await this.#open('Watch');
    const { watch } = stub as { watch: StreamMethod<object, Response> };
    const stream = new RawStream(watch.call(stub, metadata, {}));
    stream.write({ create_request: request });
    await stream.until(({ responses }) => responses.length > 0, 'the confirmation');
    return stream;
  }

  /** Keeps a lease alive once. */
  async keepAlive(id: string): Promise<Response> {
    const { stub, metadata } = await this.#open('Lease');
    const { leaseKeepAlive } = stub as { leaseKeepAlive: StreamMethod<object, Response> };
    const stream = new RawStream(leaseKeepAlive.call(stub, metadata, {}));
    stream.write({ ID: id });
    await stream.until(({ responses }) => responses.length > 0, 'the answer');
    stream.close();
    return stream.responses[0] ?? {};
  }

  close(): void {
    this.#connection.close();
  }

  async #open(service: EtcdService): ReturnType<EtcdConnection['open']> {
    const opened = await this.#connection.open(service);
    for (const token of this.#tokens) opened.metadata.set('token', token);
    return opened;
  }
}

/** A stream and all it has brought. */
export class RawStream {
  readonly responses: Response[] = [];
  error: { code: number; details: string } | undefined;

  constructor(private readonly stream: StreamCall<object, Response>) {
    stream.on('data', (response) => this.responses.push(response));
    stream.on('error', (error) => (this.error ??= toPlain(error)));
    stream.on('end', () => {});
  }

  /** The events of all responses in order. */
  get events(): readonly Response[] {
    return this.responses.flatMap(({ events }) => events as readonly Response[]);
  }

  write(message: object): void {
    this.stream.write(message);
  }

  async until(probe: (stream: RawStream) => boolean, what: string): Promise<void> {
    await waitFor(() => probe(this) || this.error !== undefined, { what, intervalMs: 1 });
  }

  close(): void {
    this.stream.cancel();
  }
}

function toPlain({ code = -1, details = '' }: CallError): { code: number; details: string } {
  return { code, details };
}

/** A message as it can be compared between clusters: ids of cluster, member and term only by whether there is one. */
export function comparable(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return value.toString('latin1');
  if (Array.isArray(value)) return value.map(comparable);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      name === 'cluster_id' || name === 'member_id' || name === 'raft_term' ? inner !== '0' : comparable(inner),
    ]),
  );
}
