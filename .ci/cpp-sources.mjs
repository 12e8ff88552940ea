// The C++ sources, and what is said where a tool for them is missing.
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const SKIPPED = new Set(['build', 'prebuilds', 'node_modules']);

/** Paths of the sources below directories of the clone, in order. */
export function cppSources(directories, extensions) {
  const below = (directory) =>
    readdirSync(directory, { withFileTypes: true })
      .filter((entry) => !SKIPPED.has(entry.name))
      .flatMap((entry) => {
        const name = path.join(directory, entry.name);
        if (entry.isDirectory()) return below(name);
        return extensions.includes(path.extname(entry.name)) ? [name] : [];
      });
  return directories.flatMap((directory) => below(path.join(root, directory))).sort();
}

/** Says how to get a tool that could not be run, or why it could not. */
export function explainMissing(tool, error) {
  const reason =
    error.code === 'ENOENT'
      ? `it is not installed; run "node .ci/setup.mjs check" as root, or "apt-get install ${tool}"`
      : error.message;
  process.stderr.write(`${tool}: cannot check the C++ sources: ${reason}\n`);
  process.exitCode = 2;
}
