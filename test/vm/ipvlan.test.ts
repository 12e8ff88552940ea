import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { capture } from '../support/capture.js';
import { ctlFile } from '../support/daemon.js';
import { fetchCommand } from '../support/docker.js';
import { type Netns, type Output, run } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

/** Addresses beside those of the hosts. */
const LAN = ['--network', 'lan', '--subnet', '192.0.2.0/24', '--ip-range', '192.0.2.64/26', '--gateway', '192.0.2.1'];
/** Of nobody else: each host has blocks of it. */
const ROUTED = ['--network', 'routed', '--subnet', '10.30.0.0/24'];
const TAGGED = ['--network', 'tagged', '--subnet', '10.20.0.0/24'];
const ROUTER = '192.0.2.1';
const ROUTER_TAGGED = '10.20.0.1';
/** An interface that the plugin does not know of. */
const BY_HAND = 'byhand';

describe('networks of type ipvlan', () => {
  let rig: Rig;
  const namespaces = new Map<string, Netns>();
  /** What has to be undone: namespaces, and networks of the first host. */
  const [attached, made] = [new Set<string>(), new Set<string>()];

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    await Promise.all(rig.hosts.map((host) => host.startDaemon({ hasPlugin: true, args: [`--host-id=${host.name}`] })));
    for (const name of ['a1', 'b1', 'c1', 'a2']) namespaces.set(name, await rig.addNamespace(name));
    await rig.router.ip([
      'link add link eth0 name eth0.20 type vlan id 20',
      'link set eth0.20 up',
      `addr add ${ROUTER_TAGGED}/24 dev eth0.20`,
    ]);
  });

  after(() => rig.close());

  /** A command of ours takes seconds here: what the last test leaves goes with its namespaces. */
  beforeEach(async () => {
    await removeByHand();
    await Promise.all([...attached].map((name) => ctl(hostOf(name), 'detach', '--netns', netns(name).name)));
    await Promise.all([...made].map((name) => ctl(rig.host(1), 'docker-networks', 'remove', name)));
    attached.clear();
    made.clear();
  });

  const netns = (name: string): Netns => namespaces.get(name) ?? assert.fail(`no namespace ${name}`);

  /** The host that a namespace is on, by the end of its name. */
  const hostOf = (name: string): Host => rig.host(Number(name.slice(-1)));

  const ctl = (host: Host, ...words: readonly string[]): Promise<Output> => {
    const { statusSocket = '', pluginSocket = '' } = host.daemon ?? {};
    const sockets = ['--plugin-socket', pluginSocket, '--status-socket', statusSocket];
    return host.netns.run([process.execPath, ctlFile(), ...words, ...sockets], { mayFail: true });
  };

  /** As `docker network create -o type=ipvlan` with these options. */
  const create = (host: Host, place: readonly string[], ...options: readonly string[]): Promise<Output> => {
    made.add(place[1] ?? '');
    const all = ['type=ipvlan', 'parent=eth0', ...options].flatMap((each) => ['--opt', each]);
    return ctl(host, 'docker-networks', 'create', ...place, ...all);
  };

  const succeed = async (work: Promise<Output>): Promise<Output> => {
    const output = await work;
    assert.equal(output.code, 0, output.stderr);
    return output;
  };

  /** @returns the address that the namespace has got. */
  const attach = async (name: string, network: string): Promise<string> => {
    attached.add(name);
    const words = ['--netns', netns(name).name, '--network', network, '--json', '--etcd-endpoints', rig.etcd.endpoint];
    const { stdout } = await succeed(ctl(hostOf(name), 'attach', ...words));
    const { addresses } = JSON.parse(stdout) as { readonly addresses: readonly string[] };
    return addresses[0]?.split('/')[0] ?? '';
  };

  const reaches = async (from: Netns, address: string): Promise<boolean> => {
    try {
      return (await ping(from, address, { waitSeconds: 1 })).received === 3;
    } catch (error) {
      if (String(error).includes('Network is unreachable')) return false;
      throw error;
    }
  };

  const webRoot = async (): Promise<string> => {
    const directory = path.join(rig.directory, 'www');
    await mkdir(directory);
    await writeFile(path.join(directory, 'index.html'), 'hello\n');
    return directory;
  };

  const fetches = async (from: Netns, address: string): Promise<boolean> =>
    (await from.run(fetchCommand(`http://${address}/`), { mayFail: true })).stdout === 'hello\n';

  const macOf = async (where: Netns, device = 'eth0'): Promise<unknown> =>
    (await where.ipJson(['link', 'show', 'dev', device]))[0]?.['address'];

  /** As people do it: an interface without our help. */
  const makeByHand = async (name: string, kind: string, address: string, parent = 'eth0'): Promise<void> => {
    await hostOf(name).netns.ip([
      `link add ${BY_HAND} link ${parent} netns ${netns(name).name} type ipvlan mode ${kind}`,
    ]);
    await netns(name).ip([`address add ${address}/24 dev ${BY_HAND}`, `link set ${BY_HAND} up`]);
  };

  const removeByHand = (): Promise<unknown> =>
    Promise.all(
      [...namespaces.values()].map(({ name }) => run(['ip', '-n', name, 'link', 'del', BY_HAND], { mayFail: true })),
    );

  /** What the router takes the addresses to be at. */
  const macsUpstream = async (addresses: readonly string[]): Promise<unknown[]> => {
    const entries = await rig.router.ipJson(['neigh', 'show', 'dev', 'eth0']);
    return addresses.map((address) => entries.find(({ dst }) => dst === address)?.['lladdr']);
  };

  const defaultRoute = async (name: string): Promise<unknown> =>
    (await netns(name).ipJson(['route', 'show', 'default'])).map(({ gateway, dev }) => [gateway, dev]);

  /** Names and details of the devices of that kind that a host has. */
  const shims = async (host: Host): Promise<unknown[]> => {
    const links = await host.netns.ipJson(['-d', 'link', 'show', 'type', 'ipvlan']);
    return links.map(({ ifname, linkinfo }) => [
      ifname,
      (linkinfo as { readonly info_data: { readonly mode: string } }).info_data.mode,
    ]);
  };

  it('in l2 behave as those that are made by hand', async () => {
    const { netns: host } = rig.host(1);
    const places = { a1: '192.0.2.201', b1: '192.0.2.202' } as const;
    for (const [name, address] of Object.entries(places)) await makeByHand(name, 'l2', address);
    const mac = await macOf(host);
    assert.deepEqual(await Promise.all(['a1', 'b1'].map((name) => macOf(netns(name), BY_HAND))), [mac, mac]);
    for (const address of Object.values(places)) assert.ok(await reaches(rig.router, address), address);
    assert.deepEqual(await macsUpstream(Object.values(places)), [mac, mac]);
    assert.ok(await reaches(netns('a1'), places.b1), 'beside it');
    assert.ok(!(await reaches(host, places.a1)), 'host to container');
    assert.ok(!(await reaches(netns('a1'), '192.0.2.11')), 'container to host');
    for (const flag of ['private', 'vepa']) {
      await removeByHand();
      for (const [name, address] of Object.entries(places)) await makeByHand(name, `l2 ${flag}`, address);
      assert.ok(await reaches(netns('a1'), ROUTER), flag);
      assert.ok(!(await reaches(netns('a1'), places.b1)), `beside it with ${flag}`);
    }
  });

  for (const [mode, seen] of [
    ['l2', [0, 0]],
    ['l3', [0, 3]],
    ['l3s', [3, 3]],
  ] as const) {
    it(`in ${mode} pass the packet filter of the host as the manual says`, async () => {
      const { netns: host } = rig.host(1);
      const address = mode === 'l2' ? '192.0.2.201' : '10.41.1.2';
      await makeByHand('a1', mode, address);
      if (mode !== 'l2') {
        await netns('a1').ip([`route add default dev ${BY_HAND}`]);
        await rig.router.ip([`route replace ${address}/32 via 192.0.2.11`]);
      }
      const rules = [
        ['INPUT', '--destination', address],
        ['OUTPUT', '--source', address],
      ] as const;
      for (const rule of rules) await host.run(['iptables', '-I', ...rule]);
      assert.ok(await reaches(netns('a1'), ROUTER));
      const counts = await Promise.all(
        rules.map(async ([chain]) => {
          const { stdout } = await host.run(['iptables', '-nvxL', chain, '1']);
          return Number(stdout.trim().split(' ')[0]);
        }),
      );
      for (const rule of rules) await host.run(['iptables', '-D', ...rule]);
      assert.deepEqual(counts, seen);
    });
  }

  it('in l3 behave as those that are made by hand', async () => {
    const [one, two] = [rig.host(1), rig.host(2)];
    const places = { a1: '10.41.1.2', b1: '10.41.1.3', c1: '10.41.2.2', a2: '10.41.3.2' } as const;
    for (const [name, address] of Object.entries(places)) await makeByHand(name, 'l3', address);
    const reached = (): Promise<boolean[]> =>
      Promise.all([places.b1, places.c1, places.a2].map((address) => reaches(netns('a1'), address)));
    assert.deepEqual(await reached(), [true, false, false], 'without routes');
    for (const name of Object.keys(places)) await netns(name).ip([`route add default dev ${BY_HAND}`]);
    assert.deepEqual(await reached(), [true, true, false], 'with a default route by the device');
    await one.netns.ip(['route replace 10.41.3.0/24 via 192.0.2.12']);
    await two.netns.ip(['route replace 10.41.1.0/24 via 192.0.2.11']);
    assert.deepEqual(await reached(), [true, true, true], 'with routes on the hosts');
  });

  it('are routed in l3 as if there were no way out but their parent', async () => {
    const { netns: host } = rig.host(1);
    await host.ip(['link add eth0.30 link eth0 type vlan id 30', 'link set eth0.30 up']);
    await host.ip(['address add 198.51.100.1/32 dev lo']);
    for (const [name, parent] of Object.entries({ a1: 'eth0', b1: 'eth0.30' })) {
      await makeByHand(name, 'l3', name === 'a1' ? '10.41.1.2' : '10.41.2.2', parent);
      await netns(name).ip([`route add default dev ${BY_HAND}`]);
    }
    await rig.router.ip(['route replace 10.41.1.0/24 via 192.0.2.11', 'route replace 10.41.2.0/24 via 192.0.2.11']);
    assert.ok(await reaches(netns('a1'), ROUTER), 'by eth0');
    const arp = await capture(host, 'eth0', 'vlan 30 and arp');
    assert.ok(!(await reaches(netns('b1'), ROUTER)), 'by a VLAN that it is not on');
    const asked = (await arp.stop()).frames.map(({ data }) => [...data.subarray(-4)].join('.'));
    assert.ok(asked.includes(ROUTER), asked.join());
    assert.ok(await reaches(netns('a1'), '192.0.2.11'), 'the address of the parent');
    assert.ok(!(await reaches(netns('a1'), '198.51.100.1')), 'another address of the host');
    await host.ip(['link del eth0.30', 'address del 198.51.100.1/32 dev lo']);
  });

  it('in l2 are on the network with the MAC address of their host, which reaches them with host access alone', async () => {
    const [one, two] = [rig.host(1), rig.host(2)];
    await succeed(create(one, LAN, 'host-access=true'));
    const near = await attach('a1', 'lan');
    const [beside, far] = await Promise.all([attach('b1', 'lan'), attach('a2', 'lan')]);
    for (const address of [near, beside, far]) assert.ok(await reaches(rig.router, address), address);
    const [mac1, mac2] = [await macOf(one.netns), await macOf(two.netns)];
    assert.deepEqual(await macsUpstream([near, beside, far]), [mac1, mac1, mac2]);
    assert.deepEqual(await Promise.all(['a1', 'b1'].map((name) => macOf(netns(name)))), [mac1, mac1]);
    for (const address of [beside, far, ROUTER]) assert.ok(await reaches(netns('a1'), address), address);
    assert.deepEqual(await defaultRoute('a1'), [[ROUTER, 'eth0']]);

    assert.deepEqual(await shims(one), [['eth0-host', 'l2']]);
    const [shim] = await one.netns.ipJson(['-4', 'address', 'show', 'dev', 'eth0-host']);
    const own = (shim?.['addr_info'] as readonly { readonly local: string }[])[0]?.local ?? '';
    assert.match(own, /^192\.0\.2\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])$/);
    assert.ok(await reaches(one.netns, near), 'host to container');
    assert.ok(await reaches(netns('a1'), own), 'container to host');
    assert.ok(!(await reaches(two.netns, far)), 'without host access');

    const { code, stderr } = await create(one, ROUTED, 'mode=l3');
    assert.equal(code, 1);
    assert.match(stderr, /has it with -o mode=l2 -o flag=bridge, and the kernel has one mode/);
    assert.ok(await reaches(netns('a1'), beside), 'as before');
  });

  for (const [flag, reached] of [
    ['vepa', [false, true]],
    ['private', [false, false]],
  ] as const) {
    const what = reached[1] ? 'the other' : 'no other';
    it(`in l2 with flag=${flag} reach ${what} of their host over a switch that reflects, and none without`, async () => {
      const one = rig.host(1);
      await succeed(create(one, LAN, `flag=${flag}`));
      const [, beside] = [await attach('a1', 'lan'), await attach('b1', 'lan')];
      const reachedNow: boolean[] = [];
      for (const isReflecting of [false, true]) {
        await rig.setReflecting(one, isReflecting);
        reachedNow.push(await reaches(netns('a1'), beside));
        assert.ok(await reaches(netns('a1'), ROUTER), 'the router');
      }
      await rig.setReflecting(one, false);
      assert.deepEqual(reachedNow, reached);
    });
  }

  it('in l3 lead out by their interface, reach their host and other hosts, beside another mode on a VLAN', async () => {
    const one = rig.host(1);
    await succeed(create(one, ROUTED, 'mode=l3', 'host-access=true'));
    const near = await attach('a1', 'routed');
    const [beside, far] = await Promise.all([attach('b1', 'routed'), attach('a2', 'routed')]);
    assert.deepEqual(await defaultRoute('a1'), [[undefined, 'eth0']]);
    assert.deepEqual(await shims(one), [['eth0-host', 'l3']]);
    assert.ok(await reaches(netns('a1'), beside), 'beside it');
    assert.ok(await reaches(one.netns, near), 'host to container');
    assert.ok(await reaches(netns('a1'), '192.0.2.11'), 'container to host');
    await eventually('the hosts to route their blocks to each other', async () =>
      assert.ok(await reaches(netns('a1'), far)),
    );
    assert.ok(await reaches(one.netns, far), 'host to a container of another host');

    const web = netns('a2').start(['busybox', 'httpd', '-f', '-h', await webRoot()]);
    await waitFor(() => fetches(netns('a1'), far), { what: 'a page from the other host' });
    assert.ok(!(await fetches(rig.router, far)), 'from upstream without routes');
    assert.ok(!(await reaches(rig.router, near)), 'from upstream without routes');
    const socket = one.daemon?.statusSocket ?? '';
    const words = [process.execPath, ctlFile(), 'docker-networks', 'routes', '--status-socket', socket];
    const typed = (await one.netns.run(words)).stdout.trim().split('\n');
    assert.deepEqual(typed.map((line) => line.replace(/.* /, '')).sort(), ['192.0.2.11', '192.0.2.12']);
    await rig.router.ip(typed.map((line) => line.replace(/^ip /, '')));
    for (const address of [near, beside, far]) assert.ok(await reaches(rig.router, address), address);
    assert.ok(await fetches(rig.router, far), 'a page from upstream');
    await web.stop();
    assert.deepEqual(await macsUpstream([near]), [undefined], 'nobody asks for it');

    // On the same wire, and of another mode.
    await succeed(create(one, TAGGED, 'vlan=20'));
    await attach('c1', 'tagged');
    // Not the echoes of the daemons themselves, which go without a tag.
    const trunk = await capture(one.netns, 'eth0', 'net 10.20.0.0/24 and icmp or (vlan and icmp)');
    assert.ok(await reaches(netns('c1'), ROUTER_TAGGED));
    const { frames } = await trunk.stop();
    // EtherType of a tag and the tag control information (IEEE 802.1Q 9.6)
    const tags = frames.map(({ data }) => data.subarray(12, 16).toString('hex'));
    assert.deepEqual(new Set(tags), new Set(['81000014']));
    assert.ok(await reaches(netns('a1'), beside), 'in l3 as before');
  });
});
