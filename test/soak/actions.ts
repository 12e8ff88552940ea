import assert from 'node:assert/strict';
import { assertNothingLost, type FaultBed } from '../faults/bed.js';
import { eventually, waitFor } from '../support/wait.js';

/** Something that happens to the cluster in a round of the soak, and is undone again. */
export interface Action {
  readonly name: string;
  /**
   * Whether packets between the hosts that it leaves alone may be lost. They may not, unless the way they travel is
   * exchanged itself.
   */
  readonly mayLose?: boolean;
  run(bed: FaultBed): Promise<void>;
}

/** The host that is killed, restarted and cut off; the processes of the others live as long as the soak. */
export const victimOf = (bed: FaultBed): number => bed.numbers.length;

/** The hosts whose packets are counted. */
export const bystandersOf = (bed: FaultBed): readonly number[] => bed.numbers.slice(0, -1);

const PEERS = 200;

/** For what takes a moment when nothing else runs on the machine. */
const PATIENCE = { timeoutMs: 30_000 } as const;

/** Everything that happens, in no order. */
export const ACTIONS: readonly Action[] = [
  {
    name: 'peers-join-and-leave',
    async run(bed) {
      const entries = Array.from({ length: PEERS }, (_, index) => {
        const name = `10.5.${32 + index}.0-24`;
        return [bed.leaseKey(name), bed.leaseValue(`198.51.100.${index + 1}`)] as const;
      });
      const count = async (expected: number): Promise<void> =>
        eventually(
          `${expected} peers`,
          async () => {
            for (const number of bed.numbers) {
              const { peers } = await bed.daemon(number).status();
              const known = peers
                .map(({ subnet, publicIp }) => `${subnet} ${publicIp}`)
                .slice(0, 10)
                .join(', ');
              assert.equal(peers.length, expected + bed.numbers.length - 1, `host ${number} knows ${known}`);
            }
          },
          PATIENCE,
        );
      await bed.etcd.putMany(entries);
      await count(PEERS);
      // Some leave one by one, the others together.
      const keys = entries.map(([key]) => key);
      for (const key of keys.slice(0, 10)) await bed.etcd.delete(key);
      await bed.etcd.deleteMany(keys.slice(10));
      await count(0);
    },
  },
  {
    name: 'junk-keys',
    async run(bed) {
      const entries = Array.from({ length: 500 }, (_, index) => [bed.leaseKey(`junk-${index}`), 'junk'] as const);
      await bed.etcd.putMany(entries);
      for (const number of bed.numbers) await bed.waitUntilFollowing(number, PATIENCE.timeoutMs);
      await bed.etcd.delete(bed.leaseKey('junk-'), { isPrefix: true });
    },
  },
  {
    name: 'mtu-changes',
    async run(bed) {
      await setMtu(bed, 1400);
      await bed.putConfig();
      await waitForMtu(bed, 1450);
    },
  },
  {
    name: 'backend-changes',
    mayLose: true,
    async run(bed) {
      for (const [type, mtu] of [
        ['udp', 1472],
        ['vxlan', 1450],
      ] as const) {
        await bed.putConfig({ Backend: { Type: type } });
        await waitForMtu(bed, mtu);
        await bed.waitUntilReady();
        await bed.waitUntilConnected();
      }
      await bed.putConfig();
    },
  },
  {
    name: 'etcd-killed',
    async run(bed) {
      const marks = bed.marks();
      await bed.whileEtcdIsAway(() => undefined);
      await bed.reconnected(marks);
    },
  },
  {
    name: 'etcd-stands-still',
    async run(bed) {
      const marks = bed.marks();
      bed.etcd.pause();
      try {
        for (const number of bed.numbers) await bed.daemon(number).waitForLog(/etcd lost/, 60_000, marks.get(number));
      } finally {
        bed.etcd.resume();
      }
      await bed.reconnected(marks);
    },
  },
  {
    name: 'etcd-wiped',
    async run(bed) {
      const keys = bed.numbers.map((number) => bed.keyOf(number));
      const marks = bed.marks();
      await bed.whileEtcdIsAway(() => bed.etcd.wipe());
      await bed.putConfig();
      await bed.reconnected(marks);
      await bed.waitUntilAsserted(bed.numbers, PATIENCE.timeoutMs, keys);
    },
  },
  {
    name: 'history-compacted',
    async run(bed) {
      const victim = victimOf(bed);
      await bed.cut(victim);
      for (let n = 0; n < 5; n++) await bed.etcd.put('/elsewhere', String(n));
      await bed.etcd.compact();
      await bed.heal(victim);
      await bed.waitUntilFollowing(victim, PATIENCE.timeoutMs);
    },
  },
  {
    name: 'keys-deleted',
    async run(bed) {
      const keys = bed.numbers.map((number) => bed.keyOf(number));
      for (const key of keys) await bed.etcd.delete(key);
      await bed.waitUntilAsserted(bed.numbers, PATIENCE.timeoutMs, keys);
    },
  },
  {
    name: 'link-flaps',
    async run(bed) {
      const victim = victimOf(bed);
      const { netns } = bed.rig.host(victim);
      const mark = bed.daemon(victim).program.mark();
      await netns.ip(['link set eth0 down']);
      await bed.daemon(victim).waitForLog(/interface cannot be used/, PATIENCE.timeoutMs, mark);
      await netns.ip(['link set eth0 up', 'route replace default via 192.0.2.1']);
    },
  },
  {
    name: 'daemon-restarts',
    async run(bed) {
      const daemon = bed.daemon(victimOf(bed));
      await daemon.stop();
      await daemon.startAndWait();
    },
  },
  {
    name: 'daemon-killed',
    async run(bed) {
      const daemon = bed.daemon(victimOf(bed));
      await daemon.kill();
      await daemon.startAndWait();
    },
  },
];

/** Has an action happen under checked traffic, and waits until all is well again. */
export async function perform(
  bed: FaultBed,
  action: Action,
): Promise<{ readonly sent: number; readonly lost: number }> {
  const traffic = await bed.traffic(
    async () => {
      await action.run(bed);
      await bed.waitUntilReady();
      await bed.waitUntilConnected();
    },
    { among: bystandersOf(bed) },
  );
  if (action.mayLose !== true) assertNothingLost(traffic);
  return traffic;
}

/** Waits until the devices of backends that were used for a while are gone, so that rounds can be compared. */
export async function settle(bed: FaultBed): Promise<void> {
  const hasOneBackend = async (number: number): Promise<boolean> => {
    const { tunnels, reconcile } = await bed.daemon(number).status();
    return tunnels.length === 0 && reconcile.isConverged;
  };
  await waitFor(async () => (await Promise.all(bed.numbers.map(hasOneBackend))).every(Boolean), {
    what: 'the tunnel of udp to be closed',
    timeoutMs: 60_000,
  });
}

async function setMtu(bed: FaultBed, underlayMtu: number): Promise<void> {
  await bed.putConfig({ Backend: { Type: 'vxlan', MTU: underlayMtu } });
  await waitForMtu(bed, underlayMtu - 50);
}

async function waitForMtu(bed: FaultBed, mtu: number): Promise<void> {
  await waitFor(() => bed.numbers.every((number) => bed.daemon(number).subnetEnv().FLANNEL_MTU === String(mtu)), {
    what: `the MTU ${mtu} on every host`,
    ...PATIENCE,
  });
}
