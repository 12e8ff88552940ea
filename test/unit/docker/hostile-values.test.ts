import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lchownSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseNetworkConfig } from '../../../src/config/network-config.js';
import { runDockerOpts } from '../../../src/docker/run-docker-opts.js';
import { formatSubnetEnv } from '../../../src/docker/subnet-env.js';
import { parseSubnetKey } from '../../../src/lease/subnet-key.js';
import { skipBecause } from '../../support/skip.js';

/** What a shell that sources a file with it would carry out, in front of and behind a value that is right. */
const attacks = (marker: string, right: string): readonly string[] =>
  [
    `$(touch ${marker})`,
    `\`touch ${marker}\``,
    `\ntouch ${marker}\n`,
    `;touch ${marker};`,
    `"; touch ${marker}; "`,
  ].flatMap((attack) => [attack, right + attack, attack + right]);

describe('values that a shell would carry out', () => {
  let directory: string;
  let marker: string;
  let subnetEnv: string;
  let dockerEnv: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'hostile-values-'));
    marker = path.join(directory, 'owned');
    subnetEnv = path.join(directory, 'subnet.env');
    dockerEnv = path.join(directory, 'docker.env');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  /** Sources a file as root's scripts do, and tells whether it did more than set variables. */
  function isOwnedBy(file: string): boolean {
    if (!existsSync(file)) return false;
    spawnSync('sh', ['-c', '. "$0"', file]);
    return existsSync(marker);
  }

  function dockerOpts(environment: Record<string, string> = {}, ...argv: string[]): { code: number; stderr: string } {
    let stderr = '';
    const code = runDockerOpts(['-f', subnetEnv, '-d', dockerEnv, ...argv], {
      program: 'mk-docker-opts',
      environment,
      stderr: (text) => (stderr += text),
    });
    return { code, stderr };
  }

  it('do not get from the configuration or a lease key into subnet.env', () => {
    const right = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: '2001:db8::/48' };
    const keys = ['Network', 'SubnetMin', 'SubnetMax', 'SubnetLen', 'IPv6Network', 'IPv6SubnetMin', 'IPv6SubnetLen'];
    for (const key of keys) {
      for (const value of attacks(marker, key === 'IPv6Network' ? '2001:db8::/48' : '10.5.0.0/16')) {
        assert.throws(() => parseNetworkConfig(JSON.stringify({ ...right, [key]: value })), `${key} ${value}`);
      }
    }
    for (const value of attacks(marker, '10.5.3.0-24')) assert.throws(() => parseSubnetKey(value), value);
    const network = parseNetworkConfig(
      JSON.stringify({ ...right, Backend: { Type: 'udp', x: attacks(marker, '').join('') } }),
    );
    const lease = parseSubnetKey('10.5.3.0-24&2001:db8::-64');
    writeFileSync(subnetEnv, formatSubnetEnv({ network, lease, mtu: 1472, isMasquerading: true }));
    assert.match(readFileSync(subnetEnv, 'utf8'), /^(?:FLANNEL_\w+=[0-9a-f:./]+\n|FLANNEL_IPMASQ=true\n)+$/);
    assert.equal(isOwnedBy(subnetEnv), false);
  });

  for (const [name, right] of [
    ['FLANNEL_SUBNET', '10.5.3.1/24'],
    ['FLANNEL_MTU', '1472'],
    ['FLANNEL_IPMASQ', 'true'],
    ['DOCKER_OPT_X', '--x=1'],
    ['DOCKER_OPTS', '--x=1'],
  ] as const) {
    it(`do not get from ${name} into Docker's options, from file or environment`, () => {
      for (const value of attacks(marker, right)) {
        for (const [file, environment] of [
          [`${name}='${value}'\n`, {}],
          [`${name}="${value.replaceAll(/["\\]/g, '\\$&')}"\n`, {}],
          [`${name}=${value}\n`, {}],
          ['', { [name]: value }],
        ] as const) {
          writeFileSync(subnetEnv, file);
          const { code, stderr } = dockerOpts(environment);
          assert.equal(isOwnedBy(dockerEnv), false, JSON.stringify([file, environment]));
          if (code !== 0) assert.match(stderr, /^mk-docker-opts: cannot use \w+ ".*": it is .*; [a-z]/s);
        }
      }
    });
  }

  it('do not get there by the name of a variable', () => {
    for (const value of attacks(marker, 'DOCKER_OPTS')) {
      dockerOpts({}, '-k', value);
      dockerOpts({ [`DOCKER_OPT_${value}`]: '1' });
      assert.equal(isOwnedBy(dockerEnv), false, value);
    }
  });

  it("leave what is right in Docker's options as it was", () => {
    writeFileSync(subnetEnv, 'FLANNEL_SUBNET=10.9.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n');
    const environment = { DOCKER_OPT_LOG: "--log-opt=tag={{.Name}}/it's;&|*~<>()" };
    assert.deepEqual(dockerOpts(environment, '-c'), { code: 0, stderr: '' });
    assert.equal(
      readFileSync(dockerEnv, 'utf8'),
      `DOCKER_OPTS=" --bip=10.9.7.1/24 --ip-masq=true ${environment.DOCKER_OPT_LOG} --mtu=1472"\n`,
    );
    assert.equal(isOwnedBy(dockerEnv), false);
  });

  it("make Docker's options a file that only root can change, whatever the umask says", () => {
    writeFileSync(subnetEnv, 'FLANNEL_MTU=1472\n');
    const before = process.umask(0);
    try {
      for (const umask of [0, 0o077]) {
        process.umask(umask);
        rmSync(dockerEnv, { force: true });
        dockerOpts();
        assert.equal(statSync(dockerEnv).mode & 0o7777, 0o644);
      }
    } finally {
      process.umask(before);
    }
  });

  it('do not get where a link of another user leads', function () {
    if (process.geteuid?.() !== 0) skipBecause(this, 'needs root to make files of others');
    writeFileSync(subnetEnv, 'FLANNEL_MTU=1472\n');
    const precious = path.join(directory, 'precious');
    writeFileSync(precious, 'precious');
    symlinkSync(precious, dockerEnv);
    lchownSync(dockerEnv, 65_534, 65_534);
    const { code, stderr } = dockerOpts();
    assert.equal(code, 1);
    assert.match(stderr, /is a symbolic link and user 65534 can change it; name a path without/);
    assert.equal(readFileSync(precious, 'utf8'), 'precious');
  });
});
