import assert from 'node:assert/strict';
import { capture } from '../support/capture.js';
import { ctlFile } from '../support/daemon.js';
import { DockerEngine, fetchCommand } from '../support/docker.js';
import { DockerNetworkHost } from '../support/docker-network-host.js';
import type { Output } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';

const ROUTER = '192.0.2.1';
const ROUTER_TAGGED = '10.19.0.1';

/** What an engine needs of what this kernel has and others lack; each of its containers takes 10 s here. */
describe('a Docker engine', function () {
  this.timeout(300_000);
  let rig: Rig;
  let one: DockerNetworkHost;

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    await rig.router.ip([
      'link add link eth0 name eth0.19 type vlan id 19',
      'link set eth0.19 up',
      `addr add ${ROUTER_TAGGED}/24 dev eth0.19`,
    ]);
    one = new DockerNetworkHost(rig.host(1));
    // dockerd gives containerd 15 s to start, most of which goes into reading the programs.
    await rig.router.run(['sh', '-c', 'cat "$(command -v dockerd)" "$(command -v containerd)" >/dev/null']);
    await one.boot();
    await one.engine.start();
    one.daemon.start();
    await one.engine.importBusybox();
  });

  after(async () => {
    await (one as DockerNetworkHost | undefined)?.close();
    await (rig as Rig | undefined)?.close();
  });

  afterEach(() => one.removeAll());

  const create = (driver: string, ipam: string, ...options: readonly string[]): Promise<Output> =>
    one.docker(['network', 'create', '--driver', driver, '--ipam-driver', ipam, ...options, 'lan']);

  const inside = async (id: string, ...words: readonly string[]): Promise<string> =>
    (await one.docker(['exec', id, 'busybox', ...words])).stdout;

  const answersRouter = async (address: string): Promise<boolean> => (await ping(rig.router, address)).received === 3;

  const macOfHost = async (): Promise<unknown> =>
    (await rig.host(1).netns.ipJson(['link', 'show', 'dev', 'eth0']))[0]?.['address'];

  /** The one that this host is in: addresses that nobody gets by itself, and those of containers with their state. */
  const pool = async (): Promise<{ readonly shared: readonly string[]; readonly uses: unknown }> => {
    const [only] = (await one.daemon.status()).containerNetworks?.pools ?? [];
    assert.ok(only);
    return { shared: only.shared, uses: only.uses.map((use) => [use.address, use.abandonedSince]) };
  };

  it('has containers on ipvlan in l2, with addresses of the cluster and those that are asked for', async () => {
    const lan = ['--subnet', '192.0.2.0/24', '--ip-range', '192.0.2.64/26', '--gateway', ROUTER];
    await create('tsflannel', 'tsflannel-ipvlan', ...lan, '--aux-address', 'printer=192.0.2.65', '-o', 'type=ipvlan');
    const { id, address } = await one.run('lan', ['--ip', '192.0.2.77']);
    assert.equal(address, '192.0.2.77');
    assert.ok(await answersRouter(address));
    const [entry] = await rig.router.ipJson(['neigh', 'show', address]);
    assert.equal(entry?.['lladdr'], await macOfHost());
    assert.match(await inside(id, 'ip', 'route'), /^default via 192\.0\.2\.1 dev eth0/m);
    const { shared, uses } = await pool();
    assert.ok(shared.includes('192.0.2.65'));
    assert.deepEqual(uses, [[address, null]]);
  });

  it('has containers of its own ipvlan driver with addresses of the cluster, as the manual says', async () => {
    const lan = ['--subnet', '192.0.2.0/24', '--ip-range', '192.0.2.64/26', '--gateway', ROUTER, '-o', 'parent=eth0'];
    await create('ipvlan', 'tsflannel-ipvlan', ...lan, '--aux-address', 'printer=192.0.2.65');
    const named = await one.run('lan', ['--ip', '192.0.2.77']);
    assert.equal(named.address, '192.0.2.77');
    const { id, address } = await one.run('lan');
    for (const each of [named.address, address]) assert.ok(await answersRouter(each), each);
    assert.match(await inside(id, 'ip', 'route'), /^default via 192\.0\.2\.1 dev eth0/m);
    const { shared, uses } = await pool();
    assert.ok(shared.includes('192.0.2.65'));
    assert.ok(shared.includes(named.address), 'Docker does not say whose it is');
    assert.deepEqual(uses, [[address, null]]);
  });

  it('has containers on ipvlan in l3, which lead out by their interface, as with its own driver', async () => {
    const options = ['--subnet', '10.30.0.0/24', '-o', 'parent=eth0', '-o', 'ipvlan_mode=l3'];
    for (const [driver, ipam] of [
      ['tsflannel', 'tsflannel-ipvlan'],
      ['ipvlan', 'default'],
      ['ipvlan', 'tsflannel-ipvlan'],
    ] as const) {
      const drivers = `${driver} with ${ipam}`;
      await create(driver, ipam, ...options, ...(driver === 'tsflannel' ? ['-o', 'type=ipvlan'] : []));
      const { id, address } = await one.run('lan');
      assert.match(await inside(id, 'ip', 'route'), /^default dev eth0 /m, drivers);
      await rig.router.ip([`route replace ${address}/32 via 192.0.2.11`]);
      assert.ok(await answersRouter(address), drivers);
      await rig.router.ip([`route del ${address}/32`]);
      await one.removeAll();
    }
  });

  it('has containers in l3 on the interface of the overlay, whatever gateway was named, that answer the web over both families with the printed routes', async () => {
    const subnets = ['--subnet', '10.30.0.0/24', '--gateway', '10.30.0.77', '--ipv6', '--subnet', 'fd00:30::/64'];
    await create('tsflannel', 'tsflannel-ipvlan', ...subnets, '-o', 'type=ipvlan', '-o', 'mode=l3');
    const { id, address, address6 } = await one.run('lan');
    assert.match(await inside(id, 'ip', 'route'), /^default dev eth0 /m);
    assert.match(await inside(id, 'ip', '-6', 'route'), /^default dev eth0 /m);
    await inside(id, 'mkdir', '/www');
    await inside(id, 'sh', '-c', 'echo hello >/www/index.html');
    await inside(id, 'httpd', '-h', '/www');
    const pages = (): Promise<string[]> =>
      Promise.all(
        [address, `[${address6}]`].map(async (host) => {
          const { stdout } = await rig.router.run(fetchCommand(`http://${host}/`), { mayFail: true });
          return stdout.trim();
        }),
      );
    assert.deepEqual(await pages(), ['', ''], 'without routes');
    const words = [
      process.execPath,
      ctlFile(),
      'docker-networks',
      'routes',
      '--status-socket',
      one.daemon.statusSocket,
    ];
    const { stdout: routes } = await rig.host(1).netns.run(words);
    await rig.router.run(['sh', '-ec', routes]);
    assert.deepEqual(await pages(), ['hello', 'hello']);
    await rig.router.run(['sh', '-ec', routes.replaceAll('route replace', 'route del')]);
  });

  it('has containers of an internal ipvlan network that reach each other and nothing else', async () => {
    for (const mode of ['l2', 'l3']) {
      const options = ['--subnet', '10.32.0.0/24', '--internal', '-o', 'type=ipvlan', '-o', `mode=${mode}`];
      await create('tsflannel', 'tsflannel-ipvlan', ...options);
      const [first, second] = [await one.run('lan'), await one.run('lan')];
      assert.doesNotMatch(await inside(first.id, 'ip', 'route'), /^default/m, mode);
      assert.ok(await one.reaches(first, second.address), mode);
      assert.ok(!(await one.reaches(first, ROUTER)), mode);
      await one.removeAll();
    }
  });

  it('has containers of its own macvlan driver on a VLAN, with addresses of the cluster, and makes the sub-interface', async () => {
    const lan = ['--subnet', '10.19.0.0/24', '--ip-range', '10.19.0.64/26', '--gateway', ROUTER_TAGGED];
    await create('macvlan', 'tsflannel', ...lan, '-o', 'parent=eth0.19');
    const { address } = await one.run('lan');
    const trunk = await capture(rig.host(1).netns, 'eth0', 'vlan 19 and icmp');
    assert.ok(await answersRouter(address));
    assert.equal((await trunk.stop()).frames.length, 6, 'questions and answers');
    const isThere = async (): Promise<boolean> =>
      (await rig.host(1).netns.ipJson(['link', 'show'])).some(({ ifname }) => ifname === 'eth0.19');
    assert.ok(await isThere());
    await one.removeAll();
    assert.ok(!(await isThere()), 'Docker has made it, and removes it');
  });

  it('has several networks on one parent, of which its own driver has one', async () => {
    const [options, second] = [
      ['--subnet', '10.30.0.0/24', '-o', 'parent=eth0'],
      ['--subnet', '10.31.0.0/24', '-o', 'parent=eth0'],
    ] as const;
    await create('ipvlan', 'default', ...options);
    const refused = await one.docker(['network', 'create', '--driver', 'ipvlan', ...second, 'second'], {
      mayFail: true,
    });
    assert.match(refused.stderr, /already using parent interface eth0/);
    await one.removeAll();
    await create('tsflannel', 'tsflannel-ipvlan', ...options, '-o', 'type=ipvlan');
    const drivers = ['--driver', 'tsflannel', '--ipam-driver', 'tsflannel-ipvlan', '-o', 'type=ipvlan'];
    await one.docker(['network', 'create', ...drivers, ...second, 'second']);
    await one.docker(['network', 'rm', 'second']);
  });

  it('is told what to type if its addresses come with MAC addresses', async () => {
    const { code, stderr } = await one.createNetwork('lan', ['--subnet', '10.31.0.0/24', '-o', 'type=ipvlan'], true);
    assert.equal(code, 1);
    assert.match(stderr, /docker network create -d tsflannel --ipam-driver tsflannel-ipvlan --subnet 10\.31\.0\.0\/24/);
  });
});
