import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onExit } from './cleanup.js';
import { run } from './netns.js';

const SCRIPTS = path.resolve(import.meta.dirname, '../../.ci');

/** How long building the addon, or packing, may take while other work runs on the machine. */
export const BUILD_TIMEOUT_MS = 300_000;

let built: Promise<string> | undefined;

/**
 * Builds the Debian package for this machine's processor, once for all tests of this process.
 *
 * @returns the path of the file, which nobody may change; it goes with this process.
 */
export function debianPackage(): Promise<string> {
  built ??= build();
  return built;
}

/** Builds the addon that the packages carry, for this machine's processor unless another is given. */
export async function buildPackagedAddon(...options: readonly string[]): Promise<void> {
  await run([process.execPath, path.join(SCRIPTS, 'prebuild.mjs'), ...options], { timeoutMs: BUILD_TIMEOUT_MS });
}

async function build(): Promise<string> {
  const directory = mkdtempSync(path.join(tmpdir(), `tsflannel-package-${process.pid}-`));
  onExit(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  await buildPackagedAddon();
  await run([process.execPath, path.join(SCRIPTS, 'package-deb.mjs'), directory], { timeoutMs: BUILD_TIMEOUT_MS });
  const [name = ''] = readdirSync(directory);
  return path.join(directory, name);
}
