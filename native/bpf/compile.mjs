// Compiles the programs of the kernel path: native/prebuilds/kernel_path.bpf.o, the same file for every processor with
// this byte order. Plain Node without dependencies, like native/install.mjs.
//
//   node native/bpf/compile.mjs              says so if there is no clang: the daemon can run without them
//   node native/bpf/compile.mjs --required   fails then, too: for packages
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const directory = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(directory, '../prebuilds/kernel_path.bpf.o');
const sources = ['kernel_path.c', 'kernel.h', 'compile.mjs', '../core/kernel_path/layout.h'].map((name) =>
  path.join(directory, name),
);
/** Debian keeps the headers of one processor apart; of them only the widths of integers are used. */
const GNU = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };

if (process.argv.includes('--help')) console.log('usage: node native/bpf/compile.mjs     compiles the kernel path');
else process.exitCode = main({ isRequired: process.argv.includes('--required') });

function main({ isRequired }) {
  if (existsSync(target) && sources.every((file) => statSync(file).mtimeMs <= statSync(target).mtimeMs)) return 0;
  const clang = findClang();
  if (clang === undefined) {
    console.error('tsflannel: the kernel path was not compiled: clang not found; --datapath=kernel will not work');
    console.error('tsflannel: to compile it: apt-get install clang, then npm rebuild tsflannel');
    return isRequired ? 1 : 0;
  }
  mkdirSync(path.dirname(target), { recursive: true });
  const unfinished = `${target}.${process.pid}`;
  const { status, error } = spawnSync(
    clang,
    [
      ...['-target', 'bpfel', '-mcpu=v3', '-O2', '-Wall', '-Wextra', '-Werror'],
      ...['-idirafter', `/usr/include/${GNU[process.arch]}`, '-c', sources[0], '-o', unfinished],
    ],
    { stdio: 'inherit' },
  );
  if (status !== 0) {
    console.error(`tsflannel: the kernel path could not be compiled: ${error?.message ?? 'see above'}`);
    return 1;
  }
  renameSync(unfinished, target);
  return 0;
}

/** `clang`, or the newest of those whose name says a version, as Debian's packages do. */
function findClang() {
  const version = (name) => Number(/^clang(?:-(\d+))?$/.exec(name)?.[1] ?? Infinity);
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .filter((folder) => folder !== '' && existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => path.join(folder, name)))
    .filter((file) => /^clang(-\d+)?$/.test(path.basename(file)))
    .sort((a, b) => version(path.basename(b)) - version(path.basename(a)))[0];
}
