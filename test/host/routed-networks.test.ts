import assert from 'node:assert/strict';
import { ctlFile } from '../support/daemon.js';
import { DockerEngine } from '../support/docker.js';
import { DockerNetworkHost, type NetworkedContainer } from '../support/docker-network-host.js';
import { Netns } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { SteadyPing } from '../support/steady-ping.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const SUBNET = '198.18.7.0/24';
const GATEWAY = '198.18.7.1';
const SUBNET6 = 'fd00:7::/64';
const GATEWAY6 = 'fd00:7::1';

const BOTH = ['--subnet', SUBNET, '--gateway', GATEWAY, '--ipv6', '--subnet', SUBNET6, '--gateway', GATEWAY6];

const FAMILIES = ['address', 'address6'] as const;

/** Of host 1 in the rig. */
const HOST = '192.0.2.11';

/** Rules that forward packets of containers are not what is looked at here. */
const WITHOUT_RULES = { options: '--iptables=false --ip6tables=false' } as const;

describe('routed networks on a host with a real engine', function () {
  this.timeout(120_000);
  let rig: Rig;
  let on: DockerNetworkHost;

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    const [first] = rig.hosts;
    assert.ok(first);
    on = new DockerNetworkHost(first);
    await on.boot();
    await on.host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1']);
    await Promise.all([on.daemon.startAndWait(), on.engine.start(WITHOUT_RULES)]);
    await on.engine.importBusybox();
    process.stdout.write(`      Docker ${await on.engine.version()}\n`);
  });

  afterEach(async () => {
    await on.removeAll();
    await eventually('nothing to be left', async () => assert.deepEqual(await on.links(), []));
  });

  after(async () => {
    await on.close();
    await rig.close();
  });

  const create = async (options: Readonly<Record<string, string>>, more: readonly string[] = BOTH): Promise<void> => {
    const words = Object.entries(options).flatMap(([name, value]) => ['--opt', `${name}=${value}`]);
    await on.createNetwork('net', [...words, ...more]);
  };

  const two = (): Promise<[NetworkedContainer, NetworkedContainer]> => Promise.all([on.run('net'), on.run('net')]);

  const inside = async ({ id }: NetworkedContainer, words: string): Promise<string> =>
    (await on.docker(['exec', id, 'busybox', ...words.split(' ')])).stdout.trim();

  const assertReaching = async (one: NetworkedContainer, other: NetworkedContainer): Promise<void> => {
    for (const family of FAMILIES) {
      assert.ok(await on.reaches(one, other[family]), other[family]);
      assert.ok(await on.reaches(other, one[family]), one[family]);
    }
  };

  const links = async (prefix: string): Promise<readonly Readonly<Record<string, unknown>>[]> =>
    (await on.host.netns.ipJson(['-d', 'link', 'show'])).filter(({ ifname }) => String(ifname).startsWith(prefix));

  const bridge = async (): Promise<string> => String((await links('tsfb-'))[0]?.['ifname']);

  for (const [type, addressing] of [
    ['bridge', 'subnet'],
    ['bridge', 'host'],
    ['overlay', 'host'],
  ] as const) {
    describe(`of type ${type} with addresses of the ${addressing}`, () => {
      const options = { type, address: addressing };

      it('lets containers reach each other, the host, and what is beyond it, over both families', async () => {
        await create(options);
        const [one, other] = await two();
        await assertReaching(one, other);
        for (const address of [HOST, '2001:db8::b']) assert.ok(await on.reaches(one, address), address);
        for (const family of FAMILIES) assert.ok((await ping(on.host.netns, one[family])).received > 0, one[family]);
        // The rig's router knows no way back to them; that is for other tests.
        await rig.router.ip([`route add ${SUBNET} via ${HOST}`, `route add ${SUBNET6} via 2001:db8::b`]);
        try {
          for (const address of ['192.0.2.1', '2001:db8::1']) assert.ok(await on.reaches(one, address), address);
        } finally {
          await rig.router.ip([`route del ${SUBNET}`, `route del ${SUBNET6}`]);
        }
      });

      it('has containers take their subnet, or nothing but the gateway, to be on their link', async () => {
        await create(options);
        const one = await on.run('net');
        const gateway = addressing === 'host' ? '169.254.1.1' : GATEWAY;
        const routes = (await inside(one, 'ip route')).split('\n').map((line) => line.trim());
        const own =
          addressing === 'host'
            ? `${gateway} dev eth0 scope link`
            : `${SUBNET} dev eth0 scope link  src ${one.address}`;
        assert.deepEqual(routes.sort(), [`default via ${gateway} dev eth0`, own].sort());
        const routes6 = await inside(one, 'ip -6 route');
        assert.match(routes6, /^default via fe80::1 dev eth0/m);
        assert.doesNotMatch(routes6, /fd00:7::\/64/);
      });

      it('lets no container reach another one with icc=false where no rule would, and each the host', async () => {
        await create({ ...options, icc: 'false' });
        const [one, other] = await two();
        assert.deepEqual(await isolation(), [true, true]);
        for (const address of [HOST, '2001:db8::b']) assert.ok(await on.reaches(one, address), address);
        // On the link there is nobody else; through the host, rules decide.
        if (addressing === 'subnet') assert.equal(await on.reaches(one, other.address), false);
      });

      it('lets containers of an internal network reach each other, and nothing leave it', async () => {
        const subnets = ['--internal', '--subnet', SUBNET, '--ipv6', '--subnet', SUBNET6];
        await create(options, subnets);
        const [one, other] = await two();
        await assertReaching(one, other);
        assert.doesNotMatch(await inside(one, 'ip route'), /default/);
        assert.doesNotMatch(await inside(one, 'ip -6 route'), /default/);
        for (const address of [HOST, '2001:db8::b']) assert.equal(await on.reaches(one, address), false, address);
      });

      it('has the bridge again, with the containers on it, when somebody deletes it', async () => {
        await create({ ...options, icc: 'true' });
        const [one, other] = await two();
        await assertReaching(one, other);
        await on.host.netns.ip([`link del ${await bridge()}`]);
        await eventually('them to reach each other again', () => assertReaching(one, other), { timeoutMs: 20_000 });
        assert.ok(await on.reaches(one, HOST));
      });

      it('loses no packet while the daemon is restarted, nor when it was killed', async () => {
        await create(options);
        const one = await on.run('net');
        const steady = SteadyPing.start(on.host.netns, one.address);
        await on.daemon.stop();
        await on.daemon.startAndWait();
        await on.daemon.kill();
        await on.daemon.startAndWait();
        const { sent, received } = await steady.stop();
        assert.equal(received, sent);
        const other = await on.run('net');
        await assertReaching(one, other);
      });
    });
  }

  const isolation = async (): Promise<readonly unknown[]> => {
    const ports = await links('tsfv');
    return ports.map(
      ({ linkinfo }) => (linkinfo as { info_slave_data: { isolated: boolean } }).info_slave_data.isolated,
    );
  };

  it('puts containers back, isolated, that somebody has taken off the bridge', async () => {
    await create({ type: 'bridge', icc: 'false' });
    await two();
    const [port] = await links('tsfv');
    await on.host.netns.ip([`link set ${String(port?.['ifname'])} nomaster`]);
    await eventually('both to be isolated ports', async () => assert.deepEqual(await isolation(), [true, true]));
  });

  it('comes back after a restart of the host, with the containers that restart', async () => {
    await create({ type: 'overlay' });
    const one = await on.run('net', ['--restart', 'always']);
    await on.reset();
    await on.host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1']);
    await on.daemon.startAndWait();
    await on.engine.start(WITHOUT_RULES);
    await eventually('the container to answer', async () => {
      const again = await on.inspect(one.id);
      for (const family of FAMILIES) {
        assert.ok((await ping(on.host.netns, again[family], { count: 1 })).received > 0, again[family]);
      }
    });
  });

  it('has the MTU of the interface, of the overlay, or what was asked for, and follows the overlay', async () => {
    const mtus = async (): Promise<readonly unknown[]> => (await links('tsf')).map(({ mtu }) => mtu);
    const mtuInside = async (one: NetworkedContainer): Promise<string> =>
      (await inside(one, 'cat /sys/class/net/eth0/mtu')).trim();
    for (const [options, expected] of [
      [{ type: 'bridge' }, 1500],
      [{ type: 'bridge', mtu: '1400' }, 1400],
      [{ type: 'overlay', mtu: '9000' }, 1450],
      [{ type: 'overlay', mtu: '1300' }, 1300],
    ] as const) {
      await create(options);
      const one = await on.run('net');
      assert.deepEqual([await mtus(), await mtuInside(one)], [[expected, expected], String(expected)]);
      await on.removeAll();
    }
    await create({ type: 'overlay' });
    await on.run('net');
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    await eventually('the MTU of host-gw', async () => assert.deepEqual(await mtus(), [1500, 1500]), {
      timeoutMs: 20_000,
    });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    await eventually('that of VXLAN', async () => assert.deepEqual(await mtus(), [1450, 1450]), { timeoutMs: 20_000 });
  });

  it('attaches a namespace of its own, and detaches it', async () => {
    await create({ type: 'overlay' });
    const one = await on.run('net');
    const netns: Netns = await rig.addNamespace('routed');
    const ctl = async (command: 'attach' | 'detach'): Promise<void> => {
      const sockets = ['--status-socket', on.daemon.statusSocket, '--plugin-socket', on.pluginSocket];
      const network = command === 'attach' ? ['--network', SUBNET, `--etcd-endpoints=${rig.etcd.endpoint}`] : [];
      const argv = [process.execPath, ctlFile(), command, '--netns', netns.name, ...network, ...sockets];
      await on.host.netns.run(argv);
    };
    await ctl('attach');
    await ctl('attach');
    for (const family of FAMILIES) assert.ok((await ping(netns, one[family])).received > 0, one[family]);
    assert.ok((await ping(netns, HOST)).received > 0);
    await ctl('detach');
    assert.equal((await links('tsfv')).length, 1);
  });
});
