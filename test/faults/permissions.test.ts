import assert from 'node:assert/strict';
import { countLines } from '../support/overlay.js';
import { waitFor } from '../support/wait.js';
import { type FaultBed, assertNothingLost, requestsDuring } from './bed.js';
import { type Scenario, scenario } from './scenario.js';

const USER = 'flannel';
const PASSWORD = 'flannel-secret';

type Right = 'readwrite' | 'read';

/** Gives the role of the daemons' user a right to everything, in place of the one it had. */
async function grant(bed: Pick<FaultBed, 'etcd'>, right: Right): Promise<void> {
  await bed.etcd.ctl(['role', 'grant-permission', '--prefix', USER, right, '/']);
}

async function revoke(bed: FaultBed): Promise<void> {
  await bed.etcd.ctl(['role', 'revoke-permission', '--prefix', USER, '/']);
}

/** A bed whose daemons log in to etcd. */
async function guardedBed(make: Scenario['bed']): Promise<FaultBed> {
  return make({
    args: [`--etcd-username=${USER}`],
    env: { FLANNELD_ETCD_PASSWORD: PASSWORD },
    prepare: async (rig) => {
      await rig.etcd.ctl(['user', 'add', `${USER}:${PASSWORD}`]);
      await rig.etcd.ctl(['role', 'add', USER]);
      await rig.etcd.ctl(['user', 'grant-role', USER, USER]);
      await grant(rig, 'readwrite');
      await rig.etcd.enableAuthentication();
    },
  });
}

async function waitForNoOrphans(bed: FaultBed): Promise<void> {
  let left: string[] = [];
  await waitFor(async () => (left = await bed.etcd.orphanLeaseIds()).length === 0, {
    what: 'no etcd lease without a key',
    timeoutMs: 5000,
  }).catch((error: unknown) => {
    throw new Error(`${left.length} etcd leases without a key`, { cause: error });
  });
}

const WINDOW_MS = 10_000;

/** Whoever deletes a key sends its host away, so the packets of the other two are counted. */
const DELETED = 1;
const OTHERS = [2, 3] as const;

scenario('rights-revoked', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const bed = await guardedBed(make);
  const traffic = await bed.traffic(
    async () => {
      const marks = bed.marks();
      const requests = await requestsDuring(bed, async () => {
        await revoke(bed);
        await bed.etcd.delete(bed.keyOf(DELETED));
        for (const number of bed.started) {
          // A watch that is open goes on without rights; one that is opened anew is refused.
          await bed.cut(number);
          await bed.heal(number);
          await bed.daemon(number).waitForLog(/ERR_ETCD_AUTH.*hint=/, 30_000, marks.get(number));
        }
        await bed.observe(WINDOW_MS);
      });
      assert.ok(
        requests.every((count) => count < 100),
        `requests of the hosts: ${requests.join(', ')}`,
      );
      for (const number of bed.started) {
        const log = bed.daemon(number).log.slice(marks.get(number));
        assert.ok(countLines(log, /./) < 60, log);
      }
      await grant(bed, 'readwrite');
      const sinceMs = performance.now();
      await bed.waitUntilAsserted(bed.started, 60_000);
      for (const number of bed.started) await bed.waitUntilFollowing(number, 60_000);
      recovered(sinceMs, 60_000);
    },
    { among: OTHERS },
  );
  assertNothingLost(traffic);
  await waitForNoOrphans(bed);
});

scenario('rights-read-only', { backends: ['udp'] }, async ({ bed: make, recovered }) => {
  const bed = await guardedBed(make);
  const traffic = await bed.traffic(
    async () => {
      const marks = bed.marks();
      await revoke(bed);
      await grant(bed, 'read');
      await bed.etcd.delete(bed.keyOf(DELETED));
      await bed.daemon(DELETED).waitForLog(/ERR_ETCD_AUTH.*hint=/, 30_000, marks.get(DELETED));
      await bed.observe(WINDOW_MS);
      await waitForNoOrphans(bed);
      await grant(bed, 'readwrite');
      const sinceMs = performance.now();
      await bed.waitUntilAsserted(bed.started, 60_000);
      recovered(sinceMs, 60_000);
    },
    { among: OTHERS },
  );
  assertNothingLost(traffic);
  await waitForNoOrphans(bed);
});

scenario('keys-deleted', { short: 'udp', timeoutMs: 300_000 }, async ({ bed: make, isShort, recovered }) => {
  const bed = await make();
  const keys = bed.started.map((number) => bed.keyOf(number));
  const traffic = await bed.traffic(async () => {
    for (let round = 0; round < (isShort ? 10 : 50); round++) {
      for (const key of keys) await bed.etcd.delete(key);
      const sinceMs = performance.now();
      await bed.waitUntilAsserted(bed.started, 40_000, keys);
      recovered(sinceMs, 30_000);
    }
    await bed.waitUntilReady();
  });
  assertNothingLost(traffic);
  await waitForNoOrphans(bed);
});
