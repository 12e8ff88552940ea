import { readFile, readdir, readlink } from 'node:fs/promises';

/** How a Docker engine gets its options from tsflanneld: through one of the two drop-ins, or not at all. */
export type DockerSettingsSource = 'subnet-env' | 'docker-opts' | 'none';

/** The Docker engine that runs on this host. */
export interface RunningDocker {
  readonly pid: number;
  readonly settings: DockerSettingsSource;
  /** `--bip`, address and length of its bridge; undefined if it was not told. */
  readonly bip: string | undefined;
  /** `--mtu`; undefined if it was not told. */
  readonly mtu: number | undefined;
}

/**
 * Looks for the Docker engine in this network namespace and reads how it was started.
 *
 * @param procDirectory - for tests; default `/proc`.
 * @returns undefined if none runs, or `/proc` does not show it.
 */
export async function findRunningDocker(procDirectory = '/proc'): Promise<RunningDocker | undefined> {
  const ownNamespace = await readlink(`${procDirectory}/self/ns/net`).catch(() => undefined);
  const names = await readdir(procDirectory).catch(() => []);
  for (const pid of names.filter((name) => /^\d+$/.test(name))) {
    const directory = `${procDirectory}/${pid}`;
    // Processes end while one looks.
    const name = await readFile(`${directory}/comm`, 'utf8').catch(() => '');
    if (name.trim() !== 'dockerd') continue;
    const namespace = await readlink(`${directory}/ns/net`).catch(() => ownNamespace);
    if (namespace !== ownNamespace) continue;
    const [words, environment] = await Promise.all(
      ['cmdline', 'environ'].map((file) => readFile(`${directory}/${file}`, 'utf8').catch(() => '')),
    );
    return { pid: Number(pid), ...readOptions((words ?? '').split('\0'), (environment ?? '').split('\0')) };
  }
  return undefined;
}

function readOptions(words: readonly string[], environment: readonly string[]): Omit<RunningDocker, 'pid'> {
  const valueOf = (option: string): string | undefined => {
    const at = words.findIndex((word) => word === option || word.startsWith(`${option}=`));
    if (at < 0) return undefined;
    return words[at] === option ? words[at + 1] : words[at]?.slice(option.length + 1);
  };
  const has = (variable: string): boolean => environment.some((entry) => entry.startsWith(`${variable}=`));
  const mtu = Number(valueOf('--mtu'));
  return {
    settings: has('FLANNEL_SUBNET') ? 'subnet-env' : has('DOCKER_OPTS') ? 'docker-opts' : 'none',
    bip: valueOf('--bip'),
    mtu: Number.isInteger(mtu) && mtu > 0 ? mtu : undefined,
  };
}
