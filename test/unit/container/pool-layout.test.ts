import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PoolLayout, addressesIn, maskOf } from '../../../src/container/pool-layout.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { ip, net } from '../../support/builders.js';

const layoutOf = (subnet: string, range = subnet): PoolLayout =>
  new PoolLayout({ subnet: net(subnet), range: net(range) });

describe('PoolLayout', () => {
  for (const [range, size, count] of [
    ['10.0.0.0/8', 64, 1024],
    ['10.1.0.0/16', 64, 1024],
    ['10.1.0.0/22', 64, 16],
    ['10.1.1.0/24', 16, 16],
    ['10.1.1.0/25', 8, 16],
    ['10.1.1.0/26', 4, 16],
    ['10.1.1.0/28', 4, 4],
    ['10.1.1.0/30', 4, 1],
    ['10.1.1.0/31', 2, 1],
    ['10.1.1.1/32', 1, 1],
    ['fd00::/64', 64, 1024],
    ['fd00::/120', 16, 16],
    ['::/0', 64, 1024],
  ] as const) {
    it(`cuts ${range} into ${count} blocks of ${size}`, () => {
      const layout = layoutOf(range);
      assert.deepEqual([layout.blockSize, layout.blockCount], [size, count]);
    });
  }

  const range = fc
    .tuple(fc.constantFrom(4 as const, 6 as const), fc.bigInt(0n, (1n << 128n) - 1n), fc.nat(128))
    .map(([family, value, n]) => Prefix.of(IpAddress.fromValue(family, value), n % (family === 4 ? 33 : 129)));

  it('has blocks beside each other in the range, each of which knows its addresses', () => {
    fc.assert(
      fc.property(range, fc.nat(), fc.nat(), (range, n, m) => {
        const layout = new PoolLayout({ subnet: range, range });
        const index = n % layout.blockCount;
        const block = layout.block(index);
        assert.equal(Number(block.size), layout.blockSize);
        assert.ok(range.covers(block) && layout.isBlock(block));
        assert.equal(block.address.value - range.address.value, BigInt(index * layout.blockSize));
        const address = block.address.add(BigInt(m % layout.blockSize));
        assert.ok(block.equals(layout.blockOf(address)));
        assert.deepEqual(addressesIn(block, maskOf(block, address)).map(String), [address.toString()]);
      }),
    );
  });

  it('has no block for addresses outside of the range, or too far into a large one', () => {
    const layout = layoutOf('10.0.0.0/8', '10.2.0.0/15');
    assert.equal(layout.blockOf(ip('10.1.255.255')), undefined);
    assert.equal(layout.blockOf(ip('10.2.255.255'))?.toString(), '10.2.255.192/26');
    assert.equal(layout.blockOf(ip('10.3.0.0')), undefined);
    assert.equal(layout.blockOf(ip('fd00::1')), undefined);
    assert.equal(layout.isBlock(net('10.2.0.0/27')), false);
  });

  for (const [subnet, gateway, first, last, unusable] of [
    ['10.1.1.0/24', '10.1.1.1', '10.1.1.2', '10.1.1.254', ['10.1.1.0', '10.1.1.255', '10.1.2.1']],
    ['10.1.1.4/30', '10.1.1.5', '10.1.1.6', '10.1.1.6', ['10.1.1.4', '10.1.1.7']],
    ['10.1.1.4/31', '10.1.1.4', '10.1.1.5', '10.1.1.5', ['10.1.1.6']],
    ['10.1.1.4/32', '10.1.1.4', undefined, undefined, ['10.1.1.5']],
    ['fd00::/124', 'fd00::1', 'fd00::2', 'fd00::f', ['fd00::', 'fd00::10']],
    ['fd00::2/127', 'fd00::2', 'fd00::3', 'fd00::3', ['fd00::1']],
  ] as const) {
    it(`gives ${first ?? 'nothing'}…${last ?? ''} of ${subnet}`, () => {
      const layout = layoutOf(subnet);
      const givable = Array.from({ length: layout.blockCount }, (_, index) => layout.block(index)).flatMap((block) =>
        addressesIn(block, layout.givable(block)).map(String),
      );
      assert.equal(layout.gateway.toString(), gateway);
      assert.deepEqual([givable[0], givable.at(-1)], [first, last]);
      for (const each of unusable) assert.equal(layout.isUsable(ip(each)), false, each);
      assert.equal(layout.isUsable(layout.gateway), true);
    });
  }
});
