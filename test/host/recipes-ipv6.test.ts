import assert from 'node:assert/strict';
import { Prefix } from '../../src/ip/prefix.js';
import { IpAddress } from '../../src/ip/address.js';
import { fetchCommand } from '../support/docker.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import type { DockerNetworkHost, NetworkedContainer } from '../support/docker-network-host.js';
import type { Netns } from '../support/netns.js';
import { ON_LINK_NETWORK } from '../support/on-link-network.js';
import { Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const FAMILIES = ['address', 'address6'] as const;

/** A web server that tells who asks; busybox has its `nc` and its `httpd` built in everywhere. */
const WEB = [
  'sh',
  '-c',
  'mkdir -p /www && echo "served by $HOSTNAME" >/www/index.html && exec busybox httpd -f -p 80 -h /www',
];

const urlOf = (address: string, port: number): string =>
  `http://${address.includes(':') ? `[${address}]` : address}:${port}/`;

describe('the recipes for IPv6, on two hosts with real engines', function () {
  this.timeout(120_000);
  const hosts = new DockerHosts();
  const { host } = hosts;
  let rig: Rig;

  const inside = async ({ host: on, id }: NetworkedContainer, words: string): Promise<string> =>
    (await on.docker(['exec', id, 'busybox', ...words.split(' ')], { mayFail: true })).stdout.trim();

  /** Whether a name is resolved to the address of a family, which answers. */
  const assertResolved = async (from: NetworkedContainer, name: string, to: NetworkedContainer): Promise<void> => {
    for (const [program, address] of [
      ['ping -4', to.address],
      ['ping -6', to.address6],
    ] as const) {
      const said = await inside(from, `${program} -c 1 -W 2 ${name}`);
      assert.ok(said.includes(`(${address})`) && said.includes('1 packets received'), `${program}: ${said}`);
    }
  };

  /** Starts a web server. */
  const serve = async (
    on: DockerNetworkHost,
    name: string,
    options: readonly string[],
  ): Promise<NetworkedContainer> => {
    const words = ['run', '--detach', '--stop-signal', 'SIGKILL', '--name', name, '--hostname', name];
    const { stdout } = await on.docker([...words, ...options, 'busybox', 'busybox', ...WEB]);
    const server = await on.inspect(stdout.trim());
    await eventually(`${name} to listen`, async () =>
      assert.match(await inside(server, `wget -q -O - http://127.0.0.1/`), /^served by/),
    );
    return server;
  };

  /** The page at an address and port, got with curl; empty if there is none. */
  const curl = async (from: Netns, address: string, port = 80): Promise<string> => {
    const argv = ['curl', '--silent', '--max-time', '3', urlOf(address, port)];
    return (await from.run(argv, { mayFail: true })).stdout.trim();
  };

  const answersOnce = async (address: string): Promise<boolean> => {
    await rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);
    return (await ping(rig.router, address, { count: 1, waitSeconds: 3 })).received === 1;
  };

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig(ON_LINK_NETWORK);
    await hosts.start(rig.hosts, {
      args: ['--ndp-proxy'],
      engineOptions: (on) => {
        const subnet = Prefix.parse(on.daemon.subnetEnv().FLANNEL_IPV6_SUBNET ?? '');
        const proxy = on === host(2) ? '--userland-proxy=false' : '';
        return `--ipv6 --fixed-cidr-v6=${subnet.toString()} ${proxy}`;
      },
    });
  });

  afterEach(() => hosts.removeAll());

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  it("X4, X8, X12: containers of Docker's own bridge have the host's prefix, and nothing is typed for their way", async () => {
    const [near, far] = [await host(1).run('bridge'), await host(2).run('bridge')];
    for (const [index, { address6 }] of [near, far].entries()) {
      const prefix = host(index + 1).daemon.subnetEnv().FLANNEL_IPV6_SUBNET ?? '';
      assert.ok(Prefix.parse(prefix).contains(IpAddress.parse(address6)), `${address6} in ${prefix}`);
      assert.ok(await answersOnce(address6), `the router reaches ${address6}`);
    }
    await eventually('the other host to answer', async () => assert.ok(await host(1).reaches(near, far.address6)));
    assert.ok(await host(1).reaches(near, '2001:db8::1'), 'the router');
  });

  it('X7: what -P publishes is reached over the IPv6 of the host by rules of ours, where it takes a proxy of Docker', async () => {
    const PUBLISHED = ['--publish-all', '--expose', '80'];
    const drivers = ['--driver', 'tsflannel', '--ipam-driver', 'tsflannel', '--opt', 'type=bridge'];
    for (const [number, hasProxy] of [
      [1, true],
      [2, false], // --userland-proxy=false
    ] as const) {
      const on = host(number);
      await serve(on, 'docker', PUBLISHED);
      const { stdout } = await on.docker(['port', 'docker', '80/tcp']);
      const port = Number(/:(\d+)$/m.exec(stdout)?.[1]);
      assert.equal(await curl(rig.router, on.host.publicIp, port), 'served by docker');
      // Since release 27 it writes rules for IPv6 as well.
      const isReached = hasProxy || Number.parseInt(await on.engine.version()) >= 27;
      assert.equal(
        await curl(rig.router, on.host.publicIpv6, port),
        isReached ? 'served by docker' : '',
        `on ${on.host.name}`,
      );
      await on.docker([
        'network',
        'create',
        ...drivers,
        '--subnet',
        '198.18.7.0/24',
        '--ipv6',
        '--subnet',
        'fd00:7::/64',
        'net',
      ]);
      const { address6 } = await serve(on, 'ours', ['--network', 'net', ...PUBLISHED]);
      const [network] = (await on.daemon.status()).containerNetworks?.networks ?? [];
      const ports = (network?.endpoints ?? []).flatMap((endpoint) => endpoint.ports);
      const chosen = Number(/80\/tcp -> 0\.0\.0\.0:(\d+)/.exec(ports.join(' '))?.[1]);
      assert.ok(chosen > 0, `${ports.join(' ')} of ${address6}`);
      for (const address of [on.host.publicIp, on.host.publicIpv6])
        assert.equal(await curl(rig.router, address, chosen), 'served by ours', `${address} ${chosen}`);
      const { stdout: proxies } = await on.host.netns.run(['pgrep', '-a', '-x', 'docker-proxy'], { mayFail: true });
      assert.ok(!proxies.includes(`-host-port ${chosen} `), 'no docker-proxy of it');
    }
  });

  for (const [title, driver] of [
    ["Docker's own driver", ['--driver', 'bridge']],
    ['ours', ['--driver', 'tsflannel', '--ipam-driver', 'tsflannel', '--opt', 'type=bridge']],
  ] as const) {
    describe(`a network of one's own with both families, by ${title}`, () => {
      const SUBNETS = ['--subnet', '198.18.7.0/24', '--ipv6', '--subnet', 'fd00:7::/64'];
      const GATEWAYS = ['198.18.7.1', 'fd00:7::1'];

      const create = async (): Promise<void> => {
        const gateways = GATEWAYS.flatMap((gateway) => ['--gateway', gateway]);
        await host(1).docker(['network', 'create', ...driver, ...SUBNETS, ...gateways, 'net']);
      };

      it('X13: has both gateways on the bridge, and inspect shows both subnets', async () => {
        await create();
        await host(1).run('net');
        const shown = await host(1).host.netns.ipJson(['addr', 'show']);
        const addresses = shown.flatMap(({ addr_info }) =>
          (addr_info as { local?: string }[]).map(({ local }) => local),
        );
        for (const gateway of GATEWAYS) assert.ok(addresses.includes(gateway), gateway);
        const { stdout } = await host(1).docker(['network', 'inspect', '--format', '{{json .IPAM.Config}}', 'net']);
        const config = JSON.parse(stdout) as { Subnet: string; Gateway: string }[];
        assert.deepEqual(
          config.map(({ Subnet, Gateway }) => [Subnet, Gateway.split('/')[0]]),
          [
            ['198.18.7.0/24', '198.18.7.1'],
            ['fd00:7::/64', 'fd00:7::1'],
          ],
        );
      });

      it('X14: gives the addresses that were asked for, and a default route of each family', async () => {
        await create();
        const one = await host(1).run('net', ['--ip', '198.18.7.77', '--ip6', 'fd00:7::77']);
        assert.deepEqual([one.address, one.address6], ['198.18.7.77', 'fd00:7::77']);
        // Docker's bridge has its IPv6 address once no duplicate was found, a second or two after it was made.
        for (const address of [one.address, one.address6]) {
          await eventually('an answer', async () =>
            assert.equal((await ping(host(1).host.netns, address, { count: 1 })).received, 1, address),
          );
        }
        assert.match(await inside(one, 'ip route'), /^default via /m);
        assert.match(await inside(one, 'ip -6 route'), /^default via /m);
      });

      it('X5: serves pages over both families, to the host and to the other container', async () => {
        await create();
        const one = await serve(host(1), 'one', ['--network', 'net']);
        const two = await serve(host(1), 'two', ['--network', 'net']);
        for (const family of FAMILIES) {
          assert.equal(await curl(host(1).host.netns, two[family]), 'served by two');
          const { stdout } = await host(1).docker(['exec', one.id, ...fetchCommand(urlOf(two[family], 80))]);
          assert.equal(stdout.trim(), 'served by two');
          const back = await host(1).docker(['exec', two.id, ...fetchCommand(urlOf(one[family], 80))]);
          assert.equal(back.stdout.trim(), 'served by one');
        }
      });

      it('X15: resolves names to both families', async () => {
        await create();
        const one = await host(1).run('net', ['--name', 'one']);
        const two = await host(1).run('net', ['--name', 'two']);
        await assertResolved(one, 'two', two);
        await assertResolved(two, 'one', one);
        for (const family of FAMILIES) assert.ok(await host(1).reaches(one, two[family]));
      });
    });
  }
});
