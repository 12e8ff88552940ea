import fs from 'node:fs';
import { OverlayError } from '../errors.js';
import { errnoOf } from '../sys/errno.js';

/** Where the kernel shows its parameters. */
const ROOT = '/proc/sys';

/**
 * Reads a kernel parameter.
 *
 * @param path - below `/proc/sys`, with slashes.
 * @returns its text without the closing newline; undefined if this kernel, or the device, has no such parameter.
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function readSysctl(path: string): string | undefined {
  const name = file(path);
  try {
    return fs.readFileSync(name, 'utf8').replace(/\n$/, '');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw failed('read', path, error);
  }
}

/**
 * Sets a kernel parameter.
 *
 * @throws {@link OverlayError} `ERR_SYSCTL`
 */
export function writeSysctl(path: string, value: string): void {
  const name = file(path);
  try {
    const fd = fs.openSync(name, fs.constants.O_WRONLY);
    try {
      fs.writeSync(fd, `${value}\n`);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw failed('write', path, error);
  }
}

function file(path: string): string {
  if (path.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw new OverlayError('ERR_SYSCTL', `cannot use kernel parameter "${path}": not a path below ${ROOT}`);
  }
  return `${ROOT}/${path}`;
}

function failed(verb: string, path: string, error: unknown): OverlayError {
  const errno = errnoOf(error) ?? 'unknown error';
  return new OverlayError('ERR_SYSCTL', `cannot ${verb} kernel parameter ${path}: ${errno}`, {
    cause: error,
    context: { errno },
    ...(errno === 'EROFS' || errno === 'EACCES'
      ? { hint: `make ${ROOT} writable for the daemon (in a container: run it privileged)` }
      : {}),
  });
}
