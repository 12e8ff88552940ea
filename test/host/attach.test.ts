import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import type { NetworksView } from '../../src/ctl/docker-networks-view.js';
import { encodeRecord } from '../../src/container/records.js';
import { net } from '../support/builders.js';
import { ctlFile } from '../support/daemon.js';
import { type Netns, type Output, run } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const NETWORK = '192.0.2.0/24';
const ROUTER = '192.0.2.1';
const PREFIX6 = '2001:db8::/64';

interface Attached {
  readonly addresses: readonly string[];
  readonly mac: string;
}

describe('tsflannelctl attach beside daemons on two hosts', function () {
  this.timeout(120_000);
  let rig: Rig;
  let namespaces: Netns[];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 2, hasIpv6: true });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    for (const host of rig.hosts) {
      await host.startDaemon({ hasPlugin: true, args: [`--host-id=${host.name}`, '--container-address-ttl=60'] });
    }
    namespaces = await Promise.all(rig.hosts.map((host) => rig.addNamespace(`${host.name}n`)));
  });

  after(() => rig.close());

  beforeEach(async () => {
    // As a host with Docker would have written it; it goes with the last host.
    for (const [subnet, range, gateway] of [
      ['192.0.2.0-24', '192.0.2.64/26', ROUTER],
      ['2001:db8::-64', '2001:db8::64:0/112', '2001:db8::1'],
    ] as const) {
      const text = encodeRecord({ range: net(range), properties: { type: 'macvlan', internal: 'false', gateway } });
      await rig.etcd.put(`${rig.etcdPrefix}-ts/network-records/lan/${subnet}`, text);
    }
  });

  const netnsOf = (number: number): Netns => {
    const found = namespaces[number - 1];
    assert.ok(found);
    return found;
  };

  const ctl = (on: Host, ...words: readonly string[]): Promise<Output> => {
    const { statusSocket = '', pluginSocket = '' } = on.daemon ?? {};
    const isPlugin = words[0] !== 'docker-networks' || words[1] === 'create' || words[1] === 'remove';
    const isLocal = words[0] === 'detach' || words[1] === 'create';
    return on.netns.run(
      [
        ...[process.execPath, ctlFile(), ...words, '--status-socket', statusSocket],
        ...(isPlugin ? ['--plugin-socket', pluginSocket] : []),
        ...(isLocal ? [] : [`--etcd-endpoints=${rig.etcd.endpoint}`]),
      ],
      { mayFail: true },
    );
  };

  const attach = async (number: number, ...words: readonly string[]): Promise<Attached> => {
    const path = `/run/netns/${netnsOf(number).name}`;
    const { stdout, stderr, code } = await ctl(rig.host(number), 'attach', '--netns', path, ...words, '--json');
    assert.equal(code, 0, stdout + stderr);
    return JSON.parse(stdout) as Attached;
  };

  const detach = async (number: number, ...words: readonly string[]): Promise<Output> =>
    ctl(rig.host(number), 'detach', '--netns', netnsOf(number).name, ...words);

  const plain = ({ addresses }: Attached): string => addresses[0]?.split('/')[0] ?? '';

  const view = async (number: number): Promise<NetworksView> => {
    const { stdout, stderr } = await ctl(rig.host(number), 'docker-networks', '--json');
    assert.equal(stderr, '');
    return JSON.parse(stdout) as NetworksView;
  };

  afterEach(async () => {
    for (const number of [1, 2]) await detach(number);
    // The last one takes the record along, which the next test writes.
    await eventually('the hosts to leave', async () => {
      for (const { daemon } of rig.hosts) assert.deepEqual((await daemon?.status())?.containerNetworks?.pools, []);
    });
  });

  it('gives namespaces of both hosts addresses of one range, by which they reach each other and the router', async () => {
    const [first, second] = [await attach(1, '--network', 'lan'), await attach(2, '--network', 'lan')];
    assert.equal(first.addresses.length, 2);
    assert.equal(new Set([...first.addresses, ...second.addresses]).size, 4);
    for (const address of [plain(second), ROUTER, second.addresses[1]?.split('/')[0] ?? '', '2001:db8::1']) {
      assert.ok(
        net(address.includes(':') ? PREFIX6 : NETWORK).contains(
          net(`${address}/${address.includes(':') ? 128 : 32}`).address,
        ),
      );
      await eventually(`an answer of ${address}`, async () => assert.ok(await ping(netnsOf(1), address)));
    }
    const routes = await netnsOf(1).ipJson(['route', 'show', 'default']);
    assert.equal(routes[0]?.['gateway'], ROUTER);
  });

  it('changes nothing when it is repeated', async () => {
    const first = await attach(1, '--network', 'lan');
    const before = await netnsOf(1).ipJson(['link', 'show']);
    assert.deepEqual(await attach(1, '--network', 'lan'), first);
    assert.deepEqual(await netnsOf(1).ipJson(['link', 'show']), before);
  });

  it('completes an interface that an earlier run has not set up', async () => {
    const first = await attach(1, '--network', 'lan');
    await netnsOf(1).ip(['link set eth0 down', 'link set eth0 name half', 'addr flush dev half']);
    assert.deepEqual(await attach(1, '--network', 'lan'), first);
    assert.ok(await ping(netnsOf(1), ROUTER));
  });

  it('gives the address and the name that it is asked for, which docker-networks shows on both hosts', async () => {
    const { addresses, mac } = await attach(1, '--network', NETWORK, '--ip', '192.0.2.100', '--ifname', 'lan0');
    assert.equal(addresses[0], '192.0.2.100/24');
    const row = (await view(1)).addresses.find(({ address }) => address === '192.0.2.100');
    assert.deepEqual([row?.owner, row?.mac], [`netns /run/netns/${netnsOf(1).name} lan0`, mac]);
    await eventually('the other host to see it', async () => {
      const other = (await view(2)).addresses.find(({ address }) => address === '192.0.2.100');
      assert.deepEqual([other?.host, other?.state], ['h1', 'leased']);
      assert.deepEqual([other?.owner, other?.mac], [row?.owner, mac]);
      assert.equal(other?.hostName, hostname());
    });
    const taken = await ctl(
      rig.host(2),
      'attach',
      '--netns',
      netnsOf(2).name,
      '--network',
      'lan',
      '--ip',
      '192.0.2.100',
    );
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /192\.0\.2\.100/);
    assert.deepEqual(await netnsOf(2).ipJson(['link', 'show', 'type', 'macvlan']), []);
    assert.equal((await detach(1, '--ifname', 'lan0')).code, 0);
  });

  it('undoes all of it, so that nothing is left in the namespace, on the host and in etcd', async () => {
    await attach(1, '--network', 'lan');
    const { code, stdout } = await detach(1);
    assert.equal(code, 0);
    assert.match(stdout, /^detached eth0 of .*, released 192\.0\.2\.\d+ and 2001:db8::/);
    assert.deepEqual(await netnsOf(1).ipJson(['link', 'show', 'type', 'macvlan']), []);
    assert.deepEqual(await rig.host(1).netns.ipJson(['link', 'show', 'type', 'macvlan']), []);
    await eventually('the host to leave the network', async () => {
      const { containerNetworks } = (await rig.host(1).daemon?.status()) ?? {};
      assert.deepEqual([containerNetworks?.networks, containerNetworks?.pools], [[], []]);
    });
    const again = await detach(1);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /is not attached/);
  });

  it('frees the addresses of a namespace that is gone', async () => {
    const gone = await rig.addNamespace('gone');
    const on = rig.host(1);
    assert.equal((await ctl(on, 'attach', '--netns', gone.name, '--network', 'lan', '--ip', '192.0.2.101')).code, 0);
    await run(['ip', 'netns', 'del', gone.name]);
    const { code, stdout } = await ctl(on, 'detach', '--netns', gone.name);
    assert.equal(code, 0);
    assert.match(stdout, /released 192\.0\.2\.101 and /);
    assert.deepEqual(
      (await view(1)).addresses.filter(({ host }) => host === 'h1'),
      [],
    );
  });

  describe('a network that one host makes without Docker', () => {
    const OWN = '198.51.100.0/24';
    const FULL = ['--subnet', OWN, '--ip-range', '198.51.100.64/26', '--gateway', '198.51.100.254'];

    const make = (number: number, ...words: readonly string[]): Promise<Output> =>
      ctl(rig.host(number), 'docker-networks', 'create', ...words);

    const remove = (number: number, title: string): Promise<Output> =>
      ctl(rig.host(number), 'docker-networks', 'remove', title);

    const succeed = async (output: Promise<Output>): Promise<string> => {
      const { code, stdout, stderr } = await output;
      assert.equal(code, 0, stdout + stderr);
      return stdout;
    };

    const records = async (): Promise<string[]> =>
      (await rig.etcd.list(`${rig.etcdPrefix}-ts/network-records/own/`)).map(({ key }) => key);

    it('takes namespaces of both hosts, stays after the last, and goes when it is removed', async () => {
      const aux = ['--aux-address', 'printer=198.51.100.70', '--opt', 'parent=eth0', '--opt', 'mode=bridge'];
      await succeed(make(1, '--network', 'own', ...FULL, ...aux));
      const again = await make(1, '--network', 'own', ...FULL);
      assert.match(again.stderr, /cannot make the network own: this host has it/);
      const [near, far] = [
        await attach(1, '--network', 'own'),
        await attach(2, '--network', 'own', '--parent', 'eth0'),
      ];
      for (const { addresses } of [near, far])
        assert.ok(net('198.51.100.64/26').contains(net(`${plain({ addresses, mac: '' })}/32`).address));
      await eventually('an answer of the other host', async () => assert.ok(await ping(netnsOf(1), plain(far))));
      const printer = await ctl(
        rig.host(2),
        'attach',
        '--netns',
        netnsOf(2).name,
        '--ifname',
        'lan1',
        '--network',
        'own',
        '--ip',
        '198.51.100.70',
      );
      assert.match(printer.stderr, /198\.51\.100\.70/);
      assert.match((await remove(1, 'own')).stderr, /1 interfaces are attached to it/);
      for (const number of [1, 2]) await succeed(detach(number));
      await eventually('the other host to leave', async () => {
        const { networks } = await view(1);
        assert.deepEqual(networks.find(({ network }) => network === 'own')?.hosts, ['h1']);
      });
      await succeed(remove(1, 'own'));
      await eventually('the record to go', async () => assert.deepEqual(await records(), []), { timeoutMs: 20_000 });
    });

    it('is refused to a host that says something else of it, with both values, and nothing is left', async () => {
      await succeed(make(1, '--network', 'own', ...FULL));
      const other = ['--network', 'own', '--subnet', OWN, '--ip-range', '198.51.100.64/26', '--opt', 'parent=eth0'];
      const { code, stderr } = await make(2, ...other, '--gateway', '198.51.100.1');
      assert.equal(code, 1);
      assert.match(stderr, /gateway 198\.51\.100\.1: host h1 has it with gateway 198\.51\.100\.254/);
      const overlapping = await make(2, '--network', 'own', '--subnet', '198.51.100.0/25', '--opt', 'parent=eth0');
      assert.match(
        overlapping.stderr,
        /cannot use 198\.51\.100\.0\/25 of the network own: it overlaps 198\.51\.100\.0\/24, in use by h1/,
      );
      const overlay = await make(2, '--subnet', '10.5.3.0/24', '--opt', 'parent=eth0');
      assert.match(overlay.stderr, /cannot use 10\.5\.3\.0\/24 .* overlaps 10\.5\.0\.0\/16/);
      await eventually(
        'nothing to be left',
        async () => {
          const { containerNetworks } = (await rig.host(2).daemon?.status()) ?? {};
          assert.deepEqual([containerNetworks?.networks, containerNetworks?.pools], [[], []]);
        },
        { timeoutMs: 20_000 },
      );
      await succeed(remove(1, 'own'));
    });

    it('is removed from etcd where no host is in it any more, and not before', async () => {
      await succeed(make(1, '--network', 'own', ...FULL));
      const refused = await remove(2, 'own');
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /there are hosts in it: h1/);
      await succeed(remove(1, 'own'));
      await eventually('the record to go', async () => assert.deepEqual(await records(), []), { timeoutMs: 20_000 });
      const text = encodeRecord({ range: net(OWN), properties: { type: 'macvlan' } });
      await rig.etcd.put(`${rig.etcdPrefix}-ts/network-records/own/198.51.100.0-24`, text);
      await succeed(remove(2, 'own'));
      assert.deepEqual(await records(), []);
      assert.match((await remove(2, 'own')).stderr, /cannot remove the network own: there is none/);
    });

    it('has what is attached go on while its daemon is started anew, and the same address after a reboot', async () => {
      await succeed(make(1, '--network', 'own', ...FULL));
      const before = await attach(1, '--network', 'own');
      const far = await attach(2, '--network', 'own', '--parent', 'eth0');
      const { daemon } = rig.host(1);
      await daemon?.kill();
      assert.ok(await ping(netnsOf(1), plain(far)), 'without its daemon');
      await daemon?.startAndWait();
      assert.ok(await ping(netnsOf(1), plain(far)));
      assert.deepEqual(await attach(1, '--network', 'own'), before);
      // What a reboot leaves: the daemon's files, and no interface.
      await daemon?.kill();
      await netnsOf(1).ip(['link del eth0']);
      await daemon?.startAndWait();
      assert.deepEqual(await attach(1, '--network', 'own'), before);
      await eventually('an answer of the other host', async () => assert.ok(await ping(netnsOf(1), plain(far))));
      for (const number of [1, 2]) await succeed(detach(number));
      await succeed(remove(1, 'own'));
    });
  });

  it('says what is wrong, and leaves nothing behind', async () => {
    await attach(2, '--network', 'lan'); // so that the network stays whatever host 1 does
    const name = netnsOf(1).name;
    const refusals: readonly (readonly [RegExp, readonly string[]])[] = [
      [/cannot attach to the network wan: no host has made it/, ['--netns', name, '--network', 'wan']],
      [
        /cannot enter the network namespace \/run\/netns\/none: it does not exist/,
        ['--netns', 'none', '--network', 'lan'],
      ],
      [/it is no network namespace/, ['--netns', '/etc/hostname', '--network', 'lan']],
      [/cannot give 198\.51\.100\.9: the network has/, ['--netns', name, '--network', 'lan', '--ip', '198.51.100.9']],
      [/it has an interface of that name/, ['--netns', name, '--network', 'lan', '--ifname', 'lo']],
      [/--netns is missing/, ['--network', 'lan']],
    ];
    for (const [message, words] of refusals) {
      const { code, stderr } = await ctl(rig.host(1), 'attach', ...words);
      assert.notEqual(code, 0);
      assert.match(stderr, message);
    }
    const { containerNetworks } = (await rig.host(1).daemon?.status()) ?? {};
    assert.deepEqual(
      containerNetworks?.pools.flatMap(({ uses }) => uses),
      [],
    );
    assert.deepEqual(
      containerNetworks.networks.flatMap(({ endpoints }) => endpoints),
      [],
    );
  });
});
