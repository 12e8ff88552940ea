import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { deriveMac } from '../../src/ip/mac.js';
import { capture } from '../support/capture.js';
import { DockerEngine } from '../support/docker.js';
import type { Netns, Output } from '../support/netns.js';
import { Program } from '../support/program.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';

const PLUGIN = fileURLToPath(new URL('../support/docker-plugin-host.ts', import.meta.url));
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const SUBNET = '192.0.2.0/24';
const ROUTER = '192.0.2.1';
const SUBNET6 = '2001:db8::/64';
const ROUTER6 = '2001:db8::1';

/** Parts of the range, as two hosts would have blocks of it. */
const RANGES = [
  ['192.0.2.64/28', '2001:db8::64:0/112'],
  ['192.0.2.128/28', '2001:db8::128:0/112'],
] as const;

const HOST_ACCESS = ['--opt', 'host-access=true'];

/** A container that does nothing. */
const IDLE = ['--detach', '--stop-signal', 'SIGKILL', 'busybox', 'busybox', 'sleep', '3600'];

describe('the Docker plugin with engines on two hosts', function () {
  this.timeout(240_000);
  let rig: Rig;
  let engines: DockerEngine[] = [];
  let plugins: Program[] = [];

  const engine = (number: number): DockerEngine => {
    const found = engines[number - 1];
    assert.ok(found);
    return found;
  };

  const pluginDirectory = (index: number): string => path.join(rig.directory, `plugin-${index}`);

  const startPlugin = async (on: DockerEngine, index: number): Promise<Program> => {
    const directory = pluginDirectory(index);
    mkdirSync(directory, { recursive: true });
    const socket = '/run/docker/plugins/tsflannel.sock';
    const argv = [process.execPath, '--import', TSX, PLUGIN, socket, directory, 'eth0'];
    const program = new Program(on.command(argv), { logFile: path.join(directory, 'log') });
    await program.waitForLine(/answering docker/, 60_000);
    return program;
  };

  /** Makes the network on both hosts with the same options, each with its part of the range. */
  const createNetwork = async (name: string, options: readonly string[] = []): Promise<void> => {
    for (const [index, [range, range6]] of RANGES.entries()) {
      const v4 = ['--subnet', SUBNET, '--ip-range', range, '--gateway', ROUTER];
      const v6 = ['--ipv6', '--subnet', SUBNET6, '--ip-range', range6, '--gateway', ROUTER6];
      const drivers = ['--driver', 'tsflannel', '--ipam-driver', 'tsflannel', '--ipam-opt', `network=${name}`];
      await engine(index + 1).docker(['network', 'create', ...drivers, ...v4, ...v6, ...options, name]);
    }
  };

  const runContainer = async (number: number, network: string, options: readonly string[] = []): Promise<Container> => {
    const { stdout } = await engine(number).docker(['run', '--network', network, ...options, ...IDLE]);
    const id = stdout.trim();
    const of = async (field: string): Promise<string> => {
      const format = `{{range .NetworkSettings.Networks}}{{.${field}}}{{end}}`;
      return (await engine(number).docker(['inspect', '--format', format, id])).stdout.trim();
    };
    return {
      id,
      address: await of('IPAddress'),
      address6: await of('GlobalIPv6Address'),
      mac: await of('MacAddress'),
      reaches: async (address) =>
        (await engine(number).docker(['exec', id, ...pingOnce(address)], { mayFail: true })).code === 0,
      exec: (argv) => engine(number).docker(['exec', id, ...argv]),
      remove: async () => {
        await engine(number).docker(['rm', '--force', id]);
      },
    };
  };

  const reaches = async (netns: Netns, address: string): Promise<boolean> =>
    (await netns.run(pingOnce(address), { mayFail: true })).code === 0;

  /** Ends and removes what a test has made, as an operator does. */
  const removeAll = async (): Promise<void> => {
    for (const each of engines) {
      const ids = (await each.docker(['ps', '--all', '--quiet'])).stdout.split('\n').filter((id) => id !== '');
      if (ids.length > 0) await each.docker(['rm', '--force', ...ids]);
      await each.docker(['network', 'prune', '--force']);
    }
  };

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hasIpv6: true });
    engines = rig.hosts.map((host) => new DockerEngine(host));
    await Promise.all(engines.map((each) => each.start()));
    plugins = await Promise.all(engines.map(startPlugin));
    for (const each of engines) await each.importBusybox();
    process.stdout.write(`      Docker ${await engine(1).version()}\n`);
  });

  afterEach(() => removeAll());

  after(async () => {
    await Promise.all(plugins.map((each) => each.kill()));
    await Promise.all(engines.map((each) => each.close()));
    await rig.close();
  });

  it('connects containers of both hosts with each other and with the router, and not with the hosts', async () => {
    await createNetwork('plain');
    const near = await runContainer(1, 'plain');
    const sibling = await runContainer(1, 'plain');
    const far = await runContainer(2, 'plain');
    for (const target of [sibling.address, far.address, ROUTER, sibling.address6, far.address6, ROUTER6]) {
      assert.ok(await near.reaches(target), target);
    }
    assert.equal(await near.reaches(rig.host(1).publicIp), false, 'its own host');
    assert.ok(await near.reaches(rig.host(2).publicIp), 'the other host');
  });

  it('connects a host with its containers under its own address', async () => {
    await createNetwork('access', HOST_ACCESS);
    const near = await runContainer(1, 'access');
    const far = await runContainer(2, 'access');
    const host = rig.host(1);
    for (const target of [near.address, near.address6, far.address, far.address6]) {
      assert.ok(await reaches(host.netns, target), target);
    }
    for (const target of [host.publicIp, host.publicIpv6, far.address, ROUTER]) {
      assert.ok(await near.reaches(target), target);
    }
    await removeAll();
    const links = await host.netns.ipJson(['link', 'show']);
    assert.deepEqual(
      links.map(({ ifname }) => ifname).filter((name) => /^tsf|-host$/.test(String(name))),
      [],
      'nothing is left on the host',
    );
  });

  it('moves a fixed address to another host, which its router learns without asking', async () => {
    await createNetwork('moving');
    const fixed = ['--ip', '192.0.2.70', '--ip6', '2001:db8::70'];
    const learned = async (address: string): Promise<unknown> => {
      const [entry] = await rig.router.ipJson(['neigh', 'show', address]);
      return entry?.['lladdr'];
    };
    const before = await runContainer(1, 'moving', fixed);
    for (const address of [before.address, before.address6]) assert.ok(await reaches(rig.router, address), address);
    await before.remove();
    const after = await runContainer(2, 'moving', fixed);
    assert.notEqual(after.mac, before.mac);
    for (const address of [after.address, after.address6]) {
      await waitFor(async () => (await learned(address)) === after.mac, { what: `the router to learn ${address}` });
    }
  });

  it('lets nobody but local containers see, or talk to, a second MAC address of the host', async () => {
    const host = rig.host(1);
    const shim = deriveMac(pluginDirectory(0), 'eth0-host');
    // From the beginning: a new interface looks for duplicates and routers, and reports its groups, by itself.
    const frames = await capture(rig.router, 'eth0', `ether host ${shim}`);
    await createNetwork('access', HOST_ACCESS);
    const near = await runContainer(1, 'access');
    for (let count = 0; count < 4; count++) {
      for (const family of ['-4', '-6']) await rig.router.run(['ip', family, 'neigh', 'flush', 'dev', 'eth0']);
      for (const address of [host.publicIp, host.publicIpv6]) assert.ok(await reaches(rig.router, address), address);
      for (const address of [near.address, near.address6]) assert.ok(await reaches(host.netns, address), address);
    }
    const [device] = await host.netns.ipJson(['link', 'show', 'eth0-host']);
    assert.equal(device?.['address'], shim);
    const routes = await host.netns.ipJson(['-6', 'route', 'show', 'dev', 'eth0-host']);
    assert.deepEqual(routes.map(({ dst }) => dst).sort(), [near.address6, 'fe80::/64'], 'no way to the host itself');
    const known = await host.netns.ipJson(['neigh', 'show', 'dev', 'eth0-host']);
    assert.deepEqual([...new Set(known.map(({ lladdr }) => lladdr))], [near.mac], 'whom the host knows there');
    const { frames: seen, lost } = await frames.stop();
    assert.deepEqual([seen.length, lost], [0, 0]);
  });

  for (const [ignore, filter] of [
    [0, 1],
    [1, 1],
    [1, 2],
    [3, 0],
  ] as const) {
    it(`connects a host with its containers where arp_ignore is ${ignore} and rp_filter ${filter}`, async () => {
      const { netns, publicIp } = rig.host(1);
      const set = async (arp: number, reverse: number): Promise<void> => {
        const keys = ['all', 'default', 'eth0'].map((scope) => `net.ipv4.conf.${scope}`);
        const values = keys.flatMap((key) => [`${key}.arp_ignore=${arp}`, `${key}.rp_filter=${reverse}`]);
        await netns.run(['sysctl', '-qw', ...values]);
      };
      await set(ignore, filter);
      await createNetwork('access', HOST_ACCESS);
      const near = await runContainer(1, 'access');
      assert.ok(await near.reaches(publicIp));
      assert.ok(await reaches(netns, near.address));
      await set(0, 2);
    });
  }

  it('connects a host with its containers where arp_ignore of the parent alone is 8', async () => {
    const { netns, publicIp } = rig.host(1);
    const key = 'net.ipv4.conf.eth0.arp_ignore';
    await netns.run(['sysctl', '-qw', `${key}=8`]);
    try {
      await createNetwork('access', HOST_ACCESS);
      const near = await runContainer(1, 'access');
      assert.ok(await near.reaches(publicIp));
      assert.ok(await reaches(netns, near.address));
    } finally {
      await netns.run(['sysctl', '-qw', `${key}=0`]);
    }
  });

  it('connects a host with its containers by IPv6 alone where arp_ignore is 2 or 8 for all', async () => {
    const { netns, publicIp, publicIpv6 } = rig.host(1);
    const key = 'net.ipv4.conf.all.arp_ignore';
    await createNetwork('access', HOST_ACCESS);
    const near = await runContainer(1, 'access');
    try {
      for (const value of [2, 8]) {
        await netns.run(['sysctl', '-qw', `${key}=${value}`]);
        assert.equal(await near.reaches(publicIp), false);
        for (const address of [publicIpv6, ROUTER]) assert.ok(await near.reaches(address), address);
      }
    } finally {
      await netns.run(['sysctl', '-qw', `${key}=0`]);
    }
  });

  it('follows the addresses of the host', async () => {
    await createNetwork('access', HOST_ACCESS);
    const near = await runContainer(1, 'access');
    const { netns } = rig.host(1);
    await netns.ip(['addr add 192.0.2.200/24 dev eth0']);
    await waitFor(() => near.reaches('192.0.2.200'), { what: 'the new address to answer' });
    await netns.ip(['addr del 192.0.2.200/24 dev eth0']);
    await waitFor(async () => !(await near.reaches('192.0.2.200')), { what: 'the old address to be gone' });
  });

  for (const [what, argv] of [
    ['a filter is deleted', ['tc', 'filter', 'del', 'dev', 'eth0-host', 'egress']],
    ['both filters are deleted', ['tc', 'qdisc', 'del', 'dev', 'eth0-host', 'clsact']],
    ['the shim is deleted', ['ip', 'link', 'del', 'eth0-host']],
  ] as const) {
    it(`heals when ${what}`, async () => {
      await createNetwork('access', HOST_ACCESS);
      const near = await runContainer(1, 'access');
      const { netns } = rig.host(1);
      const filters = async (): Promise<string> =>
        (
          await Promise.all(
            ['ingress', 'egress'].map((direction) =>
              netns.run(['tc', 'filter', 'show', 'dev', 'eth0-host', direction], { mayFail: true }),
            ),
          )
        )
          .map(({ stdout }) => stdout)
          .join('');
      await waitFor(async () => (await filters()).split('bytecode').length === 3, { what: 'both filters' });
      const before = await filters();
      await netns.run(argv);
      await waitFor(async () => (await filters()) === before, { what: 'the filters to be back', timeoutMs: 10_000 });
      assert.ok(await reaches(netns, near.address));
    });
  }

  for (const mode of ['private', 'vepa']) {
    it(`keeps two containers of one host apart in mode ${mode}`, async () => {
      await createNetwork(mode, ['--opt', `mode=${mode}`]);
      const near = await runContainer(1, mode);
      const sibling = await runContainer(1, mode);
      const far = await runContainer(2, mode);
      assert.equal(await near.reaches(sibling.address), false);
      assert.ok(await near.reaches(far.address));
    });
  }

  it('goes on where it was after it was killed', async () => {
    await createNetwork('access', HOST_ACCESS);
    const near = await runContainer(1, 'access');
    await plugins[0]?.kill();
    plugins = [await startPlugin(engine(1), 0), ...plugins.slice(1)];
    const { netns } = rig.host(1);
    assert.ok(await reaches(netns, near.address));
    const next = await runContainer(1, 'access');
    assert.ok(await next.reaches(near.address));
    assert.ok(await reaches(netns, next.address6));
  });

  it('tells the user of docker why a network cannot be', async () => {
    const create = ['network', 'create', '--driver', 'tsflannel', '--subnet', SUBNET];
    const { stderr } = await engine(1).docker([...create, '--opt', 'parent=lo', 'wrong'], { mayFail: true });
    assert.match(stderr, /cannot put a macvlan network on lo: it is the loopback interface/);
  });

  for (const driver of ['bridge', 'macvlan']) {
    it(`gives addresses to networks of Docker’s own driver ${driver}`, async () => {
      const options = driver === 'macvlan' ? ['--opt', 'parent=eth0'] : [];
      const pool = ['--subnet', '10.77.0.0/24', '--ip-range', '10.77.0.128/25', '--aux-address', 'printer=10.77.0.130'];
      const create = ['network', 'create', '--driver', driver, '--ipam-driver', 'tsflannel', ...pool, ...options];
      await engine(1).docker([...create, `own-${driver}`]);
      const [one, two] = [await runContainer(1, `own-${driver}`), await runContainer(1, `own-${driver}`)];
      assert.deepEqual([one.address, two.address], ['10.77.0.129', '10.77.0.131']);
    });
  }

  it('lets nothing out of an internal network', async () => {
    await createNetwork('inside', ['--internal']);
    const [one, two] = [await runContainer(1, 'inside'), await runContainer(1, 'inside')];
    assert.ok(await one.reaches(two.address));
    for (const address of [ROUTER, rig.host(1).publicIp]) assert.equal(await one.reaches(address), false, address);
  });

  it('gives a parent in mode passthru to one container alone, and back', async () => {
    const { netns, publicIp } = rig.host(1);
    const macOf = async (): Promise<unknown> => (await netns.ipJson(['link', 'show', 'eth0']))[0]?.['address'];
    const before = await macOf();
    await createNetwork('through', ['--opt', 'mode=passthru']);
    const only = await runContainer(1, 'through');
    for (const address of [ROUTER, ROUTER6, rig.host(2).publicIp]) assert.ok(await only.reaches(address), address);
    assert.equal(await macOf(), only.mac, 'of the parent');
    const { stderr } = await engine(1).docker(['run', '--network', 'through', ...IDLE], { mayFail: true });
    assert.match(stderr, /mode passthru takes a parent alone, and another container has it/);
    await removeAll();
    assert.equal(await macOf(), before);
    await rig.router.run(['ip', 'neigh', 'flush', 'all']);
    assert.ok(await reaches(rig.router, publicIp));
  });
});

interface Container {
  readonly id: string;
  readonly address: string;
  readonly address6: string;
  readonly mac: string;
  reaches(address: string): Promise<boolean>;
  exec(argv: readonly string[]): Promise<Output>;
  remove(): Promise<void>;
}

function pingOnce(address: string): string[] {
  return ['busybox', address.includes(':') ? 'ping6' : 'ping', '-c', '1', '-W', '2', address];
}
