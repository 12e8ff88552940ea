import { BUILD_TIMEOUT_MS, buildKernelPath, kernelPathCommand } from '../support/kernel-path.js';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';

describe('the programs of the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);

  before(async function () {
    const reason = await buildKernelPath();
    if (reason !== undefined) skipBecause(this, reason);
  });

  it('pass this kernel’s verifier, and do with every packet what the native core does', async () => {
    await run(kernelPathCommand('programs'), { timeoutMs: 240_000 });
  });
});
