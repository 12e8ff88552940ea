import assert from 'node:assert/strict';
import { ctlFile } from '../support/daemon.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import { DockerNetworkHost, type NetworkedContainer } from '../support/docker-network-host.js';
import { type Netns, type Output, run } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { SnoopingSwitch, joinedGroups } from '../support/snooping-switch.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/** The provider's on-link prefix is 2001:db8::/64, as the rig has it. */
const SUBNET6 = '2001:db8:0:0:4000::/66';
const SUBNET = '198.18.7.0/24';
const BOTH = ['--subnet', SUBNET, '--ipv6', '--subnet', SUBNET6];
const PROXY = ['--opt', 'ndp-proxy=true'];

const CONFIG = {
  Network: '10.5.0.0/16',
  EnableIPv6: true,
  IPv6Network: 'fd00:5::/48',
  Backend: { Type: 'vxlan' },
};

/** What a web server is in an image of busybox. */
const SERVER = ['--detach', '--stop-signal', 'SIGKILL', 'busybox', 'busybox', 'httpd', '-f', '-p', '80'];

describe('networks with ndp-proxy on two hosts with real engines', function () {
  this.timeout(120_000);
  const hosts = new DockerHosts();
  const { host, onEach: onBoth } = hosts;
  let rig: Rig;

  const create = (options: readonly string[] = []): Promise<unknown> =>
    onBoth((on) => on.createNetwork('net', [...PROXY, ...BOTH, ...options]));

  const serve = async (on: DockerNetworkHost, options: readonly string[] = []): Promise<NetworkedContainer> => {
    const { stdout } = await on.docker(['run', '--network', 'net', ...options, ...SERVER]);
    return on.inspect(stdout.trim());
  };

  /** Whether the first packet of a router that knows nothing is answered. */
  const answersOnce = async (address: string): Promise<boolean> => {
    await rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);
    return (await ping(rig.router, address, { count: 1, waitSeconds: 3 })).received === 1;
  };

  const fetches = async (address: string, port = 80): Promise<boolean> => {
    const argv = ['curl', '--silent', '--output', '/dev/null', '--max-time', '3', `http://[${address}]:${port}/`];
    return (await rig.router.run(argv, { mayFail: true })).code === 0;
  };

  const proxied = async (on: DockerNetworkHost): Promise<string[]> =>
    (await on.host.netns.run(['ip', '-6', 'neigh', 'show', 'proxy'])).stdout
      .split('\n')
      .map((line) => line.split(' ')[0] ?? '')
      .filter((address) => address !== '');

  const macSeen = async (address: string): Promise<unknown> => {
    const [entry] = await rig.router.ipJson(['-6', 'neigh', 'show', address, 'dev', 'eth0']);
    return entry?.['lladdr'];
  };

  const macOf = async (on: DockerNetworkHost): Promise<unknown> => {
    const [link] = await on.host.netns.ipJson(['link', 'show', 'dev', 'eth0']);
    return link?.['address'];
  };

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig(CONFIG);
    await hosts.start(rig.hosts);
  });

  afterEach(async () => {
    await hosts.removeAll();
    // A network of the same subnet may have other options only where nobody has it any more.
    await eventually('the networks to be left', async () => {
      for (const { daemon } of hosts) assert.deepEqual((await daemon.status()).containerNetworks?.pools, []);
    });
  });

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  for (const type of ['bridge', 'overlay']) {
    it(`answers for containers of type ${type} that run: the first packet finds them, and a stopped one nobody`, async () => {
      await create(['--opt', `type=${type}`]);
      const one = await host(1).run('net');
      assert.ok(await answersOnce(one.address6), one.address6);
      assert.equal(await macSeen(one.address6), await macOf(host(1)));
      assert.ok(await host(1).reaches(one, '2001:db8::1'), 'the router');
      await host(1).docker(['stop', one.id]);
      await eventually('the entry to go', async () => assert.deepEqual(await proxied(host(1)), []));
      assert.equal(await answersOnce(one.address6), false);
      assert.equal(await macSeen(one.address6), undefined, 'nobody has answered');
    });

    it(`lets containers of type ${type} reach each other between hosts, and no host complains`, async () => {
      await create(['--opt', `type=${type}`]);
      const [near, far] = await onBoth((on) => on.run('net'));
      assert.ok(near && far);
      await eventually('an answer of the other host', async () => {
        assert.ok(await host(1).reaches(near, far.address6), far.address6);
      });
      assert.ok(await host(2).reaches(far, near.address6));
      for (const { daemon } of hosts) assert.doesNotMatch(daemon.log, /is not believed|cannot be reached/);
    });
  }

  it('is in one multicast group for all containers, through a switch that snoops MLD', async () => {
    const network = new SnoopingSwitch(rig);
    await network.snoop(true);
    const before = await onBoth((on) => joinedGroups(on.host.netns));
    await create(['--opt', 'type=bridge']);
    const all = (await onBoth((on) => Promise.all(Array.from({ length: 6 }, () => on.run('net'))))).flat();
    assert.equal(new Set(all.map(({ address6 }) => address6)).size, 12);
    assert.deepEqual((await onBoth(proxied)).flat().sort(), all.map(({ address6 }) => address6).sort());
    const after = await onBoth((on) => joinedGroups(on.host.netns));
    assert.deepEqual(
      after.map((groups, index) => groups.filter((group) => before[index]?.includes(group) === false)),
      [['ff02::1:ff00:2'], ['ff02::1:ff00:2']],
    );
    await eventually('the switch to know it', async () =>
      assert.ok((await network.groups()).includes('ff02::1:ff00:2')),
    );
    for (const { address6 } of all) assert.ok(await answersOnce(address6), address6);
    const [first] = all;
    await first?.host.docker(['rm', '--force', first.id]);
    await eventually('its entry to go', async () => assert.equal((await proxied(host(1))).length, 5));
    for (const { address6 } of all.slice(1))
      assert.ok(await answersOnce(address6), `${address6}, without the first one`);
    const free = await host(1).run('net', ['--ip6', '2001:db8:0:0:4000::beef']);
    await eventually('the switch to know another group', async () =>
      assert.ok((await network.groups()).includes('ff02::1:ff00:beef')),
    );
    assert.ok(await answersOnce(free.address6), 'an address that was asked for');
    await network.snoop(false);
  });

  it('are not reached by containers of other networks, on a host that is not in them', async () => {
    await host(1).createNetwork('net', [...PROXY, ...BOTH, '--opt', 'type=bridge']);
    const { address6 } = await host(1).run('net');
    const subnets = ['--subnet', '198.18.8.0/24', '--ipv6', '--subnet', 'fd00:8::/64'];
    await host(2).createNetwork('other', ['--opt', 'type=bridge', ...subnets]);
    const stranger = await host(2).run('other');
    await eventually('the host itself to be answered', async () => {
      assert.ok((await ping(host(2).host.netns, address6, { count: 1 })).received > 0);
    });
    assert.ok(await host(2).reaches(stranger, '2001:db8::1'), 'the router');
    await eventually('its container to be kept out', async () => {
      assert.equal(await host(2).reaches(stranger, address6), false);
    });
  });

  it('opens nothing but published ports, to the world', async () => {
    await create(['--opt', 'type=bridge']);
    const closed = await serve(host(1));
    const open = await serve(host(1), ['--publish', '8080:80']);
    assert.ok(await answersOnce(closed.address6), 'answers are not forbidden');
    assert.equal(await fetches(closed.address6), false);
    assert.equal(await fetches(open.address6), false);
    assert.ok(await fetches(host(1).host.publicIpv6, 8080));
  });

  it('opens everything with ipv6-firewall=open', async () => {
    await create(['--opt', 'type=bridge', '--opt', 'ipv6-firewall=open']);
    const { address6 } = await serve(host(1));
    assert.ok(await fetches(address6));
  });

  it('keeps containers apart with icc=false, on one host and between two', async () => {
    await create(['--opt', 'type=bridge', '--opt', 'icc=false']);
    const [one, other, far] = [await host(1).run('net'), await host(1).run('net'), await host(2).run('net')];
    assert.ok(await answersOnce(far.address6));
    assert.ok(await host(1).reaches(one, '2001:db8::1'), 'the router');
    assert.equal(await host(1).reaches(one, other.address6), false);
    assert.equal(await host(1).reaches(one, far.address6), false);
  });

  it('finds a container with --ip6 at once on the host that it has moved to', async () => {
    await create(['--opt', 'type=bridge']);
    const fixed = ['--ip6', '2001:db8:0:0:4000::99'];
    const before = await host(1).run('net', fixed);
    assert.equal(before.address6, '2001:db8::4000:0:0:99');
    assert.ok(await answersOnce(before.address6));
    await host(1).docker(['rm', '--force', before.id]);
    const after = await host(2).run('net', fixed);
    assert.equal((await ping(rig.router, after.address6, { count: 1, waitSeconds: 3 })).received, 1);
    assert.equal(await macSeen(after.address6), await macOf(host(2)));
  });

  describe('of type overlay over a backend that carries IPv4 alone', () => {
    const OVERLAY = ['--opt', 'type=overlay'];

    const useBackend = async (config: object): Promise<void> => {
      await rig.putConfig(config);
      const { Backend } = config as typeof CONFIG;
      await eventually(`the backend ${Backend.Type}`, async () => {
        for (const { daemon } of hosts) assert.deepEqual((await daemon.status()).backends, [Backend.Type]);
      });
    };

    before(() => useBackend({ Network: CONFIG.Network, Backend: { Type: 'udp' } }));
    after(() => useBackend(CONFIG));

    const skipped = async (): Promise<readonly string[]> =>
      ((await host(1).daemon.status()).containerReach?.skipped ?? []).map(({ reason }) => reason);

    it('carry IPv6 over the link, and nobody complains', async () => {
      const complaints = host(1).daemon.log.length;
      await create(OVERLAY);
      const [near, far] = await onBoth((on) => on.run('net'));
      assert.ok(near && far);
      await eventually('an answer over both families', async () => {
        for (const address of [far.address, far.address6]) assert.ok(await host(1).reaches(near, address), address);
      });
      assert.deepEqual(await skipped(), []);
      assert.doesNotMatch(host(1).daemon.log.slice(complaints), /cannot be reached|do not reach/);
    });

    it('say when they are made without ndp-proxy, and where others have containers, that IPv6 is not carried', async () => {
      await onBoth((on) =>
        on.createNetwork('net', [...OVERLAY, '--subnet', SUBNET, '--ipv6', '--subnet', 'fd00:7::/64']),
      );
      assert.match(host(1).daemon.log, /do not reach those of other hosts.*fd00:7::\/64.*carries no.*IPv6/);
      const [near, far] = await onBoth((on) => on.run('net'));
      assert.ok(near && far);
      await eventually('an answer over IPv4', async () => assert.ok(await host(1).reaches(near, far.address)));
      assert.equal(await host(1).reaches(near, far.address6), false);
      assert.deepEqual(await skipped(), ['backend "udp" carries no networks of containers over IPv6 to it']);
      assert.match(
        (await run([process.execPath, ctlFile(), 'status', '--status-socket', host(1).daemon.statusSocket])).stdout,
        /udp" carries no networks of containers over IPv6/,
      );
    });
  });
});

describe('networks with ndp-proxy that tsflannelctl has made', function () {
  this.timeout(120_000);
  let rig: Rig;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    for (const host of rig.hosts) await host.startDaemon({ hasPlugin: true, args: [`--host-id=${host.name}`] });
  });

  after(() => rig.close());

  const ctl = (on: Host, ...words: readonly string[]): Promise<Output> => {
    const { statusSocket = '', pluginSocket = '' } = on.daemon ?? {};
    const sockets = ['--status-socket', statusSocket, '--plugin-socket', pluginSocket];
    return on.netns.run([process.execPath, ctlFile(), ...words, ...sockets]);
  };

  const attach = async (on: Host, network: string, netns: Netns): Promise<string> => {
    const etcd = `--etcd-endpoints=${rig.etcd.endpoint}`;
    const { stdout } = await ctl(on, 'attach', '--netns', netns.file, '--network', network, '--json', etcd);
    const { addresses } = JSON.parse(stdout) as { readonly addresses: readonly string[] };
    return addresses[0]?.split('/')[0] ?? '';
  };

  for (const [network, range, groups] of [
    ['wide', [], ['ff02::1:ff00:2']],
    ['narrow', ['--ip-range', '2001:db8:0:0:4000::/112'], ['ff02::1:ff00:2', 'ff02::1:ff00:3', 'ff02::1:ff00:4']],
  ] as const) {
    it(`are in ${groups.length} multicast groups with three containers, where the range is ${network}`, async () => {
      const [one, two] = [rig.host(1), rig.host(2)];
      const options = ['--subnet', SUBNET6, ...range, '--opt', 'type=bridge', '--opt', 'ndp-proxy=true'];
      await ctl(one, 'docker-networks', 'create', '--network', network, ...options);
      const before = await joinedGroups(one.netns);
      const namespaces = await Promise.all([0, 1, 2, 3].map((index) => rig.addNamespace(`${network}${index}`)));
      const addresses: string[] = [];
      // The other host enters it by what the first one has written.
      for (const [index, netns] of namespaces.entries())
        addresses.push(await attach(index === 3 ? two : one, network, netns));
      const joined = await joinedGroups(one.netns);
      assert.deepEqual(
        joined.filter((group) => !before.includes(group)),
        groups,
      );
      assert.equal((await joinedGroups(two.netns)).includes('ff02::1:ff00:2'), groups.length === 1);
      assert.equal(new Set(addresses).size, 4);
      for (const address of addresses) {
        await rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);
        assert.equal((await ping(rig.router, address, { count: 1, waitSeconds: 3 })).received, 1, address);
      }
      for (const [index, { name }] of namespaces.entries())
        await ctl(index === 3 ? two : one, 'detach', '--netns', name);
      await eventually('the other host to leave', async () => {
        assert.deepEqual((await two.daemon?.status())?.containerNetworks?.pools, []);
      });
      await ctl(one, 'docker-networks', 'remove', network);
      await eventually('this one to leave', async () => {
        assert.deepEqual((await one.daemon?.status())?.containerNetworks?.pools, []);
      });
    });
  }
});
