import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit } from '../cleanup.js';

/** Why no virtual machine can be had here: tests that need one are skipped with this reason. */
export class Unavailable extends Error {}

/** A package in the version that apt would install. */
export interface Package {
  readonly name: string;
  readonly version: string;
}

/** What apt calls Debian's stock kernel: a package that depends on the one of the present release. */
const KERNEL = 'linux-image-amd64';
/** Debian package → the program that it brings; an installation by other means will do. */
const TOOLS = { 'qemu-system-x86': 'qemu-system-x86_64', kmod: 'kmod', 'busybox-static': 'busybox' };
const UNUSED_MS = 30 * 24 * 3_600_000;

/**
 * A folder of the cache with the unpacked packages: Debian's kernel, and those that the host has not installed of qemu,
 * kmod, busybox and what these depend on.
 */
export class MachineFiles {
  constructor(readonly directory: string) {}

  /** Kernel release, such as `6.1.0-56-amd64`. */
  get release(): string {
    const [release] = readdirSync(path.join(this.directory, 'lib/modules'));
    if (release === undefined) throw new Error(`${this.directory} has no kernel: delete it, and it is made anew`);
    return release;
  }

  get kernel(): string {
    return path.join(this.directory, 'boot', `vmlinuz-${this.release}`);
  }

  get modules(): string {
    return path.join(this.directory, 'lib/modules', this.release);
  }

  /** Where qemu looks for firmware; none if the host's qemu is used, which knows. */
  get firmware(): readonly string[] {
    const folders = ['usr/share/qemu', 'usr/share/seabios'].map((folder) => path.join(this.directory, folder));
    return folders.filter((folder) => existsSync(folder));
  }

  /** The path of a program: from here, else from the host. */
  program(name: string): string {
    const own = ['usr/bin', 'bin'].map((folder) => path.join(this.directory, folder, name));
    const found = own.find((file) => existsSync(file)) ?? findProgram(name);
    if (found === undefined) throw new Error(`there is no ${name}, neither on this host nor in ${this.directory}`);
    return found;
  }

  /** Environment in which programs from here find their libraries. */
  get environment(): Record<string, string> {
    const folders = ['usr/lib', 'lib'].map((folder) => path.join(this.directory, folder, 'x86_64-linux-gnu'));
    return { LD_LIBRARY_PATH: folders.join(':'), QEMU_MODULE_DIR: path.join(folders[0] ?? '', 'qemu') };
  }
}

/**
 * Gives the unpacked packages, from the cache if they are there. Otherwise apt downloads them (90 MB, checked against
 * its signed lists) and dpkg-deb unpacks them (480 MB); nothing is installed.
 *
 * @remarks A folder gets its name when it is complete, so that an interrupted download is not taken for one. If apt
 * gives nothing, what was used last will do. Folders that nobody has used for a month go.
 * @throws Unavailable if they cannot be had here.
 */
export function machineFiles(cache = defaultCache()): MachineFiles {
  if (process.arch !== 'x64') throw new Unavailable(`the kernel is for x64, and this is ${process.arch}`);
  for (const program of ['apt-get', 'dpkg-deb']) {
    if (findProgram(program) === undefined) throw new Unavailable(`this system has no ${program}`);
  }
  mkdirSync(cache, { recursive: true });
  const directory = find(cache);
  const now = new Date();
  utimesSync(directory, now, now);
  return new MachineFiles(directory);
}

function find(cache: string): string {
  try {
    return load(cache, wantedPackages());
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    // apt's lists may be too old, or never have been fetched; only root may do that.
    if (process.getuid?.() === 0 && spawnSync('apt-get', ['update', '-qq']).status === 0) {
      try {
        return load(cache, wantedPackages());
      } catch (again) {
        if (!(again instanceof Unavailable)) throw again;
      }
    }
    const last = foldersOf(cache).at(-1);
    if (last === undefined) throw error;
    process.stderr.write(`${error.message}; taking ${last}, which was used last\n`);
    return last;
  }
}

/** What has to be unpacked: the kernel, and what apt would install for the tools that the host lacks. */
function wantedPackages(): Package[] {
  const missing = Object.entries(TOOLS).flatMap(([name, program]) =>
    findProgram(program) === undefined ? [name] : [],
  );
  const kernel = parseKernel(apt(['apt-cache', 'show', '--no-all-versions', KERNEL]));
  if (kernel === undefined) throw new Unavailable(`apt knows no package ${KERNEL}`);
  if (missing.length === 0) return [kernel];
  return [kernel, ...parseSimulation(apt(['apt-get', 'install', '-s', '--no-install-recommends', ...missing]))];
}

/**
 * The package that Debian's package of the newest kernel depends on, as `apt-cache show` tells it.
 *
 * @internal
 */
export function parseKernel(output: string): Package | undefined {
  const [, name, version] = /^Depends: (?:.*, )?(linux-image-\S+) \(= ([^)]+)\)/m.exec(output) ?? [];
  return name === undefined || version === undefined ? undefined : { name, version };
}

/**
 * What `apt-get install -s` says that it would install, or bring to another version.
 *
 * @internal
 */
export function parseSimulation(output: string): Package[] {
  const lines = output.matchAll(/^Inst (\S+)(?: \[[^\]]+\])? \((\S+) /gm);
  return [...lines].map(([, name = '', version = '']) => ({ name, version }));
}

/**
 * The folder of these packages, which is made if it is not there.
 *
 * @throws Unavailable if they cannot be downloaded.
 */
function load(cache: string, packages: readonly Package[]): string {
  const names = packages.map(({ name, version }) => `${name}=${version}`);
  const digest = createHash('sha256').update(names.toSorted().join('\n')).digest('hex').slice(0, 8);
  const directory = path.join(cache, `${packages[0]?.name ?? ''}_${packages[0]?.version ?? ''}_${digest}`);
  if (existsSync(directory)) return directory;

  sweep(cache);
  const partial = mkdtempSync(path.join(cache, `${PARTIAL}${process.pid}-`));
  const withdraw = onExit(() => rmSync(partial, { recursive: true, force: true }));
  try {
    process.stderr.write(`downloading ${names.length} Debian packages into ${cache}\n`);
    const archives = path.join(partial, 'archives');
    mkdirSync(archives);
    apt(['apt-get', 'download', '-qq', ...names], archives);
    for (const archive of readdirSync(archives)) apt(['dpkg-deb', '-x', path.join(archives, archive), partial]);
    rmSync(archives, { recursive: true });
    const files = new MachineFiles(partial);
    const depmod = { argv0: 'depmod', env: { ...process.env, ...files.environment } };
    const { status, stderr } = spawnSync(files.program('kmod'), ['-b', partial, files.release], depmod);
    if (status !== 0) throw new Unavailable(`cannot index the kernel’s modules: ${String(stderr)}`);
    // Another process may have been faster.
    if (!existsSync(directory)) renameSync(partial, directory);
    return directory;
  } finally {
    withdraw();
    rmSync(partial, { recursive: true, force: true });
  }
}

const PARTIAL = '.partial-';

/** Complete folders, the one that was used last at the end. */
function foldersOf(cache: string): string[] {
  const usedAt = (folder: string): number => statSync(folder).mtimeMs;
  return readdirSync(cache)
    .filter((name) => !name.startsWith('.'))
    .map((name) => path.join(cache, name))
    .sort((a, b) => usedAt(a) - usedAt(b));
}

/** Removes what processes left that are gone, and what nobody has used for a month. */
function sweep(cache: string): void {
  const isLeft = (name: string): boolean =>
    name.startsWith(PARTIAL) && !existsSync(`/proc/${name.slice(PARTIAL.length).split('-')[0] ?? ''}`);
  const left = readdirSync(cache).filter(isLeft);
  const unused = foldersOf(cache).filter((folder) => Date.now() - statSync(folder).mtimeMs > UNUSED_MS);
  for (const folder of [...left.map((name) => path.join(cache, name)), ...unused]) {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @throws Unavailable with what it said if it fails. */
function apt([program = '', ...args]: readonly string[], cwd?: string): string {
  const env = { ...process.env, LC_ALL: 'C' };
  const result = spawnSync(program, args, { encoding: 'utf8', env, ...(cwd === undefined ? {} : { cwd }) });
  if (result.status === 0) return result.stdout;
  const [reason = ''] = (result.error?.message ?? result.stderr).trim().split('\n');
  throw new Unavailable(`${program} ${args[0] ?? ''}: ${reason}`);
}

function findProgram(name: string): string | undefined {
  // A user's PATH leaves out the sbin directories.
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => path.isAbsolute(file) && existsSync(file));
}

function defaultCache(): string {
  return path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'tsflannel/vm');
}
