// Puts each program into one file, dist/bin/NAME.js, with the packages that it needs: Node reads and links one file in a
// quarter of the time that it takes for six hundred.
//
//   node .ci/bundle.mjs
//
// The page script and the addon are found by the same relative paths as from the files that tsc writes, which lie at the
// same depth. Names stay, and lines stay short, so that a stack trace tells where something failed.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { BUNDLING } from './bundling.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** tsflanneld.js may begin again with fewer rights (src/sys/capabilities.ts) before it loads the rest, run-daemon.js. */
const PROGRAMS = ['tsflanneld', 'run-daemon', 'tsflannelctl', 'mk-docker-opts'];

/**
 * Gets Node's own modules as CommonJS does: an import statement reads every export at once, and some of `node:http` (Node
 * 22 and later) load a client for WebSockets and all that it needs, which takes as long as Node itself.
 */
const directBuiltins = {
  name: 'direct-builtins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path: name, kind }) =>
      kind === 'import-statement' ? { path: name, namespace: 'builtin' } : undefined,
    );
    onLoad({ filter: /^/, namespace: 'builtin' }, ({ path: name }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(name)});`,
    }));
  },
};

await build({
  ...BUNDLING,
  absWorkingDir: root,
  entryPoints: PROGRAMS.map((name) => `src/bin/${name}.ts`),
  outdir: 'dist/bin',
  external: [...BUNDLING.external, './run-daemon.js'],
  plugins: [...BUNDLING.plugins, directBuiltins],
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 120,
});
