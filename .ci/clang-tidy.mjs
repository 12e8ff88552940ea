// Runs the checks of .clang-tidy over the packet core and the addon, on all processors.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { cppSources, explainMissing, root } from './cpp-sources.mjs';

const FLAGS = ['-std=c++20', '-fno-exceptions', '-fno-rtti'];
const nodeHeaders = path.join(path.dirname(process.execPath), '../include/node');
const addonFlags = ['-isystem', nodeHeaders, '-isystem', path.join(root, 'node_modules/node-addon-api')];
const hasNodeHeaders = existsSync(path.join(nodeHeaders, 'node_api.h'));

// The addon includes Node's headers, which its build otherwise downloads.
const files = cppSources(hasNodeHeaders ? ['native'] : ['native/core'], ['.cc']);
if (!hasNodeHeaders) process.stdout.write(`skipped: checks of native/addon (no Node headers in ${nodeHeaders})\n`);

await Promise.all(Array.from({ length: os.availableParallelism() }, worker));

async function worker() {
  for (let file = files.pop(); file !== undefined; file = files.pop()) {
    try {
      const { code, output } = await check(file);
      if (code === 0) continue;
      process.stdout.write(output);
      process.exitCode ??= 1;
    } catch (error) {
      files.length = 0;
      explainMissing('clang-tidy', error);
    }
  }
}

function check(file) {
  const flags = file.includes('/addon/') ? [...FLAGS, ...addonFlags] : FLAGS;
  const child = spawn('clang-tidy', ['--quiet', file, '--', ...flags], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}
