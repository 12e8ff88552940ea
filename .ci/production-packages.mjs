// The npm packages that the programs need on a host.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** Only needed to build the addon. */
const BUILD_ONLY = new Set(['node-addon-api']);

/**
 * Lists them as npm has laid them out; those for another processor are installed into a directory of their own first.
 *
 * @returns where each lies (`source`), and its place below the root of an installation.
 */
export function productionPackages(arch) {
  const installed = arch === process.arch ? root : installFor(arch);
  const listing = npm(['ls', '--omit=dev', '--all', '--parseable'], installed, 'list the npm packages');
  const sources = listing.split('\n').filter((line) => line.includes('/node_modules/', installed.length));
  return sources
    .filter((source) => !BUILD_ONLY.has(path.basename(source)))
    .map((source) => ({ source, place: path.relative(installed, source) }));
}

function installFor(arch) {
  const directory = path.join(root, 'node_modules', '.cache', `tsflannel-packages-${arch}`);
  const lock = 'package-lock.json';
  const installed = path.join(directory, 'installed.json');
  const wanted = readFileSync(path.join(root, lock), 'utf8');
  if (existsSync(installed) && readFileSync(installed, 'utf8') === wanted) return directory;
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const file of ['package.json', lock]) cpSync(path.join(root, file), path.join(directory, file));
  const target = ['--os=linux', `--cpu=${arch}`, '--libc=glibc'];
  const args = ['ci', '--omit=dev', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', ...target];
  npm(args, directory, `install the npm packages for ${arch}`);
  cpSync(path.join(directory, lock), installed);
  return directory;
}

function npm(args, cwd, purpose) {
  const result = spawnSync('npm', [...args, '--loglevel=error'], { cwd, encoding: 'utf8' });
  if (result.status === 0) return result.stdout;
  throw new Error(`cannot ${purpose}: ${result.error?.message ?? result.stderr.trim()}`);
}
