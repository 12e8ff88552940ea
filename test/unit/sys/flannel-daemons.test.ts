import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { flannelDaemons } from '../../../src/sys/flannel-daemons.js';

describe('flannel daemons of this host', () => {
  let proc: string;

  beforeEach(() => {
    proc = mkdtempSync(path.join(tmpdir(), 'daemons-'));
    add('self', [], 'net:[1]');
  });

  afterEach(() => {
    rmSync(proc, { recursive: true });
  });

  function add(pid: string, argv: readonly string[], network: string): void {
    mkdirSync(path.join(proc, pid, 'ns'), { recursive: true });
    writeFileSync(path.join(proc, pid, 'cmdline'), argv.map((word) => `${word}\0`).join(''));
    symlinkSync(network, path.join(proc, pid, 'ns/net'));
  }

  it('are told by their programs, in this network namespace only', async () => {
    add('10', ['/opt/bin/flanneld', '--ip-masq'], 'net:[1]');
    add('11', ['/usr/bin/node', '/usr/lib/tsflannel/dist/bin/tsflanneld.js'], 'net:[1]');
    add('12', ['/usr/bin/flanneld'], 'net:[2]');
    add('13', ['vi', 'tsflanneld.js'], 'net:[1]');
    add('14', ['/usr/bin/node', 'tsflannelctl.js', 'cleanup'], 'net:[1]');
    add('15', ['/usr/bin/grep', 'flanneld'], 'net:[1]');
    mkdirSync(path.join(proc, '16')); // has ended meanwhile
    assert.deepEqual(await flannelDaemons(proc), [
      { name: 'flanneld', pid: 10 },
      { name: 'tsflanneld', pid: 11 },
    ]);
  });
});
