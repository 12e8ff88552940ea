// Floods a tunnel, and the kernel path beside one, with hostile packets, and accounts for every one of them.
// What it is told on the command line: .ci/usage/test-flood.txt.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({ options: { datagrams: { type: 'string', default: '10000000' } } });
if (!/^[1-9]\d*$/.test(values.datagrams)) {
  process.stderr.write(readFileSync(new URL('usage/test-flood.txt', import.meta.url)));
  process.exit(2);
}
const mocha = ['node_modules/mocha/bin/mocha.js', '--config', '.ci/mocharc.host.json', '--retries', '0'];
const files = ['hostile-packets', 'kernel-path-hostile'].map((name) => `test/host/${name}.test.ts`);
const { status } = spawnSync(process.execPath, [...mocha, ...files], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, TSFLANNEL_FLOOD_DATAGRAMS: values.datagrams },
});
process.exitCode = status ?? 1;
