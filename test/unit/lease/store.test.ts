import { systemClock } from '../../../src/clock.js';
import { MemoryCluster, MemoryStore } from '../../support/memory-store.js';
import { describeStoreContract } from '../../support/store-contract.js';

describeStoreContract('MemoryStore', () => {
  // TTLs of the contract last minutes; their timers must not keep the test process.
  const clock = {
    ...systemClock,
    after: (ms: number, callback: () => void) => {
      const timer = setTimeout(callback, ms).unref();
      return () => clearTimeout(timer);
    },
  };
  const cluster = new MemoryCluster(clock);
  return {
    store: new MemoryStore(cluster),
    other: new MemoryStore(cluster),
    poke: (key, value) => {
      cluster.write([{ key: `subnets/${key}`, text: value }]);
      return Promise.resolve();
    },
  };
});
