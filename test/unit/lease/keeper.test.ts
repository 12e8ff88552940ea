import assert from 'node:assert/strict';
import { OverlayError } from '../../../src/errors.js';
import { decodeAttributes, encodeAttributes } from '../../../src/lease/attributes.js';
import {
  type KeeperChange,
  LEASE_TTL_SECONDS,
  LeaseKeeper,
  type LeaseKeeperOptions,
  leaseDeadlineMs,
} from '../../../src/lease/keeper.js';
import type { LeaseAttributes } from '../../../src/lease/lease.js';
import { ip, net, network } from '../../support/builders.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { MemoryCluster, MemoryStore, unavailable } from '../../support/memory-store.js';
import { RecordingLogger } from '../../support/recorder.js';
import { attributesOf, mustCreate, subnetsOf } from '../../support/store-contract.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

describe('leaseDeadlineMs', () => {
  it('ends a second before the server may expire the key', () => {
    assert.equal(leaseDeadlineMs(60, 5000), 64_000);
  });
});

describe('LeaseKeeper', () => {
  let clock: FakeClock;
  let cluster: MemoryCluster;
  let log: RecordingLogger;
  let store: MemoryStore;
  let other: MemoryStore;
  let keepers: LeaseKeeper[];

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new MemoryCluster(clock);
    log = new RecordingLogger();
    store = new MemoryStore(cluster);
    other = new MemoryStore(cluster);
    keepers = [];
  });

  afterEach(async () => {
    for (const keeper of keepers) await keeper.close();
  });

  function makeKeeper(changes: Partial<LeaseKeeperOptions> = {}): LeaseKeeper {
    const keeper = new LeaseKeeper({ store, clock, log, network: network(), attributes: attributesOf(1), ...changes });
    keepers.push(keeper);
    return keeper;
  }

  async function startKeeper(changes: Partial<LeaseKeeperOptions> = {}): Promise<LeaseKeeper> {
    const keeper = makeKeeper(changes);
    keeper.start();
    await clock.advance(1);
    assert.equal(keeper.state, 'held');
    return keeper;
  }

  const keyOf = (keeper: LeaseKeeper): string => `subnets/${keeper.lease?.key ?? ''}`;
  const poke = (key: string, text: string | undefined): void => {
    cluster.write([{ key, ...(text === undefined ? {} : { text, ttlId: cluster.read(key)?.ttlId }) }]);
  };

  /** Fails if at any revision two keys name subnets that overlap, or one host has two keys. */
  function watchOwners(): { readonly overlaps: string[] } {
    const overlaps: string[] = [];
    const check = (): void => {
      const seen = new Set<string>();
      for (const [key] of cluster.list('subnets/')) {
        for (const part of key.slice('subnets/'.length).split('&')) {
          if (seen.has(part)) overlaps.push(part);
          seen.add(part);
        }
      }
    };
    other.followLeases({ onSnapshot: check, onEvents: check });
    return { overlaps };
  }

  describe('acquiring', () => {
    it('creates a lease of a day and reports it', async () => {
      const keeper = makeKeeper();
      const changes: KeeperChange[] = [];
      keeper.onChange((change) => changes.push(change));
      keeper.start();
      const lease = await keeper.whenHeld(new AbortController().signal);
      assert.deepEqual(
        changes.map(({ state }) => state),
        ['acquiring', 'held'],
      );
      assert.equal(changes[1]?.lease, lease);
      assert.ok(lease.ttlId !== undefined);
      assert.equal(cluster.remaining(lease.ttlId), LEASE_TTL_SECONDS);
      assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(attributesOf(1)));
      assert.equal(log.find(/lease acquired/, 'info').length, 1);
    });

    it('takes over the lease of its last run, with a fresh TTL and the new attributes', async () => {
      const left = await mustCreate(other, 7, 600);
      const before = { ...left, attributes: attributesOf(1) };
      await other.publishLease(left, attributesOf(1));
      const keeper = await startKeeper({ attributes: attributesOf(1, { backendType: 'host-gw' }) });
      assert.equal(keeper.lease?.key, before.key);
      assert.equal(keeper.lease.attributes.backendType, 'host-gw');
      assert.equal(cluster.ttlCount, 1, 'the former TTL was given up');
    });

    it('asks for the previous subnet', async () => {
      const keeper = await startKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      assert.equal(keeper.lease?.subnet.toString(), '10.5.77.0/24');
    });

    it('lists again when another host was faster', async () => {
      let rivals = 0;
      store.before = (operation) => {
        if (operation !== 'createLease' || rivals === 3) return;
        rivals++;
        const taken = rivals === 1 ? 77 : rivals;
        cluster.write([{ key: `subnets/10.5.${taken}.0-24`, text: encodeAttributes(attributesOf(200 + rivals)) }]);
      };
      const keeper = makeKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      const { overlaps } = watchOwners();
      keeper.start();
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.ok(keeper.counters.lostRaces >= 1);
      assert.notEqual(keeper.lease?.subnet.toString(), '10.5.77.0/24');
      assert.deepEqual(overlaps, []);
    });

    it('leaves exactly one owner of the only subnet that two hosts want', async () => {
      const single = network();
      const range = { ...single, ipv4: single.ipv4 && { ...single.ipv4, max: ip('10.5.1.0') } };
      const { overlaps } = watchOwners();
      const a = makeKeeper({ network: range, attributes: attributesOf(1) });
      const b = makeKeeper({ network: range, attributes: attributesOf(2), store: other });
      a.start();
      b.start();
      await clock.advance(5 * MINUTE);
      assert.deepEqual([a.state, b.state].sort(), ['acquiring', 'held']);
      assert.deepEqual(overlaps, []);
      const complaints = log.find(/cannot acquire a lease/, 'error').length;
      assert.ok(complaints >= 3 && complaints <= 6, `once at first, then once a minute: ${complaints}`);
    });

    it('gives way to a dual-stack lease that got the same IPv6 subnet under another key', async () => {
      store.before = (operation) => {
        if (operation !== 'createLease') return;
        store.before = () => {};
        cluster.write([{ key: 'subnets/10.5.200.0-24&fd00:10:5:1::-64', text: encodeAttributes(attributesOf(200)) }]);
      };
      const wanted = { subnet: net('10.5.7.0/24'), ipv6Subnet: net('fd00:10:5:1::/64') };
      const keeper = makeKeeper({ network: network('udp', {}, true), previousSubnets: wanted });
      keeper.start();
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(keeper.lease?.subnet.toString(), '10.5.7.0/24');
      assert.notEqual(keeper.lease.ipv6Subnet?.toString(), 'fd00:10:5:1::/64');
      assert.equal(cluster.list('subnets/').length, 2);
    });

    it('waits for a store that is away, and adopts what a lost answer left behind', async () => {
      cluster.setDown(true);
      const keeper = makeKeeper();
      keeper.start();
      await clock.advance(10 * MINUTE);
      assert.equal(keeper.state, 'acquiring');
      assert.equal(log.find(/cannot/).length, 0, 'the store itself says that it is away');
      let lostAnswers = 0;
      store.after = (operation) => {
        if (operation === 'createLease' && lostAnswers++ === 0) throw unavailable();
      };
      cluster.setDown(false);
      await clock.advance(2 * MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(lostAnswers, 1);
      assert.equal(cluster.list('subnets/').length, 1);
      assert.equal(cluster.ttlCount, 1);
    });

    it('keeps an IPv4 subnet when the network became dual-stack while it was down', async () => {
      await other.createLease({ subnets: subnetsOf(7), attributes: attributesOf(1), ttlSeconds: 600 });
      const keeper = await startKeeper({ network: network('udp', {}, true) });
      assert.equal(keeper.lease?.subnet.toString(), '10.5.7.0/24');
      assert.ok(keeper.lease.ipv6Subnet !== undefined);
      assert.equal(cluster.list('subnets/').length, 1);
    });
  });

  describe('renewing', () => {
    it('keeps the TTL alive for days without writing the key', async () => {
      const keeper = await startKeeper();
      const { revision } = cluster;
      await clock.advance(72 * HOUR);
      assert.equal(keeper.state, 'held');
      assert.equal(cluster.revision, revision);
      assert.ok(keeper.counters.renewals > 500, String(keeper.counters.renewals));
    });

    it('goes on through an outage shorter than the TTL', async () => {
      const keeper = await startKeeper();
      const { lease } = keeper;
      cluster.setDown(true);
      await clock.advance(22 * HOUR);
      assert.equal(keeper.state, 'held');
      cluster.setDown(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.deepEqual(keeper.lease, lease);
      assert.equal(keeper.counters.losses, 0);
    });

    it('warns once when less than the margin is left, and says when it is over', async () => {
      const keeper = await startKeeper({ renewMarginMinutes: 120 });
      cluster.setDown(true);
      await clock.advance(21.5 * HOUR);
      assert.equal(keeper.state, 'held');
      await clock.advance(HOUR);
      assert.equal(keeper.state, 'renewing');
      assert.equal(log.find(/ends soon/, 'warn').length, 1);
      cluster.setDown(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(log.find(/renewed again/, 'info').length, 1);
    });

    it('counts the TTL from when the keep-alive was sent, not from its answer', async () => {
      const keeper = await startKeeper({ ttlSeconds: 60 });
      store.after = async (operation) => {
        if (operation === 'keepAlive') await clock.sleep(5000);
      };
      await clock.advance(40_000);
      assert.ok(keeper.counters.renewals >= 1);
      const { lease } = keeper;
      let wasThere: boolean | undefined;
      keeper.onChange(({ reason }) => {
        if (reason === 'unconfirmed')
          wasThere = lease?.ttlId !== undefined && cluster.remaining(lease.ttlId) !== undefined;
      });
      cluster.setDown(true);
      await clock.advance(61_000);
      assert.equal(wasThere, true, 'the lease is given up before the server may have expired it');
    });

    it('gets the same subnet again after the key expired during an outage', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      const states: string[] = [];
      keeper.onChange(({ state, reason }) => states.push(reason ?? state));
      cluster.setDown(true);
      await clock.advance(25 * HOUR);
      assert.deepEqual(states, ['renewing', 'unconfirmed', 'acquiring']);
      assert.equal(keeper.lease, before, 'forwarding goes on with it');
      cluster.setDown(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(keeper.lease?.subnet.toString(), before?.subnet.toString());
      assert.equal(log.find(/another one now/).length, 0);
    });

    it('takes another subnet, loudly, if its own went to another host during the outage', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      cluster.setDown(true);
      await clock.advance(25 * HOUR);
      cluster.write([{ key: `subnets/${before?.key ?? ''}`, text: encodeAttributes(attributesOf(2)) }]);
      cluster.setDown(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.notEqual(keeper.lease?.key, before?.key);
      assert.equal(cluster.read(`subnets/${before?.key ?? ''}`)?.text, encodeAttributes(attributesOf(2)));
      assert.equal(log.find(/own subnet is another one now/, 'error').length, 1);
    });

    it('notices a TTL that was revoked even if the watch says nothing', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      store.followLease = () => ({ close: () => {} });
      const silent = await startKeeper({ attributes: attributesOf(2), store });
      assert.ok(silent.lease?.ttlId !== undefined);
      cluster.revoke(silent.lease.ttlId);
      await clock.advance(10 * MINUTE);
      assert.equal(silent.counters.losses, 1);
      assert.equal(silent.state, 'held');
      assert.equal(keeper.lease, before);
    });

    it('reports a refusal that lasts once a minute and goes on', async () => {
      const keeper = await startKeeper();
      store.before = (operation) => {
        if (operation === 'keepAlive') throw new OverlayError('ERR_ETCD_AUTH', 'cannot use etcd: permission denied');
      };
      await clock.advance(15 * MINUTE);
      const complaints = log.find(/cannot renew/, 'error').length;
      assert.ok(complaints >= 5 && complaints <= 15, String(complaints));
      store.before = () => {};
      await clock.advance(5 * MINUTE);
      assert.equal(keeper.state, 'held');
    });
  });

  describe('when its key changes', () => {
    it('gets the same subnet again after the key was deleted by hand', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      const states: string[] = [];
      keeper.onChange(({ state, reason }) => states.push(reason ?? state));
      poke(keyOf(keeper), undefined);
      await clock.advance(MINUTE);
      assert.deepEqual(states, ['deleted', 'acquiring', 'held']);
      assert.equal(keeper.lease?.key, before?.key);
      assert.notEqual(keeper.lease?.revision, before?.revision);
    });

    it('takes another subnet, loudly, when another host wrote its own address there', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      poke(before, encodeAttributes(attributesOf(2)));
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.notEqual(keyOf(keeper), before);
      assert.equal(cluster.read(before)?.text, encodeAttributes(attributesOf(2)), 'theirs is not touched');
      assert.equal(log.find(/was taken by another host/, 'error').length, 1);
    });

    it('stops renewing when it is made a reservation, and the key stays without TTL', async () => {
      const keeper = await startKeeper();
      const { lease } = keeper;
      assert.ok(lease !== undefined);
      await other.reserve(lease, lease.attributes, lease);
      await clock.advance(HOUR);
      const { renewals } = keeper.counters;
      await clock.advance(72 * HOUR);
      assert.equal(keeper.counters.renewals, renewals);
      assert.equal(keeper.lease?.isReservation, true);
      assert.equal(cluster.read(keyOf(keeper))?.ttlId, undefined);
      assert.equal(cluster.ttlCount, 0);
      assert.equal(log.find(/made a reservation/, 'info').length, 1);
    });

    it('renews from the moment its reservation is ended', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      const keeper = await startKeeper();
      assert.equal(keeper.lease?.isReservation, true);
      assert.equal(await other.unreserve(keeper.lease, { ttlSeconds: 600 }), 'done');
      await clock.advance(48 * HOUR);
      assert.equal(keeper.state, 'held');
      assert.equal(keeper.lease.key, '10.5.7.0-24');
      assert.equal(keeper.counters.losses, 0);
    });

    it('publishes new attributes of a reservation without giving it a TTL', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      const keeper = await startKeeper();
      keeper.publish(attributesOf(1, { backendType: 'ipip' }));
      await clock.advance(MINUTE);
      const entry = cluster.read('subnets/10.5.7.0-24');
      assert.equal(entry?.ttlId, undefined);
      assert.match(entry?.text ?? '', /ipip/);
    });

    it('warns of a second host with its public address and writes its own again, ever more slowly', async () => {
      const attributes = attributesOf(1, {
        backendType: 'vxlan',
        backendData: { VNI: 1, VtepMAC: '02:00:00:00:00:01' },
      });
      const theirs = { ...attributes, backendData: { VNI: 1, VtepMAC: '02:00:00:00:00:02' } };
      const keeper = await startKeeper({ attributes });
      let fights = 0;
      for (; fights < 8; fights++) {
        poke(keyOf(keeper), encodeAttributes(theirs));
        await clock.advance(1);
        assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(theirs), 'not at once');
        await clock.advance(10 * MINUTE);
        assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(attributes));
      }
      assert.equal(keeper.counters.overwrites, fights);
      const delays = log.find(/same public address/, 'warn').map(({ fields }) => fields.delayMs ?? 0);
      assert.equal(delays.length, fights);
      assert.ok((delays.at(-1) ?? 0) > 60 * (delays[0] ?? 0), delays.join());
    });

    it('writes its value again over something unreadable', async () => {
      const keeper = await startKeeper();
      poke(keyOf(keeper), 'garbage');
      await clock.advance(MINUTE);
      assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(attributesOf(1)));
      assert.equal(keeper.state, 'held');
    });

    it('follows the TTL that another program gave the key', async () => {
      const keeper = await startKeeper();
      const text = encodeAttributes(attributesOf(1));
      cluster.write([{ key: keyOf(keeper), text, ttlId: cluster.grant(600) }]);
      await clock.advance(48 * HOUR);
      assert.equal(keeper.counters.losses, 0);
      assert.equal(cluster.ttlCount, 1, 'the former TTL was given up');
      assert.equal(log.find(/renewed by another program/, 'warn').length, 1);
    });
  });

  describe('publish', () => {
    const vxlan = (mac: string): LeaseAttributes =>
      attributesOf(1, { backendType: 'vxlan', backendData: { VNI: 1, VtepMAC: mac } });

    it('writes the new attributes in place', async () => {
      const keeper = await startKeeper();
      const { lease } = keeper;
      keeper.publish(vxlan('02:00:00:00:00:01'));
      await clock.advance(MINUTE);
      assert.equal(keeper.lease?.key, lease?.key);
      assert.equal(keeper.lease?.ttlId, lease?.ttlId);
      assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(vxlan('02:00:00:00:00:01')));
      assert.equal(keeper.counters.overwrites, 0);
    });

    it('writes nothing if nothing changed', async () => {
      const keeper = await startKeeper();
      const { revision } = cluster;
      keeper.publish(attributesOf(1));
      await clock.advance(MINUTE);
      assert.equal(cluster.revision, revision);
    });

    it('moves the lease along with a changed public address', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      keeper.publish(attributesOf(99));
      await clock.advance(MINUTE);
      assert.equal(keyOf(keeper), before);
      assert.equal(decodeAttributes(cluster.read(before)?.text ?? '').publicIp.toString(), '192.0.2.99');
      assert.equal(keeper.counters.losses, 0);
    });

    it('tries again after an outage, and takes a lost answer for what it is', async () => {
      const keeper = await startKeeper();
      let isFirst = true;
      store.after = (operation) => {
        if (operation !== 'publishLease' || !isFirst) return;
        isFirst = false;
        throw unavailable();
      };
      keeper.publish(vxlan('02:00:00:00:00:01'));
      keeper.publish(vxlan('02:00:00:00:00:02'));
      await clock.advance(MINUTE);
      assert.equal(isFirst, false);
      assert.equal(cluster.read(keyOf(keeper))?.text, encodeAttributes(vxlan('02:00:00:00:00:02')));
      assert.equal(keeper.counters.overwrites, 0);
    });
  });

  describe('setNetwork', () => {
    it('keeps a subnet that still fits', async () => {
      const keeper = await startKeeper();
      const { lease } = keeper;
      keeper.setNetwork({ ...network(), backendType: 'vxlan' });
      await clock.advance(MINUTE);
      assert.deepEqual(keeper.lease, lease);
    });

    it('exchanges one that does not, says so, and leaves no old key behind', async () => {
      const keeper = await startKeeper();
      const wide = network();
      const moved = {
        ...wide,
        ipv4: { network: net('10.9.0.0/16'), subnetLen: 24, min: ip('10.9.1.0'), max: ip('10.9.255.0') },
      };
      keeper.setNetwork(moved);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.match(keeper.lease?.key ?? '', /^10\.9\./);
      assert.equal(cluster.list('subnets/').length, 1);
      assert.equal(log.find(/does not fit/, 'error').length, 1);
      assert.equal(log.find(/another one now/, 'error').length, 1);
    });

    it('adds an IPv6 subnet when the network becomes dual-stack', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      keeper.setNetwork(network('udp', {}, true));
      await clock.advance(MINUTE);
      assert.ok(keeper.lease?.subnet.equals(before?.subnet));
      assert.ok(keeper.lease?.ipv6Subnet !== undefined);
      assert.equal(log.find(/another one now/).length, 0);
    });
  });

  describe('close', () => {
    it('leaves the key, ends every timer, and may be done twice', async () => {
      const keeper = await startKeeper();
      const pending = clock.pending;
      await keeper.close();
      await keeper.close();
      assert.equal(keeper.state, 'closed');
      assert.equal(clock.pending, pending - 1);
      assert.ok(cluster.read(keyOf(keeper)) !== undefined);
    });

    it('ends while acquiring, and with the signal that start was given', async () => {
      cluster.setDown(true);
      const controller = new AbortController();
      const keeper = makeKeeper();
      keeper.start(controller.signal);
      await clock.advance(MINUTE);
      controller.abort();
      await settle();
      assert.equal(keeper.state, 'closed');
      assert.equal(clock.pending, 0);
    });

    it('stops whoever waits for a lease when their signal says so', async () => {
      cluster.setDown(true);
      const keeper = makeKeeper();
      keeper.start();
      const reason = new Error('enough');
      const controller = new AbortController();
      const waiting = keeper.whenHeld(controller.signal);
      controller.abort(reason);
      await assert.rejects(waiting, reason);
    });
  });
});
