import type { ContainerNetworksStatus } from '../observe/container-status.js';
import { type RunCommand, runCommand } from '../sys/command.js';

/** Names that Docker gives, and takes in commands. */
const NAME = /^[a-zA-Z0-9][\w.-]*$/;

/** Lines that the client of Docker prints; none where there is no Docker, or it does not answer. */
export async function askDocker(args: readonly string[], run: RunCommand = runCommand): Promise<readonly string[]> {
  const result = await run('docker', args).catch(() => undefined);
  return result?.exitCode === 0 ? result.stdout.split('\n').filter((line) => line !== '') : [];
}

/**
 * Puts the names of running containers to the addresses that they have: the daemon knows MAC addresses alone, since
 * Docker tells a plugin no names, and a plugin must not ask for them.
 *
 * @param run - for tests.
 */
export async function withContainerNames(
  status: ContainerNetworksStatus,
  run: RunCommand = runCommand,
): Promise<ContainerNetworksStatus> {
  if (!status.pools.some(({ uses }) => uses.some(({ owner }) => owner === null))) return status;
  const ids = await askDocker(['ps', '--quiet', '--no-trunc'], run);
  if (ids.length === 0) return status;
  const format = '{{.Name}}{{range .NetworkSettings.Networks}} {{.MacAddress}}{{end}}';
  const names = new Map<string, string>();
  for (const line of await askDocker(['inspect', '--type', 'container', '--format', format, ...ids], run)) {
    const [path = '', ...macs] = line.split(' ');
    const name = path.replace(/^\//, '');
    if (NAME.test(name)) for (const mac of macs) names.set(mac.toLowerCase(), name);
  }
  const pools = status.pools.map((pool) => ({
    ...pool,
    uses: pool.uses.map((use) => ({ ...use, owner: use.owner ?? names.get(use.mac ?? '') ?? null })),
  }));
  return { ...status, pools };
}
