import { readFile, readdir, readlink } from 'node:fs/promises';
import path from 'node:path';

/** A daemon of this kind, ours or the original. */
export interface RunningDaemon {
  readonly name: 'flanneld' | 'tsflanneld';
  readonly pid: number;
}

/**
 * The flannel daemons that run in this network namespace, also in containers that share it.
 *
 * @param proc - where the processes are listed.
 */
export async function flannelDaemons(proc = '/proc'): Promise<readonly RunningDaemon[]> {
  const own = await readlink(path.join(proc, 'self/ns/net'));
  const found: RunningDaemon[] = [];
  for (const pid of (await readdir(proc)).filter((name) => /^\d+$/.test(name))) {
    const name = nameOf(await orEmpty(readFile(path.join(proc, pid, 'cmdline'), 'utf8')));
    if (name === undefined || (await orEmpty(readlink(path.join(proc, pid, 'ns/net')))) !== own) continue;
    found.push({ name, pid: Number(pid) });
  }
  return found;
}

/** flanneld is a program of its own, ours a script of Node's. */
function nameOf(commandLine: string): RunningDaemon['name'] | undefined {
  const [program = '', ...words] = commandLine.split('\0').map((word) => path.basename(word));
  if (program === 'flanneld') return 'flanneld';
  const isScript = program.startsWith('node') && words.includes('tsflanneld.js');
  return program === 'tsflanneld' || isScript ? 'tsflanneld' : undefined;
}

/** A process may end while it is looked at; those of others may not be looked at. */
async function orEmpty(reading: Promise<string>): Promise<string> {
  return reading.catch(() => '');
}
