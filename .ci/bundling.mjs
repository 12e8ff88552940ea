// How esbuild puts a program of ours and the packages that it needs into few files: the programs (bundle.mjs) and the
// tests that run in a virtual machine (test/support/vm/bundle.ts).
//
// koffi stays a package, as it brings a shared library.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { transform } from 'esbuild';
import { serviceCode } from './service-code.mjs';

/** Packages that were written for CommonJS call `require` for Node's own modules. */
const REQUIRE =
  "import { createRequire as createRequireOfBundle } from 'node:module';\nconst require = createRequireOfBundle(import.meta.url);";

/** The services of etcd that are used (src/etcd/connection.ts). */
const SERVICES = ['KV', 'Lease', 'Watch', 'Auth'].map((name) => `etcdserverpb.${name}`);

/**
 * etcd3 reads its interface definition from a file beside it, and makes functions of it at each start; here that is done
 * once. What @grpc/grpc-js would read by the same package for its servers does not lie beside a bundle in any case.
 */
const parsedDefinition = {
  name: 'etcd3-definition',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^@grpc\/proto-loader$/ }, ({ importer }) => {
      const isOfEtcd3 = /etcd3\/lib\/connection-pool\.js$/.test(importer);
      if (!isOfEtcd3) return { path: 'none', namespace: 'interface-definition' };
      const proto = path.join(path.dirname(importer), '../proto/rpc.proto');
      return { path: 'etcd3', namespace: 'interface-definition', pluginData: proto };
    });
    onLoad({ filter: /etcd3\/lib\/connection-pool\.js$/ }, ({ path: file }) => {
      const parts = readFileSync(file, 'utf8').split('`${__dirname}/../proto/rpc.proto`');
      if (parts.length !== 2) throw new Error(`${file} reads its interface definition in another way now`);
      return { contents: parts.join("'rpc.proto'"), loader: 'js' };
    });
    onLoad({ filter: /^etcd3$/, namespace: 'interface-definition' }, ({ pluginData: proto }) => ({
      contents: serviceCode(proto, SERVICES),
      resolveDir: path.dirname(proto),
    }));
    onLoad({ filter: /^none$/, namespace: 'interface-definition' }, () => ({
      contents: 'exports.loadSync = (file) => { throw new Error(`cannot read ${file}: it is not in this program`); };',
    }));
  },
};

/** For bundles that lie elsewhere: what finds files of ours beside itself finds them from there, too. */
export const OWN_PLACES = {
  name: 'own-places',
  setup({ onLoad }) {
    onLoad({ filter: /\.(?:ts|mjs)$/ }, async ({ path: file }) => {
      const source = readFileSync(file, 'utf8');
      if (!source.includes('import.meta') || file.includes('/node_modules/')) return undefined;
      const place = { url: pathToFileURL(file).href, dirname: path.dirname(file), filename: file };
      const define = Object.entries(place).map(([name, value]) => [`import.meta.${name}`, JSON.stringify(value)]);
      const { code } = await transform(source, {
        loader: file.endsWith('.ts') ? 'ts' : 'js',
        define: Object.fromEntries(define),
        sourcemap: 'inline',
        sourcefile: file,
      });
      return { contents: code, loader: 'js' };
    });
  },
};

/** Options of every bundle. */
export const BUNDLING = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  external: ['koffi'],
  // What a package does not export unless it runs in a browser would otherwise be chosen.
  mainFields: ['main', 'module'],
  banner: { js: REQUIRE },
  plugins: [parsedDefinition],
  logLevel: 'warning',
};
