/** Uses an {@link EtcdStore} with all it has, closes it, and must then end by itself: nothing here calls exit. */
import { systemClock } from '../../src/clock.js';
import { EtcdStore } from '../../src/etcd/store.js';
import { LeaseKeeper } from '../../src/lease/keeper.js';
import { PeerSet } from '../../src/lease/peers.js';
import { silentLogger } from '../../src/log.js';
import { network } from './builders.js';
import { admissionContext, follow } from './lease-world.js';
import { attributesOf } from './store-contract.js';
import { waitFor } from './wait.js';

const store = new EtcdStore({
  endpoints: process.argv[2] ?? '',
  prefix: '/exit/network',
  log: silentLogger,
  callTimeoutMs: 1000,
});
const common = { clock: systemClock, log: silentLogger };
const keeper = new LeaseKeeper({ ...common, store, network: network(), attributes: attributesOf(1) });
const peers = new PeerSet({ ...common, context: admissionContext() });
follow(store, keeper, peers);
keeper.start();
// Where etcd does not answer there will be no lease; what is under way then has to end, too.
await waitFor(() => keeper.state === 'held', { what: 'a lease', timeoutMs: 1500 }).catch(() => undefined);
await keeper.close();
peers.close();
await store.close();
process.stdout.write('closed\n');
