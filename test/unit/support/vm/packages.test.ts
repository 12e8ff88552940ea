import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { skipBecause } from '../../../support/skip.js';
import {
  type MachineFiles,
  Unavailable,
  machineFiles,
  parseKernel,
  parseSimulation,
} from '../../../support/vm/packages.js';

describe('machineFiles', () => {
  const PATH = process.env.PATH;
  let directory: string;
  let cache: string;
  let said: string[];

  before(function () {
    if (process.arch !== 'x64') skipBecause(this, 'the kernel is for x64');
  });

  beforeEach(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-packages-'));
    cache = path.join(directory, 'cache');
    said = [];
    mkdirSync(path.join(directory, 'bin'));
    process.env.PATH = `${directory}/bin:/usr/bin:/bin`;
    offer('6.1.9-1');
    program('apt-get', `echo "$@" >>${directory}/calls; [ "$1" = download ] && touch archive.deb`);
    program('dpkg-deb', 'mkdir -p "$3/boot" "$3/lib/modules/6.1.0-9-amd64"');
    for (const name of ['kmod', 'busybox', 'qemu-system-x86_64', 'wg']) program(name, '');
  });

  afterEach(() => {
    process.env.PATH = PATH;
    rmSync(directory, { recursive: true });
  });

  const program = (name: string, script: string): void => {
    writeFileSync(path.join(directory, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  };
  const offer = (version: string): void => {
    program('apt-cache', `echo 'Depends: linux-image-6.1.0-9-amd64 (= ${version})'`);
  };
  const files = (): MachineFiles => machineFiles((line) => said.push(line), cache);
  const calls = (): string[] => readFileSync(path.join(directory, 'calls'), 'utf8').trim().split('\n');

  it('downloads the kernel that apt offers once, and uses it again', () => {
    const first = files();
    assert.equal(path.basename(first.directory), 'linux-image-6.1.0-9-amd64_6.1.9-1');
    assert.equal(first.release, '6.1.0-9-amd64');
    assert.equal(files().directory, first.directory);
    assert.deepEqual(calls(), ['download -q linux-image-6.1.0-9-amd64=6.1.9-1']);
  });

  it('downloads the next version of it', () => {
    files();
    offer('6.1.9-2');
    assert.match(files().directory, /6\.1\.9-2$/);
    assert.equal(readdirSync(cache).length, 2);
  });

  it('believes nothing that was interrupted', () => {
    program('dpkg-deb', 'mkdir -p "$3/lib/modules/6.1.0-9-amd64"; exit 1');
    assert.throws(() => files(), Unavailable);
    assert.deepEqual(readdirSync(cache), []);
  });

  it('removes what a killed process left, and what nobody has used for a month', () => {
    mkdirSync(path.join(cache, '.partial-0-abc'), { recursive: true });
    const [old, recent] = ['linux-image-old', 'linux-image-recent'];
    for (const [name, days] of [
      [old, 31],
      [recent, 29],
    ] as const) {
      mkdirSync(path.join(cache, name));
      const usedAt = new Date(Date.now() - days * 24 * 3_600_000);
      utimesSync(path.join(cache, name), usedAt, usedAt);
    }
    files();
    assert.deepEqual(readdirSync(cache).sort(), ['linux-image-6.1.0-9-amd64_6.1.9-1', recent]);
  });

  it('takes what was used last if apt cannot get the next version', () => {
    const { directory: last } = files();
    offer('6.1.9-2');
    program('apt-get', 'echo "E: no network" >&2; exit 100');
    assert.equal(files().directory, last);
    assert.match(said.join('\n'), /apt-get download: E: no network; .*taking .*6\.1\.9-1, which was used last$/);
  });

  it('says why there is none', () => {
    program('apt-get', 'echo "E: no network" >&2; exit 100');
    assert.throws(() => files(), {
      message: /^apt-get download: E: no network; apt-get update: E: no network$/,
    });
    program('apt-cache', '');
    program('apt-get', '');
    assert.throws(() => files(), { message: /apt has no kernel linux-image-amd64/ });
    process.env.PATH = directory;
    assert.throws(() => files(), { message: 'this system has no apt-get' });
  });
});

describe('parseKernel', () => {
  it('finds the kernel of the present release', () => {
    const output =
      'Package: linux-image-amd64\nVersion: 6.1.192-2\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n';
    assert.deepEqual(parseKernel(output), { name: 'linux-image-6.1.0-56-amd64', version: '6.1.192-2' });
  });

  it('finds it among other dependencies', () => {
    const output = 'Pre-Depends: dpkg\nDepends: kmod, linux-image-6.1.0-56-amd64 (= 6.1.192-2), linux-base (>= 4.3)\n';
    assert.deepEqual(parseKernel(output)?.name, 'linux-image-6.1.0-56-amd64');
  });

  it('finds none where apt knows of none', () => {
    assert.equal(parseKernel(''), undefined);
    assert.equal(parseKernel('Package: linux-image-amd64\nDepends: linux-image\n'), undefined);
  });
});

describe('parseSimulation', () => {
  it('lists what would be installed, and what would be brought to another version', () => {
    const output = [
      'NOTE: This is only a simulation!',
      'The following NEW packages will be installed:',
      '  kmod libfdt1',
      'Remv busybox [1:1.35.0-4]',
      'Inst libnl-3-200 [3.5.0-1] (3.7.0-0.2+b1 Debian:12.15/oldstable [amd64]) []',
      'Inst qemu-system-x86 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])',
      'Conf qemu-system-x86 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])',
      '',
    ].join('\n');
    assert.deepEqual(parseSimulation(output), [
      { name: 'libnl-3-200', version: '3.7.0-0.2+b1' },
      { name: 'qemu-system-x86', version: '1:7.2+dfsg-7+deb12u18+b3' },
    ]);
  });
});
