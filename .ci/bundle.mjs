// Puts each program into one file, dist/bin/NAME.js, with the packages that it needs: Node reads and links one file in a
// quarter of the time that it takes for six hundred.
//
//   node .ci/bundle.mjs
//
// koffi stays a package, as it brings a shared library. The page script and the addon are found by the same relative
// paths as from the files that tsc writes, which lie at the same depth.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** tsflanneld.js may begin again with fewer rights (src/sys/capabilities.ts) before it loads the rest, run-daemon.js. */
const PROGRAMS = ['tsflanneld', 'run-daemon', 'tsflannelctl', 'mk-docker-opts'];

/** Packages that were written for CommonJS call `require` for Node's own modules. */
const REQUIRE =
  "import { createRequire as createRequireOfBundle } from 'node:module';\nconst require = createRequireOfBundle(import.meta.url);";

/** etcd3 reads its interface definition from a file beside it, and parses it at each start; here it is parsed once. */
const parsedDefinition = {
  name: 'etcd3-definition',
  setup({ onLoad }) {
    onLoad({ filter: /etcd3\/lib\/connection-pool\.js$/ }, ({ path: file }) => {
      const source = readFileSync(file, 'utf8');
      const call = '(0, proto_loader_1.loadSync)(`${__dirname}/../proto/rpc.proto`,';
      if (source.split(call).length !== 2) throw new Error(`${file} reads its interface definition in another way now`);
      const { Root } = createRequire(createRequire(file).resolve('@grpc/proto-loader'))('protobufjs');
      const proto = path.join(path.dirname(file), '../proto/rpc.proto');
      const definition = JSON.stringify(new Root().loadSync(proto, { keepCase: true }).toJSON());
      return { contents: source.replace(call, () => `(0, proto_loader_1.fromJSON)(${definition},`), loader: 'js' };
    });
  },
};

await build({
  absWorkingDir: root,
  entryPoints: PROGRAMS.map((name) => `src/bin/${name}.ts`),
  outdir: 'dist/bin',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  external: ['koffi', './run-daemon.js'],
  // What a package does not export unless it runs in a browser would otherwise be chosen.
  mainFields: ['main', 'module'],
  banner: { js: REQUIRE },
  plugins: [parsedDefinition],
  logLevel: 'warning',
});
