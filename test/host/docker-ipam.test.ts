import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import type { DockerNetworkHost } from '../support/docker-network-host.js';
import type { Output } from '../support/netns.js';
import { Rig } from '../support/rig.js';

const PRINTER = '192.0.2.65';
const LAN = ['--subnet', '192.0.2.0/24', '--ip-range', '192.0.2.64/26', '--aux-address', `printer=${PRINTER}`];

/**
 * The IPAM driver that Docker tells no MAC addresses, under networks that every kernel has: by the order of its requests
 * alone an auxiliary address is told from that of a container.
 */
describe('the IPAM driver tsflannel-ipvlan under a real engine', function () {
  this.timeout(120_000);
  const hosts = new DockerHosts();
  let rig: Rig;
  let one: DockerNetworkHost;

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hosts: 1 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    await hosts.start(rig.hosts, { engineOptions: () => '--live-restore' });
    one = hosts.host(1);
  });

  after(async () => {
    await hosts.close();
    await (rig as Rig | undefined)?.close();
  });

  afterEach(() => hosts.removeAll());

  const create = (driver: string): Promise<Output> =>
    one.docker(
      [
        'network',
        'create',
        '--driver',
        driver,
        '--ipam-driver',
        'tsflannel-ipvlan',
        ...LAN,
        '-o',
        'parent=eth0',
        'lan',
      ],
      { mayFail: true },
    );

  /** What the daemon takes the addresses of its only pool for. */
  const book = async (): Promise<{ readonly shared: readonly string[]; readonly containers: readonly string[] }> => {
    const [pool] = (await one.daemon.status()).containerNetworks?.pools ?? [];
    assert.ok(pool);
    return { shared: [...pool.shared].sort(), containers: pool.uses.map(({ address }) => address).sort() };
  };

  // First, as an engine that has found a plugin once does not look for it again.
  it('is not found without its socket, and is once that was opened and the daemon started again', async () => {
    rmSync(path.join(path.dirname(one.pluginSocket), 'tsflannel-ipvlan.sock'));
    const { code, stderr } = await create('tsflannel');
    assert.equal(code, 1);
    assert.match(stderr, /plugin "tsflannel-ipvlan" not found/);
    await one.daemon.stop();
    await one.boot();
    await one.daemon.startAndWait();
    const again = await create('tsflannel');
    assert.equal(again.code, 0, again.stderr);
  });

  const restarts: Readonly<Record<string, () => Promise<unknown>>> = {
    'a restart of Docker': async () => {
      await one.engine.stop();
      await one.engine.start({ options: '--live-restore' });
    },
    'a crash of Docker and daemon': async () => {
      await Promise.all([one.engine.kill(), one.daemon.kill()]);
      await Promise.all([one.engine.start({ options: '--live-restore' }), one.daemon.startAndWait()]);
    },
  };

  for (const [what, restart] of Object.entries(restarts)) {
    it(`tells auxiliary addresses from those of containers, also after ${what} with live-restore`, async () => {
      await create('tsflannel');
      const plain = await one.run('lan');
      const named = await one.run('lan', ['--ip', '192.0.2.77']);
      const before = await book();
      assert.ok(before.shared.includes(PRINTER));
      assert.deepEqual(before.containers, [plain.address, named.address].sort());
      await restart();
      assert.deepEqual(await book(), before);
      for (const { id, address } of [plain, named]) assert.equal((await one.inspect(id)).address, address);

      const next = await one.run('lan', ['--ip', '192.0.2.78']);
      const refused = await one.tryRun('lan', ['--ip', PRINTER]);
      assert.match(
        refused.stderr,
        /cannot give a container 192\.0\.2\.65: it is the gateway, the host or an auxiliary/,
      );
      await one.docker(['rm', '--force', named.id, ...(await created())]);
      assert.deepEqual(await book(), { ...before, containers: [plain.address, next.address].sort() });
      assert.equal((await one.run('lan', ['--ip', named.address])).address, named.address);
    });
  }

  /** Containers that could not be started. */
  const created = async (): Promise<readonly string[]> =>
    (await one.docker(['ps', '--all', '--quiet', '--filter', 'status=created'])).stdout.split('\n').filter(Boolean);

  it('keeps what is asked for by name under Docker’s own driver from others, and gives it back', async () => {
    await create('macvlan');
    const named = await one.run('lan', ['--ip', '192.0.2.77']);
    const plain = await one.run('lan');
    await restarts['a restart of Docker']?.();
    const { shared, containers } = await book();
    assert.deepEqual(containers, [plain.address]);
    assert.ok(shared.includes(PRINTER) && shared.includes(named.address), shared.join());
    await one.docker(['rm', '--force', named.id]);
    assert.ok(!(await book()).shared.includes(named.address), 'given back');
  });
});
