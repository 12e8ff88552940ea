import assert from 'node:assert/strict';
import { eventually } from '../support/wait.js';
import { type FaultBed, assertNothingLost, publicIpOf } from './bed.js';
import { scenario } from './scenario.js';

const MINE = '10.5.8.0-23';
const THEIRS = '10.5.9.0-24';
const STRANGER = '198.51.100.90';

/** Subnets of 512 addresses, among which a lease of a cluster that had smaller ones was left. */
const CONFIG = { SubnetLen: 23, SubnetMin: '10.5.2.0', SubnetMax: '10.5.30.0' };

async function putLease(bed: FaultBed, name: string, publicIp: string): Promise<void> {
  await bed.etcd.put(bed.leaseKey(name), bed.leaseValue(publicIp), await bed.etcd.grantLease(86_400));
}

scenario('lease-overlap', { short: 'vxlan' }, async ({ bed: make, recovered }) => {
  const bed = await make({ start: [2, 3], config: CONFIG });
  await putLease(bed, THEIRS, STRANGER);
  await putLease(bed, MINE, bed.rig.host(1).publicIp);
  const traffic = await bed.traffic(async () => {
    const sinceMs = performance.now();
    await bed.startHost(1);
    await eventually('host 1 with a subnet that overlaps none', async () => {
      const keys = (await bed.leases()).map(({ key, value }) => [key, publicIpOf(value)] as const);
      assert.ok(!keys.some(([key]) => key === bed.leaseKey(MINE)), 'the key that was created later is given up');
      assert.ok(keys.some(([key, owner]) => key === bed.leaseKey(THEIRS) && owner === STRANGER));
      assert.equal((await bed.daemon(1).status()).lease?.state, 'held');
    });
    recovered(sinceMs, 10_000);
    assert.match(bed.daemon(1).log, / (warn |error) .*overlap/);
    await bed.waitUntilReady();
  });
  assertNothingLost(traffic);

  // The other way round, the owner of the older key stays, and what was put into its subnet later is not routed.
  const subnet = bed.subnetOf(1);
  const inside = subnet.replace(/\.1\/23$/, '.0-24');
  await putLease(bed, inside, STRANGER);
  await bed.waitUntilFollowing(2);
  await bed.waitUntilFollowing(1);
  assert.equal(bed.subnetOf(1), subnet);
  assert.equal(await bed.routeTo(2, `${inside.replace(/\.0-24$/, '')}.9`), 'none');
});
