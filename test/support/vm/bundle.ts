import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { BUNDLING, OWN_PLACES } from '../../../.ci/bundling.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const RUNNER = fileURLToPath(new URL('run-tests.ts', import.meta.url));

/**
 * Puts test files, mocha and all that they import into a few files: in the guest, where a file costs milliseconds to
 * open and there is nothing to compile TypeScript with, they start in a tenth of the time.
 *
 * @param files - test files, relative to the root of the repository.
 * @param directory - gets the bundle; below the root, where packages are found.
 * @param totals - where the tests leave their totals, in the guest.
 * @returns the file to run.
 */
export async function bundleTests(files: readonly string[], directory: string, totals: string): Promise<string> {
  const loads = files.map(
    (file) => `${JSON.stringify(file)}: () => import(${JSON.stringify(path.resolve(ROOT, file))}),`,
  );
  await build({
    ...BUNDLING,
    absWorkingDir: ROOT,
    stdin: {
      contents: `import { runTests } from ${JSON.stringify(RUNNER)};\nawait runTests({${loads.join('')}}, ${JSON.stringify(totals)});`,
      resolveDir: ROOT,
      sourcefile: 'tests.ts',
      loader: 'ts',
    },
    outdir: directory,
    entryNames: 'tests',
    splitting: true,
    outExtension: { '.js': '.mjs' },
    plugins: [...BUNDLING.plugins, OWN_PLACES],
  });
  return path.join(directory, 'tests.mjs');
}
