import assert from 'node:assert/strict';
import type { ClusterNetwork } from '../../../../src/container/cluster-networks.js';
import { isOf, rangeLeft } from '../../../../src/ctl/doctor/range-left.js';
import type { ValueEntry } from '../../../../src/lease/store.js';
import type { AddressPoolStatus } from '../../../../src/observe/container-status.js';
import { ip, net } from '../../../support/builders.js';

const entry = {} as ValueEntry;

function pool(changes: Partial<AddressPoolStatus> = {}): AddressPoolStatus {
  const subnet = '192.0.2.0/24';
  const none = { blocks: [], uses: [], shared: [], seen: [] };
  return { id: '', network: subnet, subnet, range: '192.0.2.0/28', free: 0, ...none, ...changes };
}

/** A network of two hosts. */
function network(blocks: readonly string[], addresses: readonly string[] = []): ClusterNetwork {
  return {
    name: undefined,
    subnet: net('192.0.2.0/24'),
    record: undefined,
    hosts: ['h1', 'h2'],
    blocks: blocks.map((text) => ({ block: net(text), host: 'h2', own: 0n, used: [], entry })),
    addresses: addresses.map((text) => ({ address: ip(text), host: 'h2', kind: 'container' as const, entry })),
  };
}

describe('rangeLeft', () => {
  for (const [what, left, all, changes, of] of [
    // Without .0, which is the network's, and .1, the usual gateway.
    ['a range that nobody has anything of', 14, 14, {}, network([])],
    ['what this host has in its own blocks', 11, 14, { free: 1 }, network(['192.0.2.8/30'])],
    ['a block with the ends of the subnet that is leased', 12, 14, {}, network(['192.0.2.0/30'])],
    ['addresses that others have leased one by one', 13, 14, {}, network([], ['192.0.2.9'])],
    [
      'such an address in a leased block, which is not counted twice',
      10,
      14,
      {},
      network(['192.0.2.8/30'], ['192.0.2.9']),
    ],
    [
      'addresses of machines, of the gateway and of printers',
      12,
      14,
      { shared: ['192.0.2.1', '192.0.2.5'], seen: [{ address: '192.0.2.6', mac: '', seenAt: '' }] },
      network([]),
    ],
    ['addresses that lie outside of the range', 14, 14, { shared: ['192.0.2.254'] }, network([], ['192.0.2.200'])],
    ['the end of the subnet', 15, 15, { range: '192.0.2.240/28' }, network([])],
    ['nothing', 0, 14, {}, network(['192.0.2.0/30', '192.0.2.4/30', '192.0.2.8/30', '192.0.2.12/30'])],
  ] as const) {
    it(`counts ${what}`, () => {
      assert.deepEqual(rangeLeft(pool(changes), of), { left, all });
    });
  }

  it('counts the addresses that are given by themselves where these are spread', () => {
    const subnet = '2001:db8:0:1::/66';
    const properties = { 'ndp-proxy': 'true', 'shared-low-bits': '24' };
    const of: ClusterNetwork = {
      ...network(['2001:db8:0:1::/98'], ['2001:db8:0:1::4100:2', '2001:db8:0:1::4100:3']),
      subnet: net(subnet),
      record: { range: net(subnet), properties },
    };
    const shared = ['2001:db8:0:1::1'];
    const left = rangeLeft(pool({ network: subnet, subnet, range: subnet, free: 30, shared }), of);
    // In 1023 blocks that nobody has, and its own one; the one address of another host that a block could have given.
    assert.deepEqual(left, { left: 1023 * 64 - 1 + 30, all: 1024 * 64 });
  });

  it('belongs to a network by name and subnet', () => {
    const named: ClusterNetwork = { ...network([]), name: 'lan' };
    assert.deepEqual(
      [isOf(network([]), pool()), isOf(named, pool()), isOf(named, pool({ network: 'lan' }))],
      [true, false, true],
    );
    assert.equal(isOf(named, pool({ network: 'lan', subnet: '198.51.100.0/24' })), false);
  });
});
