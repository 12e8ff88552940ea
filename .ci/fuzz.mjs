// Runs the fuzz targets of the packet core one after the other and prints a table of what came of it.
//
//   npm run test:fuzz -- [--seconds N] [--engine guided|libfuzzer]
//
// Each runs for N seconds (default 600). The engine is our own, which any g++ builds, or libFuzzer, which needs
// clang++. TSFLANNEL_SEED chooses other inputs.
import { spawnSync } from 'node:child_process';
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
  process.stderr.write('fuzz: usage: npm run test:fuzz -- [--seconds N] [--engine guided|libfuzzer]\n');
  process.exit(2);
}
const make = ['-s', '--no-print-directory', '-C', 'test/native', target, `FUZZ_SECONDS=${values.seconds}`];
process.exitCode = spawnSync('make', make, { cwd: root, stdio: 'inherit' }).status ?? 1;
