import { type Stats, lstatSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { OverlayError } from '../errors.js';

/** As many symbolic links as the kernel follows in one path (MAXSYMLINKS, include/linux/namei.h). */
const MAX_LINKS = 40;

const OTHERS_MAY_WRITE = 0o002;
const STICKY = 0o1000;

/**
 * Checks that nobody but root and this process's user can lead a write elsewhere: a symbolic link on the way to the
 * file, or in its place, is only followed if it and the directory that holds it belong to one of those two.
 *
 * @remarks The kernel does the same in directories like /tmp (fs.protected_symlinks), and only there. Whoever owns a
 * directory on the way can still exchange it between this check and the write; see docs/security.md.
 * @throws {@link OverlayError} `ERR_UNSAFE_PATH`
 */
export function refuseForeignLinks(file: string): void {
  const rest = namesOf(path.resolve(file));
  let at = '/';
  for (let links = 0, name = rest.shift(); name !== undefined; name = rest.shift()) {
    const next = path.join(at, name);
    const found = tryLstat(next);
    if (found === undefined) return; // what is missing is made by us, or reported by whoever uses it
    if (!found.isSymbolicLink()) {
      at = next;
      continue;
    }
    const holder = lstatSync(at);
    const owner = [holder.uid, found.uid].find((uid) => uid !== 0 && uid !== process.geteuid?.());
    if (owner !== undefined) throw unsafe(file, next, `user ${owner} can change it`);
    if ((holder.mode & OTHERS_MAY_WRITE) !== 0 && (holder.mode & STICKY) === 0) {
      throw unsafe(file, next, `everybody may write to ${at}`);
    }
    if (++links > MAX_LINKS) return; // ELOOP, as whoever uses it will say
    const target = readlinkSync(next);
    rest.unshift(...namesOf(target));
    if (path.isAbsolute(target)) at = '/';
  }
}

function namesOf(file: string): string[] {
  return file.split('/').filter((name) => name !== '');
}

function tryLstat(file: string): Stats | undefined {
  try {
    return lstatSync(file);
  } catch {
    return undefined;
  }
}

function unsafe(file: string, link: string, why: string): OverlayError {
  return new OverlayError('ERR_UNSAFE_PATH', `cannot write ${file}: ${link} is a symbolic link and ${why}`, {
    context: { file },
    hint: `name a path without that link, or make it and ${path.dirname(link)} root's`,
  });
}
