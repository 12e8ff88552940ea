import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { BUILD_TIMEOUT_MS, buildPackagedAddon } from '../support/debian-package.js';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
/** The C library that comes with Debian's cross compiler. */
const SYSROOT = '/usr/aarch64-linux-gnu';

describe('the programs for arm64, under qemu', function () {
  this.timeout(300_000);
  let node: string;

  before(async function () {
    for (const [program, debian] of [
      ['aarch64-linux-gnu-g++', 'g++-aarch64-linux-gnu'],
      ['qemu-aarch64-static', 'qemu-user-static'],
    ] as const)
      if (spawnSync(program, ['--version']).error !== undefined)
        skipBecause(this, `no ${program} on this machine (Debian package ${debian})`);
    await buildPackagedAddon('--arch', 'arm64');
    const fetch = `import { nodeRuntime } from '${ROOT}/.ci/node-runtime.mjs'; console.log(nodeRuntime('arm64'));`;
    const { stdout } = await run([process.execPath, '--input-type=module', '--eval', fetch], {
      timeoutMs: BUILD_TIMEOUT_MS,
    });
    node = path.join(stdout.trim(), 'node');
  });

  it('start, and load the addon into the Node that the package carries', async () => {
    const addon = path.join(ROOT, 'native/prebuilds/linux-arm64/tsflannel.node');
    const script = `console.log(process.arch, Object.keys(require('${addon}')).join())`;
    const { stdout } = await run(['qemu-aarch64-static', '-L', SYSROOT, node, '--eval', script], {
      timeoutMs: 120_000,
    });
    assert.equal(stdout, 'arm64 interfaceVersion,Tunnel,KernelPath\n');
  });
});
