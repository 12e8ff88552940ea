import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { capture } from '../support/capture.js';
import { ctlFile } from '../support/daemon.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import { DockerNetworkHost, type NetworkedContainer } from '../support/docker-network-host.js';
import { Netns, type Output } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { SimRandom } from '../support/sim-etcd/random.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const SUBNET = '192.0.2.0/24';
const ROUTER = '192.0.2.1';
const RANGE = '192.0.2.64/26';
const SUBNET6 = '2001:db8::/64';
const ROUTER6 = '2001:db8::1';

/** As somebody types it on every host. */
const LAN = ['--subnet', SUBNET, '--ip-range', RANGE, '--gateway', ROUTER];
const LAN6 = ['--ipv6', '--subnet', SUBNET6, '--ip-range', '2001:db8::64:0/112', '--gateway', ROUTER6];

/** Promised to those who wait, and what `docker` itself and a busy machine take. */
const ANSWER_MS = 10_000 + 5000;

describe('container networks of two hosts with real engines', function () {
  this.timeout(120_000);
  const hosts = new DockerHosts();
  const { host, onEach: onBoth } = hosts;
  let rig: Rig;

  const createLan = async (options: readonly string[] = []): Promise<void> => {
    await onBoth((on) => on.createNetwork('lan', [...LAN, ...options]));
  };

  const pingsFromRouter = async (address: string): Promise<boolean> =>
    (await rig.router.run(['ping', '-n', '-c', '1', '-W', '1', address], { mayFail: true })).code === 0;

  /** Whether an address answers a router that has forgotten where it was. */
  const answersRouter = async (address: string): Promise<boolean> => {
    await rig.router.ip(['neigh flush dev eth0']);
    return pingsFromRouter(address);
  };

  /** Keys of containers in etcd. */
  const keys = async (): Promise<string[]> =>
    (await rig.etcd.list(`${rig.etcdPrefix}-ts/`))
      .map(({ key }) => key.slice(rig.etcdPrefix.length))
      .filter((key) => /^-ts\/(networks|network-records|address-requests)\//.test(key));

  const expectNothingLeft = async (): Promise<void> => {
    await eventually(
      'all to be given back',
      async () => {
        for (const { daemon, ...each } of hosts) {
          const { containerNetworks: status } = await daemon.status();
          const { networks, pools } = status ?? {};
          assert.deepEqual({ networks, pools }, { networks: [], pools: [] }, each.host.name);
        }
        assert.deepEqual(await keys(), [], 'in etcd');
        for (const each of hosts) assert.deepEqual(await each.links(), [], each.host.name);
      },
      { timeoutMs: 40_000, intervalMs: 200 },
    );
  };

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig({
      Network: '10.5.0.0/16',
      Backend: { Type: 'host-gw' },
      ContainerNetworks: { IPv4: '198.18.0.0/16', SubnetLen: 24 },
    });
    const outside = await rig.addNamespace('outside');
    await rig.router.ip([`link add out type veth peer name eth0 netns ${outside.name}`, 'link set out up']);
    await rig.router.ip(['addr add 198.51.100.1/24 dev out']);
    await outside.ip(['link set eth0 up', 'addr add 198.51.100.2/24 dev eth0', 'route add default via 198.51.100.1']);
    await hosts.start(rig.hosts);
  });

  afterEach(async () => {
    await hosts.removeAll();
  });

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  describe('one network on both', () => {
    it('has different addresses on each, which reach each other, the router and what is behind it', async () => {
      await createLan(LAN6);
      const containers = (await onBoth((on) => Promise.all([on.run('lan'), on.run('lan')]))).flat();
      const [near, , far] = containers;
      assert.ok(near && far);
      for (const family of ['address', 'address6'] as const) {
        assert.equal(new Set(containers.map((each) => each[family])).size, containers.length);
      }
      for (const each of containers.slice(1)) {
        for (const address of [each.address, each.address6]) assert.ok(await near.host.reaches(near, address), address);
      }
      for (const address of [ROUTER, ROUTER6, '198.51.100.2']) {
        for (const each of [near, far]) assert.ok(await each.host.reaches(each, address), address);
      }
      await hosts.removeAll();
      await expectNothingLeft();
    });

    it('lies on one parent with another one', async () => {
      await createLan();
      await onBoth((on) => on.createNetwork('second', ['--subnet', '203.0.113.0/24', '--opt', 'parent=eth0']));
      const [near, far] = await onBoth((on) => on.run('second'));
      assert.ok(near && far);
      assert.ok(await near.host.reaches(near, far.address));
      const [first] = await onBoth((on) => on.run('lan'));
      assert.ok(first && (await first.host.reaches(first, ROUTER)));
    });

    for (const driver of ['macvlan', 'bridge']) {
      it(`has different addresses under Docker’s own driver ${driver}`, async () => {
        const own = ['--driver', driver, '--ipam-driver', 'tsflannel', '--subnet', '203.0.113.0/24'];
        const parent = driver === 'macvlan' ? ['--opt', 'parent=eth0'] : [];
        await onBoth((on) => on.docker(['network', 'create', ...own, ...parent, 'own']));
        const [near, far] = await onBoth((on) => on.run('own'));
        assert.ok(near && far);
        assert.notEqual(near.address, far.address);
        if (driver === 'macvlan') assert.ok(await near.host.reaches(near, far.address));
      });
    }

    it('is refused to a host that wants another gateway, with both values', async () => {
      const options = (gateway: string): string[] => [
        '--subnet',
        '203.0.113.0/24',
        '--gateway',
        gateway,
        '--opt',
        'parent=eth0',
      ];
      await host(1).createNetwork('wrong', options('203.0.113.1'));
      const { stderr, code } = await host(2).createNetwork('wrong', options('203.0.113.2'), true);
      assert.notEqual(code, 0);
      for (const value of ['203.0.113.1', '203.0.113.2'])
        assert.match(stderr, new RegExp(value.replaceAll('.', '\\.')));
      await host(2).createNetwork('right', options('203.0.113.1'));
    });

    it('gets the same subnet by its name when nobody gave one, and another one without a name', async () => {
      const subnetOf = async (on: DockerNetworkHost, name: string): Promise<string> => {
        const format = '{{range .IPAM.Config}}{{.Subnet}}{{end}}';
        return (await on.docker(['network', 'inspect', '--format', format, name])).stdout.trim();
      };
      const parent = ['--opt', 'parent=eth0'];
      await onBoth((on) => on.createNetwork('named', ['--ipam-opt', 'network=shop', ...parent]));
      await onBoth((on) => on.createNetwork('alone', parent));
      const [one, other] = await onBoth((on) => subnetOf(on, 'named'));
      assert.equal(one, other);
      const alone = await onBoth((on) => subnetOf(on, 'alone'));
      assert.equal(new Set([one, ...alone]).size, 3);
      for (const subnet of [one, ...alone]) assert.match(String(subnet), /^198\.18\.\d+\.0\/24$/);
      const [near, far] = await onBoth((on) => on.run('named'));
      assert.ok(near && far);
      assert.ok(await near.host.reaches(near, far.address));
    });
  });

  it('keeps what is attached to a network after docker network rm, and Docker’s network after that is detached', async () => {
    const on = host(1);
    const netns = await rig.addNamespace('att');
    const ctl = async (command: 'attach' | 'detach', ...words: readonly string[]): Promise<string> => {
      const sockets = ['--status-socket', on.daemon.statusSocket, '--plugin-socket', on.pluginSocket];
      const argv = [process.execPath, ctlFile(), command, '--netns', netns.name, ...words, ...sockets];
      const etcd = command === 'attach' ? [`--etcd-endpoints=${rig.etcd.endpoint}`] : [];
      return (await on.host.netns.run([...argv, ...etcd, '--json'])).stdout;
    };
    await createLan();
    const { addresses } = JSON.parse(await ctl('attach', '--network', SUBNET)) as { readonly addresses: string[] };
    const attached = addresses[0]?.split('/')[0] ?? '';
    await eventually('an answer of the router', async () => assert.ok(await ping(netns, ROUTER)));

    await on.docker(['network', 'rm', 'lan']);
    assert.ok(await ping(netns, ROUTER), 'without Docker’s network');
    const far = await host(2).run('lan');
    assert.notEqual(far.address, attached);
    assert.ok(await ping(netns, far.address));

    await on.createNetwork('lan', LAN);
    const near = await on.run('lan');
    assert.equal(new Set([near.address, far.address, attached]).size, 3);
    assert.ok(await on.reaches(near, attached));

    await ctl('detach');
    assert.ok(await on.reaches(near, far.address));
    const next = await on.run('lan', ['--ip', attached]);
    assert.ok(await on.reaches(next, ROUTER), 'the address is free again');
    await hosts.removeAll();
    await expectNothingLeft();
  });

  describe('a fixed address', () => {
    it('answers its router soon after it has moved to the other host, and back', async () => {
      await createLan();
      const fixed = ['--ip', '192.0.2.70'];
      let last: NetworkedContainer | undefined;
      for (const number of [1, 2, 1]) {
        if (last !== undefined) await last.host.docker(['rm', '--force', last.id]);
        last = await host(number).run('lan', fixed);
        // Without announcement the router asks the old MAC address for some seconds.
        await waitFor(() => pingsFromRouter('192.0.2.70'), { what: 'its answer', timeoutMs: 3000 });
      }
    });

    it('is refused while a container of the other host has it, and starts again after that has gone', async () => {
      await createLan();
      const mine = await host(1).run('lan', ['--ip', '192.0.2.71']);
      await host(1).docker(['stop', mine.id]);
      const theirs = await host(2).run('lan', ['--ip', '192.0.2.71']);
      const { stderr } = await host(1).docker(['start', mine.id], { mayFail: true });
      assert.match(stderr, /h2/);
      await host(2).docker(['rm', '--force', theirs.id]);
      await host(1).docker(['start', mine.id]);
      await waitFor(() => answersRouter('192.0.2.71'), { what: 'its answer', timeoutMs: 3000 });
    });

    it('stays with a machine of the network that has it', async () => {
      const taken = ['192.0.2.64', '192.0.2.65', '192.0.2.80'];
      await rig.router.ip(taken.map((address) => `addr add ${address}/24 dev eth0`));
      try {
        await createLan();
        const given = await onBoth((on) => Promise.all([on.run('lan'), on.run('lan')]));
        for (const { address } of given.flat()) assert.ok(!taken.includes(address), address);
        const [device] = await rig.router.ipJson(['link', 'show', 'eth0']);
        const { stderr } = await host(1).tryRun('lan', ['--ip', '192.0.2.80']);
        assert.match(stderr, new RegExp(String(device?.['address'])));
      } finally {
        await rig.router.ip(taken.map((address) => `addr del ${address}/24 dev eth0`));
      }
    });
  });

  /** What this host has given to containers, as it says. */
  const uses = async (on: DockerNetworkHost): Promise<string[]> => {
    const { containerNetworks } = await on.daemon.status();
    return (containerNetworks?.pools ?? []).flatMap((pool) => pool.uses.map(({ address }) => address)).sort();
  };

  /** Whether the containers that run have exactly the addresses that the daemon knows of. */
  const expectAgreement = async (on: DockerNetworkHost): Promise<void> => {
    await eventually(`${on.host.name} to agree with its containers`, async () => {
      assert.deepEqual(
        on
          .addressesInside()
          .map(([address]) => address)
          .sort(),
        await uses(on),
      );
    });
  };

  const restartDocker = async (on: DockerNetworkHost, options = ''): Promise<void> => {
    await on.engine.start({ options });
  };

  describe('restarts', () => {
    const ALWAYS = ['--restart', 'always'];

    /** Starts containers one after the other for as long as that takes, and once more. */
    const runWhile = async (on: DockerNetworkHost, action: () => Promise<unknown>): Promise<Output[]> => {
      const state = { isOver: false };
      const ended = action().finally(() => (state.isOver = true));
      const runs: Output[] = [];
      for (let isLast = false; !isLast;) {
        isLast = state.isOver;
        runs.push(await on.tryRun('lan'));
      }
      await ended;
      return runs;
    };

    it('of the daemon lose no docker run', async () => {
      await createLan();
      const on = host(1);
      const first = await on.run('lan');
      const runs = await runWhile(on, async () => {
        for (let count = 0; count < 3; count++) {
          await on.daemon.stop();
          await on.daemon.startAndWait();
        }
      });
      for (const { code, stderr } of runs) assert.equal(code, 0, stderr);
      const last = await on.inspect(runs.at(-1)?.stdout.trim() ?? '');
      assert.ok(await on.reaches(first, last.address));
      assert.equal(on.addressesInside().length, runs.length + 1);
      await expectAgreement(on);
    });

    it('after SIGKILL of the daemon lose what it was at work on, at most, and say so', async () => {
      await createLan();
      const on = host(1);
      const runs = await runWhile(on, async () => {
        await on.daemon.kill();
        await on.daemon.startAndWait();
      });
      for (const { code, stderr } of runs)
        assert.ok(code === 0 || /without its contents: try again/.test(stderr), stderr);
      assert.equal(runs.at(-1)?.code, 0);
    });

    it('of Docker leave running containers alone with live-restore', async () => {
      await createLan();
      const on = host(1);
      await on.engine.stop();
      await restartDocker(on, '--live-restore');
      const before = await on.run('lan');
      for (const end of [() => on.engine.stop(), () => on.engine.kill()]) {
        await end();
        assert.ok(await answersRouter(before.address));
        await restartDocker(on, '--live-restore');
        assert.equal((await on.inspect(before.id)).address, before.address);
        const next = await on.run('lan');
        assert.notEqual(next.address, before.address);
        assert.ok(await on.reaches(before, next.address));
        await expectAgreement(on);
      }
      await on.engine.stop();
      await restartDocker(on);
    });

    it('of Docker bring containers back without live-restore, also after SIGKILL', async () => {
      await createLan();
      const on = host(1);
      const fixed = await on.run('lan', [...ALWAYS, '--ip', '192.0.2.100']);
      const plain = await on.run('lan', ALWAYS);
      const gone = await on.run('lan');
      for (const end of [() => on.engine.stop(), () => on.engine.kill()]) {
        await end();
        await restartDocker(on);
        for (const each of [fixed, plain]) {
          const { address } = await waitFor(
            async () => {
              const now = await on.inspect(each.id);
              return now.address !== '' && now;
            },
            { what: 'the container to run' },
          );
          if (each === fixed) assert.equal(address, fixed.address);
          assert.ok(await on.reaches(each, ROUTER), address);
        }
        await expectAgreement(on);
      }
      await on.docker(['start', gone.id]);
      await expectAgreement(on);
    });

    it('of a whole host bring its containers back, whoever starts first', async () => {
      await createLan();
      const on = host(1);
      const fixed = await on.run('lan', [...ALWAYS, '--ip', '192.0.2.100']);
      const plain = await on.run('lan', ALWAYS);
      const other = await host(2).run('lan');
      for (const start of [
        () => on.daemon.startAndWait().then(() => restartDocker(on)),
        () => Promise.all([restartDocker(on), on.daemon.startAndWait()]),
      ]) {
        await on.reset();
        await start();
        await waitFor(() => on.addressesInside().length === 2, { what: 'two containers' });
        const address = (await on.inspect(plain.id)).address;
        assert.notEqual(address, other.address);
        for (const each of [fixed, plain]) assert.ok(await on.reaches(each, other.address), each.address);
        await expectAgreement(on);
      }
    });

    it('without its book give nothing twice', async () => {
      await createLan();
      const on = host(1);
      const before = [await on.run('lan'), await on.run('lan', ['--ip', '192.0.2.101'])];
      await on.daemon.stop();
      on.lose('container-addresses.json');
      await on.daemon.startAndWait();
      const after = [await on.run('lan'), await host(2).run('lan')];
      const { stderr } = await host(2).tryRun('lan', ['--ip', '192.0.2.101']);
      assert.match(stderr, /h1/);
      const all = [...before, ...after].map(({ address }) => address);
      assert.equal(new Set(all).size, all.length);
      await expectAgreement(on);
    });

    it('without its networks say so, and go on once they are made again', async () => {
      await createLan();
      const on = host(1);
      const before = await on.run('lan');
      await on.daemon.stop();
      on.lose('docker-networks.json');
      await on.daemon.startAndWait();
      assert.ok(await answersRouter(before.address));
      const { stderr } = await on.tryRun('lan');
      assert.match(stderr, /its state file is lost/);
      await on.removeAll();
      await on.createNetwork('lan', LAN);
      const after = await on.run('lan');
      assert.ok(await on.reaches(after, ROUTER));
      await expectAgreement(on);
    });
  });

  describe('while etcd is away', () => {
    it('containers start, stop and start again, also after restarts of daemon and Docker', async () => {
      await createLan();
      const on = host(1);
      const before = await on.run('lan', ['--ip', '192.0.2.102', '--restart', 'always']);
      await onBoth((each) => each.run('lan'));
      await rig.etcd.kill();
      try {
        await onBoth((each) => each.run('lan'));
        await on.daemon.kill();
        on.daemon.start();
        await on.docker(['restart', before.id]);
        assert.equal((await on.inspect(before.id)).address, before.address);
        await on.engine.stop();
        await restartDocker(on);
        await waitFor(() => answersRouter(before.address), { what: 'the container to run' });
      } finally {
        await rig.etcd.start();
      }
      await onBoth((each) => each.run('lan'));
      for (const each of hosts) await expectAgreement(each);
    });

    it('what needs it is refused in time', async () => {
      await createLan();
      rig.etcd.pause();
      try {
        const start = performance.now();
        const { stderr, code } = await host(1).createNetwork(
          'late',
          ['--subnet', '203.0.113.0/24', '--opt', 'parent=eth0'],
          true,
        );
        assert.notEqual(code, 0);
        assert.match(stderr, /etcd/);
        assert.ok(performance.now() - start < ANSWER_MS);
      } finally {
        rig.etcd.resume();
      }
      await eventually('etcd to be back', async () => {
        await host(1).createNetwork('late', ['--subnet', '203.0.113.0/24', '--opt', 'parent=eth0']);
      });
    });
  });

  describe('a minute of accidents', () => {
    const ROUND_MS = 60_000;
    const WATCH_INTERVAL_MS = 50;
    const MOST = 6;
    const FIXED = ['192.0.2.110', '192.0.2.111', '192.0.2.112'];

    /** Begins, stops, starts and removes containers at random; Docker and the daemon may be away. */
    const live = async (on: DockerNetworkHost, random: () => number, isOver: () => boolean): Promise<void> => {
      while (!isOver()) {
        const { stdout } = await on.docker(['ps', '--all', '--quiet'], { mayFail: true });
        const ids = stdout.split('\n').filter((id) => id !== '');
        const id = ids[Math.floor(random() * ids.length)];
        const choice = random();
        const mayFail = { mayFail: true };
        if (id === undefined || (choice < 0.5 && ids.length < MOST)) {
          const fixed = FIXED[Math.floor(random() * FIXED.length)] ?? '';
          await on.tryRun('lan', random() < 0.3 ? ['--ip', fixed] : []);
        } else if (choice < 0.7) await on.docker(['stop', id], mayFail);
        else if (choice < 0.85) await on.docker(['start', id], mayFail);
        else await on.docker(['rm', '--force', id], mayFail);
      }
    };

    /** One accident, and what follows it. */
    const accident = async (random: () => number): Promise<void> => {
      const on = host(random() < 0.5 ? 1 : 2);
      const choice = random();
      if (choice < 0.4) {
        await on.daemon.kill();
        await on.daemon.startAndWait();
      } else if (choice < 0.7) {
        if (random() < 0.5) await on.engine.stop();
        else await on.engine.kill();
        await restartDocker(on);
      } else {
        rig.etcd.pause();
        await delay(2000 + random() * 2000);
        rig.etcd.resume();
      }
    };

    /** An address that two namespaces have at one time. */
    const findTwice = (): string | undefined => {
      const before = host(1).addressesInside();
      const others = new Map(host(2).addressesInside());
      const still = host(1).addressesInside().map(String);
      const twice = before.filter((each) => still.includes(String(each)) && others.has(each[0]));
      const within = before.filter(([address], index) => before.findIndex((each) => each[0] === address) < index);
      return [...twice, ...within][0]?.[0];
    };

    /** Frees what is listed as having no container: of calls at work in a crash, which never come again. */
    const freeAbandoned = async (): Promise<void> => {
      await onBoth(async (on) => {
        const left = await waitFor(
          async () => {
            const { containerNetworks } = await on.daemon.status();
            const all = (containerNetworks?.pools ?? []).flatMap((pool) => pool.uses);
            return all.every(({ abandonedSince }) => abandonedSince !== null) && all;
          },
          { what: `${on.host.name} to know that no container has any address`, timeoutMs: 40_000, intervalMs: 200 },
        );
        for (const { address } of left) await on.ctl(['docker-networks', 'release', address, '--yes']);
      });
    };

    it('gives no address twice, and leaves nothing that an operator cannot free by the list of what has no container', async () => {
      const seed = Number(process.env['TSFLANNEL_SEED'] ?? Date.now() % 1e6);
      const source = new SimRandom(String(seed));
      const random = (): number => source.next();
      await createLan();
      const bridge = new Netns(rig.host(1).netns.name.replace(/h1$/, 'sw'));
      const listener = await capture(bridge, 'br0', 'arp');
      // Has the router ask for all of them, again and again.
      const asking =
        'while :; do for i in {64..127}; do echo >/dev/udp/192.0.2.$i/9; done; ip neigh flush dev eth0; sleep 1; done';
      const asker = rig.router.start(['bash', '-c', asking]);
      const untilMs = performance.now() + ROUND_MS;
      const isOver = (): boolean => performance.now() >= untilMs;
      const twice: string[] = [];
      const watch = async (): Promise<void> => {
        while (!isOver()) {
          twice.push(...[findTwice()].filter((each) => each !== undefined));
          await delay(WATCH_INTERVAL_MS);
        }
      };
      const accidents = async (): Promise<void> => {
        while (!isOver()) await accident(random);
      };
      try {
        await Promise.all([onBoth((on) => live(on, random, isOver)), watch(), accidents()]);
        const { frames } = await listener.stop();
        const { owners, returned } = ownersOnWire(frames.map(({ data }) => data));
        assert.deepEqual([twice, returned], [[], []]);
        assert.ok(owners > 10, `${owners} containers answered`);
        await hosts.removeAll();
        await freeAbandoned();
        await expectNothingLeft();
      } catch (error) {
        throw new Error(`with TSFLANNEL_SEED=${seed}`, { cause: error });
      } finally {
        await asker.kill();
      }
    }).timeout(240_000);
  });
});

/**
 * Who said on the wire to have which address of the range. A container gets a new MAC address with each start, so the
 * address of one that was followed by another never comes back.
 */
function ownersOnWire(frames: readonly Buffer[]): { owners: number; returned: string[] } {
  const followed = new Set<string>();
  const last = new Map<string, string>();
  const returned: string[] = [];
  for (const frame of frames) {
    const address = [...frame.subarray(28, 32)].join('.'); // the sender's, after Ethernet and the head of ARP
    const lastByte = frame[31] ?? 0;
    if (!address.startsWith('192.0.2.') || lastByte < 64 || lastByte >= 128) continue;
    const owner = `${address} ${frame.subarray(22, 28).toString('hex')}`;
    const before = last.get(address);
    if (followed.has(owner)) returned.push(owner);
    if (before !== undefined && before !== owner) followed.add(before);
    last.set(address, owner);
  }
  return { owners: followed.size + last.size, returned };
}
