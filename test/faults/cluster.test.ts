import assert from 'node:assert/strict';
import { EtcdServer } from '../support/etcd.js';
import { eventually, waitFor } from '../support/wait.js';
import { type FaultBed, assertNothingLost } from './bed.js';
import { type Scenario, scenario } from './scenario.js';

async function clusterOfThree(make: Scenario['bed']): Promise<FaultBed> {
  return make({ etcdMembers: 3 });
}

/** Hexadecimal id of a member, and whether it leads, as it says itself. */
async function memberStatus(member: EtcdServer): Promise<{ readonly id: string; readonly isLeader: boolean }> {
  const { stdout } = await member.ctl(['endpoint', 'status', '-w', 'fields']);
  const field = (name: string): bigint => BigInt(new RegExp(`^"${name}" : (\\d+)$`, 'm').exec(stdout)?.[1] ?? '0');
  const id = field('MemberID');
  return { id: id.toString(16), isLeader: id !== 0n && id === field('Leader') };
}

async function leaderOf(bed: FaultBed): Promise<EtcdServer> {
  return waitFor(
    async () => {
      for (const member of bed.rig.etcdMembers) {
        if (!member.program.isRunning) continue;
        if ((await memberStatus(member)).isLeader) return member;
      }
      return undefined;
    },
    { what: 'a leader' },
  );
}

async function makeLeader(bed: FaultBed, member: EtcdServer): Promise<void> {
  const leader = await leaderOf(bed);
  const { id } = await memberStatus(member);
  if (leader !== member) await leader.ctl(['move-leader', id]);
}

/**
 * Every host follows leases that are put through a member that is well, and has its own as before.
 *
 * @param writer - the member that is asked.
 */
async function waitUntilAllFollow(bed: FaultBed, writer: EtcdServer, timeoutMs = 20_000): Promise<void> {
  for (const number of bed.started) await bed.waitUntilFollowing(number, timeoutMs, writer);
}

/** Does something to the cluster under traffic; leases must be followed while it lasts, and none may be lost. */
async function survive(
  bed: FaultBed,
  recovered: Scenario['recovered'],
  harm: () => Promise<EtcdServer>,
  heal: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const subnets = bed.started.map((number) => bed.subnetOf(number));
  const traffic = await bed.traffic(async () => {
    const writer = await harm();
    const sinceMs = performance.now();
    await waitUntilAllFollow(bed, writer);
    recovered(sinceMs, 40_000);
    await heal();
    await bed.waitUntilReady();
    for (const number of bed.started) {
      const { lease } = await bed.daemon(number).status();
      assert.equal(lease?.counters.losses, 0, bed.daemon(number).log);
    }
  });
  assertNothingLost(traffic);
  assert.deepEqual(
    bed.started.map((number) => bed.subnetOf(number)),
    subnets,
  );
}

function other(bed: FaultBed, ...than: readonly EtcdServer[]): EtcdServer {
  const found = bed.rig.etcdMembers.find((member) => !than.includes(member));
  if (found === undefined) throw new Error('no other member');
  return found;
}

scenario('leader-killed', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  let killed: EtcdServer | undefined;
  await survive(
    bed,
    recovered,
    async () => {
      killed = await leaderOf(bed);
      await killed.kill();
      return other(bed, killed);
    },
    async () => killed?.start(),
  );
});

scenario('member-replaced', { backends: ['udp'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  const [first, lost] = bed.rig.etcdMembers;
  if (first === undefined || lost === undefined) throw new Error('a cluster has three members');
  await survive(bed, recovered, async () => {
    const { id } = await memberStatus(lost);
    await lost.kill();
    lost.wipe();
    const { member } = lost.options;
    if (member === undefined) throw new Error('no member of a cluster');
    // etcd refuses until it has noticed that two of three are left, and well.
    for (const change of [
      ['member', 'remove', id],
      ['member', 'add', member.name, `--peer-urls=${member.peerUrl}`],
    ]) {
      await eventually(
        change.join(' '),
        async () => {
          await first.ctl(change);
        },
        { timeoutMs: 20_000 },
      );
    }
    const again = new EtcdServer({ ...lost.options, member: { ...member, state: 'existing' } });
    await again.start();
    return again;
  });
});

scenario('member-slow', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  const slow = bed.memberRelay(0);
  const [member] = bed.rig.etcdMembers;
  if (member === undefined) throw new Error('a cluster has three members');
  await survive(
    bed,
    recovered,
    async () => {
      await makeLeader(bed, member);
      await slow.delay(300);
      return other(bed, member);
    },
    () => slow.heal(),
  );
});

scenario('member-half-open', { backends: ['udp'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  const { endpoint } = (await bed.daemon(1).status()).store;
  const member = bed.rig.etcdMembers.find(({ options }) => endpoint?.startsWith(options.address) === true);
  if (member === undefined) throw new Error(`no member at ${endpoint ?? 'nowhere'}`);
  const { netns } = member.options;
  await survive(
    bed,
    recovered,
    async () => {
      await netns.run(['nft', 'add table inet drop_all']);
      for (const hook of ['input', 'output']) {
        await netns.run([
          'nft',
          `add chain inet drop_all ${hook} { type filter hook ${hook} priority 0; policy drop; }`,
        ]);
      }
      return other(bed, member);
    },
    async () => {
      await netns.run(['nft', 'delete table inet drop_all']);
    },
  );
});

const ROUNDS = 20;

scenario('leader-changes', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  await survive(bed, recovered, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const next = bed.rig.etcdMembers[round % 3];
      if (next !== undefined) await makeLeader(bed, next);
      await bed.observe(1000);
    }
    return bed.etcd;
  });
});

scenario('disk-slow', { backends: ['udp'] }, async ({ bed: make, recovered }) => {
  const bed = await clusterOfThree(make);
  await survive(bed, recovered, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const member = bed.rig.etcdMembers[round % 3];
      member?.pause();
      await bed.observe(1000);
      member?.resume();
    }
    return bed.etcd;
  });
});
