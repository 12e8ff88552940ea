import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DockerEngine, type DockerSettings } from '../support/docker.js';
import { Operator } from '../support/operator.js';
import { type Container, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

describe('tsflannelctl doctor beside a Docker engine', function () {
  // Four starts of an engine, on a machine that may be busy.
  this.timeout(300_000);
  let rig: Rig;
  let engine: DockerEngine;
  let operator: Operator;
  let far: Container;

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    for (const host of rig.hosts) await host.startDaemon({ args: ['--ip-masq'] });
    far = await rig.host(2).addContainer();
    operator = new Operator(rig.host(1));
    engine = new DockerEngine(rig.host(1));
    const directory = path.join(rig.directory, 'h1-docker');
    const { stdout } = await operator.shell('command -v docker');
    operator.shim(
      'docker',
      `exec ${stdout.trim()} --config ${directory}/client --host unix://${directory}/docker.sock "$@"`,
    );
  });

  after(async () => {
    await engine.close();
    await rig.close();
  });

  /** The drop-in that reads subnet.env, as it is or with an MTU from before. */
  function settings(mtu?: number): DockerSettings {
    const subnetFile = rig.host(1).daemon?.subnetFile ?? '';
    const environmentFile = path.join(rig.directory, 'docker-subnet.env');
    const text = readFileSync(subnetFile, 'utf8');
    writeFileSync(environmentFile, mtu === undefined ? text : text.replace(/MTU=\d+/, `MTU=${mtu}`));
    return { dropIn: 'subnet-env', environmentFile };
  }

  /** A container of the other host reaches that one, and the doctor has nothing to say. */
  async function flows(container: string): Promise<void> {
    const address = async (): Promise<string> => {
      const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}';
      return (await engine.docker(['inspect', '--format', format, container])).stdout.trim();
    };
    await waitFor(async () => (await ping(far.netns, await address(), { count: 1, waitSeconds: 1 })).received === 1, {
      what: `an answer of the container ${container}`,
      timeoutMs: 30_000,
    });
    assert.deepEqual(
      await operator.findings().then((all) => all.filter(({ check }) => check !== 'bridge-netfilter')),
      [],
    );
  }

  it('names Docker without a drop-in, and the command that installs one', async () => {
    await engine.start();
    const finding = await operator.onlyFinding();
    assert.equal(finding.check, 'docker-bridge', JSON.stringify(finding));
    assert.match(finding.evidence, /172\.17\.0\.1\/16.*started without a drop-in/);
    assert.equal(finding.command, 'tsflannelctl docker enable && systemctl restart docker');
    // This engine has no unit, so there is nothing that a drop-in could be put beside; removal.test.ts has a real one.
    operator.shim('tsflannelctl', `[ "$*" = 'docker enable' ] || ${operator.tsflannelctl}`);
    await operator.typeWithService(finding.command, 'restart docker', () => engine.restart(settings()));
    await engine.startWebServers('page');
    await engine.waitForWebServers();
    await flows('web');
  });

  it("names an MTU of Docker above the overlay's, and the restart that its drop-in needs", async () => {
    await engine.restart(settings(1500));
    await engine.waitForWebServers();
    const finding = await operator.onlyFinding();
    assert.equal(finding.check, 'container-mtu', JSON.stringify(finding));
    assert.match(finding.evidence, /dockerd runs with --mtu=1500; MTU of veth\w+ 1500/);
    assert.match(finding.command, /^systemctl restart docker #/);
    await operator.typeWithService(finding.command, 'restart docker', () => engine.restart(settings()));
    await engine.waitForWebServers();
    assert.equal((await engine.webServerLink()).mtu, 1450);
    await flows('web');
  });

  it("names containers in a network of Docker's own, and moves them into the overlay", async () => {
    await engine.docker(['network', 'create', 'private']);
    const server = ['busybox', 'httpd', '-f', '-p', '80', '-h', '/www'];
    await engine.docker(['run', '--name', 'alone', '--detach', '--network', 'private', 'busybox', ...server]);
    const [finding] = (await operator.findings()).filter(({ check }) => check === 'docker-network');
    assert.equal(finding?.severity, 'note');
    assert.match(finding.evidence, /^br-[0-9a-f]{12} has 172\.\d+\.0\.0\/16$/);
    await operator.type(finding.command);
    await flows('alone');
  });
});
