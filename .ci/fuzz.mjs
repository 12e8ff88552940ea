// Runs the fuzz targets of the packet core one after the other and prints a table of what came of it.
// What it is told on the command line: .ci/usage/test-fuzz.txt.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const TARGETS = { guided: 'fuzz', libfuzzer: 'libfuzzer' };
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '600' }, engine: { type: 'string', default: 'guided' } },
});
const target = TARGETS[values.engine];
if (target === undefined || !/^[1-9]\d*$/.test(values.seconds)) {
  process.stderr.write(readFileSync(new URL('usage/test-fuzz.txt', import.meta.url)));
  process.exit(2);
}
const make = ['-s', '--no-print-directory', '-C', 'test/native', target, `FUZZ_SECONDS=${values.seconds}`];
process.exitCode = spawnSync('make', make, { cwd: root, stdio: 'inherit' }).status ?? 1;
