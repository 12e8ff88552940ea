import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { KEPT_CAPABILITIES, parseCapabilities } from '../../src/sys/capabilities.js';
import { daemonFile } from '../support/daemon.js';
import { NETWORK, Overlay } from '../support/overlay.js';
import type { Program } from '../support/program.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { eventually } from '../support/wait.js';

describe('the process of the daemon, started by root without a service manager', function () {
  let rig: Rig;
  let overlay: Overlay | undefined;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 1 });
  });
  after(() => rig.close());
  afterEach(async () => {
    await overlay?.rig.close();
    overlay = undefined;
  });

  const host = (): Host => rig.host(1);

  /** The daemon under a shell command that ends with `exec "$@"`. */
  function startUnder(shell: string, directory: string, env: Record<string, string> = {}): Program {
    const at = (name: string): string => path.join(rig.directory, directory, name);
    return host().netns.start(
      [
        ...['sh', '-c', shell, 'sh', process.execPath, daemonFile(), `--etcd-endpoints=${rig.etcd.endpoint}`],
        ...[`--subnet-file=${at('run/subnet.env')}`, `--state-dir=${at('run/state')}`],
        `--status-socket=${at('run/status.sock')}`,
      ],
      { env },
    );
  }

  for (const mode of ['iptables', 'nftables'] as const) {
    it(`keeps the capabilities it needs in every thread, no others, and carries packets with rules by ${mode}`, async () => {
      overlay = await Overlay.create({
        config: { ...NETWORK, EnableNFTables: mode === 'nftables' },
        args: () => ['--ip-masq'],
      });
      const daemon = overlay.daemon(1);
      await eventually('kernel and rules', async () => {
        const { isReady, firewall } = await daemon.status();
        assert.deepEqual([isReady, firewall?.mode, firewall?.isInPlace], [true, mode, true]);
      });
      const { pid } = daemon.program;
      const threads = readdirSync(`/proc/${pid}/task`);
      assert.ok(threads.length > 4, 'those of Node and those that carry packets');
      for (const thread of threads) {
        const text = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
        const { inheritable, permitted, effective, bounding } = parseCapabilities(text);
        assert.equal(inheritable, 0n);
        for (const set of [permitted, effective, bounding]) assert.equal(set & ~KEPT_CAPABILITIES, 0n, text);
        assert.equal((effective >> 12n) & 1n, 1n, 'CAP_NET_ADMIN');
        assert.match(text, /^NoNewPrivs:\s*1$/m);
      }
      assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
    });
  }

  for (const umask of ['000', '077']) {
    it(`makes files and directories with their own modes at umask ${umask}`, async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'alloc' } });
      const name = `umask${umask}`;
      const program = startUnder(`umask ${umask}; exec "$@"`, name);
      await program.waitForLine(/subnet file written/);
      await program.stop();
      const modes = Object.fromEntries(
        ['.', 'subnet.env', 'state', 'state/config.json', 'state/peers.json'].map((file) => [
          file,
          (statSync(path.join(rig.directory, name, 'run', file)).mode & 0o7777).toString(8),
        ]),
      );
      assert.deepEqual(modes, {
        '.': '755',
        'subnet.env': '644',
        state: '700',
        'state/config.json': '600',
        'state/peers.json': '600',
      });
    });
  }

  it('says what happened before it ends by an error that nothing expected', async () => {
    const preload = `process.on('SIGUSR2', () => { throw new Error('boom ' + 'y'.repeat(5000)); })`;
    const program = startUnder('exec "$@"', 'defect', {
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(preload)}`,
    });
    await program.waitForLine(/tsflanneld starts/);
    program.signal('SIGUSR2');
    assert.deepEqual(await program.exited, { code: 70, signal: null });
    const lines = program.output.split('\n').filter((line) => line.includes('boom'));
    assert.equal(lines.length, 1, program.output);
    assert.match(
      lines[0] ?? '',
      /error ended by an error that nothing expected detail="Error: boom .*hint=".*report it/,
    );
  });

  it('goes on when its log cannot be written', async () => {
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'alloc' } });
    const program = startUnder('exec "$@" 2>/dev/full', 'full');
    const file = path.join(rig.directory, 'full/run/subnet.env');
    await eventually('subnet.env', () => assert.match(readFileSync(file, 'utf8'), /FLANNEL_SUBNET/));
    assert.deepEqual(await program.stop(), { code: 0, signal: null });
  });
});
