import assert from 'node:assert/strict';
import { ctlFile } from '../support/daemon.js';
import { deleteNamespaces, Netns } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';

/** Nobody has this address, and the device in front of it swallows every packet. */
const SILENT = 'http://192.0.2.9:2379';

describe('tsflannelctl while packets to etcd are dropped', function () {
  let netns: Netns;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    [netns] = (await Netns.create([`tsf-ctlends-${process.pid}`])) as [Netns];
    await netns.ip([
      'link add drop0 type veth peer name drop1',
      'link set drop0 up',
      'link set drop1 up',
      'addr add 192.0.2.1/24 dev drop0',
      'neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev drop0 nud permanent',
    ]);
  });
  after(() => deleteNamespaces([netns.name]));

  const command = (...words: string[]): string[] => [
    ...[process.execPath, ctlFile(), ...words, `--etcd-endpoints=${SILENT}`],
  ];

  it('ends when it has said so', async () => {
    const program = netns.start(command('config', 'get'));
    await program.waitForLine(/cannot reach etcd/, 60_000);
    const since = performance.now();
    assert.deepEqual(await program.exited, { code: 4, signal: null });
    assert.ok(performance.now() - since < 5000, 'a TCP handshake that nobody answers takes 134 s');
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    for (const words of [
      ['config', 'get'],
      ['doctor', '--max-peers=0'],
      ['cleanup', '--force'],
    ]) {
      it(`ends at the first ${signal} during ${words.join(' ')}`, async () => {
        const program = netns.start(command(...words));
        await waitFor(async () => (await netns.run(['ss', '-Htn', 'state', 'syn-sent'])).stdout.includes('192.0.2.9'), {
          what: 'a connection to be tried',
          timeoutMs: 30_000,
        });
        const since = performance.now();
        program.signal(signal);
        assert.deepEqual(await program.exited, { code: 1, signal: null });
        assert.ok(performance.now() - since < 3000, 'it takes 5 s to give up by itself');
      });
    }
  }
});
