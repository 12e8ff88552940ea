import assert from 'node:assert/strict';
import { TokenBucket } from '../../../src/dataplane/token-bucket.js';

describe('TokenBucket', () => {
  let now = 5000;
  const takeAll = (bucket: TokenBucket): number => {
    let taken = 0;
    while (bucket.take()) taken++;
    return taken;
  };

  it('lets a burst through, then the steady rate, and saves up no more than a burst', () => {
    const bucket = new TokenBucket(100, 20, () => now);
    assert.equal(takeAll(bucket), 20);
    now += 50;
    assert.equal(takeAll(bucket), 5);
    now += 9;
    assert.equal(takeAll(bucket), 0);
    now += 1;
    assert.equal(takeAll(bucket), 1);
    now += 3_600_000;
    assert.equal(takeAll(bucket), 20);
  });
});
