import type { Clock } from '../../../src/clock.js';
import { EtcdStore, type EtcdStoreOptions } from '../../../src/etcd/store.js';
import { silentLogger } from '../../../src/log.js';
import { SimEtcdCluster } from './cluster.js';

/** How {@link simStore} differs from what it does by itself. */
export interface SimStoreOptions extends Partial<Omit<EtcdStoreOptions, 'clock' | 'dial' | 'endpoints'>> {
  /** Shared by several hosts. Default a new one. */
  readonly cluster?: SimEtcdCluster;
  /** Default `host-1`. */
  readonly host?: string;
}

/** One host's {@link EtcdStore} on a simulated cluster, under `/coreos.com/network` if nothing else is asked for. */
export function simStore(
  clock: Clock,
  options: SimStoreOptions = {},
): { readonly store: EtcdStore; readonly cluster: SimEtcdCluster } {
  const { cluster = new SimEtcdCluster({ clock }), host = 'host-1', ...rest } = options;
  const store = new EtcdStore({
    prefix: '/coreos.com/network',
    log: silentLogger,
    ...rest,
    clock,
    endpoints: cluster.endpoints,
    dial: cluster.connect(host),
  });
  return { store, cluster };
}
