import assert from 'node:assert/strict';
import fc from 'fast-check';
import { areAttributesEqual } from '../../../src/lease/attributes.js';
import type { Lease } from '../../../src/lease/lease.js';
import { type OwnIdentity, PeerTable } from '../../../src/lease/peer-table.js';
import { isAfter } from '../../../src/lease/store.js';
import { ip, lease } from '../../support/builders.js';
import { subnetsOf } from '../../support/store-contract.js';

const nobody: OwnIdentity = { subnets: undefined, publicIp: ip('0.0.0.0') };
const key = (n: number, which = ''): string => `${which}10.5.${n}.0-24`;
const peer = (n: number, host = n, revision = 1): Lease => ({
  ...lease(n, { attributes: { publicIp: ip(`192.0.2.${host}`) } }),
  revision: String(revision),
});

/** What a table with these leases has to give, computed from all of them. */
function peersOf(leases: ReadonlyMap<string, Lease>, own: OwnIdentity): Lease[] {
  const counting = new Map<string, Lease>();
  for (const each of leases.values()) {
    const isOwn =
      each.subnet.equals(own.subnets?.subnet) ||
      (!own.publicIp.isUnspecified && own.publicIp.equals(each.attributes.publicIp));
    const other = counting.get(each.subnet.toString());
    if (isOwn || (other !== undefined && !isAfter(each.revision, other.revision))) continue;
    counting.set(each.subnet.toString(), each);
  }
  return [...counting.values()].sort((a, b) => a.subnet.compare(b.subnet));
}

/** The changes between two such lists, found by comparing every entry. */
function changesBetween(before: readonly Lease[], after: readonly Lease[]): string[] {
  const old = new Map(before.map((each) => [each.subnet.toString(), each]));
  const now = new Map(after.map((each) => [each.subnet.toString(), each]));
  const news = after.flatMap((each) => {
    const former = old.get(each.subnet.toString());
    if (former === undefined) return [`joined ${each.subnet.toString()}`];
    return areAttributesEqual(former.attributes, each.attributes) ? [] : [`changed ${each.subnet.toString()}`];
  });
  const left = before.filter((each) => !now.has(each.subnet.toString()));
  return [...news, ...left.map((each) => `left ${each.subnet.toString()}`)];
}

function take(table: PeerTable): string[] {
  return table.takeChanges().map(({ before, after }) => {
    const what = before === undefined ? 'joined' : after === undefined ? 'left' : 'changed';
    return `${what} ${(after ?? before)?.subnet.toString() ?? ''}`;
  });
}

describe('PeerTable', () => {
  it('gives the same list until something changes', () => {
    const table = new PeerTable(nobody);
    table.put(key(2), peer(2));
    const { peers } = table;
    assert.equal(table.peers, peers);
    table.put(key(3), peer(3));
    assert.deepEqual([peers.length, table.peers.length], [1, 2]);
    assert.equal(table.peers[0], peers[0]);
  });

  it('tells of a change once, however it came about', () => {
    const table = new PeerTable(nobody);
    table.put(key(2), peer(2));
    table.put(key(3), peer(3));
    assert.deepEqual(take(table), ['joined 10.5.2.0/24', 'joined 10.5.3.0/24']);
    assert.deepEqual(take(table), []);
    table.delete(key(2));
    assert.equal(table.peers.length, 1);
    table.put(key(2), peer(2, 9, 2));
    table.delete(key(3));
    table.put(key(4), peer(4));
    table.delete(key(4));
    assert.deepEqual(take(table), ['changed 10.5.2.0/24', 'left 10.5.3.0/24']);
  });

  it('has in every state what a look at all leases would find, and tells of exactly the differences', () => {
    const n = fc.integer({ min: 2, max: 9 });
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ what: fc.constant('put'), n, which: fc.constantFrom('', 'a', 'b') }) },
      { weight: 4, arbitrary: fc.record({ what: fc.constant('delete'), n, which: fc.constantFrom('', 'a', 'b') }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant('own'), n, which: fc.constantFrom('', 'a') }) },
      { weight: 2, arbitrary: fc.record({ what: fc.constantFrom('look', 'take'), n, which: fc.constant('') }) },
    );
    const steps = fc.array(
      fc.tuple(step, fc.record({ host: fc.integer({ min: 2, max: 6 }), revision: fc.integer({ min: 1, max: 4 }) })),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(steps, (history) => {
        const table = new PeerTable(nobody);
        const leases = new Map<string, Lease>();
        let own = nobody;
        let told: Lease[] = [];
        const check = (): void => {
          const now = peersOf(leases, own);
          assert.deepEqual(take(table), changesBetween(told, now));
          told = now;
        };
        for (const [{ what, n: at, which }, { host, revision }] of history) {
          const name = key(at, which);
          if (what === 'put') {
            const put = peer(at, host, revision);
            table.put(name, put);
            leases.set(name, put);
          } else if (what === 'delete') {
            table.delete(name);
            leases.delete(name);
          } else if (what === 'own') {
            own = { subnets: which === '' ? undefined : subnetsOf(at), publicIp: ip(`192.0.2.${host}`) };
            table.setOwn(own);
          } else if (what === 'look') {
            assert.deepEqual(table.peers, peersOf(leases, own));
          } else {
            check();
          }
          assert.equal(table.has(name), leases.has(name));
        }
        check();
        assert.deepEqual(table.keys, [...leases.keys()]);
        const expected = peersOf(leases, own);
        assert.equal(table.peers.length, expected.length);
        for (const [index, each] of table.peers.entries()) assert.equal(each, expected[index]);
      }),
      { numRuns: 500 },
    );
  });
});
