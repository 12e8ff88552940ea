// Compiles the script of the status page, which runs in a browser and is sent as text:
//
//   node .ci/page.mjs     writes it into dist, from where the daemon reads it
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const folder = path.join(root, 'src/observe/page');

/** The script as JavaScript; npm run types checks its types. */
export function compilePageScript() {
  const config = ts.getParsedCommandLineOfConfigFile(path.join(folder, 'tsconfig.json'), {}, ts.sys);
  const [fileName] = config.fileNames;
  const source = readFileSync(fileName, 'utf8');
  // What kind of module it is cannot be told from package.json here, as it is for the rest of src.
  const compilerOptions = { ...config.options, module: ts.ModuleKind.ESNext };
  return ts.transpileModule(source, { fileName, compilerOptions }).outputText;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const output = path.join(root, 'dist/observe/page/script.js');
  mkdirSync(path.dirname(output), { recursive: true });
  writeFileSync(output, compilePageScript());
}
