import path from 'node:path';
import { CREDENTIALS_HINT, hasCredentials } from '../config/endpoint.js';
import { OverlayError } from '../errors.js';
import { maskCredentials } from '../printable.js';

/** Port of etcd's client API, for endpoints that name none. */
const DEFAULT_PORT = 2379;

/** Where etcd is, and whether to speak TLS with it. */
export interface EndpointList {
  /** gRPC targets: `host:port` or `unix:path`. */
  readonly targets: readonly string[];
  readonly isTls: boolean;
}

/**
 * Reads a comma list of endpoints. The scheme of the first one decides for all: `http` and `unix` are plain even if
 * certificates are given, `https` and `unixs` are TLS, none means TLS if there are certificates.
 *
 * @param hasCertificates - whether the operator named any certificate file.
 * @throws {@link OverlayError} `ERR_ETCD_ENDPOINT`
 */
export function parseEndpoints(text: string, hasCertificates: boolean): EndpointList {
  if (hasCredentials(text)) throw endpointError(text, 'it names a user or a password', CREDENTIALS_HINT);
  const endpoints = text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parseEndpoint);
  const [first] = endpoints;
  if (first === undefined) throw endpointError(text, 'it is empty');
  const isTls = first.scheme === undefined ? hasCertificates : first.scheme === 'https' || first.scheme === 'unixs';
  return { targets: [...new Set(endpoints.map(({ target }) => target))], isTls };
}

function parseEndpoint(text: string): { readonly scheme: string | undefined; readonly target: string } {
  const [, scheme, rest = ''] = /^(?:([a-z]+):\/\/)?(.*)$/i.exec(text) ?? [];
  const known = scheme?.toLowerCase();
  if (known === 'unix' || known === 'unixs') {
    if (rest === '') throw endpointError(text, 'it names no socket');
    return { scheme: known, target: `unix:${rest}` };
  }
  if (known !== undefined && known !== 'http' && known !== 'https') {
    throw endpointError(text, `${known} is none of http, https, unix, unixs`);
  }
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:/?#@\s]+))(?::(\d{1,5}))?\/*$/.exec(rest) ?? [];
  const host = bracketed === undefined ? plain : `[${bracketed}]`;
  if (host === undefined || Number(port ?? DEFAULT_PORT) > 65535) throw endpointError(text, 'it is not host:port');
  return { scheme: known, target: `${host}:${port ?? DEFAULT_PORT}` };
}

function endpointError(
  text: string,
  why: string,
  hint = 'set --etcd-endpoints to a list such as https://192.0.2.1:2379,https://192.0.2.2:2379',
): OverlayError {
  return new OverlayError('ERR_ETCD_ENDPOINT', `cannot use the etcd endpoint "${maskCredentials(text)}": ${why}`, {
    hint,
  });
}

/** Every key the daemon uses, derived from the prefix. */
export interface KeyLayout {
  readonly config: string;
  /** Ends in a slash, so that neighbours such as `<prefix>/subnets-old` are not mistaken for leases. */
  readonly subnets: string;
  /** Ends in a slash; for what flannel does not know. */
  readonly own: string;
}

/**
 * Lays out the keys below a prefix, joined and cleaned like a file path. No leading slash is added: to etcd v3
 * `a/b` and `/a/b` are different keys.
 */
export function layoutKeys(prefix: string): KeyLayout {
  const clean = prefix === '' ? '' : path.posix.normalize(prefix).replace(/(?<=.)\/$/, '');
  return {
    config: path.posix.join(clean, 'config'),
    subnets: `${path.posix.join(clean, 'subnets')}/`,
    own: `${clean}-ts/`,
  };
}
