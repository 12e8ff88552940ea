import { createRequire } from 'node:module';
import path from 'node:path';
import type { EtcdService } from '../../../src/etcd/connection.js';

/** How one method's messages become bytes and back. */
export interface MethodDefinition {
  readonly requestStream: boolean;
  /** As a generated client calls it: `leaseGrant`. */
  readonly originalName: string;
  requestSerialize(request: unknown): Buffer;
  requestDeserialize(bytes: Buffer): unknown;
  responseSerialize(response: unknown): Buffer;
  responseDeserialize(bytes: Buffer): unknown;
}

const fromHere = createRequire(import.meta.url);
const etcd3 = path.dirname(fromHere.resolve('etcd3/package.json'));
const loader = createRequire(path.join(etcd3, 'package.json'))('@grpc/proto-loader') as {
  loadSync(file: string, options: object): Record<string, Record<string, MethodDefinition>>;
};

/**
 * etcd's protocol as the etcd3 package loads it, options included. Messages of the double pass through it in both
 * directions, so that they have the very shapes, defaults and spellings that a real connection gives them.
 */
const definitions = loader.loadSync(path.join(etcd3, 'proto', 'rpc.proto'), {
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

/** The methods of a service. */
export function methodsOf(service: EtcdService): readonly MethodDefinition[] {
  return Object.values(definitions[`etcdserverpb.${service}`] ?? {});
}

/** An answer that is a gRPC status other than OK. */
export class RpcError extends Error {
  constructor(
    /** gRPC `doc/statuscodes.md`. */
    readonly code: number,
    readonly details: string,
  ) {
    super(details);
  }
}

/** etcd's own errors, see etcd `etcdserver/api/v3rpc/rpctypes/error.go` of 3.4. */
export const ETCD_ERRORS = {
  emptyKey: () => new RpcError(3, 'etcdserver: key is not provided'),
  keyNotFound: () => new RpcError(3, 'etcdserver: key not found'),
  valueProvided: () => new RpcError(3, 'etcdserver: value is provided'),
  leaseProvided: () => new RpcError(3, 'etcdserver: lease is provided'),
  tooManyOps: () => new RpcError(3, 'etcdserver: too many operations in txn request'),
  duplicateKey: () => new RpcError(3, 'etcdserver: duplicate key given in txn request'),
  compacted: () => new RpcError(11, 'etcdserver: mvcc: required revision has been compacted'),
  futureRevision: () => new RpcError(11, 'etcdserver: mvcc: required revision is a future revision'),
  noSpace: () => new RpcError(8, 'etcdserver: mvcc: database space exceeded'),
  leaseNotFound: () => new RpcError(5, 'etcdserver: requested lease not found'),
  leaseExists: () => new RpcError(9, 'etcdserver: lease already exists'),
  leaseTtlTooLarge: () => new RpcError(11, 'etcdserver: too large lease TTL'),
  userEmpty: () => new RpcError(3, 'etcdserver: user name is empty'),
  authFailed: () => new RpcError(3, 'etcdserver: authentication failed, invalid user ID or password'),
  authNotEnabled: () => new RpcError(9, 'etcdserver: authentication is not enabled'),
  permissionDenied: () => new RpcError(7, 'etcdserver: permission denied'),
  invalidToken: () => new RpcError(16, 'etcdserver: invalid auth token'),
  noLeader: () => new RpcError(14, 'etcdserver: no leader'),
  timedOut: () => new RpcError(14, 'etcdserver: request timed out'),
} as const;

/** A call as a member gets it. */
export interface IncomingCall {
  readonly service: EtcdService;
  readonly method: string;
  readonly metadata: ReadonlyMap<string, string>;
}
