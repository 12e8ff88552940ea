import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const PROGRAM = path.resolve(import.meta.dirname, '../../../src/bin/mk-docker-opts.ts');

describe('mk-docker-opts', () => {
  let directory: string;
  let subnetEnv: string;
  let dockerEnv: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'mk-docker-opts-'));
    subnetEnv = path.join(directory, 'subnet.env');
    dockerEnv = path.join(directory, 'docker.env');
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  function run(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(process.execPath, ['--import', 'tsx', PROGRAM, ...argv], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], NODE_NO_WARNINGS: '1' },
    });
  }

  it('turns the one file into the other and says nothing', () => {
    writeFileSync(subnetEnv, 'FLANNEL_SUBNET=10.9.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n');
    const { status, stdout, stderr } = run('-c', '-f', subnetEnv, '-d', dockerEnv);
    assert.deepEqual([status, stdout, stderr], [0, '', '']);
    assert.equal(readFileSync(dockerEnv, 'utf8'), 'DOCKER_OPTS=" --bip=10.9.7.1/24 --ip-masq=true --mtu=1472"\n');
  });

  it('fails for a named file that is missing, and leaves the options as they are', () => {
    writeFileSync(dockerEnv, 'DOCKER_OPTS=" --bip=10.9.7.1/24"\n');
    const { status, stderr } = run('-f', subnetEnv, '-d', dockerEnv);
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^mk-docker-opts: cannot read \S+: there is no such file; start tsflanneld, which writes it, or give -f/,
    );
    assert.equal(readFileSync(dockerEnv, 'utf8'), 'DOCKER_OPTS=" --bip=10.9.7.1/24"\n');
  });

  it('says which file it cannot write', () => {
    writeFileSync(subnetEnv, 'FLANNEL_MTU=1472\n');
    const { status, stderr } = run('-f', subnetEnv, '-d', path.join(directory, 'none/docker.env'));
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^mk-docker-opts: cannot write \S+none\/docker\.env: ENOENT.*; run this as root, or name another file/,
    );
  });

  it('shows the usage on standard error and exits 1', () => {
    const { status, stdout, stderr } = run('-h');
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^mk-docker-opts\S* \[-f FLANNEL-ENV-FILE\]/);
  });

  it('writes nothing and exits 1 when the file makes no sense', () => {
    writeFileSync(subnetEnv, 'FLANNEL_IPMASQ=perhaps\n');
    const { status, stderr } = run('-f', subnetEnv, '-d', dockerEnv);
    assert.equal(status, 1);
    assert.match(stderr, /^mk-docker-opts: cannot use FLANNEL_IPMASQ "perhaps": .*; set it to true or false\n$/);
    assert.equal(existsSync(dockerEnv), false);
  });
});
