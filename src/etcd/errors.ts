import { OverlayError } from '../errors.js';
import type { EndpointList } from './endpoints.js';

/**
 * How a failed gRPC call is dealt with: `endpoint` try another one, `token` log in again, `no-user` log in if there is
 * a user, `compacted` list again, `gone` there is no such etcd lease, `exists` there is one already, `no-auth` the
 * server knows no users, `final` pass the error on.
 */
export type Failure =
  | {
      readonly kind: 'endpoint' | 'token' | 'no-user' | 'compacted' | 'gone' | 'exists' | 'no-auth';
      readonly detail: string;
    }
  | { readonly kind: 'final'; readonly error: OverlayError };

/** gRPC status codes by number (grpc `doc/statuscodes.md`). */
const CANCELLED = 1;
const UNKNOWN = 2;
const DEADLINE_EXCEEDED = 4;
const PERMISSION_DENIED = 7;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

/** etcd's own messages, which tell more than its status codes. See etcd `api/v3rpc/rpctypes/error.go`. */
const BY_MESSAGE: readonly (readonly [RegExp, (detail: string) => Failure])[] = [
  [/invalid auth token|revision of auth store is old/, (detail) => ({ kind: 'token', detail })],
  [/authentication is not enabled/, (detail) => ({ kind: 'no-auth', detail })],
  [/required revision has been compacted/, (detail) => ({ kind: 'compacted', detail })],
  [/requested lease not found/, (detail) => ({ kind: 'gone', detail })],
  [/lease already exists/, (detail) => ({ kind: 'exists', detail })],
  [/user name is empty/, (detail) => ({ kind: 'no-user', detail })],
  [
    /authentication failed|user name not found/,
    (detail) => authFailure(detail, 'check --etcd-username and the password'),
  ],
  [
    /permission denied/,
    (detail) => authFailure(detail, "grant the user's role readwrite on the prefix of --etcd-prefix"),
  ],
  [
    /database space exceeded/,
    (detail) => ({
      kind: 'final',
      error: requestError(detail, true, 'compact and defragment etcd, then disarm its NOSPACE alarm'),
    }),
  ],
];

/**
 * What grpc-js 1.x puts around the cause of a lost connection, which is no help to a person: which of its load balancers
 * speaks, the time of day, so that no two texts are the same, and a note on name resolution, most often empty.
 */
const WRAPPING =
  /^(?:\w+: )?No connection established\. Last error: (?<error>.*?)(?: \(\d{4}-\d\d-\d\dT[\d:.]+Z\))?(?:\. Resolution note: (?<note>.*))?$/s;

/** The same where no name was resolved. */
const UNRESOLVED = /^No addresses resolved\. Resolution note: (?<note>.*)$/s;

/** The cause by itself. grpc-js writes `null` where it saw no error. */
function unwrapped(details: string): string {
  const match = WRAPPING.exec(details) ?? UNRESOLVED.exec(details);
  if (match === null) return details;
  const { error = 'null', note = '' } = match.groups ?? {};
  if (error !== '' && error !== 'null') return error.replace(/^Error: /, '');
  return note === '' ? 'no connection established' : note;
}

/** Sorts a failed call by etcd's message, else by its gRPC status. */
export function classifyFailure(status: { readonly code?: unknown; readonly details?: unknown }): Failure {
  const detail =
    typeof status.details === 'string' && status.details !== ''
      ? unwrapped(status.details)
      : `status ${String(status.code)}`;
  const known = BY_MESSAGE.find(([pattern]) => pattern.test(detail));
  if (known !== undefined) return known[1](detail);
  switch (status.code) {
    case CANCELLED:
    case UNKNOWN:
    case DEADLINE_EXCEEDED:
    case INTERNAL:
    case UNAVAILABLE:
    case undefined:
      return { kind: 'endpoint', detail };
    case PERMISSION_DENIED:
    case UNAUTHENTICATED:
      return authFailure(detail, 'check --etcd-username, the password and the role of that user');
    default:
      return { kind: 'final', error: requestError(detail, /too many requests/.test(detail), undefined) };
  }
}

/** The error for when no endpoint answered. */
export function unavailableError(detail: string, endpoints: EndpointList): OverlayError {
  // A server that misses the client's certificate just closes the connection (TLS 1.3, RFC 8446 4.4.2.4).
  const isTlsTrouble = endpoints.isTls && !/did not answer|ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/.test(detail);
  return new OverlayError('ERR_ETCD_UNAVAILABLE', `cannot reach etcd at ${endpoints.targets.join(', ')}: ${detail}`, {
    isRetryable: true,
    hint: isTlsTrouble
      ? 'check --etcd-cafile, --etcd-certfile and --etcd-keyfile, and that the certificate of etcd names the endpoint'
      : 'check that etcd runs and that --etcd-endpoints is right',
  });
}

/** The error for etcd's refusal of a user, a password or a request by that user. */
export function authError(detail: string, hint: string): OverlayError {
  return new OverlayError('ERR_ETCD_AUTH', `cannot use etcd: ${detail}`, { hint });
}

/** The error for anything else that etcd answers. */
export function requestError(detail: string, isRetryable: boolean, hint: string | undefined): OverlayError {
  return new OverlayError('ERR_ETCD_REQUEST', `cannot complete a request to etcd: ${detail}`, {
    isRetryable,
    ...(hint === undefined ? {} : { hint }),
  });
}

function authFailure(detail: string, hint: string): Failure {
  return { kind: 'final', error: authError(detail, hint) };
}
