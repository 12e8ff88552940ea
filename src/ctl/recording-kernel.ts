import type { Kernel } from '../reconcile/kernel.js';
import type { Operation } from '../reconcile/operation.js';

/** A kernel that tells about every object that was deleted, by kind and identity. */
export function recordingKernel(kernel: Kernel, onDeleted: (object: string) => void): Kernel {
  return {
    listLinks: () => kernel.listLinks(),
    getLink: (name) => kernel.getLink(name),
    listAddresses: (index) => kernel.listAddresses(index),
    listRoutes: (family) => kernel.listRoutes(family),
    listNeighbours: (family, index) => kernel.listNeighbours(family, index),
    listProxies: () => kernel.listProxies(),
    listFdb: (index) => kernel.listFdb(index),
    listFilters: (index) => kernel.listFilters(index),
    getWireguard: (index) => kernel.getWireguard(index),
    readSysctl: (path) => kernel.readSysctl(path),
    defaultVxlanPort: () => kernel.defaultVxlanPort(),
    subscribe: (onEvent) => kernel.subscribe(onEvent),
    apply: (operation: Operation, indexOf) => {
      const isChanged = kernel.apply(operation, indexOf);
      if (isChanged && operation.verb === 'del') onDeleted(operation.key);
      return isChanged;
    },
    close: () => kernel.close(),
  };
}
