import assert from 'node:assert/strict';
import type { PathStatus } from '../../src/observe/status.js';
import { ctlFile } from '../support/daemon.js';
import { Overlay } from '../support/overlay.js';
import { type Host, Rig } from '../support/rig.js';
import type { Output } from '../support/netns.js';
import { eventually } from '../support/wait.js';

/** As often as it can be, so that nobody has to wait for minutes. */
const ARGS = ['--peer-probe-interval=1'];

/** Four probes with a second for each answer that does not come, on a busy machine. */
const PATIENCE = { timeoutMs: 40_000, intervalMs: 200 };

/** What a host's daemon knows of the way to another host. */
async function pathsTo(host: Host, peer: string): Promise<readonly PathStatus[]> {
  const status = await host.daemon?.status();
  return status?.peers.find(({ publicIp, publicIpv6 }) => [publicIp, publicIpv6].includes(peer))?.reachability ?? [];
}

async function waitForState(host: Host, peer: string, state: PathStatus['state']): Promise<void> {
  await eventually(
    `${host.name} to find ${peer} ${state}`,
    async () => {
      const paths = await pathsTo(host, peer);
      assert.ok(paths.length > 0, 'it is not probed');
      for (const each of paths) assert.equal(each.state, state, JSON.stringify(each));
    },
    PATIENCE,
  );
}

function ctl(host: Host, ...args: readonly string[]): Promise<Output> {
  const { daemon, rig } = host;
  const flags = [`--etcd-endpoints=${rig.etcd.endpoint}`, `--subnet-file=${daemon?.subnetFile ?? ''}`];
  const command = [process.execPath, ctlFile(), ...args, ...flags, `--status-socket=${daemon?.statusSocket ?? ''}`];
  return host.netns.run(command, { mayFail: true });
}

const unreachablePeers = async (host: Host): Promise<string | undefined> =>
  /^tsflannel_peers_unreachable (\d+)$/m.exec((await host.daemon?.get('/metrics')) ?? '')?.[1];

/** How host 3 is cut off, and how that is undone. */
interface Cut {
  readonly backend: string;
  readonly what: string;
  readonly cut: (host: Host) => Promise<unknown>;
  readonly heal: (host: Host) => Promise<unknown>;
  /** Whether host 2 still reaches it. */
  readonly isForAll: boolean;
  readonly layer: 'underlay' | 'overlay';
  readonly look: RegExp;
}

const CUTS: readonly Cut[] = [
  {
    backend: 'vxlan',
    what: 'a packet filter that drops what carries the overlay',
    cut: ({ netns }) => netns.run(['iptables', '-A', 'INPUT', '-p', 'udp', '--dport', '8472', '-j', 'DROP']),
    heal: ({ netns }) => netns.run(['iptables', '-D', 'INPUT', '-p', 'udp', '--dport', '8472', '-j', 'DROP']),
    isForAll: true,
    layer: 'overlay',
    look: /look at +UDP port 8472, or the one that Backend names, must pass/,
  },
  {
    backend: 'udp',
    what: 'a blackhole on the way back to one host',
    cut: ({ netns, rig }) => netns.ip([`route add blackhole ${rig.host(1).publicIp}/32`]),
    heal: ({ netns, rig }) => netns.ip([`route del blackhole ${rig.host(1).publicIp}/32`]),
    isForAll: false,
    layer: 'underlay',
    look: /look at +is the host up\?/,
  },
  {
    backend: 'host-gw',
    what: 'a cable that is pulled',
    cut: ({ netns }) => netns.ip(['link set eth0 down']),
    heal: ({ netns }) => netns.ip(['link set eth0 up', 'route add default via 192.0.2.1']),
    isForAll: true,
    layer: 'underlay',
    look: /look at +is the host up\?/,
  },
];

for (const { backend, what, cut, heal, isForAll, layer, look } of CUTS) {
  describe(`reachability with ${backend}`, () => {
    let overlay: Overlay;
    let hosts: readonly [Host, Host, Host];

    before(async () => {
      const config = { Network: '10.5.0.0/16', Backend: { Type: backend } };
      overlay = await Overlay.create({ hosts: 3, config, args: () => ARGS });
      hosts = [overlay.rig.host(1), overlay.rig.host(2), overlay.rig.host(3)];
    });

    after(() => overlay.close());

    it('finds every peer reachable, with its round trip and without a drop in the tunnel', async () => {
      for (const host of hosts) {
        for (const peer of hosts) if (peer !== host) await waitForState(host, peer.publicIp, 'reachable');
      }
      const [way] = await pathsTo(hosts[0], hosts[2].publicIp);
      assert.equal(way?.answeredBy, backend === 'host-gw' ? 'bridge' : 'overlay');
      assert.ok(way.roundTripSeconds !== null && way.roundTripSeconds > 0 && way.roundTripSeconds < 2);
      assert.equal(await unreachablePeers(hosts[0]), '0');
      const { tunnels } = await overlay.daemon(1).status();
      assert.equal(tunnels.length, backend === 'udp' ? 1 : 0);
      for (const { counters } of tunnels) {
        // The kernel sends IPv6 router solicitations into every device.
        const drops = Object.entries(counters.drops).filter(([reason, count]) => reason !== 'not-ipv4' && count > 0);
        assert.deepEqual(drops, []);
      }
    });

    it('measures every layer of the way to a container', async () => {
      const { address } = overlay.container(3);
      const { code, stdout } = await ctl(hosts[0], 'ping', address);
      assert.equal(code, 0, stdout);
      const layers = ['underlay', ...(backend === 'host-gw' ? [] : ['overlay']), 'bridge', 'container'];
      for (const name of layers) {
        assert.match(stdout, new RegExp(`^${name} +[0-9.]+ +[0-9.]+ ms +3 of 3$`, 'm'));
      }
      assert.match(stdout, /^result +it answers$/m);
    });

    it('tells a container that the other host does not forward to', async () => {
      const { address } = overlay.container(3);
      await hosts[2].netns.run(['iptables', '-I', 'FORWARD', '-d', address, '-j', 'DROP']);
      try {
        const { code, stdout } = await ctl(hosts[0], 'ping', address);
        assert.equal(code, 3);
        assert.match(stdout, /^result +stops at the container: the host answers through the overlay/m);
        assert.match(stdout, /^look at +on that host: .*packet filter/m);
      } finally {
        await hosts[2].netns.run(['iptables', '-D', 'FORWARD', '-d', address, '-j', 'DROP']);
      }
    });

    it(`finds a peer unreachable behind ${what}, says where packets stop, and sees it come back`, async () => {
      await cut(hosts[2]);
      await waitForState(hosts[0], hosts[2].publicIp, 'unreachable');
      assert.equal(await unreachablePeers(hosts[0]), '1');
      await waitForState(hosts[1], hosts[2].publicIp, isForAll ? 'unreachable' : 'reachable');
      await waitForState(hosts[0], hosts[1].publicIp, 'reachable');
      assert.match((await ctl(hosts[0], 'status')).stdout, /^2 peers, 1 of them does not answer$/m);
      const one = await ctl(hosts[0], 'ping', hosts[2].publicIp);
      assert.equal(one.code, 3);
      assert.match(one.stdout, new RegExp(`^result +stops at the ${layer}: `, 'm'));
      assert.match(one.stdout, look);
      const all = await ctl(hosts[0], 'ping');
      assert.match(all.stdout, new RegExp(`${hosts[2].publicIp} .* stops at the ${layer}$`, 'm'));
      assert.match(all.stdout, new RegExp(`${hosts[1].publicIp} .* it answers$`, 'm'));
      await heal(hosts[2]);
      await waitForState(hosts[0], hosts[2].publicIp, 'reachable');
      assert.equal(await unreachablePeers(hosts[0]), '0');
    });
  });
}

describe('reachability of a host without a daemon of ours', () => {
  const MAC = '8a:4f:1c:9e:20:b7';
  let rig: Rig;

  after(() => rig.close());

  it('is measured from the device that flannel makes', async () => {
    rig = await Rig.create({ hosts: 2 });
    const [stock, other] = [rig.host(1), rig.host(2)];
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } });
    const data = `"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${MAC}"}`;
    await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.1.0-24`, `{"PublicIP":"${stock.publicIp}",${data}}`);
    await other.startDaemon({ args: ARGS });
    await waitForState(other, stock.publicIp, 'unreachable');
    const [lease] = (await rig.etcd.list(`${rig.etcdPrefix}/subnets/`)).filter(({ value }) => !value.includes(MAC));
    const { BackendData } = JSON.parse(lease?.value ?? '{}') as { readonly BackendData: { readonly VtepMAC: string } };
    const subnet = (lease?.key ?? '').replace(/.*\/(.*)-24$/, '$1');
    await stock.netns.ip([
      `link add flannel.1 address ${MAC} mtu 1450 type vxlan id 1 dev eth0 local ${stock.publicIp} dstport 8472 nolearning`,
      'addr add 10.5.1.0/32 dev flannel.1',
      'link set flannel.1 up',
      `neigh replace ${subnet} lladdr ${BackendData.VtepMAC} dev flannel.1 nud permanent`,
      `route add ${subnet}/24 via ${subnet} dev flannel.1 onlink`,
    ]);
    const entry = ['replace', BackendData.VtepMAC, 'dev', 'flannel.1', 'dst', other.publicIp, 'self', 'permanent'];
    await stock.netns.run(['bridge', 'fdb', ...entry]);
    await waitForState(other, stock.publicIp, 'reachable');
    const { code, stdout } = await ctl(other, 'ping', '10.5.1.0/24');
    assert.equal(code, 3, 'it has no bridge');
    assert.match(stdout, /^overlay +10\.5\.1\.0 +[0-9.]+ ms +3 of 3$/m);
    assert.match(stdout, /^result +stops at the bridge: .* no bridge at 10\.5\.1\.1$/m);
  });
});

describe('reachability in a dual-stack network', () => {
  let rig: Rig;

  const statesOf = async (host: Host, peer: string): Promise<readonly (readonly [number, string])[]> =>
    (await pathsTo(host, peer)).map(({ family, state }) => [family, state]);

  before(async () => {
    rig = await Rig.create({ hosts: 2, hasIpv6: true });
    const config = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10:5::/48' };
    await rig.putConfig({ ...config, Backend: { Type: 'vxlan' } });
    for (const host of rig.hosts) await host.startDaemon({ args: ARGS });
  });

  after(() => rig.close());

  it('is measured in each family', async () => {
    const [near, far] = [rig.host(1), rig.host(2)];
    await waitForState(near, far.publicIp, 'reachable');
    await far.netns.run(['ip6tables', '-A', 'INPUT', '-p', 'udp', '--dport', '8472', '-j', 'DROP']);
    const expected = [
      [4, 'reachable'],
      [6, 'unreachable'],
    ];
    await eventually(
      'IPv6 alone to be unreachable',
      async () => assert.deepEqual(await statesOf(near, far.publicIp), expected),
      PATIENCE,
    );
    assert.equal(await unreachablePeers(near), '1');
    const { code, stdout } = await ctl(near, 'ping');
    assert.equal(code, 3);
    assert.match(stdout, /2001:db8::c +[0-9.]+ ms +none +none +stops at the overlay$/m);
    assert.match((await ctl(near, 'status')).stdout, / IPv4 [0-9.]+ ms.*; IPv6 NO for /m);
  });

  it('needs no root for the operator’s ping where the kernel lets the group', async () => {
    const { netns } = rig.host(1);
    const asNobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const command = [process.execPath, ctlFile(), 'ping', `--etcd-endpoints=${rig.etcd.endpoint}`];
    const nowhere = '/nonexistent/none';
    const flags = [`--status-socket=${nowhere}`, `--subnet-file=${nowhere}`];
    const run = (): Promise<Output> => netns.run([...asNobody, ...command, ...flags], { mayFail: true });
    await netns.run(['sysctl', '-qw', 'net.ipv4.ping_group_range=1 0']);
    const refused = await run();
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /cannot open an ICMP socket for IPv4: EPERM.*ping_group_range/);
    await netns.run(['sysctl', '-qw', 'net.ipv4.ping_group_range=0 2147483647']);
    assert.match((await run()).stdout, /192\.0\.2\.12 +[0-9.]+ ms +[0-9.]+ ms/);
  });
});
