/**
 * What a failed system call said, as Node tells it in `code`.
 *
 * @returns for example `ENOENT`; undefined for errors of another kind, also for Node's and our own `ERR_…`.
 */
export function errnoOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^E(?!RR_)/.test(code) ? code : undefined;
}

/** Whether that means that this process has not the right, not that anything is wrong with what it asked for. */
export function isDenied(errno: string | undefined): boolean {
  return errno === 'EACCES' || errno === 'EPERM';
}
