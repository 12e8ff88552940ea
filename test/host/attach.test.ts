import assert from 'node:assert/strict';
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
    const isPlugin = words[0] === 'attach' || words[0] === 'detach';
    return on.netns.run(
      [
        ...[process.execPath, ctlFile(), ...words, '--status-socket', statusSocket],
        ...(isPlugin ? ['--plugin-socket', pluginSocket] : []),
        ...(words[0] === 'detach' ? [] : [`--etcd-endpoints=${rig.etcd.endpoint}`]),
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

  it('says what is wrong, and leaves nothing behind', async () => {
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
