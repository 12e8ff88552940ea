import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { completeRequest, parseInvocation } from '../../../src/ctl/arguments.js';
import { EXIT, EXIT_MEANINGS } from '../../../src/ctl/command.js';
import { COMMANDS } from '../../../src/ctl/commands.js';
import { bashCompletion, fishCompletion, zshCompletion } from '../../../src/ctl/completion.js';
import { CHECKS } from '../../../src/ctl/doctor/diagnose.js';
import { explain, overview, usageOf } from '../../../src/ctl/help.js';
import { OverlayError } from '../../../src/errors.js';
import { skipBecause } from '../../support/skip.js';

function parse(line: string, environment: Readonly<Record<string, string>> = {}): ReturnType<typeof parseInvocation> {
  return parseInvocation(COMMANDS, line === '' ? [] : line.split(' '), environment);
}

function optionsOf(line: string, environment: Readonly<Record<string, string>> = {}): Record<string, unknown> {
  const invocation = parse(line, environment);
  assert.equal(invocation.kind, 'run');
  return completeRequest(invocation).options;
}

describe('parseInvocation', () => {
  it('takes flags in front of, inside and behind a command', () => {
    for (const line of ['--json config set f --yes', 'config --json set --yes f', 'config set --yes=true f -json']) {
      const invocation = parse(line);
      assert.equal(invocation.kind, 'run');
      assert.deepEqual([invocation.command.name, invocation.operands], ['config set', ['f']], line);
      const { json, yes } = completeRequest(invocation).options as Record<string, unknown>;
      assert.deepEqual([json, yes], [true, true], line);
    }
  });

  it('takes a single dash, and everything behind two, as words', () => {
    const standardInput = parse('config set - --yes');
    assert.deepEqual(standardInput.kind === 'run' && standardInput.operands, ['-']);
    const file = parse('config check -- --odd-name');
    assert.deepEqual(file.kind === 'run' && file.operands, ['--odd-name']);
  });

  it("shares the daemon's variables, which the command line beats", () => {
    const environment = {
      FLANNELD_ETCD_PREFIX: '/a',
      FLANNELD_ETCD_ENDPOINTS: 'http://192.0.2.1:2379',
      FLANNELD_YES: 'true',
    };
    const options = optionsOf('config get', environment);
    assert.deepEqual([options.etcdPrefix, options.etcdEndpoints], ['/a', ['http://192.0.2.1:2379']]);
    assert.equal(optionsOf('config get --etcd-prefix /b', environment).etcdPrefix, '/b');
    assert.equal(optionsOf('leases release 10.5.3.0/24', environment).yes, false);
  });

  const REFUSED: readonly (readonly [line: string, message: RegExp])[] = [
    ['frobnicate', /there is no command "frobnicate"; use one of config, leases/],
    ['confg get', /there is no command "confg"; did you mean config\?/],
    ['reserve 10.5.3.0/24', /there is no command "reserve"; did you mean leases reserve\?/],
    ['config', /"config" alone is no command; use config get, config set/],
    ['config put', /there is no command "config put"; use config get, config set/],
    ['leases relase', /there is no command "leases relase"; did you mean leases release\?/],
    ['config set', /FILE is missing/],
    ['config get more', /no place for the word "more"/],
    ['config get --yes', /the command config get does not have it/],
    ['leases list --etcd-prefx /a', /cannot use --etcd-prefx: there is no such flag; did you mean --etcd-prefix\?/],
    ['leases list --endpoints /a', /cannot use --endpoints: .*; did you mean --etcd-endpoints\?/],
    ['leases list --etcd-prefix', /its value is missing/],
    ['config history --limit many', /the value "many" for --limit: it is not a whole number/],
    ['completion csh', /use bash or zsh or fish/],
    ['cleanup --network 10.5', /use the form 10\.5\.0\.0\/16/],
  ];
  for (const [line, message] of REFUSED) {
    it(`refuses "${line}" with a hint`, () => {
      assert.throws(
        () => parse(line),
        (error) => error instanceof OverlayError && error.code === 'ERR_FLAG' && message.test(error.toString()),
      );
    });
  }

  it('gives help wherever it is asked for', () => {
    const about = (line: string): readonly string[] => {
      const invocation = parse(line);
      assert.equal(invocation.kind, 'help', line);
      return invocation.commands.map(({ name }) => name);
    };
    for (const line of ['', 'help', '--help', '-h', 'help help', 'help version']) {
      assert.equal(about(line).length, COMMANDS.length, line);
    }
    for (const line of ['help config set', 'config set -h', 'config set f --help']) {
      assert.deepEqual(about(line), ['config set'], line);
    }
    for (const line of ['help config', 'config --help']) {
      assert.deepEqual(about(line), ['config get', 'config set', 'config check', 'config history'], line);
    }
  });

  it('hands everything behind docker-opts on as it is', () => {
    assert.deepEqual(parse('docker-opts -c -h --json').kind === 'raw' && parse('docker-opts -c -h'), {
      kind: 'raw',
      command: COMMANDS.find(({ name }) => name === 'docker-opts'),
      argv: ['-c', '-h'],
    });
  });
});

describe('the table of commands', () => {
  it('explains every command and flag', () => {
    for (const command of COMMANDS) {
      assert.ok(overview(COMMANDS).includes(command.summary), command.name);
      for (const flag of Object.keys(command.flags)) assert.ok(explain(command).includes(`--${flag}`), flag);
    }
  });

  it('completes in bash at every place', () => {
    const complete = (words: readonly string[]): string[] => {
      const list = words.map((word) => `'${word}'`).join(' ');
      const script = `${bashCompletion(COMMANDS)}\nCOMP_WORDS=(tsflannelctl ${list}); COMP_CWORD=${words.length}; _tsflannelctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
      const { stdout, status, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
      assert.deepEqual([status, stderr], [0, '']);
      return stdout.split('\n').filter((line) => line !== '');
    };
    assert.deepEqual(complete(['co']), ['config', 'completion']);
    assert.deepEqual(complete(['config', '']), ['get', 'set', 'check', 'history']);
    assert.deepEqual(complete(['help', 'leases', 're']), ['reserve', 'release']);
    assert.deepEqual(complete(['--etcd-prefix', '/a', 'leases', 'sh']), ['show']);
    assert.deepEqual(complete(['config', 'set', '--y']), ['--yes']);
    assert.deepEqual(complete(['config', 'get', '--y']), []);
    assert.deepEqual(complete(['completion', '']), ['bash', 'zsh', 'fish']);
    assert.deepEqual(complete(['config', 'check', 'package.j']), ['package.json']);
  });

  it('offers each command and flag in zsh too', () => {
    const script = zshCompletion(COMMANDS);
    for (const { name, flags } of COMMANDS) {
      const line = script.split('\n').find((each) => each.includes(`'${name}'*)`)) ?? '';
      for (const flag of Object.keys(flags)) assert.ok(line.includes(`--${flag}`), `${name} --${flag}`);
    }
  });
});

describe('completion in fish', () => {
  it('offers each command with its summary, and each flag at its command alone', () => {
    const lines = fishCompletion(COMMANDS).split('\n');
    for (const { name, summary, flags, isRaw } of COMMANDS) {
      const [group = '', second] = name.split(' ');
      if (second !== undefined) {
        const place = `-n '__tsflannelctl_at \\'${group}\\'' -a ${second} -d '${summary}'`;
        assert.ok(lines.includes(`complete -c tsflannelctl ${place}`), name);
      }
      const here = lines.filter((line) => line.includes(`__tsflannelctl_at \\'${name}\\' \\'${name} *\\''`));
      const offered = here.flatMap((line) => / -l (\S+)/.exec(line)?.[1] ?? []);
      assert.deepEqual(offered, isRaw === true ? [] : Object.keys({ ...flags, json: 0, verbose: 0 }), name);
    }
  });

  it('completes at every place', function () {
    if (spawnSync('fish', ['--version']).status !== 0) skipBecause(this, 'no fish (Debian package fish)');
    const complete = (line: string): string[] => {
      const input = `${fishCompletion(COMMANDS)}\ncomplete -C '${line}'\n`;
      const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', input], { encoding: 'utf8' });
      assert.equal(stderr, '');
      return stdout.split('\n').flatMap((text) => (text === '' ? [] : [text.replace(/\t.*/, '')]));
    };
    assert.deepEqual(complete('tsflannelctl co'), ['completion', 'config']);
    assert.deepEqual(complete('tsflannelctl help leases re'), ['release', 'reserve']);
    assert.deepEqual(complete('tsflannelctl --etcd-prefix /a leases sh'), ['show']);
    assert.deepEqual(complete('tsflannelctl config set --y'), ['--yes']);
    assert.deepEqual(complete('tsflannelctl config get --y'), []);
    assert.deepEqual(complete('tsflannelctl completion '), ['bash', 'fish', 'zsh']);
    assert.deepEqual(complete('tsflannelctl config check package.j'), ['package.json']);
  });
});

describe('docs/tsflannelctl.md', () => {
  const manual = readFileSync(new URL('../../../docs/tsflannelctl.md', import.meta.url), 'utf8');

  it('has every command with its usage and every flag of its own', () => {
    for (const command of COMMANDS) {
      assert.ok(manual.includes(usageOf(command).replace(' [OPTION]...', '')), command.name);
      for (const flag of Object.keys(command.flags))
        assert.ok(manual.includes(`--${flag}`), `${command.name} --${flag}`);
    }
  });

  it('has every exit code and every check', () => {
    for (const [name, code] of Object.entries(EXIT)) {
      assert.ok(manual.includes(`| ${code} | ${EXIT_MEANINGS[name as keyof typeof EXIT]} |`), name);
    }
    for (const { id, title } of CHECKS) assert.ok(manual.includes(`| \`${id}\` | ${title} |`), id);
  });
});
