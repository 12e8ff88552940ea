// Compiles test files once for a whole run: mocha loads what tsx would compile for each process in a third of the time,
// and the processes that tests start are forked from smaller ones.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';
import { BUNDLING, OWN_PLACES } from './bundling.mjs';

/**
 * @param root - of the clone.
 * @param files - test files, relative to it.
 * @returns by file of `files` the one that mocha loads; they are there until this process ends.
 */
export async function compileTests(root, files) {
  // Below the packages, where those are found that are not in it.
  const cache = path.join(root, 'node_modules/.cache');
  mkdirSync(cache, { recursive: true });
  const directory = mkdtempSync(path.join(cache, 'tsflannel-tests-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  await build({
    ...BUNDLING,
    absWorkingDir: root,
    entryPoints: files,
    outbase: root,
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    splitting: true,
    packages: 'external',
    sourcemap: true,
    sourcesContent: false,
    plugins: [OWN_PLACES],
  });
  return new Map(files.map((file) => [file, path.join(directory, file.replace(/\.ts$/, '.mjs'))]));
}
