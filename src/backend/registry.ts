import { OverlayError } from '../errors.js';
import { allocBackend } from './alloc.js';
import type { Backend } from './backend.js';
import { extensionBackend } from './extension.js';
import { hostGwBackend } from './host-gw.js';
import { ipipBackend } from './ipip.js';
import { udpBackend } from './udp.js';
import { vxlanBackend } from './vxlan.js';
import { wireguardBackend } from './wireguard.js';

/** All backends that there are. */
export const BACKENDS: readonly Backend[] = [
  udpBackend,
  vxlanBackend,
  hostGwBackend,
  ipipBackend,
  wireguardBackend,
  extensionBackend,
  allocBackend,
];

const BY_TYPE: ReadonlyMap<string, Backend> = new Map(BACKENDS.map((backend) => [backend.type, backend]));

/** The backend of that name in lower case, or undefined. */
export function findBackend(type: string): Backend | undefined {
  return BY_TYPE.get(type);
}

/** Whether a backend of ours or of flannel may have left a device of that name behind. */
export function isBackendDevice(name: string): boolean {
  return BACKENDS.some(({ deviceNames }) => deviceNames?.test(name) === true);
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
    hint: `set Backend.Type to one of ${[...BY_TYPE.keys()].join(', ')}`,
  });
}
