// Puts each program into one file, dist/bin/NAME.js, with the packages that it needs: Node reads and links one file in a
// quarter of the time that it takes for six hundred. The large ones are NAME.bundle.js, which NAME.js loads with byte code
// of V8 that is made here for the Node that runs this, and at an installation for that one (load-program.cjs).
//
//   node .ci/bundle.mjs
//
// The page script and the addon are found by the same relative paths as from the files that tsc writes, which lie at the
// same depth. Names stay, and lines stay short, so that a stack trace tells where something failed.
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { BUNDLING } from './bundling.mjs';
import { LARGE_PROGRAMS, SMALL_PROGRAMS } from './programs.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const bin = path.join(root, 'dist/bin');

const HASHBANG = /^#!.*\n/;

/** What import.meta is to a module, for CommonJS. */
const IMPORT_META = {
  define: { 'import.meta.url': 'importMetaUrl' },
  banner: { js: "const importMetaUrl = require('node:url').pathToFileURL(__filename).href;" },
};

await build({
  ...BUNDLING,
  absWorkingDir: root,
  ...IMPORT_META,
  format: 'cjs',
  charset: 'ascii',
  entryPoints: [
    ...SMALL_PROGRAMS.map((name) => ({ in: `src/bin/${name}.ts`, out: name })),
    ...LARGE_PROGRAMS.map((name) => ({ in: `src/bin/${name}.ts`, out: `${name}.bundle` })),
  ],
  outdir: 'dist/bin',
  external: [...BUNDLING.external, './run-daemon.js'],
  // The rest of the daemon is found by require.
  supported: { 'dynamic-import': false },
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 120,
});
for (const name of LARGE_PROGRAMS) {
  const bundle = path.join(bin, `${name}.bundle.js`);
  writeFileSync(bundle, readFileSync(bundle, 'latin1').replace(HASHBANG, ''));
  const text = `#!/usr/bin/env node\nmodule.exports = require('./load-program.js').load('${name}');\n`;
  writeFileSync(path.join(bin, `${name}.js`), text);
}
writeFileSync(path.join(bin, 'package.json'), '{ "type": "commonjs" }\n');
copyFileSync(path.join(root, '.ci/load-program.cjs'), path.join(bin, 'load-program.js'));
const { status } = spawnSync(process.execPath, [path.join(bin, 'load-program.js')], { stdio: 'inherit' });
if (status !== 0) throw new Error('cannot make the byte code of the programs, see above');
