import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { FLAGS } from '../../../src/config/flags.js';
import { COMMON_FLAGS } from '../../../src/ctl/command.js';
import { COMMANDS } from '../../../src/ctl/commands.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');
const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');

const PAGES = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md'],
  ...readdirSync(path.join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** What the shell blocks call besides our own programs: of a Debian host, and what the pages themselves have made there. */
const PROGRAMS = new Set([
  ...['.', 'apt-get', 'cat', 'chmod', 'cp', 'curl', 'docker', 'docker-compose', 'dockerd', 'dpkg', 'echo', 'etcdctl'],
  ...[
    'ethtool',
    'ip',
    'ip6tables-save',
    'iptables',
    'iptables-save',
    'journalctl',
    'mkdir',
    'modprobe',
    'mv',
    'nft',
    'node',
    'npm',
    'npx',
  ],
  ...['podman', 'printf', 'rm', 'sed', 'set', 'sudo', 'systemctl', 'umask', '/usr/local/sbin/tsflannel-cni'],
]);
const OURS = new Set(['tsflanneld', 'tsflannelctl', 'mk-docker-opts']);

/** Shell blocks without what they write into files, and with continued lines joined. */
function shellLines(page: string): string[] {
  return [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block = '']) =>
    block
      .replaceAll(/\\\n\s*/g, ' ')
      .replaceAll(/<<-?'?(\w+)'?([^\n]*)\n[\s\S]*?^\1$/gm, '$2')
      .replaceAll(/'[^']*'/g, (quoted) => quoted.replaceAll('\n', ' '))
      .split('\n'),
  );
}

/** Lines of shell blocks, and what stands between backquotes. */
function codeOf(page: string): string[] {
  const text = page.replaceAll(/^```[\s\S]*?^```/gm, '');
  return [...shellLines(page), ...[...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)];
}

/** Commands of a line: without comments, quoted words and assignments in front. */
function commandsOf(line: string): string[] {
  return line
    .replaceAll(/'[^']*'|"[^"]*"/g, 'QUOTED')
    .replace(/(?:^|\s)#.*/, '')
    .split(/\|\|?|&&|;|\$\(|[()]/)
    .map((command) => command.replace(/^\s*(?:\w+=\S*\s*)*(?:sudo\s+)?/, '').trim())
    .filter((command) => command !== '');
}

const longFlags = (words: string): string[] =>
  [...words.matchAll(/(?<=\s|^)--([a-z][a-z0-9-]*)/g)].map(([, name = '']) => name);

describe('the pages', () => {
  it('name no command of tsflannelctl that does not exist, and no flag that it does not have', () => {
    // Groups such as `docker` may be named without one of their commands.
    const known = new Set(COMMANDS.flatMap(({ name }) => [name, ...name.split(' ').slice(0, 1)]));
    let count = 0;
    let flagCount = 0;
    for (const file of PAGES) {
      for (const line of codeOf(read(file)).flatMap(commandsOf)) {
        for (const [, words = '', rest = ''] of line.matchAll(
          /(?:^|[ /])tsflannelctl ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)(.*)/g,
        )) {
          const [first = ''] = words.split(' ');
          const isGroup = COMMANDS.some(({ name }) => name.startsWith(`${first} `));
          assert.ok(known.has(isGroup ? words : first) || ['help', 'version'].includes(first), `${file}: ${line}`);
          count += 1;
          const command = COMMANDS.find(({ name }) => name === (isGroup ? words : first));
          if (command === undefined || command.isRaw === true) continue;
          for (const flag of longFlags(rest)) {
            assert.ok(Object.hasOwn({ ...COMMON_FLAGS, ...command.flags }, flag), `${file}: --${flag} of ${line}`);
            flagCount += 1;
          }
        }
      }
    }
    assert.ok(count > 50, `${count} commands found`);
    assert.ok(flagCount > 3, `${flagCount} flags found`);
  });

  it('give tsflanneld no flag that it does not have', () => {
    let count = 0;
    for (const file of PAGES) {
      for (const line of codeOf(read(file)).flatMap(commandsOf)) {
        // By itself, with node, or in a container of the image `tsflannel`.
        const [, rest] = /^(?:(?:node )?(?:\S*\/)?tsflanneld(?:\.js)?|docker run .* tsflannel)( .*)$/.exec(line) ?? [];
        if (rest === undefined) continue;
        for (const flag of longFlags(rest)) {
          assert.ok(Object.hasOwn(FLAGS, flag) || ['version', 'help'].includes(flag), `${file}: --${flag} of ${line}`);
          count += 1;
        }
      }
    }
    assert.ok(count > 3, `${count} flags found`);
  });

  it('call no script that package.json does not have, with no option that its help does not name', () => {
    const { scripts } = JSON.parse(read('package.json')) as { readonly scripts: Readonly<Record<string, string>> };
    const helps = new Map<string, string>();
    const helpOf = (name: string): string => {
      const help =
        helps.get(name) ??
        execFileSync(process.execPath, ['.ci/script.mjs', name, '--help'], { cwd: ROOT, encoding: 'utf8' });
      helps.set(name, help);
      return help;
    };
    let count = 0;
    for (const file of PAGES) {
      for (const line of codeOf(read(file)).flatMap(commandsOf)) {
        const [, name, options = ''] =
          /^npm (?:run )?(?!ci\b|pack\b|install\b)([a-z][\w:-]*)(?: -- (.*))?$/.exec(line) ?? [];
        if (name === undefined) continue;
        assert.ok(Object.hasOwn(scripts, name), `${file}: ${line}`);
        for (const flag of longFlags(options))
          assert.match(helpOf(name), new RegExp(`--${flag}\\b`), `${file}: ${line}`);
        count += 1;
      }
    }
    assert.ok(count > 20, `${count} scripts found`);
  });

  it('call no program that is neither ours nor of a Debian host', () => {
    let count = 0;
    for (const file of PAGES) {
      for (const line of shellLines(read(file))) {
        const [command = ''] = commandsOf(line);
        const [program = ''] = command.split(/\s/);
        if (program === '' || OURS.has(program)) continue;
        assert.ok(PROGRAMS.has(program), `${file}: ${program} of ${line}`);
        count += 1;
      }
    }
    assert.ok(count > 50, `${count} programs found`);
  });
});
