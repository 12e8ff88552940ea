import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

let isFresh = false;

/**
 * The path of a compiled program, such as `bin/tsflanneld.js`.
 *
 * @throws Error if it is not what the sources say, so that no result is taken for one of the present sources.
 */
export function distFile(name: string): string {
  if (!isFresh) assertFresh(ROOT);
  isFresh = true;
  return path.join(ROOT, 'dist', name);
}

/**
 * @throws Error if a compiled file below `dist` is missing or older than its source below `src`.
 * @internal
 */
export function assertFresh(root: string): void {
  const stampOf = (file: string): number =>
    statSync(path.join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? Number.NEGATIVE_INFINITY;
  const sources = readdirSync(path.join(root, 'src'), { recursive: true }).map(String);
  const stale = sources
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
    .find((file) => stampOf(path.join('dist', file.replace(/\.ts$/, '.js'))) < stampOf(path.join('src', file)));
  if (stale === undefined) return;
  throw new Error(`dist is older than src/${stale}: run "npm run build:ts", or nothing of the change would be tried`);
}
