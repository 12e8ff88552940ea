import { isIP } from 'node:net';

/**
 * Whether a request was addressed to this server, or to a name that somebody else lets point here (DNS rebinding): a
 * page of theirs could read the answer as one of their own. An address cannot be made to point elsewhere.
 *
 * @param header - of the request; browsers always send one.
 * @param names - of this host, in lower case.
 */
export function isOwnHost(header: string | undefined, names: ReadonlySet<string>): boolean {
  if (header === undefined) return true;
  const [, bracketed, plain = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(header.trim()) ?? [];
  if (bracketed !== undefined) return isIP(bracketed) === 6;
  const name = plain.toLowerCase().replace(/\.$/, '');
  return isIP(name) === 4 || name === 'localhost' || names.has(name);
}
