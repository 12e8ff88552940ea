import assert from 'node:assert/strict';
import { configImpact } from '../../../src/ctl/config-impact.js';
import { type CheckedConfig, checkConfig } from '../../../src/ctl/config-validation.js';
import type { LeaseRecord } from '../../../src/lease/record.js';
import { lease } from '../../support/builders.js';

const PLAIN = { Network: '10.5.0.0/16' };
const DUAL = { ...PLAIN, EnableIPv6: true, IPv6Network: 'fd00:10:5::/48', Backend: { Type: 'vxlan' } };

const config = (value: object): CheckedConfig => checkConfig(JSON.stringify(value));

function record(n: number, changes: Parameters<typeof lease>[1] & { isReservation?: boolean } = {}): LeaseRecord {
  const { isReservation = false, ...options } = changes;
  return { ...lease(n, options), key: `10.5.${n}.0-24`, etcdLeaseId: undefined, createdAt: '1', isReservation };
}

function impacts(before: object, after: object, leases: readonly LeaseRecord[] = []): string[] {
  return configImpact(config(before), config(after), leases).map(({ kind, message }) => `${kind}: ${message}`);
}

describe('configImpact', () => {
  it('finds nothing where only the spelling differs', () => {
    const spelled = { network: '10.5.9.9/16', SubnetLen: 24, Backend: { type: 'UDP' } };
    assert.deepEqual(impacts(PLAIN, spelled, [record(1)]), []);
  });

  it('tells a change of backend with the MTU and the hosts that follow', () => {
    assert.deepEqual(
      impacts(PLAIN, { ...PLAIN, Backend: { Type: 'vxlan' } }, [record(3), record(4, { type: 'vxlan' })]),
      [
        'backend: backend: udp → vxlan; hosts change over one after the other',
        'mtu: MTU of containers where the underlay has 1500: 1472 → 1450; restart Docker on every host, and containers with other runtimes',
        'backend-switch: host 192.0.2.3 (10.5.3.0/24) changes from udp to vxlan',
      ],
    );
  });

  it('expects a host with alloc to publish what a host with udp does', () => {
    const found = impacts(PLAIN, { ...PLAIN, Backend: { Type: 'alloc' } }, [record(3), record(4, { type: 'vxlan' })]);
    assert.deepEqual(
      found.filter((text) => text.startsWith('backend-switch')),
      ['backend-switch: host 192.0.2.4 (10.5.4.0/24) changes from vxlan to alloc'],
    );
  });

  it('tells changed options of a backend that stays', () => {
    const vxlan = (options: object): object => ({ ...PLAIN, Backend: { Type: 'vxlan', ...options } });
    assert.deepEqual(impacts(vxlan({ VNI: 1 }), vxlan({ VNI: 2, Port: 4789 }), [record(3, { type: 'vxlan' })]), [
      'backend-option: Backend vni: 1 → 2',
      'backend-option: Backend port: its default → 4789',
    ]);
  });

  it('tells hosts and reservations outside a smaller range apart', () => {
    const found = impacts(PLAIN, { ...PLAIN, SubnetMax: '10.5.100.0' }, [
      record(100),
      record(101),
      record(102, { isReservation: true }),
    ]);
    assert.equal(found.length, 3);
    assert.match(found[0] ?? '', /^range: subnets: \/24 from 10\.5\.1\.0 to 10\.5\.255\.0 → .* to 10\.5\.100\.0$/);
    assert.match(found[1] ?? '', /^subnet-lost: host 192\.0\.2\.101 loses 10\.5\.101\.0\/24/);
    assert.match(found[2] ?? '', /^reservation-lost: the reservation of 10\.5\.102\.0\/24/);
  });

  it('lets hosts keep their IPv4 subnet when IPv6 comes and goes', () => {
    const single = { ...PLAIN, Backend: { Type: 'vxlan' } };
    const on = impacts(single, DUAL, [record(3, { type: 'vxlan' })]);
    assert.ok(on.includes('subnet-extended: host 192.0.2.3 keeps 10.5.3.0/24 and gets an IPv6 subnet'), on.join('\n'));
    const off = impacts(DUAL, single, [record(3, { type: 'vxlan', isDualStack: true })]);
    assert.ok(
      off.includes('subnet-extended: host 192.0.2.3 keeps 10.5.3.0/24 and gives its IPv6 subnet up'),
      off.join('\n'),
    );
  });

  it('warns of fewer subnets than leases', () => {
    const leases = [1, 2, 3].map((n) => record(n));
    const found = impacts(PLAIN, { ...PLAIN, SubnetMin: '10.5.1.0', SubnetMax: '10.5.2.0' }, leases);
    assert.ok(
      found.includes('too-small: there are 2 subnets for 3 leases; some hosts will find none'),
      found.join('\n'),
    );
  });
});
