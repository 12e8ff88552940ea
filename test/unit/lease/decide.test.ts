import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  ASIDE_MS,
  type Command,
  type Decision,
  type Holding,
  type Note,
  type Occasion,
  type Outcome,
  type OwnState,
  decide,
  isPublished,
  applyOutcome,
  retryNow,
} from '../../../src/lease/decide.js';
import type { LeaseAttributes } from '../../../src/lease/lease.js';
import type { LeaseRecord, EtcdLeaseId } from '../../../src/lease/record.js';
import { type World, noteChange } from '../../../src/lease/world.js';
import { ip, net, network } from '../../support/builders.js';
import { badEntry, leaseRecord, worldOf } from '../../support/lease-world.js';
import { attributesOf } from '../../support/store-contract.js';

const NOW = 1_000_000;
const DAY = 86_400;
const HOUR_MS = 3_600_000;

/** Chance that leaves every delay as it is. */
const random = (): number => 0.5;

const OWN = leaseRecord(1, { revision: 20, createdAt: 15 });
const MOVED = {
  ...network(),
  ipv4: { network: net('10.9.0.0/16'), subnetLen: 24, min: ip('10.9.1.0'), max: ip('10.9.255.0') },
};

function seeking(changes: Partial<OwnState> = {}): OwnState {
  return {
    network: network(),
    attributes: attributesOf(1),
    ttlSeconds: DAY,
    warningMs: HOUR_MS,
    former: undefined,
    wishes: [],
    avoid: [],
    holding: undefined,
    aside: [],
    mistake: undefined,
    answered: { epoch: -1, revision: '0' },
    notBeforeMs: 0,
    races: 0,
    failures: 0,
    losses: 0,
    overlapped: undefined,
    ...changes,
  };
}

function holdingOf(changes: Partial<Holding> = {}): Holding {
  return {
    lease: OWN,
    epoch: 1,
    sinceMs: NOW - HOUR_MS,
    deadlineMs: NOW + 23 * HOUR_MS,
    keepAliveAtMs: NOW + 300_000,
    failedKeepAlives: 0,
    isEnding: false,
    rewriteAtMs: 0,
    failedRewrites: 0,
    overwrites: 0,
    isUnreadable: false,
    unanswered: [],
    rivals: [],
    ...changes,
  };
}

const held = (changes: Partial<OwnState> = {}, holding: Partial<Holding> = {}): OwnState =>
  seeking({ holding: holdingOf(holding), ...changes });

type Answer = ReturnType<typeof decide>;

const answer = (world: World | undefined, own: OwnState, nowMs = NOW): Answer => decide(world, own, nowMs, random);

const kinds = (notes: readonly Note[]): string[] => notes.map(({ kind }) => kind);

function lossOf({ notes }: Decision): string | undefined {
  const note = notes.find(({ kind }) => kind === 'lost');
  return note?.kind === 'lost' ? note.reason : undefined;
}

const occasion = (changes: Partial<Occasion> = {}): Occasion => ({
  epoch: 1,
  sentAtMs: NOW,
  nowMs: NOW,
  random,
  attributes: attributesOf(1),
  ...changes,
});

describe('decide', () => {
  describe('without a lease', () => {
    it('waits for a first world', () => {
      assert.deepEqual(answer(undefined, seeking()).command, { kind: 'wait', untilMs: Number.POSITIVE_INFINITY });
    });

    it('takes over its own key, whatever else there is', () => {
      const { command } = answer(worldOf([leaseRecord(2), OWN]), seeking());
      assert.deepEqual(command, { kind: 'reuse', lease: OWN });
    });

    it('takes over the key of its last run under a former address, unless somebody has written it since', () => {
      const state = seeking({ attributes: attributesOf(99), former: OWN });
      assert.deepEqual(answer(worldOf([OWN]), state).command, { kind: 'reuse', lease: OWN });
      assert.equal(answer(worldOf([{ ...OWN, revision: '21' }]), state).command.kind, 'create');
    });

    it('creates one where it has none', () => {
      const { command } = answer(worldOf([leaseRecord(2)]), seeking({ wishes: [{ subnet: net('10.5.9.0/24') }] }));
      assert.ok(command.kind === 'create');
      assert.equal(command.subnets.subnet.toString(), '10.5.9.0/24');
      assert.equal(command.source, 'previous');
    });

    it('leaves a subnet that a key names whose value nobody can read', () => {
      const world = worldOf([], { bad: [badEntry('10.5.9.0-24')] });
      const { command } = answer(world, seeking({ wishes: [{ subnet: net('10.5.9.0/24') }] }));
      assert.ok(command.kind === 'create' && command.source === 'free');
    });

    it('leaves the subnets of hosts that may come back', () => {
      const narrow = {
        ...network(),
        ipv4: { ...MOVED.ipv4, network: net('10.5.0.0/16'), min: ip('10.5.1.0'), max: ip('10.5.2.0') },
      };
      const { command } = answer(worldOf([]), seeking({ network: narrow, avoid: [net('10.5.1.0/24')] }));
      assert.ok(command.kind === 'create');
      assert.equal(command.subnets.subnet.toString(), '10.5.2.0/24');
    });

    it('waits out the time after a failed attempt', () => {
      assert.deepEqual(answer(worldOf([]), seeking({ notBeforeMs: NOW + 5 })).command, {
        kind: 'wait',
        untilMs: NOW + 5,
      });
    });

    it('deletes what it created by mistake before anything else', () => {
      const { command } = answer(worldOf([OWN]), seeking({ mistake: OWN }));
      assert.deepEqual(command, { kind: 'delete', lease: OWN });
    });

    it('says that there is no subnet, and again every minute, without asking the store', () => {
      const single = {
        ...network(),
        ipv4: { ...MOVED.ipv4, network: net('10.5.0.0/16'), min: ip('10.5.2.0'), max: ip('10.5.2.0') },
      };
      let state = seeking({ network: single });
      const delays: number[] = [];
      for (let nowMs = NOW, turn = 0; turn < 7; turn++) {
        const { own, command, notes } = answer(worldOf([leaseRecord(2)]), state, nowMs);
        assert.ok(command.kind === 'wait');
        assert.deepEqual(kinds(notes), ['failed']);
        delays.push(command.untilMs - nowMs);
        state = own;
        nowMs = command.untilMs;
      }
      assert.deepEqual(new Set(delays), new Set([60_000]));
    });

    it('does not plan on a world that lacks what an answer told', () => {
      const state = seeking({ answered: { epoch: 1, revision: '30' } });
      assert.equal(answer(worldOf([OWN], { revision: 29 }), state).command.kind, 'wait');
      assert.equal(answer(worldOf([OWN], { revision: 30 }), state).command.kind, 'reuse');
      assert.equal(answer(worldOf([OWN], { revision: 7, epoch: 2 }), state).command.kind, 'reuse', 'another history');
    });
  });

  describe('with a lease', () => {
    it('has nothing to do until the next keep-alive', () => {
      const { command, notes } = answer(worldOf([OWN]), held());
      assert.deepEqual(command, { kind: 'wait', untilMs: NOW + 300_000 });
      assert.deepEqual(notes, []);
    });

    it('keeps it alive when it is time', () => {
      const { command } = answer(worldOf([OWN]), held({}, { keepAliveAtMs: NOW }));
      assert.deepEqual(command, { kind: 'keep-alive', etcdLeaseId: OWN.etcdLeaseId });
    });

    it('has nothing at all to do with a reservation', () => {
      const lease = leaseRecord(1, { isReservation: true });
      for (const failedKeepAlives of [0, 3]) {
        const state = held({}, { lease, failedKeepAlives, keepAliveAtMs: 0, deadlineMs: 0 });
        const { command, notes } = answer(worldOf([lease]), state);
        assert.deepEqual(command, { kind: 'wait', untilMs: Number.POSITIVE_INFINITY });
        assert.deepEqual(notes, []);
      }
    });

    it('writes what the host wants to tell', () => {
      const state = held({ attributes: attributesOf(1, { backendType: 'vxlan' }) });
      assert.equal(isPublished(state), false);
      assert.deepEqual(answer(worldOf([OWN]), state).command, { kind: 'publish', lease: OWN });
    });

    for (const [title, world, holding, reason] of [
      ['deleted', worldOf([], { revision: 21 }), {}, 'deleted'],
      ['expired', worldOf([], { revision: 21 }), { deadlineMs: NOW }, 'expired'],
      ['not in a store that was wiped or restored', worldOf([], { epoch: 2 }), {}, 'forgotten'],
      ['written by another host', worldOf([{ ...OWN, revision: '21', attributes: attributesOf(9) }]), {}, 'taken'],
      [
        'another host’s in a store that was restored',
        worldOf([leaseRecord(1, { host: 9, revision: 5 })], { epoch: 2 }),
        {},
        'taken',
      ],
      [
        'a younger key of another host in a store that was restored',
        worldOf([leaseRecord(1, { host: 9, revision: 19, createdAt: 18 })], { epoch: 2 }),
        {},
        'taken',
      ],
      [
        'what another host made of it in a store that was restored',
        worldOf([leaseRecord(1, { host: 9, revision: 21, createdAt: 15 })], { epoch: 2 }),
        {},
        'taken',
      ],
      [
        'within an older lease of another host',
        worldOf([OWN, leaseRecord(2, { subnets: '10.5.0.0-20', revision: 3 })]),
        {},
        'overlapped',
      ],
      [
        'within an older key that nobody can read',
        worldOf([OWN], { bad: [badEntry('10.5.0.0-20', 3)] }),
        {},
        'overlapped',
      ],
    ] as const) {
      it(`loses it when its key is ${title}`, () => {
        const result = answer(world, held({}, holding));
        assert.equal(lossOf(result), reason);
        assert.equal(result.own.holding, undefined);
        assert.deepEqual(result.own.wishes[0], { subnet: OWN.subnet }, 'it asks for the same one again');
        assert.ok(result.notes.some((note) => note.kind === 'unused-ttl' && note.etcdLeaseId === OWN.etcdLeaseId));
        assert.equal(result.own.notBeforeMs, NOW, 'at once');
      });
    }

    it('names who holds the older key', () => {
      const { notes } = answer(worldOf([OWN, leaseRecord(2, { subnets: '10.5.0.0-20', revision: 3 })]), held());
      assert.ok(notes.some((note) => note.kind === 'lost' && note.rival === '10.5.0.0-20'));
    });

    it('keeps a subnet within a younger key of another host, and says so once', () => {
      const younger = leaseRecord(2, { subnets: '10.5.0.0-20', revision: 30 });
      const first = answer(worldOf([OWN, younger]), held());
      assert.deepEqual(first.notes, [{ kind: 'rival', lease: OWN, key: '10.5.0.0-20' }]);
      assert.deepEqual(first.own.holding?.rivals, ['10.5.0.0-20']);
      const second = answer(worldOf([OWN, younger], { revision: 40 }), first.own);
      assert.deepEqual(second.notes, []);
      const third = answer(worldOf([OWN], { revision: 41 }), second.own);
      assert.deepEqual(third.own.holding?.rivals, []);
    });

    it('knows the same rivals whether or not it is told what has changed', () => {
      const others = [
        leaseRecord(2, { subnets: '10.5.0.0-20', revision: 30 }),
        leaseRecord(2, { subnets: '10.5.0.0-20', revision: 31, host: 1 }),
        leaseRecord(3, { subnets: '10.5.1.128-25', revision: 32 }),
        leaseRecord(4, { revision: 33 }),
        badEntry('10.5.0.0-20', 34),
        badEntry('10.5.9.0-24', 35),
      ];
      const step = fc.record({ index: fc.nat(others.length - 1), isThere: fc.boolean(), isTold: fc.boolean() });
      fc.assert(
        fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
          const own = { ...OWN };
          let before = worldOf([own]);
          for (const { index, isThere, isTold } of steps) {
            const other = others[index];
            assert.ok(other !== undefined);
            const leases = new Map(before.leases);
            const bad = new Map(before.bad);
            leases.delete(other.key);
            bad.delete(other.key);
            if (isThere) {
              if ('reason' in other) bad.set(other.key, other);
              else leases.set(other.key, other);
            }
            const world = { ...before, leases, bad };
            if (isTold) noteChange(before, world, new Set([other.key]));
            const { rivals } = answer(world, held({}, { lease: own })).own.holding ?? {};
            const afresh = { ...own };
            const listed = { ...world, leases: new Map(world.leases).set(own.key, afresh) };
            const expected = answer(listed, held({}, { lease: afresh })).own.holding?.rivals;
            assert.deepEqual(rivals?.toSorted(), expected?.toSorted());
            before = world;
          }
        }),
      );
    });

    it('knows its key by the address that it had as well', () => {
      const byOther = { ...OWN, revision: '21', etcdLeaseId: '99' as EtcdLeaseId };
      const result = answer(worldOf([byOther]), held({ attributes: attributesOf(99) }));
      assert.equal(lossOf(result), undefined);
      assert.equal(result.own.holding?.lease, byOther);
    });

    // Restored from a backup, the key told the address that the host had then, for ever.
    it('knows an older version of its key after a restore, whatever address that tells, and writes it again at once', () => {
      const then = { ...OWN, revision: '17', attributes: attributesOf(77) };
      const { own, command, notes } = answer(worldOf([then], { epoch: 2 }), held({}, { rewriteAtMs: NOW + HOUR_MS }));
      assert.deepEqual(kinds(notes), ['changed']);
      assert.equal(isPublished(own), false);
      assert.deepEqual(command, { kind: 'publish', lease: then });
      assert.equal(lossOf(answer(worldOf([then], { epoch: 1 }), held())), 'taken', 'within one history it is not ours');
    });

    it('asks about its etcd lease at once in another history, even if nothing differs', () => {
      const { own, command } = answer(worldOf([OWN], { epoch: 2 }), held());
      assert.deepEqual(command, { kind: 'keep-alive', etcdLeaseId: OWN.etcdLeaseId });
      assert.equal(own.holding?.epoch, 2);
      const other = { ...OWN, revision: '19', etcdLeaseId: '99' as EtcdLeaseId };
      const { notes } = answer(worldOf([other], { epoch: 2 }), held());
      assert.deepEqual(kinds(notes), ['unused-ttl', 'changed'], 'no other program has renewed it');
    });

    it('writes its value over another one of its own address, later and later', () => {
      let state = held();
      const delays: number[] = [];
      for (let turn = 1; turn <= 10; turn++) {
        const theirs = { ...OWN, revision: String(20 + turn), attributes: attributesOf(1, { backendType: 'x' }) };
        const { own, command, notes } = answer(worldOf([theirs]), state);
        assert.ok(command.kind === 'wait');
        const [note] = notes;
        assert.ok(note?.kind === 'overwritten' && note.count === turn && !note.isUnreadable);
        delays.push((own.holding?.rewriteAtMs ?? 0) - NOW);
        assert.deepEqual(answer(worldOf([theirs]), own, NOW + (delays.at(-1) ?? 0)).command.kind === 'wait', false);
        state = own;
      }
      assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000]);
    });

    it('takes a value that it may have written itself for its own', () => {
      const ours = attributesOf(1, { backendType: 'ipip' });
      const seen = { ...OWN, revision: '21', attributes: ours };
      const { notes, command } = answer(worldOf([seen]), held({}, { unanswered: [ours] }));
      assert.deepEqual(kinds(notes), ['changed']);
      assert.equal(command.kind, 'publish');
    });

    it('writes its value over something unreadable, told once for each version', () => {
      const world = worldOf([], { bad: [badEntry(OWN.key, 21)] });
      const first = answer(world, held());
      assert.deepEqual(kinds(first.notes), ['overwritten']);
      assert.equal(first.own.holding?.lease.revision, '21');
      assert.equal(isPublished(first.own), false);
      assert.deepEqual(answer(worldOf([], { bad: [badEntry(OWN.key, 21)], revision: 50 }), first.own).notes, []);
      assert.deepEqual(answer(worldOf([], { bad: [badEntry(OWN.key, 51)] }), first.own).notes.length, 1);
      const later = answer(world, first.own, NOW + 1000);
      assert.deepEqual(later.command.kind, 'publish');
    });

    it('takes a value that is readable again for what it is', () => {
      const unreadable = answer(worldOf([], { bad: [badEntry(OWN.key, 21)] }), held());
      const { own, command } = answer(worldOf([{ ...OWN, revision: '22' }]), unreadable.own);
      assert.equal(isPublished(own), true);
      assert.equal(command.kind, 'wait');
    });

    it('writes its value over something unreadable in a restored store, where it may have the same revision', () => {
      const { own, notes } = answer(worldOf([], { bad: [badEntry(OWN.key, 20)], epoch: 2 }), held());
      assert.deepEqual(kinds(notes), ['overwritten']);
      assert.equal(lossOf(answer(worldOf([], { epoch: 2, revision: 30 }), own)), 'deleted', 'it was there');
    });

    it('follows its key when it is made a reservation, and back', () => {
      const reserved: LeaseRecord = { ...OWN, revision: '21', etcdLeaseId: undefined, isReservation: true };
      const first = answer(worldOf([reserved]), held());
      assert.deepEqual(kinds(first.notes), ['reserved', 'unused-ttl', 'changed']);
      assert.equal(first.command.kind, 'wait');
      const back = answer(worldOf([{ ...OWN, revision: '22', etcdLeaseId: '99' as EtcdLeaseId }]), first.own);
      assert.deepEqual(kinds(back.notes), ['unreserved', 'changed']);
      assert.deepEqual(back.command, { kind: 'keep-alive', etcdLeaseId: '99' });
    });

    it('follows the etcd lease that another program gave its key, and warns', () => {
      const { own, notes, command } = answer(
        worldOf([{ ...OWN, revision: '21', etcdLeaseId: '99' as EtcdLeaseId }]),
        held({}, { failedKeepAlives: 3, isEnding: true }),
      );
      assert.deepEqual(kinds(notes), ['unused-ttl', 'renewed-by-other', 'changed']);
      assert.deepEqual([own.holding?.failedKeepAlives, own.holding?.isEnding], [0, false], 'whose end is far');
      assert.deepEqual(command, { kind: 'keep-alive', etcdLeaseId: '99' });
      assert.equal(own.holding?.deadlineMs, NOW + (DAY - 1) * 1000);
    });

    it('ignores a world that lacks what an answer told, until one has caught up', () => {
      const state = held({ answered: { epoch: 1, revision: '20' } });
      assert.equal(lossOf(answer(worldOf([], { revision: 19 }), state)), undefined);
      assert.equal(lossOf(answer(worldOf([], { revision: 20 }), state)), 'deleted');
      assert.equal(lossOf(answer(worldOf([], { revision: 3, epoch: 2 }), state)), 'forgotten');
    });

    it('warns when its end is near and no keep-alive gets through, then gives it up', () => {
      const failing = held(
        {},
        { failedKeepAlives: 1, keepAliveAtMs: NOW + 2 * HOUR_MS, deadlineMs: NOW + 2 * HOUR_MS },
      );
      const waiting = answer(undefined, failing);
      assert.deepEqual(waiting.command, { kind: 'wait', untilMs: NOW + HOUR_MS }, 'until it is to be reported');
      const near = answer(undefined, failing, NOW + HOUR_MS);
      assert.deepEqual(kinds(near.notes), ['ending']);
      assert.deepEqual(answer(undefined, near.own, NOW + HOUR_MS + 1).notes, [], 'once');
      assert.equal(lossOf(answer(undefined, near.own, NOW + 2 * HOUR_MS - 1)), undefined, 'not a moment too soon');
      assert.equal(lossOf(answer(undefined, near.own, NOW + 2 * HOUR_MS)), 'unconfirmed');
      const unharmed = held({}, { deadlineMs: NOW - 1 });
      assert.equal(lossOf(answer(undefined, unharmed)), undefined, 'a host that slept asks first');
    });

    it('loses leases in close succession ever more slowly', () => {
      let state = held({}, { sinceMs: NOW });
      const delays: number[] = [];
      for (let turn = 0; turn < 9; turn++) {
        const { own } = answer(worldOf([], { revision: 30 + turn }), state);
        delays.push(own.notBeforeMs - NOW);
        state = { ...own, holding: holdingOf({ sinceMs: NOW }) };
      }
      assert.deepEqual(delays, [0, 50, 100, 200, 400, 500, 500, 500, 500]);
      const stable = answer(worldOf([], { revision: 99 }), { ...state, holding: holdingOf({ sinceMs: NOW - 60_000 }) });
      assert.equal(stable.own.notBeforeMs, NOW);
      const next = answer(worldOf([], { revision: 99 }), { ...stable.own, holding: holdingOf({ sinceMs: NOW }) });
      assert.equal(next.own.notBeforeMs, NOW, 'the first one of another succession');
    });
  });

  describe('when the network is changed', () => {
    const world = worldOf([OWN]);

    it('sets a key of another network aside, with its etcd lease', () => {
      const { own, notes, command } = answer(world, held({ network: MOVED }));
      assert.deepEqual(kinds(notes), ['lost']);
      assert.deepEqual(own.aside, [{ lease: OWN, untilMs: NOW + ASIDE_MS }]);
      assert.ok(command.kind === 'create' && command.replacing === undefined);
      assert.match(command.subnets.subnet.toString(), /^10\.9\./);
    });

    it('leaves a reservation of another network alone', () => {
      const lease = leaseRecord(1, { isReservation: true });
      const { own, notes } = answer(worldOf([lease]), held({ network: MOVED }, { lease }));
      assert.deepEqual(kinds(notes), ['lost']);
      assert.deepEqual(own.aside, []);
    });

    it('sets nothing aside that was lost at the same time', () => {
      const { own, notes } = answer(worldOf([], { revision: 21 }), held({ network: MOVED }));
      assert.deepEqual(kinds(notes), ['lost', 'unused-ttl']);
      assert.deepEqual(own.aside, []);
    });

    it('exchanges one that lies in the network but no longer in its range', () => {
      const narrow = { ...network(), ipv4: { ...MOVED.ipv4, network: net('10.5.0.0/16'), min: ip('10.5.9.0') } };
      const { own, command } = answer(world, held({ network: narrow }));
      assert.deepEqual(own.aside, []);
      assert.ok(command.kind === 'create');
      assert.equal(command.replacing, OWN);
    });

    it('takes the former key back when the network is, and does not delete it then', () => {
      const { own } = answer(world, held({ network: MOVED }));
      const { command } = answer(world, { ...own, network: network() });
      assert.deepEqual(command, { kind: 'reuse', lease: OWN });
      const result = { outcome: 'updated', lease: { ...OWN, revision: '30' } } as const;
      const settled = applyOutcome({ ...own, network: network() }, command, { kind: 'reuse', result }, occasion());
      assert.deepEqual(settled.own.aside, []);
    });

    it('takes the former key back although the address of the host has changed meanwhile', () => {
      const { own } = answer(world, held({ network: MOVED }));
      const { command } = answer(world, { ...own, network: network(), attributes: attributesOf(99) });
      assert.deepEqual(command, { kind: 'reuse', lease: OWN });
    });

    it('never deletes the key that it holds as one that was set aside', () => {
      const { command, own } = answer(world, held({ aside: [{ lease: OWN, untilMs: NOW }] }));
      assert.equal(command.kind, 'wait');
      assert.deepEqual(own.aside, []);
    });

    it('deletes what was set aside when its time is over, as it is then', () => {
      const touched = { ...OWN, revision: '33' };
      const lease = leaseRecord(7, { subnets: '10.9.7.0-24', host: 1 });
      const state = held({ network: MOVED, aside: [{ lease: OWN, untilMs: NOW + 10 }] }, { lease });
      const now = worldOf([touched, lease]);
      const before = answer(now, state);
      assert.deepEqual(before.command, { kind: 'wait', untilMs: NOW + 10 });
      const { command, own } = answer(now, before.own, NOW + 10);
      assert.deepEqual(command, { kind: 'delete', lease: touched });
      assert.deepEqual(applyOutcome(own, command, { kind: 'delete', result: 'deleted' }, occasion()).own.aside, []);
    });

    it('forgets a key that was set aside when it is gone or another host’s', () => {
      const lease = leaseRecord(7, { subnets: '10.9.7.0-24', host: 1 });
      const state = held({ network: MOVED, aside: [{ lease: OWN, untilMs: NOW }] }, { lease });
      for (const rest of [[], [{ ...OWN, revision: '40', attributes: attributesOf(9) }]]) {
        assert.equal(answer(worldOf([lease, ...rest]), state).command.kind, 'wait');
      }
    });

    it('tries to delete it again half a minute after a failure', () => {
      const lease = leaseRecord(7, { subnets: '10.9.7.0-24', host: 1 });
      const state = held({ network: MOVED, aside: [{ lease: OWN, untilMs: NOW }] }, { lease });
      const { command, own } = answer(worldOf([lease, OWN]), state);
      const { own: after, notes } = applyOutcome(own, command, { kind: 'failed', error: new Error('x') }, occasion());
      assert.deepEqual(kinds(notes), ['failed']);
      assert.equal(after.aside[0]?.untilMs, NOW + 30_000);
    });

    it('remembers both families of what it had', () => {
      const lease = leaseRecord(1, { isDualStack: true });
      const { own } = answer(worldOf([], { revision: 30 }), held({ network: network('udp', {}, true) }, { lease }));
      assert.deepEqual(own.wishes, [{ subnet: lease.subnet, ipv6Subnet: lease.ipv6Subnet }]);
    });

    it('remembers a few former subnets', () => {
      let own = held();
      for (let n = 1; n <= 20; n++) {
        const lost = answer(worldOf([], { revision: 100 + n }), own).own;
        own = { ...lost, holding: holdingOf({ lease: leaseRecord(n % 12) }) };
      }
      assert.equal(own.wishes.length, 8);
      assert.equal(new Set(own.wishes.map(({ subnet }) => subnet?.toString())).size, 8);
    });

    it('remembers each once, and each IPv6 subnet that an IPv4 one came with', () => {
      const [first, second] = ['10.5.1.0-24&fd00:10:5:1::-64', '10.5.1.0-24&fd00:10:5:2::-64'].map((subnets) =>
        leaseRecord(1, { subnets }),
      );
      const wishes = [first, second, OWN, first, second].reduce<OwnState['wishes']>((wishes, lease = OWN) => {
        const state = held({ network: network('udp', {}, lease !== OWN), wishes }, { lease });
        return answer(worldOf([], { revision: 30 }), state).own.wishes;
      }, []);
      assert.deepEqual(
        wishes.map(({ ipv6Subnet }) => String(ipv6Subnet)),
        ['fd00:10:5:2::/64', 'fd00:10:5:1::/64'],
      );
    });
  });
});

describe('applyOutcome', () => {
  const create: Command = {
    kind: 'create',
    subnets: OWN,
    source: 'free',
    replacing: undefined,
    yielding: undefined,
    aside: [leaseRecord(3, { subnets: '10.9.3.0-24', host: 1 })],
  };
  const created = (others: readonly LeaseRecord[] = []): Outcome => ({
    kind: 'create',
    result: { outcome: 'created', lease: OWN, snapshot: { revision: '20', leases: [OWN, ...others], bad: [] } },
  });

  it('holds what was created, sets aside what lay elsewhere, and waits for a world that knows of it', () => {
    const { own, notes } = applyOutcome(
      seeking({ races: 3, failures: 2, former: OWN }),
      create,
      created(),
      occasion({ nowMs: NOW + 40 }),
    );
    assert.deepEqual(notes, [{ kind: 'acquired', lease: OWN, source: 'free' }]);
    const fresh = { rewriteAtMs: NOW, sinceMs: NOW, deadlineMs: NOW + (DAY - 1) * 1000, keepAliveAtMs: NOW + 300_000 };
    assert.deepEqual(own.holding, holdingOf(fresh), 'counted from the request');
    assert.equal(own.former, undefined);
    assert.deepEqual(own.answered, { epoch: 1, revision: '20' });
    assert.deepEqual([own.races, own.failures], [0, 0]);
    assert.equal(own.aside[0]?.untilMs, NOW + 40 + ASIDE_MS);
  });

  it('tells whom it gives way to, unless that was told when the lease was lost', () => {
    const yielding = { ...create, yielding: { lease: OWN, rival: '10.5.0.0-20' } };
    const notesAfter = (lost: Decision): string[] =>
      kinds(applyOutcome(lost.own, yielding, created(), occasion()).notes);
    const older = leaseRecord(2, { subnets: '10.5.0.0-20', revision: 3 });
    assert.deepEqual(notesAfter(answer(worldOf([OWN, older]), held())), ['acquired']);
    const unconfirmed = answer(undefined, held({}, { failedKeepAlives: 1, deadlineMs: NOW }));
    assert.deepEqual(notesAfter(unconfirmed), ['yielded', 'acquired']);
  });

  it('leaves what was set aside already its time', () => {
    const aside = create.aside.map((lease) => ({ lease, untilMs: NOW + 5 }));
    assert.deepEqual(applyOutcome(seeking({ aside }), create, created(), occasion()).own.aside, aside);
    const result = { outcome: 'updated', lease: OWN } as const;
    const reuse: Command = { kind: 'reuse', lease: OWN };
    const reused = applyOutcome(seeking({ aside }), reuse, { kind: 'reuse', result }, occasion());
    assert.deepEqual(reused.own.aside, aside);
  });

  it('asks to keep a lease of a minute alive every 20 seconds', () => {
    const { own } = applyOutcome(seeking({ ttlSeconds: 60, warningMs: 30_000 }), create, created(), occasion());
    assert.equal(own.holding?.keepAliveAtMs, NOW + 20_000);
  });

  it('undoes what was created over an older lease that another key holds', () => {
    const older = leaseRecord(2, { subnets: '10.5.0.0-20', revision: 3 });
    const { own, notes } = applyOutcome(seeking(), create, created([older]), occasion());
    assert.deepEqual(kinds(notes), ['lost-race', 'rival']);
    assert.equal(own.holding, undefined);
    assert.equal(own.mistake, OWN);
    const { own: after } = applyOutcome(
      own,
      { kind: 'delete', lease: OWN },
      { kind: 'delete', result: 'deleted' },
      occasion(),
    );
    assert.equal(after.mistake, undefined);
  });

  it('holds what was created before another key that overlaps it', () => {
    const younger = leaseRecord(2, { subnets: '10.5.0.0-20', revision: 30 });
    assert.equal(applyOutcome(seeking(), create, created([younger]), occasion()).own.holding?.lease, OWN);
  });

  const changed = {
    outcome: 'changed',
    now: { revision: '31', lease: { ...OWN, revision: '31' }, bad: undefined },
  } as const;
  const gone = { outcome: 'changed', now: { revision: '31', lease: undefined, bad: undefined } } as const;

  for (const [title, command, outcome] of [
    ['a create that came too late', create, { kind: 'create', result: { outcome: 'taken', revision: '31' } }],
    ['a reuse of what has changed', { kind: 'reuse', lease: OWN }, { kind: 'reuse', result: changed }],
    ['a reuse of what is gone', { kind: 'reuse', lease: OWN }, { kind: 'reuse', result: gone }],
  ] as const) {
    it(`backs off after ${title}, ever longer`, () => {
      let own = seeking();
      const delays: number[] = [];
      for (let turn = 0; turn < 9; turn++) {
        const result = applyOutcome(own, command, outcome, occasion());
        assert.deepEqual(kinds(result.notes), ['lost-race']);
        own = result.own;
        delays.push(own.notBeforeMs - NOW);
      }
      assert.deepEqual(delays, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000]);
      assert.equal(own.answered.revision, outcome.result === gone ? '0' : '31');
    });
  }

  // After a restore, a write on a revision that was gone was repeated a thousand times a second.
  for (const [title, result] of [
    ['has changed', changed],
    ['is gone', gone],
  ] as const) {
    it(`backs off when what it would publish ${title}, ever longer`, () => {
      let own = held();
      const delays: number[] = [];
      for (let turn = 0; turn < 7; turn++) {
        own = applyOutcome(own, { kind: 'publish', lease: OWN }, { kind: 'publish', result }, occasion()).own;
        delays.push((own.holding?.rewriteAtMs ?? 0) - NOW);
      }
      assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
      assert.equal(own.answered.revision, result === gone ? '0' : '31');
    });
  }

  it('remembers what it asked to write and got no answer to, a few of them', () => {
    let own = held();
    const failed = { kind: 'failed', error: new Error('x') } as const;
    for (let turn = 0; turn < 20; turn++) {
      const attributes = attributesOf(1, { backendType: `t${turn}` });
      const after = applyOutcome(own, { kind: 'publish', lease: OWN }, failed, occasion({ attributes }));
      assert.deepEqual(after.notes, [{ kind: 'failed', what: 'publish', error: failed.error }]);
      own = after.own;
    }
    assert.equal(own.holding?.unanswered.length, 8);
    assert.equal(own.holding.unanswered[0]?.backendType, 't19');
    const result = { outcome: 'updated', lease: { ...OWN, revision: '44' } } as const;
    const published = applyOutcome(own, { kind: 'publish', lease: OWN }, { kind: 'publish', result }, occasion());
    assert.deepEqual(kinds(published.notes), ['published']);
    assert.deepEqual(published.own.holding?.unanswered, []);
    assert.equal(published.own.answered.revision, '44');
    const later = applyOutcome(published.own, { kind: 'publish', lease: OWN }, failed, occasion()).own;
    assert.equal(later.holding?.rewriteAtMs, NOW + 1000, 'soon again');
  });

  it('follows the etcd lease that the key got meanwhile', () => {
    const result = { outcome: 'updated', lease: { ...OWN, revision: '44', etcdLeaseId: '99' as EtcdLeaseId } } as const;
    const { own, notes } = applyOutcome(
      held(),
      { kind: 'publish', lease: OWN },
      { kind: 'publish', result },
      occasion(),
    );
    assert.deepEqual(kinds(notes), ['unused-ttl', 'published']);
    assert.equal(own.holding?.keepAliveAtMs, NOW);
  });

  it('counts the time of a kept lease from the request, and says that it is renewed again', () => {
    const keepAlive: Command = { kind: 'keep-alive', etcdLeaseId: '1' as EtcdLeaseId };
    const state = held({}, { failedKeepAlives: 2, isEnding: true });
    const now = occasion({ nowMs: NOW + 4000 });
    const { own, notes } = applyOutcome(state, keepAlive, { kind: 'keep-alive', result: 60 }, now);
    assert.deepEqual(kinds(notes), ['renewal', 'renewed-again']);
    assert.equal(own.holding?.deadlineMs, NOW + 59_000);
    assert.deepEqual([own.holding.failedKeepAlives, own.holding.isEnding], [0, false]);
    const usual = applyOutcome(held(), keepAlive, { kind: 'keep-alive', result: 60 }, now);
    assert.deepEqual(kinds(usual.notes), ['renewal'], 'nothing was said of its end');
    const lost = applyOutcome(state, keepAlive, { kind: 'keep-alive', result: undefined }, now);
    assert.equal(lossOf(lost), 'expired');
  });

  it('seeks again soon after a failure, then more rarely, and soon again once it had a lease', () => {
    const failed = { kind: 'failed', error: new Error('x') } as const;
    let own = seeking();
    const next = (): number => {
      const after = applyOutcome(own, create, failed, occasion());
      assert.deepEqual(after.notes, [{ kind: 'failed', what: 'acquire', error: failed.error }]);
      own = after.own;
      return own.notBeforeMs - NOW;
    };
    assert.deepEqual(Array.from({ length: 7 }, next), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    own = applyOutcome(own, create, created(), occasion()).own;
    own = answer(worldOf([], { revision: 30 }), own).own;
    assert.equal(own.holding, undefined);
    assert.equal(next(), 1000);
  });

  it('does not wait for a world that it has seen when what it would publish is another version', () => {
    const earlier = { ...changed, now: { ...changed.now, lease: { ...OWN, revision: '19' } } };
    const { own } = applyOutcome(
      held(),
      { kind: 'publish', lease: OWN },
      { kind: 'publish', result: earlier },
      occasion(),
    );
    assert.deepEqual(own.answered, held().answered);
  });

  it('tries a keep-alive again soon, then more rarely', () => {
    let own = held();
    const delays: number[] = [];
    for (let turn = 0; turn < 7; turn++) {
      const command: Command = { kind: 'keep-alive', etcdLeaseId: '1' as EtcdLeaseId };
      const result = applyOutcome(own, command, { kind: 'failed', error: new Error('x') }, occasion());
      assert.deepEqual(kinds(result.notes), ['failed-renewal', 'failed']);
      own = result.own;
      delays.push((own.holding?.keepAliveAtMs ?? 0) - NOW);
    }
    assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  });
});

describe('retryNow', () => {
  it('has a lease sought at once after failures, and keeps to a pause after a lost race', () => {
    const own = retryNow(seeking({ failures: 3, notBeforeMs: NOW + 8000, wishes: [OWN] }), NOW);
    assert.deepEqual(own, seeking({ notBeforeMs: NOW, wishes: [OWN] }));
    const raced = seeking({ races: 2, notBeforeMs: NOW + 40 });
    assert.equal(retryNow(raced, NOW), raced);
  });

  it('has what failed of a lease tried at once, and nothing else', () => {
    const later = { keepAliveAtMs: NOW + 20_000, rewriteAtMs: NOW + 30_000 };
    const after = (failed: Partial<Holding>): Holding | undefined =>
      retryNow(held({ wishes: [OWN] }, { ...later, ...failed }), NOW).holding;
    assert.deepEqual(after({}), holdingOf(later));
    assert.deepEqual(after({ failedKeepAlives: 2 }), holdingOf({ ...later, failedKeepAlives: 2, keepAliveAtMs: NOW }));
    assert.deepEqual(after({ failedRewrites: 2 }), holdingOf({ ...later, failedRewrites: 0, rewriteAtMs: NOW }));
    assert.deepEqual(retryNow(held({ wishes: [OWN] }, { failedKeepAlives: 1 }), NOW).wishes, [OWN]);
  });
});

describe('decide and applyOutcome together', () => {
  type Step =
    | { readonly kind: 'world'; readonly world: number }
    | { readonly kind: 'time'; readonly ms: number }
    | { readonly kind: 'wish'; readonly wish: number };

  const leases = [
    OWN,
    { ...OWN, revision: '21', attributes: attributesOf(9) },
    { ...OWN, revision: '22', etcdLeaseId: '99' as EtcdLeaseId },
    { ...OWN, revision: '23', etcdLeaseId: undefined, isReservation: true },
    leaseRecord(2, { subnets: '10.5.0.0-20', revision: 3 }),
    leaseRecord(2, { subnets: '10.5.0.0-20', revision: 50 }),
    leaseRecord(7, { subnets: '10.9.7.0-24', host: 1, revision: 24 }),
    leaseRecord(3),
  ];
  const worlds = fc.record({
    chosen: fc.subarray(leases),
    isBad: fc.boolean(),
    epoch: fc.integer({ min: 1, max: 3 }),
    revision: fc.integer({ min: 1, max: 60 }),
  });
  const outcomes = fc.constantFrom('good', 'changed', 'gone', 'failed', 'taken', 'rival');

  function outcomeOf(command: Command, what: string, attributes: LeaseAttributes): Outcome {
    const now = { revision: '45', lease: { ...OWN, revision: '45' }, bad: undefined };
    if (what === 'failed' || command.kind === 'wait') return { kind: 'failed', error: new Error('x') };
    const isGood = what === 'good' || what === 'rival';
    switch (command.kind) {
      case 'keep-alive':
        return { kind: 'keep-alive', result: isGood ? DAY : undefined };
      case 'delete':
        return { kind: 'delete', result: isGood ? 'deleted' : 'changed' };
      case 'reuse':
      case 'publish': {
        const { kind, lease } = command;
        if (isGood) return { kind, result: { outcome: 'updated', lease: { ...lease, attributes, revision: '46' } } };
        const lost = { revision: '45', lease: undefined, bad: undefined };
        return { kind, result: { outcome: 'changed', now: what === 'gone' ? lost : now } };
      }
      case 'create': {
        if (!isGood)
          return { kind: 'create', result: { outcome: 'taken', revision: what === 'gone' ? undefined : '45' } };
        const lease = { ...leaseRecord(1, { revision: 47 }), ...command.subnets, attributes };
        const rival = { ...leaseRecord(2, { revision: 3 }), key: 'older', subnet: lease.subnet };
        const known = what === 'rival' ? [lease, rival] : [lease];
        return {
          kind: 'create',
          result: { outcome: 'created', lease, snapshot: { revision: '47', leases: known, bad: [] } },
        };
      }
    }
  }

  it('never asks without end, and always holds, waits for a time or waits for a world', () => {
    const step: fc.Arbitrary<Step> = fc.oneof(
      fc.record({ kind: fc.constant('world' as const), world: fc.nat(9) }),
      fc.record({ kind: fc.constant('time' as const), ms: fc.integer({ min: 0, max: 4_000_000 }) }),
      fc.record({ kind: fc.constant('wish' as const), wish: fc.nat(3) }),
    );
    fc.assert(
      fc.property(
        fc.array(worlds, { minLength: 10, maxLength: 10 }),
        fc.array(step, { maxLength: 40 }),
        fc.array(outcomes, { minLength: 1, maxLength: 40 }),
        (parts, steps, results) => {
          let own = seeking();
          let world: World | undefined;
          let nowMs = NOW;
          let asked = 0;
          for (const each of [...steps, { kind: 'time', ms: 0 } as const]) {
            if (each.kind === 'world') {
              const { chosen, isBad, epoch, revision } = parts[each.world] ?? {
                chosen: [],
                isBad: false,
                epoch: 1,
                revision: 1,
              };
              world = worldOf(chosen, { epoch, revision, bad: isBad ? [badEntry(OWN.key, 33)] : [] });
            } else if (each.kind === 'time') nowMs += each.ms;
            else if (each.wish === 0) own = { ...own, network: MOVED };
            else if (each.wish === 1) own = { ...own, network: network() };
            else own = { ...own, attributes: attributesOf(1, { backendType: `t${each.wish}` }) };
            // Everything that can be asked in one instant: each answer, bad or good, has to bring it nearer to a wait.
            for (let turn = 0; ; turn++) {
              assert.ok(turn < 12, 'requests without end');
              const { command, own: next } = decide(world, own, nowMs, random);
              own = next;
              if (command.kind === 'wait') {
                assert.ok(command.untilMs > nowMs, 'waits for what is past');
                const isFinite = Number.isFinite(command.untilMs);
                const { holding, answered } = own;
                const isOutdated =
                  world?.epoch === answered.epoch && BigInt(world.revision) < BigInt(answered.revision);
                assert.ok(isFinite || world === undefined || isOutdated || holding?.lease.isReservation === true);
                break;
              }
              const outcome = outcomeOf(command, results[asked++ % results.length] ?? 'good', own.attributes);
              own = applyOutcome(
                own,
                command,
                outcome,
                occasion({ epoch: world?.epoch ?? 0, sentAtMs: nowMs, nowMs, attributes: own.attributes }),
              ).own;
            }
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});
