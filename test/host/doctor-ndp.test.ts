import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import { DockerEngine } from '../support/docker.js';
import { DockerNetworkHost } from '../support/docker-network-host.js';
import { ON_LINK_NETWORK } from '../support/on-link-network.js';
import { Operator } from '../support/operator.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/** What the doctor finds about whom the host answers for. */
async function findings(operator: Operator): Promise<readonly Finding[]> {
  return (await operator.findings()).filter(({ check }) => check.startsWith('ndp-'));
}

async function only(operator: Operator, check: string): Promise<Finding> {
  const found = await findings(operator);
  assert.deepEqual(
    found.map((each) => each.check),
    [check],
    JSON.stringify(found),
  );
  return found[0] ?? assert.fail();
}

describe('tsflannelctl doctor on containers in an on-link prefix', () => {
  let rig: Rig;
  let operator: Operator;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    await rig.putConfig(ON_LINK_NETWORK);
    operator = new Operator(rig.host(1));
  });

  afterEach(() => rig.close());

  it('finds containers that are not answered for, and what it prints has them answered for', async () => {
    const host = rig.host(1);
    const daemon = await host.startDaemon();
    const { netns, address6 = '' } = await host.addContainer();
    await ping(netns, address6.replace(/[^:]+$/, '1'), { count: 1 });
    const { command, evidence } = await only(operator, 'ndp-missing');
    assert.ok(evidence.includes(address6), evidence);
    await operator.typeWithService(command, 'restart tsflanneld', async () => {
      const written = readFileSync(path.join(operator.defaults, 'tsflanneld'), 'utf8');
      const [, name = '', value = ''] = /^(\w+)=(\w+)$/m.exec(written) ?? [];
      await daemon.stop();
      Object.assign(daemon.options, { env: { [name]: value } });
      await daemon.startAndWait();
    });
    await eventually('nothing to be found', async () => assert.deepEqual(await findings(operator), []));
    assert.equal((await ping(rig.router, address6, { count: 1, waitSeconds: 3 })).received, 1);
  });

  it('finds entries that somebody has left, and what it prints removes them alone', async () => {
    const host = rig.host(1);
    const daemon = await host.startDaemon({ args: ['--ndp-proxy'] });
    const { address6 = '' } = await host.addContainer();
    const gateway = daemon.subnetEnv().FLANNEL_IPV6_SUBNET?.split('/')[0] ?? '';
    const left = [gateway.replace(/1$/, 'dead'), '2001:db8::dead'];
    for (const address of [...left, address6]) await host.netns.ip([`neigh add proxy ${address} dev eth0`]);
    const { command, evidence } = await only(operator, 'ndp-stale');
    for (const address of left) assert.ok(evidence.includes(address), evidence);
    await operator.type(command);
    assert.deepEqual(await findings(operator), []);
    const { stdout } = await host.netns.run(['ip', '-6', 'neigh', 'show', 'proxy']);
    assert.ok(stdout.includes(address6), stdout);
  });
});

describe('tsflannelctl doctor on networks in an on-link prefix', function () {
  this.timeout(120_000);
  const SUBNETS = ['--subnet', '198.18.7.0/24', '--ipv6', '--subnet', '2001:db8:0:0:4000::/66'];
  let rig: Rig;
  let on: DockerNetworkHost;
  let operator: Operator;

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    on = new DockerNetworkHost(rig.host(1));
    await on.boot();
    await Promise.all([on.daemon.startAndWait(), on.engine.start()]);
    await on.engine.importBusybox();
    operator = new Operator(rig.host(1));
    const { stdout } = await operator.shell('command -v docker');
    operator.shim('docker', `exec ${stdout.trim()} --host ${on.engine.endpoint} "$@"`);
  });

  after(async () => {
    await on.close();
    await rig.close();
  });

  it('finds one without ndp-proxy, and none once that was made anew with it', async () => {
    await on.createNetwork('net', ['--opt', 'type=bridge', ...SUBNETS]);
    await on.run('net');
    const { command } = await only(operator, 'ndp-missing');
    assert.match(command, /-o ndp-proxy=true/);
    await operator.type(command);
    await on.createNetwork('net', ['--opt', 'type=bridge', '--opt', 'ndp-proxy=true', ...SUBNETS]);
    await on.run('net');
    assert.deepEqual(await findings(operator), []);
  });
});
