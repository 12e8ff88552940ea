'use strict';
// Lies as dist/bin/load-program.js beside the programs. Loads one of them with the byte code that V8 made of it at the
// installation, so that nothing is compiled at its start:
//
//   NAME.bundle.js   the program, CommonJS
//   NAME.cache       8 bytes with a checksum of that file, and V8's code for all of it
//   NAME.unit.cache  the same for who is started with the flag of the units
//
// V8 refuses code of another version of itself, of other flags and for a text of another length; the checksum tells
// texts of one length apart. Without code that fits, the program is compiled as it runs.
//
// Makes the code of all programs for this Node, of both kinds unless it is run with that flag; with seeds the same code
// each time. DIRECTORY is where the programs are going to lie, if that is not here, for the places that an error names:
//
//   node [--random-seed=N --hash-seed=N] load-program.js [DIRECTORY]
const { spawnSync } = require('node:child_process');
const { readFileSync, readdirSync, renameSync, writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');
const v8 = require('node:v8');
const vm = require('node:vm');
const { crc32 } = require('node:zlib');

const BUNDLE = '.bundle.js';
/** In `NODE_OPTIONS` of systemd/tsflanneld.service, and in the wrappers of the Debian package. */
const UNIT_FLAG = '--max-semi-space-size=2';
/** As many as keep the code where V8 wants it, at a multiple of a pointer: it would copy it otherwise. */
const CHECKSUM_BYTES = 8;
/** The flags, of those that this may be run with, as the programs are run: V8 takes code of the same flags only. */
const USUAL_FLAGS = ['--lazy', '--random-seed=0', '--hash-seed=0'];

/** Runs the program and gives what it exports. */
exports.load = (name) => {
  const { file, source } = readProgram(name);
  const script = scriptOf(file, source, readCode(name, source));
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(file), module, file, path.dirname(file));
  return module.exports;
};

function readProgram(name) {
  const file = path.join(__dirname, `${name}${BUNDLE}`);
  // esbuild writes ASCII, which V8 keeps in one byte for each character.
  return { file, source: readFileSync(file, 'latin1') };
}

/** undefined if there is none for this text. */
function readCode(name, source) {
  try {
    const cache = readFileSync(codeFile(name));
    return cache.readUInt32LE() === crc32(source) ? cache.subarray(CHECKSUM_BYTES) : undefined;
  } catch {
    return undefined; // not there, or cut off
  }
}

function codeFile(name) {
  return path.join(__dirname, `${name}${hasUnitFlag() ? '.unit' : ''}.cache`);
}

function hasUnitFlag() {
  return [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(/\s+/)].includes(UNIT_FLAG);
}

function scriptOf(file, source, cachedData) {
  const text = `(function (exports, require, module, __filename, __dirname) {${source}\n})`;
  return new vm.Script(text, { filename: file, cachedData });
}

/** @throws Error if it cannot be written, or V8 does not take it. */
function writeCode(name, directory) {
  const { source } = readProgram(name);
  const file = path.join(directory, `${name}${BUNDLE}`);
  // What is compiled on first use otherwise is compiled at once, and so comes into the code.
  v8.setFlagsFromString('--no-lazy');
  const script = scriptOf(file, source);
  for (const flag of USUAL_FLAGS) v8.setFlagsFromString(flag);
  const code = script.createCachedData();
  if (scriptOf(file, source, code).cachedDataRejected) throw new Error(`V8 does not take its own code of ${name}`);
  const checksum = Buffer.alloc(CHECKSUM_BYTES);
  checksum.writeUInt32LE(crc32(source));
  const cache = codeFile(name);
  writeFileSync(`${cache}.new`, Buffer.concat([checksum, code]));
  renameSync(`${cache}.new`, cache);
}

if (require.main === module) {
  const bundles = readdirSync(__dirname).filter((file) => file.endsWith(BUNDLE));
  const [, , directory = __dirname] = process.argv;
  for (const bundle of bundles) writeCode(bundle.slice(0, -BUNDLE.length), directory);
  if (!hasUnitFlag()) {
    const again = [...process.execArgv, UNIT_FLAG, ...process.argv.slice(1)];
    process.exitCode = spawnSync(process.execPath, again, { stdio: 'inherit' }).status ?? 1;
  }
}
