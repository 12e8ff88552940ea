import assert from 'node:assert/strict';
import { withContainerNames } from '../../../src/ctl/docker-containers.js';
import type { ContainerNetworksStatus } from '../../../src/observe/container-status.js';
import type { RunCommand } from '../../../src/sys/command.js';
import { sampleContainerNetworks } from '../../support/sample-status.js';

const MAC = '02:42:c0:00:02:42';

/** The sample, in which the daemon knows who has the first address and not who has the second. */
function status(): ContainerNetworksStatus {
  const sample = sampleContainerNetworks();
  const pools = sample.pools.map((pool) => ({
    ...pool,
    uses: pool.uses.map((use) => (use.owner === null ? { ...use, mac: MAC } : use)),
  }));
  return { ...sample, pools };
}

/** A client of Docker that prints these lines for containers. */
function docker(...lines: readonly string[]): RunCommand {
  return (program, [command]) => {
    assert.equal(program, 'docker');
    const stdout = command === 'ps' ? lines.map((_, index) => `id${index}\n`).join('') : `${lines.join('\n')}\n`;
    return Promise.resolve({ exitCode: 0, stdout, stderr: '' });
  };
}

async function owners(run: RunCommand): Promise<readonly (string | null)[]> {
  const { pools } = await withContainerNames(status(), run);
  return pools.flatMap(({ uses }) => uses.map(({ owner }) => owner));
}

describe('withContainerNames', () => {
  it('knows a container by its MAC address, in whichever of its networks', async () => {
    assert.deepEqual(
      await owners(docker('/other 02:42:00:00:00:01', `/shop.1 02:42:00:00:00:02 ${MAC.toUpperCase()}`)),
      ['web', 'shop.1'],
    );
  });

  it('leaves what the daemon knows, and takes no name that is none', async () => {
    assert.deepEqual(await owners(docker('/other 02:42:c0:00:02:41', `/;reboot ${MAC}`)), ['web', null]);
  });

  it('goes without names where there is no Docker, or it does not answer', async () => {
    const answers: readonly RunCommand[] = [
      () => Promise.resolve(undefined),
      () => Promise.resolve({ exitCode: 1, stdout: '', stderr: 'permission denied' }),
      () => Promise.reject(new Error('no answer within 10 s')),
    ];
    for (const run of answers) assert.deepEqual(await owners(run), ['web', null]);
  });
});
