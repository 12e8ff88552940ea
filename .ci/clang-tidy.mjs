// Runs the checks of .clang-tidy over the packet core and the addon, on all processors. What passed is remembered by its
// content and not checked again.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { cppSources, explainMissing, root } from './cpp-sources.mjs';

const MEMORY = path.join(root, 'node_modules/.cache/clang-tidy.json');
const FLAGS = ['-std=c++20', '-fno-exceptions', '-fno-rtti'];
const DEFINES = ['NAPI_VERSION=8', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED'];

const version = spawnSync('clang-tidy', ['--version'], { encoding: 'utf8' });
if (version.error === undefined) await checkAll();
else explainMissing('clang-tidy', version.error);

async function checkAll() {
  const nodeHeaders = findNodeHeaders();
  if (nodeHeaders === undefined) {
    process.stdout.write('skipped: checks of native/addon (no headers of this Node; npm run build downloads them)\n');
  }
  const addonFlags = [
    ...['-isystem', nodeHeaders, '-isystem', path.join(root, 'node_modules/node-addon-api')],
    ...DEFINES.map((name) => `-D${name}`),
  ];
  const flagsOf = (file) => (file.includes('/addon/') ? [...FLAGS, ...addonFlags] : FLAGS);
  const tool = [
    version.stdout,
    ...['.clang-tidy', '.ci/clang-tidy.mjs'].map((name) => readFileSync(path.join(root, name))),
  ];

  const passed = existsSync(MEMORY) ? JSON.parse(readFileSync(MEMORY, 'utf8')) : {};
  const files = cppSources(nodeHeaders === undefined ? ['native/core'] : ['native'], ['.cc']);
  const stamps = Object.fromEntries(files.map((file) => [path.relative(root, file), stampOf(file, tool)]));
  const waiting = files.filter((file) => passed[path.relative(root, file)] !== stamps[path.relative(root, file)]);
  const failed = new Set();
  const lane = async () => {
    for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
      const { code, output } = await run(['--quiet', file, '--', ...flagsOf(file)]);
      if (code === 0) continue;
      failed.add(path.relative(root, file));
      process.stdout.write(output);
      process.exitCode = 1;
    }
  };
  await Promise.all(Array.from({ length: os.availableParallelism() }, lane));
  mkdirSync(path.dirname(MEMORY), { recursive: true });
  const kept = Object.entries(stamps).filter(([file]) => !failed.has(file));
  writeFileSync(MEMORY, JSON.stringify(Object.fromEntries(kept), null, 2));
}

/** Beside the program, or where node-gyp keeps those that it downloaded for a build. */
function findNodeHeaders() {
  const cached = path.join(os.homedir(), '.cache/node-gyp', process.versions.node, 'include/node');
  const places = [path.join(path.dirname(process.execPath), '../include/node'), cached];
  return places.find((place) => existsSync(path.join(place, 'node_api.h')));
}

/** Stands for everything of ours that the result for a source depends on: the tool, the file and what it includes. */
function stampOf(file, tool) {
  const hash = createHash('sha256');
  for (const part of tool) hash.update(part);
  for (const each of withIncludes(file)) hash.update(readFileSync(each));
  return hash.digest('hex');
}

function withIncludes(file, known = new Set()) {
  if (known.has(file)) return known;
  known.add(file);
  for (const [, name] of readFileSync(file, 'utf8').matchAll(/^#include "(.+)"$/gm)) {
    withIncludes(path.resolve(path.dirname(file), name), known);
  }
  return known;
}

function run(args) {
  const child = spawn('clang-tidy', args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr']) child[stream].on('data', (chunk) => (said[stream] += chunk));
  return new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 2, output: `${error.message}\n` }));
    // On standard error it counts what it found in headers that are not ours, or says why it could not check.
    child.on('close', (code) => resolve({ code, output: said.stdout || said.stderr }));
  });
}
