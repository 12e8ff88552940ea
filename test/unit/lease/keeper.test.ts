import assert from 'node:assert/strict';
import type { EtcdStore } from '../../../src/etcd/store.js';
import { OverlayError } from '../../../src/errors.js';
import { decodeAttributes, encodeAttributes } from '../../../src/lease/attributes.js';
import { ASIDE_MS, leaseDeadlineMs } from '../../../src/lease/decide.js';
import {
  type KeeperChange,
  LEASE_TTL_SECONDS,
  LeaseKeeper,
  type LeaseKeeperOptions,
} from '../../../src/lease/keeper.js';
import type { LeaseAttributes } from '../../../src/lease/lease.js';
import type { EtcdLeaseId } from '../../../src/lease/record.js';
import { ip, net, network } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { follow } from '../../support/lease-world.js';
import { ownershipFaults } from '../../support/owners.js';
import { RecordingLogger } from '../../support/recorder.js';
import type { SimLink } from '../../support/sim-etcd/link.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { SimFlannel } from '../../support/sim-flannel.js';
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
  let cluster: SimFlannel;
  let log: RecordingLogger;
  let store: EtcdStore;
  /** Way of {@link store} to etcd. */
  let link: SimLink;
  let other: EtcdStore;
  let keepers: LeaseKeeper[];

  beforeEach(() => {
    clock = new FakeClock();
    cluster = new SimFlannel(clock);
    log = new RecordingLogger();
    store = openStore('host-1');
    link = cluster.etcd.link('host-1');
    other = openStore('host-2');
    keepers = [];
  });

  afterEach(async () => {
    for (const keeper of keepers) await keeper.close();
    await store.close();
    await other.close();
    cluster.etcd.close();
  });

  const openStore = (host: string): EtcdStore =>
    simStore(clock, { cluster: cluster.etcd, host, pingIntervalMs: 10 * MINUTE }).store;

  function makeKeeper(changes: Partial<LeaseKeeperOptions> = {}, on = store): LeaseKeeper {
    const own = { network: network(), attributes: attributesOf(1) };
    const keeper = new LeaseKeeper({ store: on, clock, log, ...own, ...changes });
    follow(on, keeper);
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

  /** Cuts the first host off, or lets it back; etcd goes on. */
  const setCutOff = (isCutOff: boolean): void => {
    if (isCutOff) link.partition('refuse');
    else link.heal();
  };

  /** Has the answer to the first write after this lost on its way, and this done when it is. */
  const loseAnswer = (meanwhile = (): void => {}): { readonly isLost: boolean } => {
    const loss = { isLost: false };
    link.intercept = ({ direction, method }) => {
      if (loss.isLost || direction !== 'answer' || method !== 'KV.txn') return 'pass';
      loss.isLost = true;
      meanwhile();
      return 'reset';
    };
    return loss;
  };

  const keyOf = (keeper: LeaseKeeper): string => keeper.lease?.key ?? '';
  const valueOf = (key: string): string | undefined => cluster.lease(key)?.value;
  const etcdIdOf = (etcdLeaseId: EtcdLeaseId | undefined): string => BigInt(`0x${etcdLeaseId ?? '0'}`).toString();

  /** Collects what is wrong with the owners in any world from now on. */
  function watchOwners(): { readonly faults: string[] } {
    const faults: string[] = [];
    other.followWorld(({ leases }) => faults.push(...ownershipFaults([...leases.values()])));
    return { faults };
  }

  describe('acquiring', () => {
    it('creates a lease of a day and reports it', async () => {
      const keeper = makeKeeper();
      const changes: KeeperChange[] = [];
      keeper.onChange((change) => changes.push(change));
      keeper.start();
      await clock.advance(1);
      const { lease } = keeper;
      assert.deepEqual(
        changes.map(({ state }) => state),
        ['acquiring', 'held'],
      );
      assert.equal(changes[1]?.lease, lease);
      assert.ok(lease?.etcdLeaseId !== undefined);
      assert.equal(await other.remainingTtl(lease.etcdLeaseId), LEASE_TTL_SECONDS - 1, 'a millisecond ago');
      assert.equal(valueOf(lease.key), encodeAttributes(attributesOf(1)));
      assert.equal(log.find(/lease acquired/, 'info').length, 1);
    });

    it('takes over the lease of its last run, with a fresh TTL and the new attributes', async () => {
      const left = await mustCreate(other, 7, 600);
      const before = { ...left, attributes: attributesOf(1) };
      await other.publishLease(left, attributesOf(1));
      const keeper = await startKeeper({ attributes: attributesOf(1, { backendType: 'host-gw' }) });
      assert.equal(keeper.lease?.key, before.key);
      assert.equal(keeper.lease.attributes.backendType, 'host-gw');
      assert.equal(cluster.etcd.leases.length, 1, 'the former TTL was given up');
    });

    it('finds its key in a restored history that nothing tells from the one it knew', async () => {
      const keeper = await startKeeper();
      const [first, second] = [await mustCreate(other, 101), await mustCreate(other, 102)];
      await mustCreate(other, 103); // the newest witness
      await clock.advance(1);
      const key = keyOf(keeper);
      const backup = cluster.etcd.backup();
      link.partition('hang', { direction: 'request' });
      cluster.deleteLease(key);
      cluster.deleteLease(second.key);
      await clock.advance(1);
      const { revision } = cluster.etcd;
      cluster.etcd.restore(backup);
      cluster.deleteLease(first.key);
      cluster.deleteLease(second.key);
      assert.equal(cluster.etcd.revision, revision);
      await clock.advance(1000);
      link.heal();
      await clock.advance(15_000);
      assert.equal(keeper.state, 'held');
      assert.equal(keyOf(keeper), key);
      assert.equal(cluster.lease(key)?.leaseId, etcdIdOf(keeper.lease?.etcdLeaseId));
    });

    it('asks for the previous subnet', async () => {
      const keeper = await startKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      assert.equal(keeper.lease?.subnet.toString(), '10.5.77.0/24');
    });

    it('lists again when another host was faster', async () => {
      let rivals = 0;
      link.intercept = ({ direction, method }) => {
        if (direction !== 'request' || method !== 'KV.txn' || rivals === 3) return 'pass';
        rivals++;
        const taken = rivals === 1 ? 77 : rivals;
        cluster.putLease(`10.5.${taken}.0-24`, encodeAttributes(attributesOf(200 + rivals)));
        return 'pass';
      };
      const keeper = makeKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      const { faults } = watchOwners();
      keeper.start();
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.ok(keeper.counters.lostRaces >= 1);
      assert.notEqual(keeper.lease?.subnet.toString(), '10.5.77.0/24');
      assert.deepEqual(faults, []);
    });

    it('tries again within a few hundredths of a second when it was beaten to a subnet', async () => {
      link.intercept = ({ direction, method }) => {
        if (direction !== 'request' || method !== 'KV.txn') return 'pass';
        link.intercept = undefined;
        cluster.putLease('10.5.77.0-24', encodeAttributes(attributesOf(200)));
        return 'pass';
      };
      const keeper = makeKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      keeper.start();
      await clock.advance(1);
      assert.deepEqual([keeper.state, keeper.counters.lostRaces], ['acquiring', 1]);
      await clock.advance(26);
      assert.equal(keeper.state, 'held');
    });

    it('may be started twice', async () => {
      const keeper = makeKeeper();
      const states: string[] = [];
      keeper.onChange(({ state }) => states.push(state));
      keeper.start();
      keeper.start();
      await clock.advance(1);
      assert.deepEqual(states, ['acquiring', 'held']);
    });

    it('leaves exactly one owner of the only subnet that two hosts want', async () => {
      const single = network();
      const range = { ...single, ipv4: single.ipv4 && { ...single.ipv4, max: ip('10.5.1.0') } };
      const { faults } = watchOwners();
      const a = makeKeeper({ network: range, attributes: attributesOf(1) });
      const b = makeKeeper({ network: range, attributes: attributesOf(2) }, other);
      a.start();
      b.start();
      await clock.advance(5 * MINUTE);
      assert.deepEqual([a.state, b.state].sort(), ['acquiring', 'held']);
      assert.deepEqual(faults, []);
      const complaints = log.find(/cannot acquire a lease/, 'error').length;
      assert.ok(complaints >= 3 && complaints <= 6, `once at first, then once a minute: ${complaints}`);
    });

    it('gives way to a dual-stack lease that got the same IPv6 subnet under another key', async () => {
      link.intercept = ({ direction, method }) => {
        if (direction !== 'request' || method !== 'KV.txn') return 'pass';
        link.intercept = undefined;
        cluster.putLease('10.5.200.0-24&fd00:10:5:1::-64', encodeAttributes(attributesOf(200)));
        return 'pass';
      };
      const wanted = { subnet: net('10.5.7.0/24'), ipv6Subnet: net('fd00:10:5:1::/64') };
      const keeper = makeKeeper({ network: network('udp', {}, true), previousSubnets: wanted });
      keeper.start();
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(keeper.lease?.subnet.toString(), '10.5.7.0/24');
      assert.notEqual(keeper.lease.ipv6Subnet?.toString(), 'fd00:10:5:1::/64');
      assert.equal(cluster.leases.length, 2);
    });

    it('waits for a store that is away, and reuses what a lost answer left behind', async () => {
      setCutOff(true);
      const keeper = makeKeeper();
      keeper.start();
      await clock.advance(10 * MINUTE);
      assert.equal(keeper.state, 'acquiring');
      assert.equal(log.find(/cannot/).length, 0, 'the store itself says that it is away');
      const loss = loseAnswer();
      setCutOff(false);
      await clock.advance(10 * MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(loss.isLost, true);
      assert.equal(cluster.leases.length, 1);
      assert.equal(cluster.etcd.leases.length, 1);
    });

    it('tries again within a second and a half after a first failure', async () => {
      const createLease = store.createLease.bind(store);
      store.createLease = () => {
        store.createLease = createLease;
        return Promise.reject(new OverlayError('ERR_ETCD_AUTH', 'cannot use etcd: permission denied'));
      };
      const keeper = makeKeeper();
      keeper.start();
      await clock.advance(1);
      assert.equal(keeper.state, 'acquiring');
      await clock.advance(1250);
      assert.equal(keeper.state, 'held');
    });

    it('keeps an IPv4 subnet when the network became dual-stack while it was down', async () => {
      await other.createLease({ subnets: subnetsOf(7), attributes: attributesOf(1), ttlSeconds: 600 });
      const keeper = await startKeeper({ network: network('udp', {}, true) });
      assert.equal(keeper.lease?.subnet.toString(), '10.5.7.0/24');
      assert.ok(keeper.lease.ipv6Subnet !== undefined);
      assert.equal(cluster.leases.length, 1);
    });
  });

  describe('renewing', () => {
    it('keeps the TTL alive for days without writing the key', async () => {
      const keeper = await startKeeper();
      const { revision } = cluster.etcd;
      await clock.advance(72 * HOUR);
      assert.equal(keeper.state, 'held');
      assert.equal(cluster.etcd.revision, revision);
      assert.ok(keeper.counters.renewals > 500, String(keeper.counters.renewals));
    });

    it('goes on through an outage shorter than the TTL', async () => {
      const keeper = await startKeeper({ ttlSeconds: 3600, renewMarginMinutes: 1 });
      const { lease } = keeper;
      setCutOff(true);
      await clock.advance(55 * MINUTE);
      assert.equal(keeper.state, 'held');
      setCutOff(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.deepEqual(keeper.lease, lease);
      assert.equal(keeper.counters.losses, 0);
    });

    for (const [title, options, expectedMs] of [
      ['the margin', { ttlSeconds: 3600, renewMarginMinutes: 5 }, 5 * MINUTE],
      ['an hour, where no margin is given,', { ttlSeconds: 3 * 3600 }, HOUR],
      ['half of a short TTL', { ttlSeconds: 1800 }, 15 * MINUTE],
    ] as const) {
      it(`warns as soon as less than ${title} is left`, async () => {
        const keeper = await startKeeper(options);
        let leftMs: number | undefined;
        keeper.onChange(({ state }) => {
          if (state === 'renewing') leftMs = (keeper.expiresAtMs ?? 0) - clock.monotonicMs();
        });
        setCutOff(true);
        while (leftMs === undefined && keeper.counters.losses === 0) await clock.advance(10 * MINUTE);
        assert.equal(leftMs, expectedMs);
      });
    }

    it('warns once when less than the margin is left, and says when it is over', async () => {
      const keeper = await startKeeper({ ttlSeconds: 3600, renewMarginMinutes: 5 });
      const states: string[] = [];
      keeper.onChange(({ state }) => states.push(state));
      setCutOff(true);
      await clock.advance(50 * MINUTE);
      assert.equal(keeper.state, 'held');
      await clock.advance(5 * MINUTE);
      assert.equal(keeper.state, 'renewing');
      const [line, ...others] = log.find(/ends soon/, 'warn');
      assert.deepEqual([line?.fields.subnet, others], ['10.5.1.0/24', []]);
      assert.match(line?.fields.hint ?? '', /^bring etcd back/);
      setCutOff(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.deepEqual(states, ['renewing', 'held']);
      assert.equal(log.find(/renewed again/, 'info').length, 1);
    });

    it('counts the TTL from when the keep-alive was sent, not from its answer', async () => {
      const keeper = await startKeeper({ ttlSeconds: 60 });
      link.setFaults('answer', { latencyMs: [4000, 4000] });
      await clock.advance(40_000);
      assert.ok(keeper.counters.renewals >= 1);
      const before = keyOf(keeper);
      let wasThere: boolean | undefined;
      keeper.onChange(({ reason }) => {
        if (reason === 'unconfirmed') wasThere = cluster.lease(before) !== undefined;
      });
      setCutOff(true);
      await clock.advance(61_000);
      assert.equal(wasThere, true, 'the lease is given up before the server may have expired it');
    });

    it('gets the same subnet again after the key expired during an outage', async () => {
      const keeper = await startKeeper({ ttlSeconds: 1800 });
      const before = keeper.lease;
      const states: string[] = [];
      keeper.onChange(({ state, reason }) => states.push(reason ?? state));
      setCutOff(true);
      await clock.advance(31 * MINUTE);
      assert.deepEqual(states, ['renewing', 'unconfirmed', 'acquiring']);
      assert.deepEqual(keeper.lease, before, 'forwarding goes on with it');
      setCutOff(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.equal(keeper.lease?.subnet.toString(), before?.subnet.toString());
      assert.equal(log.find(/another one now/).length, 0);
    });

    it('takes another subnet, loudly, if its own went to another host during the outage', async () => {
      const keeper = await startKeeper({ ttlSeconds: 1800 });
      const before = keeper.lease;
      setCutOff(true);
      await clock.advance(31 * MINUTE);
      assert.equal(cluster.lease(before?.key ?? ''), undefined);
      cluster.putLease(before?.key ?? '', encodeAttributes(attributesOf(2)));
      setCutOff(false);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.notEqual(keeper.lease?.key, before?.key);
      assert.equal(valueOf(before?.key ?? ''), encodeAttributes(attributesOf(2)));
      assert.equal(log.find(/own subnet is another one now/, 'error').length, 1);
    });

    it('notices a TTL that was revoked even if the watch says nothing', async () => {
      const keeper = await startKeeper();
      const before = keeper.lease;
      link.freezeStreams();
      cluster.etcd.revokeLease(etcdIdOf(before?.etcdLeaseId));
      await clock.advance(10 * MINUTE);
      assert.equal(keeper.counters.losses, 1);
      await clock.advance(25 * MINUTE);
      assert.equal(keeper.state, 'held', 'the watch was given up');
      assert.equal(keyOf(keeper), before?.key);
      assert.equal(keeper.counters.losses, 1);
    });

    it('reports a refusal that lasts once a minute and goes on', async () => {
      const keeper = await startKeeper();
      const keepAlive = store.keepAlive.bind(store);
      store.keepAlive = () => Promise.reject(new OverlayError('ERR_ETCD_AUTH', 'cannot use etcd: permission denied'));
      await clock.advance(15 * MINUTE);
      const complaints = log.find(/cannot renew/, 'error').length;
      assert.ok(complaints >= 5 && complaints <= 15, String(complaints));
      assert.ok(keeper.counters.failedRenewals >= complaints);
      store.keepAlive = keepAlive;
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
      cluster.deleteLease(keyOf(keeper));
      await clock.advance(MINUTE);
      assert.deepEqual(states, ['deleted', 'acquiring', 'held']);
      assert.equal(keeper.lease?.key, before?.key);
      assert.notEqual(keeper.lease?.revision, before?.revision);
    });

    it('takes another subnet, loudly, when another host wrote its own address there', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      cluster.putLease(before, encodeAttributes(attributesOf(2)));
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.notEqual(keyOf(keeper), before);
      assert.equal(valueOf(before), encodeAttributes(attributesOf(2)), 'theirs is not touched');
      assert.equal(log.find(/was taken by another host/, 'error').length, 1);
    });

    it('stops renewing when it is made a reservation, and the key stays without TTL', async () => {
      const keeper = await startKeeper();
      const { lease } = keeper;
      assert.ok(lease !== undefined && keeper.expiresAtMs !== undefined);
      await other.reserve(lease, lease.attributes, lease);
      await clock.advance(HOUR);
      assert.equal(keeper.expiresAtMs, undefined);
      const { renewals } = keeper.counters;
      await clock.advance(72 * HOUR);
      assert.equal(keeper.counters.renewals, renewals);
      assert.equal(keeper.lease?.isReservation, true);
      assert.equal(cluster.lease(keyOf(keeper))?.leaseId, '0');
      assert.equal(cluster.etcd.leases.length, 0);
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
      assert.equal(log.find(/own reservation was ended/, 'info').length, 1);
    });

    it('keeps a reservation one when it is replaced, as when the network becomes dual-stack', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      const keeper = await startKeeper({ network: network('udp', {}, true) });
      assert.match(keyOf(keeper), /^10\.5\.7\.0-24&/);
      assert.equal(keeper.lease?.isReservation, true);
      assert.equal(cluster.lease(keyOf(keeper))?.leaseId, '0');
    });

    it('publishes new attributes of a reservation without giving it a TTL', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      const keeper = await startKeeper();
      keeper.publish(attributesOf(1, { backendType: 'ipip' }));
      await clock.advance(MINUTE);
      const entry = cluster.lease('10.5.7.0-24');
      assert.equal(entry?.leaseId, '0');
      assert.match(entry.value, /ipip/);
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
        cluster.putLease(keyOf(keeper), encodeAttributes(theirs));
        await clock.advance(1);
        assert.equal(valueOf(keyOf(keeper)), encodeAttributes(theirs), 'not at once');
        await clock.advance(10 * MINUTE);
        assert.equal(valueOf(keyOf(keeper)), encodeAttributes(attributes));
      }
      assert.equal(keeper.counters.overwrites, fights);
      assert.equal(keeper.overwrittenAtMs, clock.wallMs() - 10 * MINUTE - 1);
      const warnings = log.find(/same public address/, 'warn').map(({ fields }) => fields);
      assert.deepEqual(
        warnings.map(({ publicIp, count }) => [publicIp, count]),
        warnings.map((_fields, index) => ['192.0.2.1', index + 1]),
      );
      assert.match(warnings[0]?.hint ?? '', /--public-ip/);
      const delays = warnings.map(({ delayMs }) => delayMs ?? 0);
      assert.equal(delays.length, fights);
      assert.ok((delays.at(-1) ?? 0) > 60 * (delays[0] ?? 0), delays.join());
    });

    it('writes its value again over something unreadable', async () => {
      const keeper = await startKeeper();
      cluster.putLease(keyOf(keeper), 'garbage');
      await clock.advance(MINUTE);
      assert.equal(valueOf(keyOf(keeper)), encodeAttributes(attributesOf(1)));
      assert.equal(keeper.state, 'held');
      assert.equal(log.find(/overwritten with something unreadable/, 'warn').length, 1);
    });

    it('follows the TTL that another program gave the key', async () => {
      const keeper = await startKeeper();
      const text = encodeAttributes(attributesOf(1));
      cluster.putLease(keyOf(keeper), text, cluster.etcd.grantLease(600));
      await clock.advance(MINUTE);
      assert.equal(keeper.overwrittenAtMs, clock.wallMs() - MINUTE);
      assert.equal(cluster.etcd.leases.length, 1, 'the former TTL was given up');
      await clock.advance(48 * HOUR);
      assert.equal(keeper.counters.losses, 0);
      const [line, ...others] = log.find(/renewed by another program/, 'warn');
      assert.deepEqual([line?.fields.subnet, others], ['10.5.1.0/24', []]);
      assert.match(line?.fields.hint ?? '', /no flanneld runs here/);
    });
  });

  describe('what it tells', () => {
    const linesOf = (message: RegExp): unknown[] => log.find(message).map(({ fields }) => fields);
    const dual = network('udp', {}, true);
    const previousSubnets = { subnet: net('10.5.1.0/24'), ipv6Subnet: net('fd00:10:5:1::/64') };

    it('is which lease it has, and why that one', async () => {
      const { lease } = await startKeeper({ network: dual, previousSubnets });
      assert.ok(lease?.etcdLeaseId !== undefined);
      assert.deepEqual(linesOf(/lease acquired/), [
        {
          subnet: '10.5.1.0/24',
          ipv6Subnet: 'fd00:10:5:1::/64',
          publicIp: '192.0.2.1',
          revision: lease.revision,
          etcdLeaseId: lease.etcdLeaseId,
          kind: 'previous',
        },
      ]);
    });

    it('is that its lease is a reservation', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      await startKeeper();
      assert.equal(log.find(/lease acquired/)[0]?.fields.kind, 'reservation');
    });

    const linesOfOlder = (): unknown[] =>
      log.find(/overlaps an older lease of another host/, 'error').map(({ fields }) => {
        assert.match(fields.hint ?? '', /containers of this host must be restarted/);
        const { subnet, publicIp, kind, key } = fields;
        return { subnet, publicIp, kind, key };
      });

    it('is who has the older right to addresses that its key of an earlier run names', async () => {
      cluster.putLease('10.5.6.0-23', encodeAttributes(attributesOf(2)));
      cluster.putLease('10.5.7.0-24', encodeAttributes(attributesOf(1)));
      await startKeeper();
      assert.deepEqual(linesOfOlder(), [
        { subnet: '10.5.7.0/24', publicIp: '192.0.2.1', kind: undefined, key: '10.5.6.0-23' },
      ]);
    });

    // Its key is still there when it seeks another subnet, which told the same once more.
    it('is once who has the older right to addresses of a lease that it held', async () => {
      cluster.putLease('10.5.0.0-22', encodeAttributes(attributesOf(1)));
      await other.createLease({ subnets: subnetsOf(1), attributes: attributesOf(1), ttlSeconds: 600 });
      const keeper = await startKeeper();
      assert.equal(keyOf(keeper), '10.5.1.0-24');
      cluster.putLease('10.5.0.0-22', encodeAttributes(attributesOf(2)));
      await clock.advance(MINUTE);
      assert.notEqual(keyOf(keeper), '10.5.1.0-24');
      assert.deepEqual(linesOfOlder(), [
        { subnet: '10.5.1.0/24', publicIp: '192.0.2.1', kind: 'overlapped', key: '10.5.0.0-22' },
      ]);
    });

    it('is every younger key that names its addresses, on a few lines however many there are', async () => {
      const keeper = await startKeeper();
      assert.deepEqual(keeper.rivals, []);
      for (let n = 0; n < 200; n++) {
        cluster.putLease(`10.5.1.${n}-32`, encodeAttributes(attributesOf(2)));
        await clock.advance(1);
      }
      assert.equal(keeper.rivals.length, 200);
      await keeper.close();
      const lines = log.find(/another key names addresses/, 'warn').map(({ fields }) => fields);
      assert.equal(
        lines.reduce((sum, { count = 0 }) => sum + count, 0),
        200,
      );
      assert.ok(lines.length < 20, String(lines.length));
      const [first] = lines;
      assert.deepEqual([first?.subnet, first?.key], ['10.5.1.0/24', '10.5.1.0-32']);
      assert.match(first?.hint ?? '', /delete the other/);
    });

    it('is from where to where it moved, also if only IPv6 did', async () => {
      const keeper = await startKeeper({ network: dual, previousSubnets });
      const ipv6 = dual.ipv6 && {
        network: net('fd00:10:6::/48'),
        subnetLen: 64,
        min: ip('fd00:10:6:1::'),
        max: ip('fd00:10:6:1::'),
      };
      keeper.setNetwork({ ...dual, ipv6 });
      await clock.advance(MINUTE);
      assert.deepEqual(
        log.find(/another one now/, 'error').map(({ fields: { from, to } }) => [from, to]),
        [['10.5.1.0/24 fd00:10:5:1::/64', '10.5.1.0/24 fd00:10:6:1::/64']],
      );
    });

    it('is not that it moved when it has the subnets of both families again', async () => {
      const keeper = await startKeeper({ network: dual, previousSubnets });
      cluster.deleteLease(keyOf(keeper));
      await clock.advance(MINUTE);
      assert.deepEqual([keeper.state, keeper.counters.losses], ['held', 1]);
      assert.deepEqual(linesOf(/another one now/), []);
    });

    it('is a defect of its own, after which it goes on a second later', async () => {
      const keeper = await startKeeper();
      const defect = new Error('defect');
      store.discardEtcdLease = () => {
        throw defect;
      };
      cluster.deleteLease(keyOf(keeper));
      await clock.advance(990);
      assert.equal(keeper.state, 'acquiring');
      const [line, ...others] = log.find(/^defect while the own lease is kept/, 'error');
      assert.deepEqual([line?.fields.error, others], [defect, []]);
      await clock.advance(20);
      assert.equal(keeper.state, 'held');
    });

    it('reaches every listener, and a defect in one is told', async () => {
      const keeper = makeKeeper();
      const defect = new Error('defect');
      keeper.onChange(() => {
        throw defect;
      });
      const states: string[] = [];
      keeper.onChange(({ state }) => states.push(state));
      keeper.start();
      await clock.advance(1);
      assert.deepEqual(states, ['acquiring', 'held']);
      const [line, ...others] = log.find(/^defect in the daemon/, 'error');
      assert.deepEqual([line?.fields.kind, line?.fields.error, others], ['changes of the own lease', defect, []]);
    });

    it('is nothing when the store is away, which says so itself', async () => {
      const keeper = await startKeeper();
      store.publishLease = () => Promise.reject(new OverlayError('ERR_ETCD_UNAVAILABLE', 'cannot reach etcd'));
      keeper.publish(attributesOf(99));
      await clock.advance(5 * MINUTE);
      assert.deepEqual(linesOf(/cannot publish/), []);
    });
  });

  it('takes in at once what a listener asks for', async () => {
    const keeper = await startKeeper();
    keeper.onChange(({ lease }) => {
      if (lease?.attributes.backendType === 'ipip') keeper.setNetwork(network('udp', {}, true));
    });
    cluster.putLease(keyOf(keeper), encodeAttributes(attributesOf(1, { backendType: 'ipip' })));
    await clock.advance(10);
    assert.ok(keeper.lease?.ipv6Subnet !== undefined, 'though it would write its value again only after a second');
  });

  it('takes the subnet of a host that may come back only if there is no other', async () => {
    const keeper = makeKeeper();
    keeper.setAvoid([net('10.5.1.0/24')]);
    keeper.start();
    await clock.advance(1);
    assert.equal(keyOf(keeper), '10.5.2.0-24');
  });

  it('tries at once what failed when it is told that the store answers again', async () => {
    const keeper = await startKeeper();
    const publishLease = store.publishLease.bind(store);
    store.publishLease = () => Promise.reject(new OverlayError('ERR_ETCD_UNAVAILABLE', 'cannot reach etcd'));
    keeper.publish(attributesOf(99));
    await clock.advance(5 * MINUTE);
    store.publishLease = publishLease;
    keeper.retryNow();
    await clock.advance(1);
    assert.equal(keeper.lease?.attributes.publicIp.toString(), '192.0.2.99');
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
      assert.equal(keeper.lease?.etcdLeaseId, lease?.etcdLeaseId);
      assert.equal(valueOf(keyOf(keeper)), encodeAttributes(vxlan('02:00:00:00:00:01')));
      assert.equal(keeper.counters.overwrites, 0);
      assert.equal(log.find(/own lease was published/, 'info').length, 1);
    });

    it('writes nothing if nothing changed', async () => {
      const keeper = await startKeeper();
      const { revision } = cluster.etcd;
      keeper.publish(attributesOf(1));
      await clock.advance(MINUTE);
      assert.equal(cluster.etcd.revision, revision);
    });

    it('moves the lease along with a changed public address', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      keeper.publish(attributesOf(99));
      await clock.advance(MINUTE);
      assert.equal(keyOf(keeper), before);
      assert.equal(decodeAttributes(valueOf(before) ?? '').publicIp.toString(), '192.0.2.99');
      assert.equal(keeper.counters.losses, 0);
    });

    it('tries again when the answer was lost, and does not take its own writing for that of another host', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      // The key then names neither the address that the host had nor the one that it has.
      const loss = loseAnswer(() => keeper.publish(attributesOf(98)));
      keeper.publish(attributesOf(99));
      await clock.advance(MINUTE);
      assert.equal(loss.isLost, true);
      assert.equal(keyOf(keeper), before);
      assert.equal(valueOf(before), encodeAttributes(attributesOf(98)));
      assert.deepEqual([keeper.counters.losses, keeper.counters.overwrites], [0, 0]);
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

    const moved = {
      ...network(),
      ipv4: { network: net('10.9.0.0/16'), subnetLen: 24, min: ip('10.9.1.0'), max: ip('10.9.255.0') },
    };
    const narrow = { ...network(), ipv4: { ...moved.ipv4, network: net('10.5.0.0/16'), min: ip('10.5.251.0') } };

    it('exchanges one that does not, says so, and leaves no old key behind', async () => {
      const keeper = await startKeeper();
      keeper.setNetwork({ ...narrow, ipv4: { ...narrow.ipv4, max: ip('10.5.255.0') } });
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.match(keeper.lease?.key ?? '', /^10\.5\.25\d\./);
      assert.equal(cluster.leases.length, 1);
      assert.equal(log.find(/does not fit/, 'error').length, 1);
      assert.equal(log.find(/another one now/, 'error').length, 1);
    });

    it('sets one of another network aside for ten minutes, then deletes it', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      keeper.setNetwork(moved);
      await clock.advance(MINUTE);
      assert.equal(keeper.state, 'held');
      assert.match(keyOf(keeper), /^10\.9\./);
      assert.equal(log.find(/does not fit/, 'error').length, 1);
      assert.equal(log.find(/another one now/, 'error').length, 1);
      await clock.advance(ASIDE_MS - 2 * MINUTE);
      assert.equal(cluster.leases.length, 2);
      assert.equal(valueOf(before), encodeAttributes(attributesOf(1)));
      await clock.advance(2 * MINUTE);
      assert.deepEqual(
        cluster.leases.map(({ name }) => name),
        [keyOf(keeper)],
      );
      assert.deepEqual(cluster.etcd.orphanLeases(), []);
    });

    // A network mistyped for two seconds renumbered every host for good.
    it('takes the former subnet again when the network is changed back, however often', async () => {
      const keeper = await startKeeper();
      const before = keyOf(keeper);
      let between: string | undefined;
      for (let turn = 0; turn < 5; turn++) {
        keeper.setNetwork(moved);
        await clock.advance(10_000);
        between ??= keyOf(keeper);
        assert.equal(keyOf(keeper), between);
        keeper.setNetwork(network());
        await clock.advance(10_000);
        assert.equal(keyOf(keeper), before);
        assert.equal(keeper.state, 'held');
      }
      assert.equal(cluster.leases.length, 1, 'nobody wants the mistyped one again');
      await clock.advance(2 * ASIDE_MS);
      assert.deepEqual(
        cluster.leases.map(({ name }) => name),
        [before],
      );
      assert.equal(cluster.etcd.leases.length, 1);
    });

    it('asks for the former subnet again even if its key was deleted meanwhile', async () => {
      const keeper = await startKeeper({ previousSubnets: { subnet: net('10.5.77.0/24') } });
      keeper.setNetwork(moved);
      await clock.advance(2 * ASIDE_MS);
      assert.equal(cluster.leases.length, 1);
      keeper.setNetwork(network());
      await clock.advance(MINUTE);
      assert.equal(keyOf(keeper), '10.5.77.0-24');
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
      const states: string[] = [];
      keeper.onChange(({ state }) => states.push(state));
      const pending = clock.pending;
      await keeper.close();
      await keeper.close();
      assert.equal(keeper.state, 'closed');
      assert.deepEqual(states, ['closed']);
      assert.equal(clock.pending, pending - 1);
      assert.ok(cluster.lease(keyOf(keeper)) !== undefined);
    });

    it('has no timer to end for a reservation', async () => {
      await other.reserve(subnetsOf(7), attributesOf(1), undefined);
      const keeper = await startKeeper();
      const pending = clock.pending;
      await keeper.close();
      assert.equal(clock.pending, pending);
    });

    it('may be done by a listener', async () => {
      const keeper = await startKeeper();
      keeper.onChange(() => void keeper.close());
      assert.ok(keeper.lease !== undefined);
      await other.reserve(keeper.lease, keeper.lease.attributes, keeper.lease);
      await clock.advance(1);
      assert.equal(keeper.state, 'closed');
    });

    it('ends while acquiring', async () => {
      setCutOff(true);
      const keeper = makeKeeper();
      keeper.start();
      await clock.advance(MINUTE);
      await keeper.close();
      assert.equal(keeper.state, 'closed');
      await store.close();
      await clock.advance(0);
      cluster.etcd.close();
      assert.equal(clock.pending, 0);
    });

    it('ends without waiting for a request that is under way', async () => {
      const keeper = await startKeeper();
      link.partition('hang');
      keeper.publish(attributesOf(1, { backendType: 'ipip' }));
      await clock.advance(1);
      await keeper.close();
      assert.equal(keeper.state, 'closed');
      assert.deepEqual(log.find(/^cannot/), [], 'that it came to nothing is no news');
    });
  });
});
