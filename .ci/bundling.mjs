// How esbuild puts a program of ours and the packages that it needs into few files: the programs (bundle.mjs) and the
// tests that run in a virtual machine (test/support/vm/bundle.ts).
//
// koffi stays a package, as it brings a shared library.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { transform } from 'esbuild';

/** Packages that were written for CommonJS call `require` for Node's own modules. */
const REQUIRE =
  "import { createRequire as createRequireOfBundle } from 'node:module';\nconst require = createRequireOfBundle(import.meta.url);";

const SERVICE_LOADER = fileURLToPath(new URL('service-loader.cjs', import.meta.url));

/** etcd3 reads its interface definition from a file beside it, and parses it at each start; here it is parsed once. */
const parsedDefinition = {
  name: 'etcd3-definition',
  setup({ onLoad }) {
    onLoad({ filter: /etcd3\/lib\/connection-pool\.js$/ }, ({ path: file }) => {
      const { Root } = createRequire(createRequire(file).resolve('@grpc/proto-loader'))('protobufjs');
      const proto = path.join(path.dirname(file), '../proto/rpc.proto');
      const definition = JSON.stringify(new Root().loadSync(proto, { keepCase: true }).toJSON());
      const replacements = [
        ['require("@grpc/proto-loader")', `require(${JSON.stringify(SERVICE_LOADER)})`],
        ['proto_loader_1.loadSync)(`${__dirname}/../proto/rpc.proto`,', `proto_loader_1.fromJSON)(${definition},`],
      ];
      return { contents: replacements.reduce(replaceOnce, readFileSync(file, 'utf8')), loader: 'js' };

      function replaceOnce(source, [text, replacement]) {
        if (source.split(text).length !== 2)
          throw new Error(`${file} reads its interface definition in another way now`);
        return source.replace(text, () => replacement);
      }
    });
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
