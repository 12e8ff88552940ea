/** Uses an {@link EtcdStore} with all it has, closes it, and must then end by itself: nothing here calls exit. */
import { systemClock } from '../../src/clock.js';
import { Deadline } from '../../src/deadline.js';
import { EtcdStore } from '../../src/etcd/store.js';
import { LeaseKeeper } from '../../src/lease/keeper.js';
import { PeerSet } from '../../src/lease/peers.js';
import { silentLogger } from '../../src/log.js';
import { ip, network } from './builders.js';
import { attributesOf } from './store-contract.js';

const store = new EtcdStore({
  endpoints: process.argv[2] ?? '',
  prefix: '/exit/network',
  log: silentLogger,
  callTimeoutMs: 1000,
});
const common = { store, clock: systemClock, log: silentLogger };
const keeper = new LeaseKeeper({ ...common, network: network(), attributes: attributesOf(1) });
const peers = new PeerSet({ ...common, own: { subnets: undefined, publicIp: ip('192.0.2.1') } });
store.followConfig(() => undefined);
peers.start();
keeper.start();
const deadline = new Deadline(systemClock, 1500);
await Promise.race([keeper.whenHeld(deadline.signal).catch(() => undefined), systemClock.sleep(1500)]);
deadline.clear();
await keeper.close();
peers.close();
await store.close();
process.stdout.write('closed\n');
