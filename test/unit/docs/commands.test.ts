import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { COMMANDS } from '../../../src/ctl/commands.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');

/** Lines of shell blocks, and what stands between backquotes. */
function codeOf(page: string): string[] {
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block = '']) => block.split('\n'));
  const text = page.replaceAll(/^```[\s\S]*?^```/gm, '');
  return [...blocks, ...[...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)];
}

describe('the pages', () => {
  it('name no command of tsflannelctl that does not exist', () => {
    const pages = readdirSync(path.join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
    // Groups such as `docker` may be named without one of their commands.
    const known = new Set(COMMANDS.flatMap(({ name }) => [name, ...name.split(' ').slice(0, 1)]));
    let count = 0;
    for (const file of ['README.md', ...pages.map((name) => `docs/${name}`)]) {
      for (const line of codeOf(readFileSync(path.join(ROOT, file), 'utf8'))) {
        for (const [, words = ''] of line.matchAll(/(?:^|[ ;&|])tsflannelctl ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)/g)) {
          const [first = ''] = words.split(' ');
          const isGroup = COMMANDS.some(({ name }) => name.startsWith(`${first} `));
          assert.ok(known.has(isGroup ? words : first) || ['help', 'version'].includes(first), `${file}: ${line}`);
          count += 1;
        }
      }
    }
    assert.ok(count > 50, `${count} commands found`);
  });
});
