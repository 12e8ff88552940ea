import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';
import { ctlFile } from '../support/daemon.js';
import { DockerEngine, fetchCommand } from '../support/docker.js';
import { run } from '../support/netns.js';
import { PodmanHost } from '../support/podman.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { SystemdMachine } from '../support/systemd-machine.js';
import { waitFor } from '../support/wait.js';

const PAGE = readFileSync(path.resolve(import.meta.dirname, '../../docs/recipes.md'), 'utf8');
const NETWORK = { Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } };
const ROUTER = '192.0.2.1:8081';

/** Many packets of full size, so that an MTU above the overlay's would show. */
const LARGE = '0123456789abcde\n'.repeat(12_000);

/** The n-th block of shell below a heading of the page. */
function block(heading: string, place = 0): string {
  const section = PAGE.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
  const [, found] = [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)][place] ?? [];
  assert.ok(found !== undefined, `no block ${place} below "${heading}"`);
  return found;
}

/** Files of a web server that tells who asks, and their archive as an image of busybox: `httpd` serves its root. */
async function makeImage(directory: string): Promise<{ root: string; archive: string }> {
  const root = path.join(directory, 'image');
  for (const name of ['bin', 'cgi-bin']) mkdirSync(path.join(root, name), { recursive: true });
  const { stdout } = await run(['sh', '-c', 'command -v busybox']);
  copyFileSync(stdout.trim(), path.join(root, 'bin/busybox'));
  for (const name of ['sh', 'ip', 'httpd']) symlinkSync('busybox', path.join(root, 'bin', name));
  writeFileSync(path.join(root, 'large'), LARGE);
  const script = path.join(root, 'cgi-bin/asker');
  // REMOTE_ADDR is 192.0.2.1 or [::ffff:192.0.2.1].
  const lines = [
    '#!/bin/sh',
    'asker=${REMOTE_ADDR##*:}',
    'printf "Content-Type: text/plain\\r\\n\\r\\n%s" "${asker%]}"',
  ];
  writeFileSync(script, lines.join('\n'));
  chmodSync(script, 0o755);
  await run(['tar', '-C', root, '-cf', `${root}.tar`, '.']);
  return { root, archive: `${root}.tar` };
}

/** What `ip address show eth0` of busybox tells. */
function linkOf(text: string): { address: string; mtu: number } {
  const [, mtu] = / mtu (\d+) /.exec(text) ?? [];
  const [, address] = /inet ([\d.]+)\//.exec(text) ?? [];
  assert.ok(mtu !== undefined && address !== undefined, text);
  return { address, mtu: Number(mtu) };
}

/** Runs a command in a container, whatever engine it is of, and gives its output. */
type RunInContainer = (command: readonly string[]) => Promise<string>;

async function composeObstacle(): Promise<string | undefined> {
  const { code } = await run(['sh', '-c', 'command -v docker-compose'], { mayFail: true });
  return code === 0 ? undefined : 'no docker-compose on this machine: node .ci/setup.mjs containers';
}

describe('the recipes, on two hosts', function () {
  this.timeout(180_000);
  let rig: Rig | undefined;
  let archive = '';
  let engines: (PodmanHost | DockerEngine)[] = [];

  const startHosts = async (): Promise<Rig> => {
    rig = await Rig.create();
    await rig.putConfig(NETWORK);
    await Promise.all(rig.hosts.map(async (host) => host.startDaemon({ args: ['--ip-masq'] })));
    const image = await makeImage(rig.directory);
    archive = image.archive;
    rig.router.start(['busybox', 'httpd', '-f', '-p', ROUTER, '-h', image.root]);
    return rig;
  };

  const closeHosts = async (): Promise<void> => {
    await Promise.all(engines.map(async (each) => each.close()));
    engines = [];
    await rig?.close();
    rig = undefined;
  };

  const hosts = (): readonly Host[] => rig?.hosts ?? [];
  const subnetOf = ({ daemon }: Host): string => daemon?.subnetEnv().FLANNEL_SUBNET ?? '';

  /** Each container is in its host's subnet with that MTU, reaches the other as itself, and the world as its host. */
  const assertConnected = async (containers: readonly RunInContainer[], mtu: number): Promise<void> => {
    const links = await Promise.all(
      containers.map(async (inContainer) => linkOf(await inContainer(['ip', 'address', 'show', 'eth0']))),
    );
    for (const [index, inContainer] of containers.entries()) {
      const [host, own, other] = [hosts()[index], links[index], links[1 - index]];
      assert.ok(host && own && other);
      const subnet = subnetOf(host);
      assert.ok(Prefix.parse(subnet).contains(IpAddress.parse(own.address)), `${own.address} in ${subnet}`);
      assert.equal(own.mtu, mtu);
      assert.equal(await inContainer(fetchCommand(`http://${other.address}/large`)), LARGE);
      assert.equal(await inContainer(fetchCommand(`http://${other.address}/cgi-bin/asker`)), own.address);
      assert.equal(await inContainer(fetchCommand(`http://${ROUTER}/cgi-bin/asker`)), host.publicIp);
    }
  };

  describe('podman with the network for CNI', () => {
    let podmen: PodmanHost[] = [];
    let containers: RunInContainer[] = [];

    before(async function () {
      const obstacle = await PodmanHost.obstacle();
      if (obstacle !== undefined) skipBecause(this, obstacle);
      await startHosts();
      podmen = await Promise.all(hosts().map(async (host) => PodmanHost.start(host)));
      engines = podmen;
      containers = podmen.map(
        (podman) => async (command) => (await podman.shell(`podman exec web ${command.join(' ')}`)).stdout,
      );
      for (const podman of podmen) await podman.shell(`podman import ${archive} busybox`);
    });

    after(closeHosts);

    it('gives containers the subnet and the MTU, and they reach each other unmasqueraded', async () => {
      for (const podman of podmen) {
        await podman.shell(block('CNI'));
        await podman.shell(block('Podman'));
      }
      await assertConnected(containers, 1450);
    });

    it('lets the world reach a published port', async () => {
      for (const podman of podmen) {
        await podman.shell('podman run --detach --publish 8080:80 --network tsflannel busybox httpd -f -p 80');
        const url = `http://${podman.host.publicIp}:8080/cgi-bin/asker`;
        const fetched = async () => podman.host.rig.router.run(fetchCommand(url), { mayFail: true });
        const asker = await waitFor(async () => (await fetched()).stdout, { what: `an answer of ${url}` });
        assert.equal(asker, ROUTER.split(':')[0]);
      }
    });

    it('earns no warning of the doctor', async () => {
      for (const { netns, daemon } of hosts()) {
        assert.ok(daemon && rig);
        const settings = [`--status-socket=${daemon.statusSocket}`, `--etcd-endpoints=${rig.etcd.endpoint}`];
        const { stdout } = await netns.run([process.execPath, ctlFile(), 'doctor', ...settings], { mayFail: true });

        assert.match(stdout, /^nothing wrong found/);
      }
    });

    it('takes a new subnet and MTU when the script has run and the containers are restarted', async () => {
      const former = hosts().map(subnetOf);
      const range = { SubnetLen: 26, SubnetMin: '10.5.250.64', SubnetMax: '10.5.250.192' };
      await rig?.putConfig({ ...NETWORK, ...range, Backend: { Type: 'host-gw' } });
      for (const [index, host] of hosts().entries()) {
        await waitFor(() => subnetOf(host) !== former[index] && /^10\.5\.250\.\d+\/26$/.test(subnetOf(host)), {
          what: 'a subnet of the new range',
          timeoutMs: 30_000,
        });
      }
      for (const podman of podmen)
        await podman.shell('/usr/local/sbin/tsflannel-cni; podman stop --all --time 0; podman start web');
      await assertConnected(containers, 1500);
    });
  });

  describe('Compose with Docker', () => {
    before(async function () {
      const obstacle = (await DockerEngine.obstacle()) ?? (await composeObstacle());
      if (obstacle !== undefined) skipBecause(this, obstacle);
      await startHosts();
    });

    after(closeHosts);

    it('gives services the subnet and the MTU, and they reach each other unmasqueraded', async () => {
      const docks = hosts().map((host) => new DockerEngine(host));
      engines = docks;
      const containers = await Promise.all(
        docks.map(async (engine): Promise<RunInContainer> => {
          const { host, endpoint } = engine;
          await engine.start({ dropIn: 'subnet-env', environmentFile: host.daemon?.subnetFile ?? '' });
          await engine.docker(['import', archive, 'busybox']);
          const directory = path.join(host.rig.directory, `${host.name}-compose`);
          mkdirSync(directory);
          const script = `cd ${directory}; ${block('Compose')}`;
          await run(['sh', '-ec', script], { env: { DOCKER_HOST: endpoint }, timeoutMs: 60_000 });
          const { stdout } = await engine.docker(['ps', '--quiet']);
          return async (command) => (await engine.docker(['exec', stdout.trim(), ...command])).stdout;
        }),
      );
      await assertConnected(containers, 1450);
    });
  });
});

describe('the units of the recipe for CNI, under systemd', function () {
  this.timeout(120_000);
  let machine: SystemdMachine | undefined;

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    machine = await SystemdMachine.start();
  });

  after(() => machine?.close());

  it('write the network again when subnet.env is new, also after a reboot', async () => {
    assert.ok(machine);
    const at = machine;
    const writeSubnet = async (subnet: string): Promise<void> => {
      await at.shell(
        `mkdir -p /run/flannel && printf 'FLANNEL_SUBNET=${subnet}\nFLANNEL_MTU=1450\n' >/run/flannel/new`,
      );
      await at.shell('mv /run/flannel/new /run/flannel/subnet.env');
    };
    const waitForNetwork = async (subnet: string): Promise<void> => {
      const expected = `"subnet": "${subnet}"`;
      await waitFor(
        async () => (await at.shell('cat /etc/cni/net.d/10-tsflannel.conflist')).stdout.includes(expected),
        {
          what: `the network ${subnet}`,
          timeoutMs: 20_000,
          intervalMs: 200,
        },
      );
    };
    await writeSubnet('10.5.40.1/24');
    await at.shell(`set -e; ${block('CNI')}\n${block('CNI', 1)}`);
    await waitForNetwork('10.5.40.0/24');
    await writeSubnet('10.5.41.129/25');
    await waitForNetwork('10.5.41.128/25');
    await at.reboot();
    await writeSubnet('10.5.42.1/24');
    await waitForNetwork('10.5.42.0/24');
  });
});
