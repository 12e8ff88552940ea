import { OverlayError } from '../errors.js';
import { allocBackend } from './alloc.js';
import type { Backend } from './backend.js';
import { hostGwBackend } from './host-gw.js';
import { ipipBackend } from './ipip.js';
import { udpBackend } from './udp.js';
import { vxlanBackend } from './vxlan.js';

const BACKENDS: ReadonlyMap<string, Backend> = new Map(
  [udpBackend, vxlanBackend, hostGwBackend, ipipBackend, allocBackend].map((backend) => [backend.type, backend]),
);

/** The backend of that name in lower case, or undefined. */
export function findBackend(type: string): Backend | undefined {
  return BACKENDS.get(type);
}

/**
 * The backend that the network configuration asks for.
 *
 * @throws {@link OverlayError} `ERR_BACKEND_UNKNOWN`
 */
export function backendFor(type: string): Backend {
  const backend = findBackend(type);
  if (backend !== undefined) return backend;
  throw new OverlayError('ERR_BACKEND_UNKNOWN', `cannot use backend "${type}": there is none of that name`, {
    hint: `set Backend.Type to one of ${[...BACKENDS.keys()].join(', ')}`,
  });
}
