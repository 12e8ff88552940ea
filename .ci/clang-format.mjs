// Checks the layout of the C++ sources, or mends it.
//
//   node .ci/clang-format.mjs [--write]
//
// Without clang-format this is a named skip, since it is not an npm package; the CI installs it.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const SKIPPED = new Set(['build', 'prebuilds', 'node_modules']);

const sources = (directory) =>
  readdirSync(directory, { withFileTypes: true })
    .filter((entry) => !SKIPPED.has(entry.name))
    .flatMap((entry) => {
      const name = path.join(directory, entry.name);
      if (entry.isDirectory()) return sources(name);
      return /\.(h|cc)$/.test(entry.name) ? [name] : [];
    })
    .sort();

const files = ['native', 'test/native'].flatMap((directory) => sources(path.join(root, directory)));
const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror', '--ferror-limit=3'];
const result = spawnSync('clang-format', ['--style=file', ...mode, ...files], { cwd: root, stdio: 'inherit' });

if (result.error?.code === 'ENOENT') {
  process.stdout.write('skipped: layout of the C++ sources (clang-format is not installed)\n');
} else if (result.error !== undefined) {
  process.stderr.write(`clang-format: cannot check the C++ sources: ${result.error.message}\n`);
  process.exitCode = 2;
} else if (result.status !== 0) {
  process.stderr.write('clang-format: layout differs; run "npm run format"\n');
  process.exitCode = 1;
}
