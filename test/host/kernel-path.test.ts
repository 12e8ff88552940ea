import { BUILD_TIMEOUT_MS, buildKernelPath, kernelPathCommand } from '../support/kernel-path.js';
import { run } from '../support/netns.js';

describe('the programs of the kernel path', function () {
  this.timeout(BUILD_TIMEOUT_MS);

  before(async function () {
    await buildKernelPath(this);
  });

  // Without CAP_PERFMON, which the unit does not have, the verifier refuses arithmetic with halves of pointers, too.
  it('pass this kernel’s verifier with the unit’s rights, and do with every packet what the native core does', async () => {
    const asUnit = ['setpriv', '--bounding-set=-all,+bpf,+net_admin'];
    await run([...asUnit, ...kernelPathCommand('programs')], { timeoutMs: 240_000 });
  });
});
