// Writes the completion scripts to where the shells look for them. Needs dist.
//
//   node .ci/completions.mjs ROOT
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { COMMANDS } from '../dist/ctl/commands.js';
import { bashCompletion, fishCompletion, zshCompletion } from '../dist/ctl/completion.js';

const [root] = process.argv.slice(2);
if (root === undefined) throw new Error('cannot write the completion scripts: name a directory');
const scripts = {
  'usr/share/bash-completion/completions/tsflannelctl': bashCompletion,
  'usr/share/zsh/vendor-completions/_tsflannelctl': zshCompletion,
  'usr/share/fish/vendor_completions.d/tsflannelctl.fish': fishCompletion,
};
for (const [name, scriptFor] of Object.entries(scripts)) {
  const file = path.join(root, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, scriptFor(COMMANDS));
}
