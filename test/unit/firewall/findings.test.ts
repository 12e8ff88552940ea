import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bridgeNetfilterFinding, ownMasqueradeFirst } from '../../../src/firewall/findings.js';
import { parseSave } from '../../../src/firewall/iptables-plan.js';
import { net } from '../../support/builders.js';

const SUBNET = net('10.5.34.0/24');

function nat(...rules: string[]) {
  return parseSave(['*nat', ':POSTROUTING ACCEPT [0:0]', ...rules.map((rule) => `-A POSTROUTING ${rule}`)].join('\n'));
}

describe('ownMasqueradeFirst', () => {
  const docker = '-s 10.5.34.0/24 ! -o docker0 -j MASQUERADE';
  const jump = '-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG';

  it('finds the masquerading of a Docker daemon ahead of the jump', () => {
    const [finding, ...more] = ownMasqueradeFirst(nat(docker, jump), SUBNET, 'iptables');
    assert.match(finding?.message ?? '', /10\.5\.34\.0\/24 .* ! -o docker0 -j MASQUERADE$/);
    assert.equal(finding?.hint, 'start Docker with --ip-masq=false, or remove that rule');
    assert.deepEqual(more, []);
  });

  it('finds it on either side of the jump when the rules are in nftables', () => {
    assert.equal(ownMasqueradeFirst(nat(docker), SUBNET, 'nftables').length, 1);
  });

  it('is content with what comes after the jump and with what is about other networks', () => {
    assert.deepEqual(ownMasqueradeFirst(nat(jump, docker), SUBNET, 'iptables'), []);
    assert.deepEqual(
      ownMasqueradeFirst(nat('-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE', jump), SUBNET, 'iptables'),
      [],
    );
    assert.deepEqual(
      ownMasqueradeFirst(nat('-s 10.5.34.0/24 -d 10.5.34.2/32 -j MASQUERADE', jump), SUBNET, 'iptables'),
      [],
    );
  });
});

describe('bridgeNetfilterFinding', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-findings-'));
    mkdirSync(path.join(directory, 'net/eth0'), { recursive: true });
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const look = (mode: 'iptables' | 'nftables' = 'iptables') =>
    bridgeNetfilterFinding({
      mode,
      sysctlDirectory: path.join(directory, 'sys'),
      deviceDirectory: path.join(directory, 'net'),
    });

  function set(value: string): void {
    mkdirSync(path.join(directory, 'sys/net/bridge'), { recursive: true });
    writeFileSync(path.join(directory, 'sys/net/bridge/bridge-nf-call-iptables'), value);
  }

  it('asks for nothing on a host without a bridge', async () => {
    assert.equal(await look(), undefined);
  });

  it('tells the missing module from the switched-off setting', async () => {
    mkdirSync(path.join(directory, 'net/docker0/bridge'), { recursive: true });
    assert.match((await look())?.hint ?? '', /modprobe br_netfilter/);
    set('0\n');
    assert.match((await look())?.hint ?? '', /sysctl -w/);
    set('1\n');
    assert.equal(await look(), undefined);
  });

  it('does not matter in nftables mode', async () => {
    mkdirSync(path.join(directory, 'net/docker0/bridge'), { recursive: true });
    assert.equal(await look('nftables'), undefined);
  });
});
