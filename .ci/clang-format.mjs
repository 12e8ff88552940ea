// Checks the layout of the C++ sources, or corrects it.
//
//   node .ci/clang-format.mjs [--write]
import { spawnSync } from 'node:child_process';
import { cppSources, explainMissing, root } from './cpp-sources.mjs';

const mode = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '--Werror', '--ferror-limit=3'];
const files = cppSources(['native', 'test/native'], ['.h', '.cc', '.c']);
const result = spawnSync('clang-format', ['--style=file', ...mode, ...files], { cwd: root, stdio: 'inherit' });

if (result.error !== undefined) explainMissing('clang-format', result.error);
else if (result.status !== 0) {
  process.stderr.write('clang-format: layout differs; run "npm run format"\n');
  process.exitCode = 1;
}
