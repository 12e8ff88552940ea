import assert from 'node:assert/strict';
import type { IEvent, IKeyValue } from 'etcd3/lib/rpc.js';
import fc from 'fast-check';
import { layoutKeys } from '../../../src/etcd/endpoints.js';
import { applyEvents, buildWorld } from '../../../src/etcd/world-builder.js';
import { type World, changedKeys } from '../../../src/lease/world.js';
import { finish } from '../../support/steps.js';

const KEYS = layoutKeys('/n');
const LISTING = { epoch: 1, revision: '100', clusterId: '7' };
const VALUE = '{"PublicIP":"192.0.2.2"}';

function entry(key: string, value = VALUE, revision = 10): IKeyValue {
  return {
    key: Buffer.from(`/n/${key}`),
    value: Buffer.from(value),
    create_revision: '5',
    mod_revision: String(revision),
    version: '1',
    lease: '255',
  };
}

/** As the package delivers them: with the names of the protocol file in capitals. */
const put = (...args: Parameters<typeof entry>): IEvent =>
  ({ type: 'PUT', kv: entry(...args), prev_kv: undefined }) as unknown as IEvent;
const drop = (key: string, revision: number): IEvent =>
  ({ type: 'DELETE', kv: { ...entry(key, '', revision), create_revision: '0' } }) as unknown as IEvent;

const build = (...entries: readonly IKeyValue[]): World => finish(buildWorld(KEYS, entries, LISTING));

describe('a world from a listing', () => {
  it('has configuration and leases, and nothing that lies between or beside', () => {
    const world = build(
      entry('config', '{}', 3),
      entry('other', VALUE),
      entry('subnets/10.5.2.0-24'),
      entry('subnets/10.5.3.0-24', 'x'),
      entry('subnets', VALUE),
    );
    assert.deepEqual(world.config, { text: '{}', revision: '3', createdAt: '5' });
    assert.deepEqual([...world.leases.keys()], ['10.5.2.0-24']);
    const lease = world.leases.get('10.5.2.0-24');
    assert.deepEqual([lease?.revision, lease?.createdAt, lease?.etcdLeaseId], ['10', '5', 'ff']);
    assert.deepEqual([...world.bad.keys()], ['10.5.3.0-24']);
    assert.deepEqual([world.epoch, world.revision, world.clusterId], [1, '100', '7']);
  });

  for (const [title, name, value, reason, hasSubnets] of [
    [
      'a value of 20 KB',
      '10.5.2.0-24',
      `{"PublicIP":"192.0.2.2","BackendData":"${'x'.repeat(20_000)}"}`,
      /20\d\d\d bytes/,
      true,
    ],
    [
      '5 000 nested arrays',
      '10.5.2.0-24',
      `{"BackendData":${'['.repeat(5000)}${']'.repeat(5000)}}`,
      /nested more than/,
      true,
    ],
    [
      '5 000 nested objects',
      '10.5.2.0-24',
      `{"BackendData":${'{"a":'.repeat(2000)}1${'}'.repeat(2000)}}`,
      /nested more than/,
      true,
    ],
    [
      'a type of 1 000 characters',
      '10.5.2.0-24',
      `{"BackendType":"${'x'.repeat(1000)}"}`,
      /BackendType has 1000/,
      true,
    ],
    ['a name of 5 000 characters', `${'x'.repeat(5000)}10.5.2.0-24`, VALUE, /its name has 5011 characters/, false],
    ['bytes that are no text', '10.5.2.0-24', '\0\ufffd', /not JSON/, true],
    ['no value', '10.5.2.0-24', '', /not JSON/, true],
    ['a name that is none', 'lock', VALUE, /does not end in/, false],
  ] as const) {
    it(`skips ${title}, with a reason that is short`, () => {
      const world = build(entry(`subnets/${name}`, value));
      assert.equal(world.leases.size, 0);
      const bad = world.bad.get(name);
      assert.match(bad?.reason ?? '', reason);
      assert.ok((bad?.reason.length ?? 0) < 300, bad?.reason);
      assert.equal(bad?.subnets !== undefined, hasSubnets, 'what its name says is taken all the same');
    });
  }

  it('does not mistake brackets in a text for nesting', () => {
    const world = build(
      entry('subnets/10.5.2.0-24', `{"PublicIP":"192.0.2.2","BackendData":"${'[{\\"'.repeat(1000)}"}`),
    );
    assert.equal(world.bad.size, 0);
  });

  it('ends on no value whatever', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), fc.string(), (value, name) => {
        const world = build(entry(`subnets/${name}`, value));
        assert.equal(world.leases.size + world.bad.size, 1);
      }),
      { numRuns: 500 },
    );
  });

  it('may rest at each entry', () => {
    const entries = [entry('config', '{}', 3), entry('subnets/10.5.2.0-24'), entry('other', VALUE)];
    assert.equal([...buildWorld(KEYS, entries, LISTING)].length, entries.length);
  });

  it('takes 50 000 keys of junk', () => {
    const junk = Array.from({ length: 50_000 }, (_, n) => entry(`subnets/junk-${n}`, 'x'));
    const world = build(...junk.slice(0, 0), ...[entry('subnets/10.5.2.0-24')]);
    const full = build(...junk, entry('subnets/10.5.2.0-24'));
    assert.equal(full.bad.size, 50_000);
    assert.deepEqual(full.leases, world.leases);
  });
});

describe('a world after events', () => {
  const before = build(entry('config', '{}', 3), entry('subnets/10.5.2.0-24'), entry('subnets/10.5.3.0-24', 'x', 11));

  it('has what was put and lacks what was deleted, at the revision of the last one', () => {
    const events = [
      put('config', 'new', 101),
      put('subnets/10.5.4.0-24', VALUE, 102),
      put('subnets/10.5.3.0-24', VALUE, 103),
      put('subnets/10.5.4.0-24', 'x', 104),
      drop('subnets/10.5.2.0-24', 105),
    ];
    const world = applyEvents(KEYS, before, events);
    assert.equal(world.config?.text, 'new');
    assert.deepEqual([...world.leases.keys()], ['10.5.3.0-24']);
    assert.deepEqual([...world.bad.keys()], ['10.5.4.0-24']);
    assert.equal(world.revision, '105');
    assert.deepEqual([...before.leases.keys()], ['10.5.2.0-24'], 'the former world is as it was');
    assert.equal(applyEvents(KEYS, world, [drop('config', 106)]).config, undefined);
    assert.deepEqual(applyEvents(KEYS, world, [drop('subnets/10.5.4.0-24', 106)]).bad.size, 0);
  });

  it('is the same object if they say nothing new', () => {
    const again = [put('config', '{}', 3), put('subnets/10.5.2.0-24'), put('subnets/10.5.3.0-24', 'x', 11)];
    assert.equal(applyEvents(KEYS, before, again), before);
    assert.equal(applyEvents(KEYS, before, [drop('subnets/10.5.9.0-24', 50)]), before);
    assert.equal(applyEvents(KEYS, before, [put('other', VALUE, 50)]), before);
  });

  it('keeps the objects of leases that are as they were', () => {
    const world = applyEvents(KEYS, before, [put('subnets/10.5.2.0-24'), put('subnets/10.5.4.0-24', VALUE, 101)]);
    assert.equal(world.leases.get('10.5.2.0-24'), before.leases.get('10.5.2.0-24'));
  });

  it('tells where it differs from the world before, and from no other', () => {
    const world = applyEvents(KEYS, before, [put('config', 'new', 101), put('subnets/10.5.4.0-24', VALUE, 102)]);
    assert.deepEqual(changedKeys(before, world), new Set(['10.5.4.0-24']));
    assert.equal(changedKeys({ ...before }, world), undefined);
    assert.equal(changedKeys(undefined, world), undefined);
    assert.equal(changedKeys(before, before), undefined);
  });

  // A watch resumes at the last witness: everything after it is heard a second time.
  it('is in the end the same however much of the history is heard again', () => {
    const change = fc.record({
      n: fc.integer({ min: 1, max: 5 }),
      what: fc.constantFrom('put', 'bad', 'drop', 'config', 'no-config'),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), fc.nat(), fc.nat(), (changes, cutAt, backTo) => {
        const events = changes.map(({ n, what }, index) => {
          const revision = 101 + index;
          const key = `subnets/10.5.${n}.0-24`;
          if (what === 'drop') return drop(key, revision);
          if (what === 'config') return put('config', `{"n":${n}}`, revision);
          if (what === 'no-config') return drop('config', revision);
          return put(key, what === 'put' ? VALUE : 'x', revision);
        });
        const cut = cutAt % (events.length + 1);
        const heard = applyEvents(KEYS, before, events.slice(0, cut));
        const again = applyEvents(KEYS, heard, events.slice(backTo % (cut + 1)));
        assert.deepEqual(sorted(again), sorted(applyEvents(KEYS, before, events)));
        if (again === heard) return;
        const keys = changedKeys(heard, again);
        assert.ok(keys !== undefined);
        for (const key of [...heard.leases.keys(), ...heard.bad.keys(), ...again.leases.keys(), ...again.bad.keys()]) {
          const isSame = heard.leases.get(key) === again.leases.get(key) && heard.bad.get(key) === again.bad.get(key);
          assert.ok(isSame || keys.has(key), key);
        }
      }),
    );
  });
});

function sorted(world: World): object {
  return { ...world, leases: [...world.leases].sort(), bad: [...world.bad].sort() };
}
