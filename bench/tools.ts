import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../test/support/netns.js';

const source = fileURLToPath(new URL('native/pktgen.cc', import.meta.url));

/**
 * The compiled packet generator; built when its source has changed since the last time.
 *
 * @returns its path, in a directory of this user under the system's temporary directory.
 */
export async function buildPacketGenerator(): Promise<string> {
  const digest = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const directory = path.join(os.tmpdir(), `tsflannel-bench-${os.userInfo().uid}`);
  const program = path.join(directory, `pktgen-${digest}`);
  if (existsSync(program)) return program;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  // Under another name first, so that an interrupted build is not taken for a finished one.
  const unfinished = `${program}.${process.pid}`;
  await run(['g++', '-std=c++20', '-O2', '-Wall', '-Wextra', '-pthread', '-o', unfinished, source], {
    timeoutMs: 120_000,
  });
  renameSync(unfinished, program);
  return program;
}
