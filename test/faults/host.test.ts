import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { run } from '../support/netns.js';
import { countLines } from '../support/overlay.js';
import { eventually, waitFor } from '../support/wait.js';
import { assertNothingLost, publicIpOf } from './bed.js';
import { scenario } from './scenario.js';

scenario('underlay-flapping', { timeoutMs: 400_000 }, async ({ bed: make, recovered }) => {
  const bed = await make();
  const host = bed.rig.host(1);
  const subnet = bed.subnetOf(1);
  const key = bed.keyOf(1);
  const defaultRoute = 'route replace default via 192.0.2.1';
  const has = async (address: string): Promise<void> => {
    await waitFor(async () => publicIpOf((await bed.etcd.get(key))?.value ?? '') === address, {
      what: `${address} in the lease`,
      timeoutMs: 30_000,
    });
  };
  const [mark = 0] = [...bed.marks([1]).values()];
  const traffic = await bed.traffic(
    async () => {
      for (let round = 0; round < 20; round++) {
        if (round % 2 === 0) {
          const before = bed.daemon(1).program.mark();
          await host.netns.ip(['link set eth0 down']);
          await bed.daemon(1).waitForLog(/interface cannot be used/, 10_000, before);
          await host.netns.ip(['link set eth0 up', defaultRoute]);
        } else {
          await host.netns.ip(['addr add 192.0.2.99/24 dev eth0', `addr del ${host.publicIp}/24 dev eth0`]);
          await host.netns.ip(['addr replace 192.0.2.99/24 dev eth0', defaultRoute]);
          await has('192.0.2.99');
          await host.netns.ip([`addr add ${host.publicIp}/24 dev eth0`, 'addr del 192.0.2.99/24 dev eth0']);
          await host.netns.ip([`addr replace ${host.publicIp}/24 dev eth0`, defaultRoute]);
        }
        const sinceMs = performance.now();
        await has(host.publicIp);
        await bed.waitUntilConnected();
        recovered(sinceMs, 20_000);
      }
      await bed.waitUntilReady();
    },
    { among: [2, 3] },
  );
  assertNothingLost(traffic);
  assert.equal(bed.subnetOf(1), subnet);
  const log = bed.daemon(1).log.slice(mark);
  assert.ok(countLines(log, /./) < 20 * 20, log);
});

scenario('disk-full', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const bed = await make({ start: [2, 3] });
  await bed.startHost(1, { diskBytes: 65_536 });
  await bed.waitUntilConnected();
  const directory = bed.daemon(1).filesDirectory;
  const file = bed.daemon(1).subnetFile;
  const before = readFileSync(file, 'utf8');
  const traffic = await bed.traffic(async () => {
    await run(['dd', 'if=/dev/zero', `of=${directory}/fill`, 'bs=4k'], { mayFail: true });
    const mark = bed.daemon(1).program.mark();
    await bed.putConfig({ Backend: { Type: bed.options.backend, MTU: 1400 } });
    await bed.daemon(1).waitForLog(/ENOSPC.*hint=|hint=.*ENOSPC/, 10_000, mark);
    assert.equal(readFileSync(file, 'utf8'), before, 'the file is not truncated');
    await waitFor(async () => !(await bed.daemon(1).status()).isReady, { what: 'host 1 not to be ready' });
    rmSync(`${directory}/fill`);
    const sinceMs = performance.now();
    await waitFor(() => /^FLANNEL_MTU=1350$/m.test(readFileSync(file, 'utf8')), {
      what: 'the new MTU in subnet.env',
      timeoutMs: 90_000,
    });
    recovered(sinceMs, 90_000);
    await bed.waitUntilReady();
    await eventually('nothing to be left of what could not be written', () => {
      assert.deepEqual(readdirSync(directory).sort(), ['state', 'subnet.env']);
    });
  });
  assertNothingLost(traffic);
});

scenario('few-descriptors', { backends: ['udp'] }, async ({ bed: make, recovered }) => {
  const bed = await make();
  const { pid } = bed.daemon(1).program;
  const limit = async (soft: number): Promise<void> => {
    await run(['prlimit', `--pid=${pid}`, `--nofile=${soft}:`]);
  };
  const former = Number(/^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1]);
  const traffic = await bed.traffic(async () => {
    const mark = bed.daemon(1).program.mark();
    // Numbers below are those of Node itself, so none is free. A smaller limit would also refuse poll(2), whose sets
    // may not be larger than it.
    await limit(10);
    await bed.cut(1);
    await bed.daemon(1).waitForLog(/etcd lost/, 40_000, mark);
    await bed.heal(1);
    await bed.observe(3000);
    assert.ok(bed.daemon(1).program.isRunning, bed.daemon(1).log);
    const complaints = countLines(bed.daemon(1).log.slice(mark), / (warn |error) /);
    assert.ok(complaints < 10, bed.daemon(1).log.slice(mark));
    await limit(former);
    const sinceMs = performance.now();
    await bed.daemon(1).waitForLog(/etcd is back/, 40_000, mark);
    await bed.waitUntilFollowing(1, 20_000);
    recovered(sinceMs, 40_000);
    await bed.waitUntilReady();
  });
  assertNothingLost(traffic);
});
