// The processors that packages are made for, and the programs that make something for one of them.
import { openSync, closeSync, readFileSync, readSync } from 'node:fs';

/**
 * By Node's names: what Debian and GNU call the processor, and what an ELF header does (`e_machine` of elf(5)).
 */
export const TARGETS = {
  x64: { debian: 'amd64', gnu: 'x86_64-linux-gnu', machine: 62 },
  arm64: { debian: 'arm64', gnu: 'aarch64-linux-gnu', machine: 183 },
};

/** Takes `--arch ARCH` from a command line; without it, this machine's. The rest is returned as it was. */
export function readTarget(argv) {
  const rest = [...argv];
  const at = rest.indexOf('--arch');
  const [, arch = process.arch] = at === -1 ? [] : rest.splice(at, 2);
  if (TARGETS[arch] === undefined) {
    throw new Error(`cannot build for ${arch}: --arch takes ${Object.keys(TARGETS).join(' or ')}`);
  }
  return { arch, rest };
}

/** The name of a GNU tool (`g++`, `strip` …) that works on files of that processor. */
export function toolFor(arch, name) {
  return arch === process.arch ? name : `${TARGETS[arch].gnu}-${name}`;
}

/** Whether a file is a program or library of that processor. */
export function isElfOf(file, arch) {
  const header = Buffer.alloc(20);
  const descriptor = openSync(file);
  const length = readSync(descriptor, header);
  closeSync(descriptor);
  return (
    length === header.length &&
    header.readUInt32BE() === 0x7f454c46 &&
    header.readUInt16LE(18) === TARGETS[arch].machine
  );
}

/** The newest version of the C library that a symbol of these files wants, as its minor number: 36 for glibc 2.36. */
export function glibcMinorOf(files) {
  const wanted = files.flatMap((file) => [...readFileSync(file, 'latin1').matchAll(/GLIBC_2\.(\d+)/g)]);
  return Math.max(...wanted.map(([, minor]) => Number(minor)));
}
