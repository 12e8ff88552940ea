import { readFileSync } from 'node:fs';

/** The version of the installed package with a leading `v`, as flannel prints its own: `v0.1.0`. */
export function versionText(): string {
  version ??= readVersion();
  return version;
}

/** Of the program that runs, whatever is installed over it meanwhile. */
let version: string | undefined;

function readVersion(): string {
  // The same two levels up from src/config and from dist/config.
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return `v${(manifest as { readonly version: string }).version}`;
}
