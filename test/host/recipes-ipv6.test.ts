import assert from 'node:assert/strict';
import { Prefix } from '../../src/ip/prefix.js';
import { IpAddress } from '../../src/ip/address.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import type { NetworkedContainer } from '../support/docker-network-host.js';
import { Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/** The provider's on-link prefix is 2001:db8::/64, as the rig has it. */
const CONFIG = {
  Network: '10.5.0.0/16',
  EnableIPv6: true,
  IPv6Network: '2001:db8:0:0:8000::/66',
  IPv6SubnetLen: 80,
  Backend: { Type: 'vxlan' },
};

const FAMILIES = ['address', 'address6'] as const;

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

  const answersOnce = async (address: string): Promise<boolean> => {
    await rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);
    return (await ping(rig.router, address, { count: 1, waitSeconds: 3 })).received === 1;
  };

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hasIpv6: true });
    await rig.putConfig(CONFIG);
    await hosts.start(rig.hosts, {
      args: ['--ndp-proxy'],
      engineOptions: (daemon) => {
        const subnet = Prefix.parse(daemon.subnetEnv().FLANNEL_IPV6_SUBNET ?? '');
        return `--ipv6 --fixed-cidr-v6=${subnet.toString()}`;
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
        for (const address of [one.address, one.address6]) {
          assert.equal((await ping(host(1).host.netns, address, { count: 1 })).received, 1, address);
        }
        assert.match(await inside(one, 'ip route'), /^default via /m);
        assert.match(await inside(one, 'ip -6 route'), /^default via /m);
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
