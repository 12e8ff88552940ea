import { lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from './netns.js';

/** Where dpkg keeps which files a package has. */
const LISTS = '/var/lib/dpkg/info';
const NOT_NEEDED = /^\/usr\/share\/(doc|man|locale|info)\//;

/**
 * Makes a root file system that holds these Debian packages of this machine and what they depend on, and nothing else:
 * what `debootstrap` makes, without a mirror. dpkg in there knows of no other packages.
 *
 * @param directory - is made; it becomes the root.
 * @param packages - must be installed on this machine.
 * @returns the names of all packages in it.
 */
export async function makeDebianRoot(directory: string, packages: readonly string[]): Promise<string[]> {
  const installed = await installedPackages();
  const names = closureOf(packages, installed);
  mkdirSync(directory, { recursive: true });
  // Debian 12 has /bin and others as links into /usr, which no package owns.
  const links = ['bin', 'sbin', 'lib', 'lib64'].filter((name) => lstatSync(`/${name}`).isSymbolicLink());
  for (const name of links) {
    const target = readlinkSync(`/${name}`);
    mkdirSync(path.join(directory, target), { recursive: true });
    symlinkSync(target, path.join(directory, name));
  }
  const { stdout } = await run(['dpkg-query', '--listfiles', ...names]);
  const files = [...stdout.split('\n'), ...listsOf(names)].filter(
    (file) =>
      file.startsWith('/') &&
      file !== '/.' &&
      !links.includes(file.slice(1)) &&
      !NOT_NEEDED.test(file) &&
      isThere(file),
  );
  const archive = `${directory}.tar`;
  const input = [...new Set(files)].map((file) => `${file.slice(1)}\n`).join('');
  await run(['tar', '--create', `--file=${archive}`, '--directory=/', '--no-recursion', '--files-from=-'], { input });
  await run(['tar', '--extract', `--file=${archive}`, `--directory=${directory}`]);
  rmSync(archive);
  for (const place of ['dev', 'proc', 'sys', 'run', 'tmp', 'etc', 'var/lib/dpkg/updates'])
    mkdirSync(path.join(directory, place), { recursive: true });
  const { stdout: status } = await run(['dpkg-query', '--status', ...names]);
  writeFileSync(path.join(directory, 'var/lib/dpkg/status'), `${status.trimEnd()}\n`);
  return names;
}

function listsOf(names: readonly string[]): string[] {
  const wanted = new Set(names);
  const lists = readdirSync(LISTS).filter((file) => wanted.has(file.replace(/(:\w+)?\.list$/, '')));
  return lists.map((file) => path.join(LISTS, file));
}

function isThere(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
}

interface Installed {
  /** Names that satisfy a dependency, to the package that does. */
  readonly providers: ReadonlyMap<string, string>;
  /** Alternatives of each dependency, by package. */
  readonly dependencies: ReadonlyMap<string, readonly (readonly string[])[]>;
}

async function installedPackages(): Promise<Installed> {
  const format = '${Package}\\t${Provides}\\t${Pre-Depends}\\t${Depends}\\n';
  const { stdout } = await run(['dpkg-query', '--show', `--showformat=${format}`]);
  const providers = new Map<string, string>();
  const dependencies = new Map<string, string[][]>();
  for (const line of stdout.trimEnd().split('\n')) {
    const [name = '', provides = '', ...depends] = line.split('\t');
    for (const provided of [...namesOf(provides).flat(), name]) providers.set(provided, name);
    dependencies.set(name, depends.flatMap(namesOf));
  }
  return { providers, dependencies };
}

/** The names in a relationship field: `a (>= 1), b | c` gives `[['a'], ['b', 'c']]`. */
function namesOf(field: string): string[][] {
  const groups = field.split(',').filter((group) => group.trim() !== '');
  return groups.map((group) => group.split('|').map((name) => name.trim().replace(/[ :(].*$/, '')));
}

function closureOf(packages: readonly string[], { providers, dependencies }: Installed): string[] {
  const found = new Set<string>();
  const pending = [...packages];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (found.has(name)) continue;
    if (!dependencies.has(name)) throw new Error(`the Debian package ${name} is not installed on this machine`);
    found.add(name);
    for (const alternatives of dependencies.get(name) ?? []) {
      const provider = alternatives
        .map((alternative) => providers.get(alternative))
        .find((known) => known !== undefined);
      if (provider !== undefined) pending.push(provider);
    }
  }
  return [...found];
}
