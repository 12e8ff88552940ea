import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { KEPT_CAPABILITIES, parseCapabilities } from '../../../src/sys/capabilities.js';

describe('capabilities', () => {
  it('are read from the status of a thread', () => {
    const text =
      'Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000003\nCapBnd:\t000001ffffffffff\n';
    assert.deepEqual(parseCapabilities(text), {
      inheritable: 1n,
      permitted: 2n,
      effective: 3n,
      bounding: 0x1ff_ffff_ffffn,
    });
    assert.ok(parseCapabilities(readFileSync('/proc/self/status', 'utf8')).bounding >= 0n);
  });

  it('that are kept are those of the unit, and ports below 1024', () => {
    const unit = readFileSync(new URL('../../../systemd/tsflanneld.service', import.meta.url), 'utf8');
    const granted = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1]?.split(' ') ?? [];
    // include/uapi/linux/capability.h
    const numbers: Record<string, bigint> = { CAP_NET_ADMIN: 12n, CAP_NET_RAW: 13n, CAP_SYS_NICE: 23n, CAP_BPF: 39n };
    const bits = granted.map((name) => 1n << (numbers[name] ?? 63n));
    assert.equal(
      bits.reduce((set, bit) => set | bit, 1n << 10n),
      KEPT_CAPABILITIES,
    );
  });
});
