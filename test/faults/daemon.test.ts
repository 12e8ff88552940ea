import assert from 'node:assert/strict';
import { eventually, waitFor } from '../support/wait.js';
import { assertNothingLost, claims, publicIpOf } from './bed.js';
import { scenario } from './scenario.js';

scenario(
  'daemon-killed',
  { short: 'vxlan', timeoutMs: 600_000 },
  async ({ bed: make, backend, isShort, recovered }) => {
    const bed = await make();
    const [daemon, key, subnet] = [bed.daemon(1), bed.keyOf(1), bed.subnetOf(1)];
    const traffic = await bed.traffic(async () => {
      for (let round = 0; round < (isShort ? 10 : 100); round++) {
        await daemon.kill();
        const sinceMs = performance.now();
        // In turn as early as it can be, and as soon as it is ready: each leaves other things half done.
        if (round % 2 === 0) {
          daemon.start();
          await daemon.waitForLog(/lease acquired|status server listens/);
        } else {
          await daemon.startAndWait();
          await bed.waitUntilReady([1]);
          if (backend === 'udp') await bed.waitUntilConnected();
          recovered(sinceMs, 10_000);
        }
      }
      await bed.waitUntilReady();
      await bed.waitUntilConnected();
    });
    // The kernel carries vxlan without a daemon; the packets of udp wait for the next one.
    if (backend === 'vxlan') assertNothingLost(traffic);
    assert.equal(bed.subnetOf(1), subnet);
    assert.deepEqual((await bed.leases()).map((entry) => entry.key).sort(), [1, 2, 3].map((n) => bed.keyOf(n)).sort());
    assert.equal(publicIpOf((await bed.etcd.get(key))?.value ?? ''), bed.rig.host(1).publicIp);
    await eventually('no etcd lease without a key', async () => {
      assert.deepEqual(await bed.etcd.orphanLeaseIds(), []);
    });
  },
);

scenario('daemon-stopped', {}, async ({ bed: make, recovered }) => {
  const bed = await make({ hosts: 4, start: [1, 2, 3], config: { SubnetMin: '10.5.1.0', SubnetMax: '10.5.3.0' } });
  const subnet = bed.subnetOf(1);
  const traffic = await bed.traffic(
    async () => {
      await bed.daemon(1).suspend();
      // What the end of its TTL, a day later, would do.
      const leaseId = (await bed.etcd.get(bed.keyOf(1)))?.leaseId;
      assert.ok(leaseId !== undefined);
      await bed.etcd.ctl(['lease', 'revoke', leaseId]);
      await bed.startHost(4);
      assert.equal(bed.subnetOf(4), subnet);
      const mark = bed.daemon(1).program.mark();
      bed.daemon(1).resume();
      const sinceMs = performance.now();
      await waitFor(async () => !claims(await bed.daemon(1).status(), subnet), { what: 'host 1 to yield' });
      recovered(sinceMs, 10_000);
      await bed.daemon(1).waitForLog(/ error .* hint=/, 10_000, mark);
      await bed.observe(1000);
      assert.ok(claims(await bed.daemon(4).status(), subnet), bed.daemon(4).log);
    },
    { among: [2, 3] },
  );
  assertNothingLost(traffic);
  const holders = (await bed.leases()).filter((entry) => entry.key === bed.keyOf(4));
  assert.deepEqual(
    holders.map(({ value }) => publicIpOf(value)),
    [bed.rig.host(4).publicIp],
  );
});
