import { readFileSync } from 'node:fs';

/** What the unit sets `NODE_OPTIONS` to. */
export const UNIT_NODE_OPTIONS = optionsOf(
  readFileSync(new URL('../systemd/tsflanneld.service', import.meta.url), 'utf8'),
);

function optionsOf(unit: string): string {
  const options = /^Environment=NODE_OPTIONS=(.*)$/m.exec(unit)?.[1];
  if (options === undefined) throw new Error('systemd/tsflanneld.service sets no NODE_OPTIONS');
  return options;
}
