import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { onExit } from '../cleanup.js';

/** Why no virtual machine can be had here: tests that need one are skipped with this reason. */
export class Unavailable extends Error {}

/** Takes a line for whoever waits. */
export type Say = (line: string) => void;

/** A package in the version that apt would install. */
export interface Package {
  readonly name: string;
  readonly version: string;
}

/** What apt calls Debian's stock kernel: a package that depends on the one of the present release. */
const KERNEL = 'linux-image-amd64';
/** Debian package → the program that it brings; an installation by other means will do. */
const TOOLS = {
  'qemu-system-x86': 'qemu-system-x86_64',
  kmod: 'kmod',
  'busybox-static': 'busybox',
  'wireguard-tools': 'wg',
};
const UNUSED_MS = 30 * 24 * 3_600_000;

/**
 * A folder of the cache with the unpacked packages: Debian's kernel, and those that the host has not installed of
 * {@link TOOLS} and of what these depend on. Everything lies below `usr`, as on a system of today.
 */
export class MachineFiles {
  constructor(readonly directory: string) {}

  /** Kernel release, such as `6.1.0-56-amd64`. */
  get release(): string {
    const [release] = readdirSync(path.join(this.directory, 'usr/lib/modules'));
    if (release === undefined) throw new Error(`${this.directory} has no kernel: delete it, and it is made anew`);
    return release;
  }

  get kernel(): string {
    return path.join(this.directory, 'boot', `vmlinuz-${this.release}`);
  }

  get modules(): string {
    return path.join(this.directory, 'usr/lib/modules', this.release);
  }

  /** Where qemu looks for firmware; none if the host's qemu is used, which knows. */
  get firmware(): readonly string[] {
    const folders = ['qemu', 'seabios'].map((name) => path.join(this.directory, 'usr/share', name));
    return folders.filter((folder) => existsSync(folder));
  }

  /** The path of a program: from here, else from the host. */
  program(name: string): string {
    const own = path.join(this.directory, 'usr/bin', name);
    const found = existsSync(own) ? own : findProgram(name);
    if (found === undefined) throw new Error(`there is no ${name}, neither on this host nor in ${this.directory}`);
    return found;
  }

  /** Environment in which programs from here find their libraries. */
  get environment(): Record<string, string> {
    const libraries = path.join(this.directory, 'usr/lib/x86_64-linux-gnu');
    return { LD_LIBRARY_PATH: libraries, QEMU_MODULE_DIR: path.join(libraries, 'qemu') };
  }
}

/**
 * Gives the unpacked packages, from the cache if they are there. Otherwise apt downloads them (90 MB, checked against
 * its signed lists) and dpkg-deb unpacks them (480 MB); nothing is installed.
 *
 * @remarks A folder gets its name when it is complete, so that an interrupted download is not taken for one. If apt
 * gives nothing, what was used last will do. Folders that nobody has used for a month go.
 * @param say - is told what takes time, and what went wrong.
 * @throws Unavailable if they cannot be had here.
 */
export function machineFiles(say: Say, cache = defaultCache()): MachineFiles {
  if (process.arch !== 'x64') throw new Unavailable(`the kernel is for x64, and this is ${process.arch}`);
  for (const program of ['apt-get', 'dpkg-deb']) {
    if (findProgram(program) === undefined) throw new Unavailable(`this system has no ${program}`);
  }
  mkdirSync(cache, { recursive: true });
  const directory = find(cache, say);
  const now = new Date();
  utimesSync(directory, now, now);
  return new MachineFiles(directory);
}

function find(cache: string, say: Say): string {
  const reasons: string[] = [];
  for (const attempt of [load, loadAfterUpdate]) {
    try {
      return attempt(cache, say);
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      reasons.push(error.message);
    }
  }
  const last = foldersOf(cache).at(-1);
  if (last === undefined) throw new Unavailable(reasons.join('; '));
  say(`${reasons.join('; ')}; taking ${last}, which was used last`);
  return last;
}

/** apt's lists may be too old, or never have been fetched; only root can do something about that. */
function loadAfterUpdate(cache: string, say: Say): string {
  run(['apt-get', 'update', '-q']);
  return load(cache, say);
}

/**
 * The folder of the kernel that apt knows and of the tools that this host lacks, which is made if it is not there.
 *
 * @throws Unavailable if the packages cannot be downloaded.
 */
function load(cache: string, say: Say): string {
  const kernel = parseKernel(run(['apt-cache', 'show', '--no-all-versions', KERNEL]));
  if (kernel === undefined) throw new Unavailable(`apt has no kernel ${KERNEL}`);
  const tools = Object.entries(TOOLS).flatMap(([name, program]) => (findProgram(program) === undefined ? [name] : []));
  const directory = path.join(cache, [`${kernel.name}_${kernel.version}`, ...tools].join('+'));
  if (existsSync(directory)) return directory;

  sweep(cache);
  const partial = mkdtempSync(path.join(cache, `${PARTIAL}${process.pid}-`));
  const withdraw = onExit(() => rmSync(partial, { recursive: true, force: true }));
  try {
    say(`downloading Debian’s kernel and ${tools.join(', ') || 'no tools'} into ${cache}`);
    unpack([kernel, ...withDependencies(tools)], partial);
    // Another process may have been faster.
    if (!existsSync(directory)) renameSync(partial, directory);
    return directory;
  } finally {
    withdraw();
    rmSync(partial, { recursive: true, force: true });
  }
}

/** What apt would install for these packages. */
function withDependencies(names: readonly string[]): Package[] {
  if (names.length === 0) return [];
  return parseSimulation(run(['apt-get', 'install', '-s', '--no-install-recommends', ...names]));
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

/** Downloads packages and unpacks them into one directory, with an index of the kernel's modules. */
function unpack(packages: readonly Package[], directory: string): void {
  const archives = path.join(directory, 'archives');
  mkdirSync(archives);
  run(['apt-get', 'download', '-q', ...packages.map(({ name, version }) => `${name}=${version}`)], { cwd: archives });
  for (const archive of readdirSync(archives)) run(['dpkg-deb', '-x', path.join(archives, archive), directory]);
  rmSync(archives, { recursive: true });
  for (const name of ['bin', 'sbin', 'lib'].map((each) => path.join(directory, each)).filter(existsSync)) {
    const merged = path.join(directory, 'usr', path.basename(name));
    mkdirSync(merged, { recursive: true });
    run(['cp', '-al', `${name}/.`, merged]);
    rmSync(name, { recursive: true });
  }
  // depmod looks in lib, and goes by the name that it is called with.
  symlinkSync('usr/lib', path.join(directory, 'lib'));
  const files = new MachineFiles(directory);
  const [argv0, env] = ['depmod', files.environment];
  run([files.program('kmod'), '-b', directory, files.release], { argv0, env });
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

/** @throws Unavailable with what the command said if it fails. */
function run(argv: readonly string[], options: RunOptions = {}): string {
  const [program = '', ...args] = argv;
  const { env, ...more } = options;
  const result = spawnSync(program, args, { ...more, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C', ...env } });
  if (result.status === 0) return result.stdout;
  const [reason = ''] = (result.error?.message ?? result.stderr).trim().split('\n');
  throw new Unavailable(`${program} ${args[0] ?? ''}: ${reason}`);
}

interface RunOptions {
  readonly cwd?: string;
  readonly argv0?: string;
  readonly env?: Readonly<Record<string, string>>;
}

function findProgram(name: string): string | undefined {
  // A user's PATH leaves out the sbin directories.
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => path.isAbsolute(file) && existsSync(file));
}

function defaultCache(): string {
  return path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'tsflannel/vm');
}
