import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ctlFile } from '../support/daemon.js';
import type { Netns } from '../support/netns.js';
import { ON_LINK_NETWORK } from '../support/on-link-network.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { SnoopingSwitch } from '../support/snooping-switch.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const ADVERTISER = fileURLToPath(new URL('../support/advertise-router.ts', import.meta.url));

async function lines(netns: Netns, argv: readonly string[]): Promise<string[]> {
  const { stdout } = await netns.run(argv);
  return stdout.split('\n').filter((line) => line.trim() !== '');
}

async function proxied(host: Host): Promise<string[]> {
  return (await lines(host.netns, ['ip', '-6', 'neigh', 'show', 'proxy'])).map((line) => line.split(' ')[0] ?? '');
}

async function parameter(host: Host, name: string): Promise<string> {
  return (await lines(host.netns, ['sysctl', '-n', name])).join();
}

/** A container, and its address of the on-link prefix, that has said a word to its gateway. */
async function speaking(host: Host): Promise<Container & { readonly address6: string }> {
  const container = await host.addContainer();
  const { address6 } = container;
  assert.ok(address6 !== undefined);
  await ping(container.netns, address6.replace(/[^:]+$/, '1'), { count: 1 });
  await eventually(`an entry for ${address6}`, async () => assert.ok((await proxied(host)).includes(address6)));
  return { ...container, address6 };
}

describe('containers in an on-link prefix', () => {
  let rig: Rig;
  let network: SnoopingSwitch;

  const forgetNeighbours = (): Promise<unknown> => rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);

  const answersOnce = async (address: string): Promise<boolean> => {
    await forgetNeighbours();
    return (await ping(rig.router, address, { count: 1, waitSeconds: 3 })).received === 1;
  };

  const macSeen = async (address: string): Promise<string | undefined> => {
    const [entry] = await rig.router.ipJson(['-6', 'neigh', 'show', address, 'dev', 'eth0']);
    return entry?.['lladdr'] as string | undefined;
  };

  const macOf = async (netns: Netns): Promise<string> => {
    const [link] = await netns.ipJson(['link', 'show', 'dev', 'eth0']);
    return link?.['address'] as string;
  };

  before(async () => {
    rig = await Rig.create({ hosts: 2, hasIpv6: true });
    network = new SnoopingSwitch(rig);
    await rig.putConfig(ON_LINK_NETWORK);
    for (const host of rig.hosts) await host.startDaemon({ args: ['--ndp-proxy'] });
  });

  after(() => rig.close());

  it('are reached from the router with its first packet, through a switch that snoops MLD', async () => {
    await network.snoop(true);
    const container = await speaking(rig.host(1));
    await eventually('the switch to learn the group', async () => {
      const groups = await network.groups();
      assert.ok(groups.includes(`ff02::1:ff00:${container.address6.split(':').at(-1) ?? ''}`), groups.join(' '));
    });
    assert.ok(await answersOnce(container.address6));
    assert.equal(await macSeen(container.address6), await macOf(rig.host(1).netns));
    assert.equal((await ping(container.netns, '2001:db8::1', { count: 1 })).received, 1);
  });

  it('are not answered for once they have stopped, nor if they never were', async () => {
    // The kernel forgets all neighbours of a bridge that has no port left, or whose MAC address was that of the port that
    // goes; Docker's has one of its own.
    await speaking(rig.host(1));
    await rig.host(1).netns.ip(['link set docker0 address 02:42:00:00:00:01']);
    const container = await speaking(rig.host(1));
    assert.ok(await answersOnce(container.address6));
    // As after a minute of silence: the kernel asks for it no more by itself.
    await rig.host(1).netns.ip([`neigh change ${container.address6} dev docker0 nud stale`]);
    await rig.router.run(['ip', 'netns', 'del', container.netns.name]);
    await eventually('the entry to go', async () => {
      assert.ok(!(await proxied(rig.host(1))).includes(container.address6));
    });
    for (const address of [container.address6, container.address6.replace(/[^:]+$/, 'dead')]) {
      assert.equal(await answersOnce(address), false);
      assert.equal(await macSeen(address), undefined, `${address}: nobody has answered`);
    }
  });

  it('are reached although they have never said a word', async () => {
    await network.snoop(false);
    const { address6 = '' } = await rig.host(2).addContainer();
    assert.ok(!(await proxied(rig.host(2))).includes(address6));
    assert.ok(await answersOnce(address6));
    assert.ok((await proxied(rig.host(2))).includes(address6));
  });

  it('keep their address against a machine on the link that takes it', async () => {
    const container = await speaking(rig.host(1));
    await rig.router.run(['sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1', 'net.ipv6.conf.eth0.dad_transmits=1']);
    await rig.router.ip([`addr add ${container.address6}/128 dev eth0`]);
    await eventually('the duplicate to be found', async () => {
      const shown = await lines(rig.router, ['ip', '-6', 'addr', 'show', 'dev', 'eth0', 'dadfailed']);
      assert.ok(shown.some((line) => line.includes(container.address6)));
    });
    await rig.router.ip([`addr del ${container.address6}/128 dev eth0`]);
  });

  it('go on while the daemon is away, with all that is set for them', async () => {
    const container = await speaking(rig.host(1));
    assert.ok(await answersOnce(container.address6));
    await rig.host(1).daemon?.stop();
    assert.ok(await answersOnce(container.address6));
    assert.equal(await parameter(rig.host(1), 'net.ipv6.neigh.eth0.proxy_delay'), '0');
    await rig.host(1).netns.run(['ip', '-6', 'neigh', 'flush', 'dev', 'docker0']); // as the kernel does by and by
    await rig.host(1).daemon?.startAndWait();
    assert.ok(((await rig.host(1).daemon?.status())?.ndpProxy?.addresses ?? 0) > 0, 'what it answered for before');
    assert.ok((await proxied(rig.host(1))).includes(container.address6));
    assert.ok(await answersOnce(container.address6));
  });

  it('are found at once on the host that they have moved to', async () => {
    const container = await speaking(rig.host(1));
    assert.ok(await answersOnce(container.address6));
    assert.equal(await macSeen(container.address6), await macOf(rig.host(1).netns));
    await rig.router.run(['ip', 'netns', 'del', container.netns.name]);
    // Another bridge with the same subnet: the route of the first host must not lead elsewhere.
    const [first, second] = [rig.host(1).netns, rig.host(2).netns];
    const gateway = rig.host(1).daemon?.subnetEnv().FLANNEL_IPV6_SUBNET ?? '';
    await second.ip(['link add br1 type bridge', `addr add ${gateway} dev br1 nodad`, 'link set br1 up']);
    const moved = await rig.addNamespace('moved');
    await second.ip([`link add m1 type veth peer name eth0 netns ${moved.name}`, 'link set m1 master br1 up']);
    await moved.ip(['link set eth0 up', `addr add ${container.address6}/80 dev eth0 nodad`]);
    await moved.ip([`route add default via ${gateway.split('/')[0] ?? ''}`]);
    await ping(moved, gateway.split('/')[0] ?? '', { count: 1 });
    await eventually('the router to know where it is', async () => {
      assert.equal(await macSeen(container.address6), await macOf(second));
    });
    assert.equal((await ping(rig.router, container.address6, { count: 1 })).received, 1);
    assert.notEqual(await macOf(first), await macOf(second));
    await second.ip(['link del br1']);
  });

  it('reach each other between the hosts without a route of anybody', async () => {
    const [near, far] = [await speaking(rig.host(1)), await speaking(rig.host(2))];
    await waitFor(async () => (await ping(near.netns, far.address6, { count: 1, waitSeconds: 1 })).received === 1, {
      what: 'an answer of the other host',
    });
    const [route] = await rig.host(1).netns.ipJson(['route', 'get', far.address6]);
    assert.equal(route?.['dev'], 'flannel-v6.1');
    assert.deepEqual(
      rig.hosts.filter(({ daemon }) => /could not be changed/.test(daemon?.log ?? '')),
      [],
    );
  });

  it('may be 5000', async () => {
    const host = rig.host(2);
    await speaking(host);
    const gateway = host.daemon?.subnetEnv().FLANNEL_IPV6_SUBNET?.split('/')[0] ?? '';
    const at = (n: number): string => gateway.replace(/[^:]+$/, (1000 + n).toString(16));
    await host.netns.ip(
      Array.from({ length: 5000 }, (_, n) => `neigh replace ${at(n)} lladdr 02:00:00:00:00:09 dev docker0`),
    );
    await waitFor(async () => (await proxied(host)).length >= 5000, { what: '5000 entries', timeoutMs: 30_000 });
    assert.ok(await answersOnce((await speaking(host)).address6), 'one more among them');
  });

  it('are forgotten with the host, by clean-up', async () => {
    const host = rig.host(1);
    assert.ok((await proxied(host)).length > 0);
    await host.daemon?.stop();
    const { daemon } = host;
    assert.ok(daemon !== undefined);
    const files = ['--subnet-file', daemon.subnetFile, '--state-dir', daemon.stateDirectory];
    const socket = ['--status-socket', daemon.statusSocket, '--etcd-endpoints', rig.etcd.endpoint];
    await host.netns.run([process.execPath, ctlFile(), 'cleanup', ...files, ...socket]);
    assert.deepEqual(await proxied(host), []);
    assert.equal(await parameter(host, 'net.ipv6.conf.eth0.proxy_ndp'), '0');
    assert.notEqual(await parameter(host, 'net.ipv6.neigh.eth0.proxy_delay'), '0');
  });
});

describe('the default route that a router tells', () => {
  let rig: Rig;

  const advertise = async (): Promise<void> => {
    const [link] = await rig.router.ipJson(['-6', 'addr', 'show', 'dev', 'eth0']);
    const addresses = (link?.['addr_info'] ?? []) as { local: string; scope: string }[];
    const local = addresses.find(({ scope }) => scope === 'link')?.local ?? '';
    const [{ address }] = (await rig.router.ipJson(['link', 'show', 'dev', 'eth0'])) as [{ address: string }];
    await rig.router.run([process.execPath, '--import', TSX, ADVERTISER, address, local]);
  };

  const defaults = (): Promise<string[]> =>
    lines(rig.host(1).netns, ['ip', '-6', 'route', 'show', 'default', 'proto', 'ra']);

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    const { netns } = rig.host(1);
    await netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0', 'net.ipv6.conf.eth0.accept_ra=1']);
    await netns.ip(['route del default via 2001:db8::1']);
    await advertise();
    await eventually('the host to take it', async () => assert.equal((await defaults()).length, 1));
    await rig.putConfig(ON_LINK_NETWORK);
  });

  afterEach(() => rig.close());

  for (const args of [[], ['--ndp-proxy']]) {
    it(`stays throughout start, forwarding, a change of the configuration and stop${args.map((arg) => ` with ${arg}`).join('')}`, async () => {
      const host = rig.host(1);
      const monitor = host.netns.start(['ip', '-6', 'monitor', 'route']);
      await host.startDaemon({ args });
      await eventually('accept_ra', async () =>
        assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '2'),
      );
      await host.addContainer();
      if (args.length > 0) {
        await eventually('forwarding', async () =>
          assert.equal(await parameter(host, 'net.ipv6.conf.all.forwarding'), '1'),
        );
      } else await host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1']); // as Docker does
      assert.equal((await defaults()).length, 1);
      await advertise();
      assert.equal((await defaults()).length, 1);
      await rig.putConfig({ ...ON_LINK_NETWORK, Backend: { Type: 'host-gw' } });
      await waitFor(() => host.daemon?.subnetEnv().FLANNEL_MTU === '1500', { what: 'the other backend' });
      await rig.putConfig({ Network: ON_LINK_NETWORK.Network, Backend: ON_LINK_NETWORK.Backend });
      await waitFor(() => host.daemon?.subnetEnv().FLANNEL_IPV6_SUBNET === undefined, {
        what: 'a network without IPv6',
      });
      await host.daemon?.stop();
      assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '2', 'the host forwards still');
      assert.equal((await defaults()).length, 1);
      await monitor.stop();
      assert.doesNotMatch(monitor.output, /Deleted default/);
    });
  }

  it('stays where the host begins to forward for a bridge of its own, without IPv6 in the overlay', async () => {
    const host = rig.host(1);
    await rig.putConfig({ Network: ON_LINK_NETWORK.Network, Backend: ON_LINK_NETWORK.Backend });
    await host.startDaemon({ args: ['--ndp-proxy'] });
    assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '1');
    const monitor = host.netns.start(['ip', '-6', 'monitor', 'route']);
    await host.netns.ip([
      'link add br7 type bridge',
      'addr add 2001:db8:0:0:4000::1/66 dev br7 nodad',
      'link set br7 up',
    ]);
    await eventually('forwarding', async () =>
      assert.equal(await parameter(host, 'net.ipv6.conf.all.forwarding'), '1'),
    );
    assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '2');
    assert.equal((await defaults()).length, 1);
    await monitor.stop();
    assert.doesNotMatch(monitor.output, /Deleted default/);
  });

  it('leaves the parameter as it was found once nobody forwards any more', async () => {
    const host = rig.host(1);
    await host.startDaemon();
    await eventually('accept_ra', async () => assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '2'));
    await host.daemon?.stop();
    assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '2', 'a restart finds it');
    await host.daemon?.startAndWait();
    await rig.putConfig({ Network: ON_LINK_NETWORK.Network, Backend: ON_LINK_NETWORK.Backend });
    await eventually('accept_ra to go back', async () =>
      assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), '1'),
    );
  });

  for (const value of ['0', '2']) {
    it(`leaves accept_ra alone at ${value}`, async () => {
      const host = rig.host(1);
      await host.netns.run(['sysctl', '-qw', `net.ipv6.conf.eth0.accept_ra=${value}`]);
      await host.startDaemon();
      await host.daemon?.waitForLog(/ready/);
      assert.equal(await parameter(host, 'net.ipv6.conf.eth0.accept_ra'), value);
    });
  }
});
