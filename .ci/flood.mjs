// Floods a tunnel with hostile packets, and accounts for every one of them.
//
//   npm run test:flood -- [--datagrams N]
//
// Default ten million, as in docs/reliability.md; `npm test` sends 300 000.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({ options: { datagrams: { type: 'string', default: '10000000' } } });
if (!/^[1-9]\d*$/.test(values.datagrams)) {
  process.stderr.write('flood: usage: npm run test:flood -- [--datagrams N]\n');
  process.exit(2);
}
const mocha = ['node_modules/mocha/bin/mocha.js', '--config', '.ci/mocharc.host.json', '--retries', '0'];
const { status } = spawnSync(process.execPath, [...mocha, 'test/host/hostile-packets.test.ts'], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, TSFLANNEL_FLOOD_DATAGRAMS: values.datagrams },
});
process.exitCode = status ?? 1;
