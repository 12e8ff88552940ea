import { ConnectionPool } from 'etcd3/lib/connection-pool.js';
import type { TlsMaterial } from './tls.js';

/** The gRPC services of etcd that are used. */
export type EtcdService = 'KV' | 'Lease' | 'Watch' | 'Auth';

/** Why a call ended without an answer: a gRPC status. */
export interface CallError {
  /** gRPC `doc/statuscodes.md`. */
  readonly code?: number;
  readonly details?: string;
}

/** What travels with a call beside its message. */
export interface CallMetadata {
  set(key: string, value: string): void;
}

/** A call that has been started. */
export interface Call {
  cancel(): void;
}

/** A call with any number of messages in both directions. */
export interface StreamCall<Request, Response> extends Call {
  write(request: Request): void;
  on(event: 'data', listener: (response: Response) => void): void;
  on(event: 'error', listener: (error: CallError) => void): void;
  on(event: 'end', listener: () => void): void;
}

/** One request and its answer. */
export type UnaryMethod = (
  request: unknown,
  metadata: CallMetadata,
  options: object,
  callback: (error: CallError | null, response: unknown) => void,
) => Call;

/** Opens a {@link StreamCall}. */
export type StreamMethod<Request, Response> = (
  metadata: CallMetadata,
  options: object,
) => StreamCall<Request, Response>;

/** A generated gRPC client, whose methods are {@link UnaryMethod} or {@link StreamMethod}, and metadata for one call. */
export interface OpenService {
  readonly stub: object;
  readonly metadata: CallMetadata;
}

/** The connections to one member of etcd. */
export interface EtcdConnection {
  /** Rejects, or gives a stub whose methods throw, once it is closed. */
  open(service: EtcdService): Promise<OpenService>;
  close(): void;
}

/** How a member is spoken to. */
export interface DialSettings {
  /** Undefined for plain text. */
  readonly tls: TlsMaterial | undefined;
  /** Silence on a connection in use after which it is probed. */
  readonly pingIntervalMs: number;
  /** Time the answer to a probe may take before every call on the connection fails. */
  readonly pingTimeoutMs: number;
}

/** Makes an {@link EtcdConnection} to a gRPC target, `host:port` or `unix:path`; does not wait for it. */
export type EtcdDialer = (target: string, settings: DialSettings) => EtcdConnection;

/** Dials over the network, by the etcd3 package. Messages may have any size, as a listing may. */
export const dialEtcd: EtcdDialer = (target, { tls, pingIntervalMs, pingTimeoutMs }) => {
  const pool = new ConnectionPool({
    hosts: target,
    ...(tls === undefined ? {} : { credentials: tls }),
    grpcOptions: {
      'grpc.max_receive_message_length': -1,
      'grpc.keepalive_time_ms': pingIntervalMs,
      'grpc.keepalive_timeout_ms': pingTimeoutMs,
      'grpc.initial_reconnect_backoff_ms': 200,
      'grpc.max_reconnect_backoff_ms': 5000,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
    },
  });
  return {
    open: (service) => pool.withConnection(service, ({ client, metadata }) => ({ stub: client, metadata })),
    close: () => pool.close(),
  };
};
