// The programs, and what bundle.mjs makes of them in dist/bin.
import path from 'node:path';

/** Bundles that Node compiles as it runs them. */
export const SMALL_PROGRAMS = ['tsflanneld', 'mk-docker-opts'];
/**
 * Those that load-program.cjs loads with byte code. tsflanneld.js may begin again with fewer rights
 * (src/sys/capabilities.ts) before it loads the rest, run-daemon.js.
 */
export const LARGE_PROGRAMS = ['run-daemon', 'tsflannelctl'];

/** Files that are there besides the one of each program, relative to the root of the clone. */
export const FILES_OF_BUNDLES = [
  'package.json',
  'load-program.js',
  ...LARGE_PROGRAMS.flatMap((name) => [`${name}.bundle.js`, `${name}.cache`, `${name}.unit.cache`]),
].map((file) => path.join('dist/bin', file));
