import assert from 'node:assert/strict';
import { eventually } from '../support/wait.js';
import { assertNothingLost } from './bed.js';
import { scenario } from './scenario.js';

scenario('wrong-network', { short: 'vxlan' }, async ({ bed: make, recovered }) => {
  const bed = await make();
  const before = bed.started.map((number) => bed.daemon(number).subnetEnv());
  const keys = bed.started.map((number) => bed.keyOf(number));
  await bed.traffic(
    async () => {
      await bed.putConfig({ Network: '10.99.0.0/16', SubnetMin: '10.99.1.0', SubnetMax: '10.99.31.0' });
      await eventually('every host to have the wrong network', async () => {
        for (const number of bed.started) {
          assert.equal((await bed.daemon(number).status()).network?.ipv4, '10.99.0.0/16');
        }
      });
      await bed.observe(2000);
      await bed.putConfig();
      const sinceMs = performance.now();
      await eventually(
        'the former subnets',
        () => {
          assert.deepEqual(
            bed.started.map((number) => bed.daemon(number).subnetEnv()),
            before,
          );
        },
        { timeoutMs: 30_000 },
      );
      await bed.waitUntilAsserted(bed.started, 10_000, keys);
      await bed.waitUntilConnected();
      recovered(sinceMs, 10_000);
    },
    { afterMs: 1000 },
  );
  assert.equal((await bed.leases()).length, 3, 'the leases of the wrong network are gone');
});

const REFUSED = [
  { Network: '127.0.0.0/8', SubnetMin: '127.1.0.0', SubnetMax: '127.9.0.0' },
  { Network: '224.0.0.0/8', SubnetMin: '224.1.0.0', SubnetMax: '224.9.0.0' },
  { Network: '192.0.0.0/16', SubnetMin: '192.0.3.0', SubnetMax: '192.0.9.0' },
] as const;

scenario('refused-network', {}, async ({ bed: make }) => {
  const bed = await make();
  const before = bed.started.map((number) => bed.daemon(number).subnetEnv());
  const traffic = await bed.traffic(async () => {
    for (const wrong of REFUSED) {
      const marks = bed.marks();
      const input = JSON.stringify(bed.config(wrong));
      const { code, stderr } = await bed.ctl(1, ['config', 'set', '--yes', '-'], { input, mayFail: true });
      assert.notEqual(code, 0, `config set took ${wrong.Network}`);
      assert.ok(stderr.includes(wrong.Network.split('/')[0] ?? ''), stderr);
      await bed.putConfig(wrong);
      for (const number of bed.started) {
        const daemon = bed.daemon(number);
        const [line] = await daemon.waitForLog(/ error .*hint=.*/, 10_000, marks.get(number));
        assert.ok(line.includes(wrong.Network), line);
        await eventually('the reason in the status', async () => {
          const { network } = await daemon.status();
          assert.equal(network?.ipv4, '10.5.0.0/16');
          assert.ok(network.rejected?.includes(wrong.Network) === true, network.rejected ?? 'nothing rejected');
        });
      }
    }
    await bed.putConfig();
    await bed.waitUntilReady();
  });
  assertNothingLost(traffic);
  assert.deepEqual(
    bed.started.map((number) => bed.daemon(number).subnetEnv()),
    before,
  );
});
