import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { debianPackage } from '../support/debian-package.js';
import { skipBecause } from '../support/skip.js';
import { MachineSwitch, SystemdMachine } from '../support/systemd-machine.js';
import { waitFor } from '../support/wait.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** The commands below a heading of a page, block by block. */
function blocksOf(heading: string, page = 'quick-start'): readonly string[] {
  const text = readFileSync(path.join(ROOT, 'docs', `${page}.md`), 'utf8');
  const section = text.split(/^## /m).find((each) => each.startsWith(heading)) ?? '';
  const blocks = [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block = '']) => block);
  assert.ok(blocks.length > 0, `no commands below "${heading}"`);
  return blocks;
}

const DOCKER_DIRECTORIES = ['/var/lib/docker', '/var/lib/containerd'];

/** An image without a registry: busybox of this machine under the names that the page uses. */
const IMPORT_BUSYBOX = `mkdir -p /tmp/image/bin
cp "$(command -v busybox)" /tmp/image/bin/busybox
for name in sh ip httpd wget; do ln -s busybox /tmp/image/bin/$name; done
tar -C /tmp/image -c . | docker import - busybox`;

describe('the commands of the quick start, on two hosts with the real systemd and Docker', function () {
  // Four reboots, and six starts of Docker.
  this.timeout(600_000);
  let a: SystemdMachine;
  let b: SystemdMachine;
  let lan: MachineSwitch;
  const machines: SystemdMachine[] = [];
  let server = '';

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    if (spawnSync('dockerd', ['--version']).status !== 0) skipBecause(this, 'no dockerd (Debian package docker.io)');
    const deb = await debianPackage();
    lan = await MachineSwitch.create();
    for (const [index, name] of ['a', 'b'].entries()) {
      const machine = await SystemdMachine.start({
        // As the package of Docker does where it is installed.
        prepare: `mkdir -p /root/${name}; systemctl --quiet enable docker`,
        disks: DOCKER_DIRECTORIES,
        network: { switch: lan, address: `192.0.2.${11 + index}/24`, gateway: '192.0.2.1' },
      });
      machines.push(machine);
      await machine.putFile(deb, `/root/${path.basename(deb)}`);
    }
    [a, b] = machines as [SystemdMachine, SystemdMachine];
  });

  after(() => {
    for (const machine of machines) machine.close();
    (lan as MachineSwitch | undefined)?.close();
  });

  /** Carries out blocks as an administrator would who stops at the first failure. */
  async function follow(
    machine: SystemdMachine,
    heading: string,
    { places, page }: { readonly places?: readonly number[]; readonly page?: string } = {},
  ): Promise<string> {
    const blocks = blocksOf(heading, page).filter((_, place) => places?.includes(place) ?? true);
    // Packages cannot be fetched in there; this machine's are seen.
    const lines = blocks.join('').replaceAll(/^apt-get .*$/gm, ':');
    const { stdout } = await machine.shell(`set -e; cd /root\n${lines}`, { timeoutMs: 100_000 });
    return stdout;
  }

  it('install the package', async () => {
    for (const machine of machines) await follow(machine, '2. Install', { places: [0] });
    const { stdout } = await a.run(['dpkg', '--listfiles', 'tsflannel']);
    for (const file of [
      ...['tsflanneld', 'tsflannelctl', 'mk-docker-opts'].map((name) => `man/man8/${name}.8.gz`),
      'bash-completion/completions/tsflannelctl',
      'zsh/vendor-completions/_tsflannelctl',
      'fish/vendor_completions.d/tsflannelctl.fish',
    ]) {
      assert.ok(stdout.split('\n').includes(`/usr/share/${file}`), file);
    }
    const complete = '. /usr/share/bash-completion/completions/tsflannelctl && COMP_WORDS=(tsflannelctl leases sh)';
    const said = await a.run(['bash', '-c', `${complete} COMP_CWORD=2 && _tsflannelctl && echo "$COMPREPLY"`]);
    assert.equal(said.stdout, 'show\n');
  });

  it('bring up etcd and configure the network', async () => {
    await follow(a, '3. etcd');
    assert.match(await follow(a, '4. The network'), /\{"Network": "10\.5\.0\.0\/16"/);
  });

  it('start the daemons', async () => {
    for (const machine of machines) {
      const said = await follow(machine, '5. The daemon');
      assert.match(said, /^FLANNEL_SUBNET=10\.5\.\d+\.1\/24$/m);
      assert.match(said, /ready/);
    }
  });

  it('let tsflannelctl find etcd on both hosts without a word about it', async () => {
    for (const machine of machines) {
      const { stdout, stderr } = await machine.run(['tsflannelctl', 'config', 'get']);
      assert.deepEqual([JSON.parse(stdout), stderr], [{ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } }, '']);
      const { stdout: leases } = await machine.run(['tsflannelctl', 'leases', 'list']);
      for (const address of ['192.0.2.11', '192.0.2.12']) assert.ok(leases.includes(` ${address} `), leases);
    }
    // Also while no daemon answers, as the environment file of the unit tells.
    await b.shell('systemctl stop tsflanneld && tsflannelctl config get && systemctl start tsflanneld');
  });

  it('give Docker the subnet', async () => {
    for (const machine of machines) {
      const said = await follow(machine, '6. Docker', { places: [0] });
      const { stdout: subnet } = await machine.shell('. /run/flannel/subnet.env; echo $FLANNEL_SUBNET');
      assert.ok(said.includes(`inet ${subnet.trim()} `), said);
    }
  });

  it('let a container reach one on the other host', async () => {
    for (const machine of machines) await machine.shell(IMPORT_BUSYBOX);
    const [serve = '', fetch = ''] = blocksOf('7. Try it').join('').trim().split('\n');
    // There is no terminal; the container is left to itself instead. Its shell takes no SIGTERM, for which Docker would
    // wait ten seconds each time that it ends.
    await a.shell(serve.replace('--rm -it', '--detach --name server --stop-timeout 1'));
    const output = await waitFor(
      async () => /inet ([\d.]+)/.exec((await a.run(['docker', 'logs', 'server'])).stdout)?.[1],
      { what: 'the address of the server' },
    );
    server = output;
    const { stdout, stderr } = await b.shell(fetch.replace(/[\d.]+(?=\/$)/, server), { mayFail: true });
    assert.match(`${stdout}${stderr}`, /404 Not Found/);
  });

  it('give containers addresses of the real network, as its page says', async () => {
    const page = 'docker-networks';
    const addresses = new Set<string>();
    for (const machine of machines) {
      await follow(machine, 'Set it up', { page });
      const said = await follow(machine, 'Two commands', { page });
      addresses.add(/inet (10\.10\.10\.\d+)\/24/.exec(said)?.[1] ?? said);
    }
    assert.equal(addresses.size, 2);
    await a.shell('docker run --detach --name on-lan --restart always --network lan busybox httpd -f -p 80');
    await fetchFromLan();
    // A host without the network in its Docker would make it first.
    const [, attach = ''] = blocksOf('Without Docker', page);
    const { stdout } = await b.shell(attach.replace('--network lan', '--network 10.10.10.0/24'));
    assert.match(stdout, /^10\.10\.10\.\d+ .* netns \/run\/netns\/web eth0 .* confirmed$/m);
  });

  it('make Docker follow a new MTU', async () => {
    await b.shell('echo TSFLANNEL_DOCKER_WINDOW=3 >>/etc/default/tsflanneld');
    await follow(b, '6. Docker', { places: [1] });
    const before = await b.property('docker', 'MainPID');
    const config = '{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}';
    await a.shell(`echo '${config}' >/root/network.json; tsflannelctl config set /root/network.json --yes`);
    await waitFor(
      async () =>
        (await b.property('docker', 'MainPID')) !== before && (await b.property('docker', 'ActiveState')) === 'active',
      { what: 'the restart of Docker', timeoutMs: 30_000, intervalMs: 200 },
    );
    const [, delay, window] =
      /FLANNEL_MTU was '1450' and is now '1500': restarting docker\.service in (\d+) s, at random within (\d+) s/.exec(
        await b.journal('tsflannel-docker'),
      ) ?? [];
    assert.equal(window, '3');
    assert.ok(Number(delay) < 3, delay);
    const link = await b.run(['docker', 'run', '--rm', 'busybox', 'ip', 'link', 'show', 'eth0']);
    assert.match(link.stdout, /mtu 1500/);
  });

  it('last over a reboot of either host', async () => {
    for (const machine of [b, a]) {
      const before = await subnetOf(machine);
      await machine.reboot();
      await isActive(machine, 'tsflanneld');
      await isActive(machine, 'docker');
      assert.equal(await subnetOf(machine), before);
      const { stdout } = await machine.shell('ip -4 address show docker0');
      assert.ok(stdout.includes(`inet ${before} `), stdout);
    }
    await a.shell('docker start server');
    const { stdout: address } = await a.shell("docker inspect --format '{{.NetworkSettings.IPAddress}}' server");
    const fetch = `docker run --rm busybox wget -O- http://${address.trim()}/`;
    const { stdout, stderr } = await b.shell(fetch, { mayFail: true });
    assert.match(`${stdout}${stderr}`, /404 Not Found/);
    await fetchFromLan();
  });

  it('take the host with etcd out, and everything of the others lives on', async () => {
    const etcd = await a.property('etcd-single', 'MainPID');
    const said = await follow(a, 'More hosts, and fewer');
    assert.match(said, /removed .*docker\.service\.d\/tsflannel\.conf: Docker takes addresses of its own/);
    assert.match(
      said,
      /etcd-single\.service and its data stay: they hold the configuration and the leases of all hosts/,
    );
    assert.match(said, /Docker still has networks of this driver: lan\./);
    assert.equal(await a.property('etcd-single', 'MainPID'), etcd);
    await isLivingOn();
    await a.shell('docker run --rm busybox ip address show eth0');

    await a.reboot();
    await isActive(a, 'docker');
    await isActive(a, 'etcd-single');
    await isLivingOn();
  });

  it('rid Docker of a network that a removal has left to it, as the removal has said', async () => {
    const patience = { timeoutMs: 100_000 };
    await a.shell('docker ps --all --quiet --filter network=lan | xargs docker rm --force', patience);
    const { stderr } = await a.run(['docker', 'network', 'rm', 'lan'], { ...patience, mayFail: true });
    assert.match(stderr, /plugin "tsflannel" not found/);
    // The first start makes it forget the network for good.
    await a.run(['systemctl', 'restart', 'docker'], patience);
    await a.shell('journalctl --rotate && journalctl --vacuum-time=1s && systemctl restart docker', patience);
    assert.doesNotMatch(await a.journal('docker'), /tsflannel/);
    assert.doesNotMatch((await a.run(['docker', 'network', 'ls'])).stdout, /tsflannel/);
  });

  it('take the other host out', async () => {
    await follow(b, 'Take it away', { page: 'docker-networks' });
    await follow(b, 'More hosts, and fewer');
    const { stdout } = await b.shell("ip -brief link; ip route; iptables-save | grep -i -e 'FLANNEL-' || true");
    assert.doesNotMatch(stdout, /flannel|10\.5\.\d+\.\d+\/24 via/i);
    await b.shell('docker run --rm busybox ip address show eth0');
    await b.reboot();
    await isActive(b, 'docker');
    const { stdout: traces } = await b.shell(
      'ls /run/flannel /run/docker_opts.env /var/lib/tsflannel 2>/dev/null; true',
    );
    assert.equal(traces, '');
  });

  /** From a container of host b to the one of host a, both with addresses of the real network. */
  async function fetchFromLan(): Promise<void> {
    const format = '{{.NetworkSettings.Networks.lan.IPAddress}}';
    const { stdout: address } = await a.run(['docker', 'inspect', '--format', format, 'on-lan']);
    const fetch = `docker run --rm --network lan busybox wget -O- http://${address.trim()}/`;
    const { stdout, stderr } = await b.shell(fetch, { mayFail: true });
    assert.match(`${stdout}${stderr}`, /404 Not Found/);
  }

  async function subnetOf(machine: SystemdMachine): Promise<string> {
    return (await machine.shell('. /run/flannel/subnet.env; echo $FLANNEL_SUBNET')).stdout.trim();
  }

  async function isActive(machine: SystemdMachine, unit: string): Promise<void> {
    await waitFor(async () => (await machine.property(unit, 'ActiveState')) === 'active', {
      what: `${unit}: ${(await machine.run(['systemctl', 'status', unit], { mayFail: true })).stdout}`,
      timeoutMs: 60_000,
      intervalMs: 200,
    });
  }

  /** Configuration, lease and daemon of host b, as seen from there. */
  async function isLivingOn(): Promise<void> {
    const subnet = (await subnetOf(b)).replace('.1/', '.0/');
    const endpoint = '--etcd-endpoints=http://192.0.2.11:2379';
    const { stdout: config } = await b.shell(`tsflannelctl config get ${endpoint}`);
    assert.match(config, /"Network": "10\.5\.0\.0\/16"/);
    const { stdout: leases } = await b.shell(`tsflannelctl leases list ${endpoint}`);
    assert.ok(leases.includes(subnet), leases);
    await waitFor(async () => / ready/.test((await b.shell('tsflannelctl status', { mayFail: true })).stdout), {
      what: 'the daemon of host b to be ready',
      timeoutMs: 60_000,
      intervalMs: 500,
    });
    await b.shell('docker run --rm busybox ip address show eth0');
  }
});
