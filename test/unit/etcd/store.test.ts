import { systemClock } from '../../../src/clock.js';
import { SimEtcdCluster } from '../../support/sim-etcd/cluster.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { describeStoreContract } from '../../support/store-contract.js';

describeStoreContract('EtcdStore on a simulated cluster', () => {
  // TTLs of the contract last minutes; their timers must not keep the test process.
  const clock = {
    ...systemClock,
    after: (ms: number, callback: () => void) => {
      const timer = setTimeout(callback, ms).unref();
      return () => clearTimeout(timer);
    },
  };
  const cluster = new SimEtcdCluster({ clock });
  return {
    store: simStore(clock, { cluster, host: 'host-1' }).store,
    other: simStore(clock, { cluster, host: 'host-2' }).store,
    poke: (key, value) => {
      cluster.put(`/coreos.com/network/subnets/${key}`, value);
      return Promise.resolve();
    },
  };
});
