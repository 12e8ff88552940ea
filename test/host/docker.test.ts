import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';
import { ctlFile } from '../support/daemon.js';
import { distFile } from '../support/dist.js';
import {
  DockerEngine,
  type DockerSettings,
  PUBLISHED_PORT,
  type WebServer,
  askersOf,
  fetchCommand,
} from '../support/docker.js';
import { run } from '../support/netns.js';
import type { Program } from '../support/program.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';

const NETWORK = { Network: '10.5.0.0/16' };
const ROUTER = '192.0.2.1';
const ROUTER_PORT = 8081;

/** Long enough for many packets of full size, so that an MTU above the overlay's would show. */
const pageOf = (host: Host): string => `page of ${host.name}\n${'0123456789abcde\n'.repeat(12_000)}`;

/** The backends on an underlay of 1500, each with another of our two ways to give Docker its options. */
const CASES = [
  { backend: 'udp', mtu: 1472, dropIn: 'docker-opts' },
  { backend: 'vxlan', mtu: 1450, dropIn: 'subnet-env' },
  { backend: 'host-gw', mtu: 1500, dropIn: 'docker-opts' },
] as const;

describe('Docker engines on two hosts', function () {
  // Three starts of two engines, each with containerd, on a machine that may be busy.
  this.timeout(180_000);
  let rig: Rig | undefined;
  let engines: DockerEngine[] = [];
  let routerServer: Program;

  const host = (number: number): Host => {
    assert.ok(rig);
    return rig.host(number);
  };

  const engine = (number: number): DockerEngine => {
    const found = engines[number - 1];
    if (found === undefined) throw new RangeError(`no engine ${number}`);
    return found;
  };

  const subnetOf = ({ daemon }: Host): string => daemon?.subnetEnv().FLANNEL_SUBNET ?? '';

  /** The file that a drop-in reads, written as the unit does it when the daemon's subnet.env is there. */
  const settingsFor = async ({ netns, daemon, rig: { directory }, name }: Host, dropIn: DockerSettings['dropIn']) => {
    assert.ok(daemon);
    if (dropIn === 'subnet-env') return { dropIn, environmentFile: daemon.subnetFile };
    const environmentFile = path.join(directory, `${name}-docker_opts.env`);
    await netns.run([
      process.execPath,
      distFile('bin/mk-docker-opts.js'),
      '-f',
      daemon.subnetFile,
      '-d',
      environmentFile,
    ]);
    return { dropIn, environmentFile };
  };

  const restartDocker = async (dropIn: DockerSettings['dropIn']): Promise<void> => {
    await Promise.all(engines.map(async (each) => each.restart(await settingsFor(each.host, dropIn))));
  };

  /** Fetches each other's page by container address and gives the addresses that the servers saw. */
  const fetchFromEachOther = async (): Promise<string[]> => {
    const links = await Promise.all(engines.map((each) => each.webServerLink()));
    const seen: string[] = [];
    for (const [from, to] of [
      [1, 2],
      [2, 1],
    ] as const) {
      const before = (await engine(to).webServerLog('web')).length;
      const page = await engine(from).fetch(`http://${links[to - 1]?.address ?? ''}/page`);
      assert.equal(page, pageOf(host(to)));
      seen.push(...(await askersSince(engine(to), 'web', before)));
    }
    return seen;
  };

  /** Who asked a server for the page since its log was that long; the engine keeps the log at its own pace. */
  const askersSince = (of: DockerEngine, container: WebServer, before: number): Promise<string[]> =>
    waitFor(
      async () => {
        // Not the server's own container, which waitForWebServers() asks from.
        const askers = askersOf((await of.webServerLog(container)).slice(before), '/page');
        const others = askers.filter((address) => address !== '127.0.0.1');
        return others.length > 0 && others;
      },
      { what: `a line in the log of ${container}` },
    );

  const containerAddresses = async (): Promise<string[]> => {
    const links = await Promise.all(engines.map((each) => each.webServerLink()));
    return links.map(({ address }) => address);
  };

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create();
    await rig.putConfig({ ...NETWORK, Backend: { Type: CASES[0].backend } });
    await Promise.all(rig.hosts.map((each) => each.startDaemon({ args: ['--ip-masq'] })));
    // As on a host that has just booted: Docker turns forwarding on, and only then closes FORWARD.
    for (const { netns } of rig.hosts) await netns.run(['sysctl', '-qw', 'net.ipv4.ip_forward=0']);
    engines = rig.hosts.map((each) => new DockerEngine(each));
    await restartDocker(CASES[0].dropIn);
    await Promise.all(engines.map((each) => each.startWebServers(pageOf(each.host))));

    const pages = path.join(rig.directory, 'router-pages');
    mkdirSync(pages);
    writeFileSync(path.join(pages, 'page'), 'page of the router\n');
    const listen = `${ROUTER}:${ROUTER_PORT}`;
    routerServer = rig.router.start(['busybox', 'httpd', '-f', '-vv', '-p', listen, '-h', pages]);
  });

  after(async () => {
    await Promise.all(engines.map((each) => each.close()));
    await rig?.close();
  });

  for (const { backend, mtu, dropIn } of CASES) {
    describe(`over ${backend}, with ${dropIn}`, () => {
      before(async () => {
        assert.ok(rig);
        const { daemon } = host(1);
        const mark = daemon?.program.mark();
        const oldMtu = daemon?.subnetEnv().FLANNEL_MTU ?? '';
        if (oldMtu !== String(mtu)) {
          await rig.putConfig({ ...NETWORK, Backend: { Type: backend } });
          for (const each of rig.hosts) {
            await waitFor(() => each.daemon?.subnetEnv().FLANNEL_MTU === String(mtu), { what: `${backend} in use` });
          }
          await daemon?.waitForLog(
            new RegExp(
              `containers need a restart of Docker .*MTU ${oldMtu} → ${mtu}.*subnet\\.env.*systemctl restart docker`,
            ),
            10_000,
            mark,
          );
          await restartDocker(dropIn);
        }
        await Promise.all(engines.map((each) => each.waitForWebServers()));
      });

      it('gives containers an address of the leased subnet and the MTU of the overlay', async () => {
        for (const each of engines) {
          const link = await each.webServerLink();
          assert.equal(link.mtu, mtu);
          const subnet = subnetOf(each.host);
          assert.ok(Prefix.parse(subnet).contains(IpAddress.parse(link.address)), `${link.address} in ${subnet}`);
          const [bridge] = await each.host.netns.ipJson(['-4', 'addr', 'show', 'dev', 'docker0']);
          const [own] = bridge?.addr_info as { local: string; prefixlen: number }[];
          assert.equal(`${own?.local ?? ''}/${own?.prefixlen ?? ''}`, subnet);
        }
      });

      it('lets containers fetch a page by container address, and the server sees the container', async () => {
        assert.deepEqual(await fetchFromEachOther(), await containerAddresses());
      });

      it('lets the world reach a published port', async () => {
        for (const each of engines) {
          const url = `http://${each.host.publicIp}:${PUBLISHED_PORT}/page`;
          const before = (await each.webServerLog('published')).length;
          const { stdout } = await host(1).rig.router.run(fetchCommand(url));
          assert.equal(stdout, pageOf(each.host));
          assert.deepEqual(await askersSince(each, 'published', before), [ROUTER]);
        }
      });

      it('masquerades what leaves the overlay, although Docker does not and closes FORWARD', async () => {
        for (const each of engines) {
          const mark = routerServer.mark();
          assert.equal(await each.fetch(`http://${ROUTER}:${ROUTER_PORT}/page`), 'page of the router\n');
          await routerServer.waitForLine(/url:\/page/, 5000, mark);
          assert.deepEqual(askersOf(routerServer.output.slice(mark), '/page'), [each.host.publicIp]);

          assert.ok(each.commandLine().includes('--ip-masq=false'), each.commandLine().join(' '));
          const { stdout: rules } = await each.host.netns.run(['iptables-save']);
          assert.match(rules, /^:FORWARD DROP/m);
          assert.doesNotMatch(rules, /! -o docker0 .*-j MASQUERADE/);
        }
      });
    });
  }

  // A suite, since mocha runs a suite's own tests before those of its inner suites.
  describe('afterwards', () => {
    it('says that Docker needs a restart when the subnet changes, and containers work again after it', async () => {
      assert.ok(rig);
      const before = rig.hosts.map(subnetOf);
      const mtu = host(1).daemon?.subnetEnv().FLANNEL_MTU ?? '';
      const marks = rig.hosts.map(({ daemon }) => daemon?.program.mark());
      await rig.putConfig({
        ...NETWORK,
        ...{ SubnetMin: '10.5.250.0', SubnetMax: '10.5.254.0' },
        Backend: { Type: 'host-gw' },
      });
      for (const [index, each] of rig.hosts.entries()) {
        await each.daemon?.waitForLog(
          /containers need a restart of Docker .*subnet 10\.5\.\d+\.0\/24 → 10\.5\.25[0-4]\.0\/24.*systemctl restart docker/,
          30_000,
          marks[index],
        );
        assert.notEqual(subnetOf(each), before[index]);
        assert.equal(each.daemon?.subnetEnv().FLANNEL_MTU, mtu);
      }
      await restartDocker('subnet-env');
      await Promise.all(engines.map((each) => each.waitForWebServers()));
      const addresses = await containerAddresses();
      for (const address of addresses) assert.match(address, /^10\.5\.25[0-4]\./);
      assert.deepEqual(await fetchFromEachOther(), addresses);
    });

    it('earns no warning when it is started as README says, with the daemon as README says', async () => {
      assert.ok(rig);
      const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8');
      const [, options = ''] = /^dockerd (\S.*?)\s*(?:#.*)?$/m.exec(readme) ?? [];
      assert.match(readme, /^sudo node dist\/bin\/tsflanneld\.js .*--ip-masq$/m);
      await Promise.all(
        engines.map((each) =>
          each.restart({ dropIn: 'subnet-env', options, environmentFile: each.host.daemon?.subnetFile ?? '' }),
        ),
      );
      await Promise.all(engines.map((each) => each.waitForWebServers()));
      assert.deepEqual(await fetchFromEachOther(), await containerAddresses());
      for (const { netns, daemon } of rig.hosts) {
        assert.ok(daemon);
        const socket = [`--status-socket=${daemon.statusSocket}`, `--etcd-endpoints=${rig.etcd.endpoint}`];
        const { stdout } = await netns.run([process.execPath, ctlFile(), 'doctor', ...socket], { mayFail: true });
        assert.match(stdout, /checks/);
        assert.doesNotMatch(stdout, /a rule of others|masquerad|--ip-masq/i);
      }
    });

    it('leaves no process and no cgroup behind', async () => {
      const name = host(1).netns.name;
      const own = engine(1);
      assert.notEqual((await run(['find', '/sys/fs/cgroup', '-name', name])).stdout, '');
      await own.close();
      assert.equal((await run(['find', '/sys/fs/cgroup', '-name', name], { mayFail: true })).stdout, '');
      const { stdout: pids } = await run(['ip', 'netns', 'pids', name]);
      const commands = await run(['ps', '-o', 'args=', '-p', pids.trim().split('\n').join(',')], { mayFail: true });
      assert.doesNotMatch(commands.stdout, /docker|containerd/);
    });
  });
});
