import { readFile, stat } from 'node:fs/promises';
import { OverlayError, describeError } from '../errors.js';
import type { Logger } from '../log.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';
import { makeDirectory } from '../sys/make-directory.js';
import { refuseForeignLinks } from '../sys/safe-path.js';

/**
 * Keeps a state directory for this process alone: two daemons on one would take each other's lease for their own.
 *
 * @remarks The lock is on the directory itself and ends with the process, whatever ends it (flock(2)). Where it cannot be
 * made at all (no such directory can be, a file system without locks) the daemon goes on without: the state cannot be
 * saved there either, or nobody can tell.
 * @returns gives the lock back.
 * @throws {@link OverlayError} `ERR_STATE_LOCKED`
 */
export async function lockStateDirectory(directory: string, log: Pick<Logger, 'debug'>): Promise<() => void> {
  try {
    refuseForeignLinks(directory);
    await makeDirectory(directory, 0o700);
  } catch (error) {
    log.debug('the state directory is not locked', { file: directory, detail: describeError(error) });
    return () => {};
  }
  const fd = libc.open(directory, SYS.O_RDONLY);
  const result = fd < 0 ? fd : libc.flock(fd, SYS.LOCK_EX | SYS.LOCK_NB);
  if (result >= 0) return () => void libc.close(fd);
  if (fd >= 0) libc.close(fd);
  if (libc.errnoName(result) !== 'EAGAIN') {
    log.debug('the state directory is not locked', { file: directory, errno: libc.errnoName(result) });
    return () => {};
  }
  const holder = await holderOf(directory);
  throw new OverlayError(
    'ERR_STATE_LOCKED',
    `cannot use the state directory ${directory}: another tsflanneld${holder === undefined ? '' : `, pid ${holder},`} runs on it`,
    {
      context: { file: directory },
      hint: 'stop that one, or give each daemon its own --state-dir, --etcd-prefix, --subnet-file and --status-socket',
    },
  );
}

/** Process id of whoever holds a lock on a directory, from proc_locks(5); undefined if it cannot be told. */
async function holderOf(directory: string): Promise<string | undefined> {
  try {
    const { ino } = await stat(directory);
    const locks = await readFile('/proc/locks', 'utf8');
    return new RegExp(`FLOCK +ADVISORY +WRITE +(\\d+) +\\S+:${ino} `).exec(locks)?.[1];
  } catch {
    return undefined; // the message does without it
  }
}
