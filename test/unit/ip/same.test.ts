import assert from 'node:assert/strict';
import { isSame } from '../../../src/ip/same.js';
import { ip, net } from '../../support/builders.js';

describe('isSame', () => {
  it('holds for equal addresses and prefixes, and where both are absent', () => {
    assert.equal(isSame(ip('192.0.2.1'), ip('192.0.2.1')), true);
    assert.equal(isSame(net('192.0.2.0/24'), net('192.0.2.0/24')), true);
    assert.equal(isSame(undefined, undefined), true);
  });

  it('does not hold for different ones, or where only one is absent', () => {
    assert.equal(isSame(ip('192.0.2.1'), ip('192.0.2.2')), false);
    assert.equal(isSame(net('192.0.2.0/24'), net('192.0.2.0/25')), false);
    assert.equal(isSame(ip('192.0.2.1'), undefined), false);
    assert.equal(isSame(undefined, ip('192.0.2.1')), false);
  });
});
