import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { systemClock } from '../../src/clock.js';
import { STATE_FILES } from '../../src/config/paths.js';
import { openPortableTunnel } from '../../src/dataplane/portable.js';
import { ContainerFirewall, containerRulePlaces } from '../../src/firewall/containers/container-firewall.js';
import { Firewall, type FirewallMode } from '../../src/firewall/firewall.js';
import { parseMac } from '../../src/ip/mac.js';
import { silentLogger } from '../../src/log.js';
import { type DesiredState, EMPTY_STATE } from '../../src/reconcile/desired.js';
import { NetlinkKernel } from '../../src/reconcile/netlink-kernel.js';
import { Reconciler } from '../../src/reconcile/reconciler.js';
import type { PoolIdentity } from '../../src/container/pool-id.js';
import { PluginState } from '../../src/docker/plugin/state.js';
import { systemFiles } from '../../src/sys/text-files.js';
import { ip, net } from '../support/builders.js';
import { networkEntry } from '../support/reach-entries.js';
import { type CtlResult, ctl } from '../support/ctl.js';
import { type NetState, netState } from '../support/net-state.js';
import { OwnNetns } from '../support/own-netns.js';
import { skipBecause } from '../support/skip.js';

const INSTANCE = 'coreos.com/network';
const NETWORK = net('10.5.0.0/16');

const poolOf = (subnet: string): PoolIdentity => ({ name: 'net', subnet: net(subnet), range: net(subnet) });

describe('tsflannelctl cleanup', () => {
  let netns: OwnNetns;
  let directory: string;
  let subnetFile: string;
  let socket: string;
  let untouched: NetState;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    netns = await OwnNetns.enter('cleanup');
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannelctl-cleanup-'));
    subnetFile = path.join(directory, 'subnet.env');
    socket = path.join(directory, 'status.sock');
    await netns.ip([
      'link add eth0 type veth peer name eth0p',
      'link set eth0 up',
      'link set eth0p up',
      'addr add 192.0.2.1/24 dev eth0',
      // Everything below looks like the overlay's, and is somebody else's.
      'link add docker0 type bridge',
      'addr add 10.5.1.1/24 dev docker0',
      'link set docker0 up',
      'link add flannel.7 type vxlan id 7 dstport 4789 dev eth0',
      'link set flannel.7 up',
      'route add 10.5.77.0/24 via 192.0.2.77',
      'route add 10.9.0.0/16 via 192.0.2.77',
      'neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent',
    ]);
    await netns.run(['iptables', '-A', 'FORWARD', '-s', '10.5.0.0/16', '-j', 'ACCEPT']);
    await netns.run(['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '10.9.0.0/16', '-j', 'MASQUERADE']);
    await netns.run(['nft', '-f', '-'], {
      input: 'table ip other { chain forward { type filter hook forward priority 5; }\n}\n',
    });
    // The first use of ip6tables makes tables that stay; a clean-up must not be blamed for them.
    await netns.run(['ip6tables-save']);
    await (await apply('iptables')).cleanup([]);
    untouched = await netState(netns);
  });

  after(() => {
    netns.leave();
    rmSync(directory, { recursive: true });
  });

  beforeEach(() => {
    writeFileSync(
      subnetFile,
      'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    );
  });

  const cleanUp = (...more: readonly string[]): Promise<CtlResult> =>
    ctl([
      'cleanup',
      ...['--subnet-file', subnetFile, '--status-socket', socket, '--state-dir', path.join(directory, 'state')],
      ...['--etcd-endpoints=http://127.0.0.1:1', ...more],
    ]);

  async function apply(mode: FirewallMode): Promise<Firewall> {
    const firewall = new Firewall({ log: silentLogger, clock: systemClock, resyncMs: 0 });
    await firewall.apply({
      mode,
      networks: [{ network: NETWORK, subnet: net('10.5.1.0/24') }],
      previousNetworks: [],
      ipMasq: true,
      forwardRules: true,
      isFullyRandom: true,
    });
    return firewall;
  }

  /** Installs the rules as the daemon does and leaves them, as it does at its end. */
  async function install(mode: FirewallMode): Promise<void> {
    await (await apply(mode)).close();
  }

  /** Makes a state as the daemon does and ends as it does. */
  async function makeState(state: Partial<DesiredState>, instance = INSTANCE): Promise<void> {
    const kernel = new NetlinkKernel(systemClock);
    const reconciler = new Reconciler({
      kernel,
      clock: systemClock,
      logger: silentLogger,
      instance,
      tunnels: { open: openPortableTunnel, workers: 1, disabledOffloads: [] },
    });
    reconciler.setDesired({ ...EMPTY_STATE, ...state }, { scope: [NETWORK] });
    await reconciler.whenConverged(AbortSignal.timeout(10_000));
    await reconciler.close();
    kernel.close();
  }

  async function vxlanState(name: string, vni: number): Promise<Partial<DesiredState>> {
    const [eth0] = await netns.ipJson(['link', 'show', 'dev', 'eth0']);
    const mac = parseMac('02:00:00:00:05:02');
    return {
      links: [
        {
          kind: 'vxlan',
          name,
          mtu: 1450,
          mac: parseMac('02:00:00:00:05:01'),
          vni,
          underlayIndex: Number(eth0?.['ifindex']),
          local: ip('192.0.2.1'),
          port: 8472,
          learning: false,
          gbp: false,
        },
      ],
      addresses: [{ device: name, address: ip('10.5.1.0'), length: 32 }],
      neighbours: [{ device: name, address: ip('10.5.2.0'), mac }],
      fdb: [{ device: name, mac, destination: ip('192.0.2.2') }],
      routes: [
        {
          destination: net('10.5.2.0/24'),
          type: 'unicast',
          device: name,
          gateway: ip('10.5.2.0'),
          isOnlink: true,
        },
      ],
    };
  }

  const hostGwState: Partial<DesiredState> = {
    routes: [
      {
        destination: net('10.5.3.0/24'),
        type: 'unicast',
        device: 'eth0',
        gateway: ip('192.0.2.3'),
        isOnlink: false,
      },
      {
        destination: net('10.5.8.0/24'),
        type: 'blackhole',
        device: undefined,
        gateway: undefined,
        isOnlink: false,
      },
    ],
  };

  it('removes the rules of container networks, those of this daemon alone', async () => {
    for (const instance of [INSTANCE, 'other/network']) {
      const firewall = new ContainerFirewall({ log: silentLogger, clock: systemClock, instance, resyncMs: 0 });
      const bridge = { bridge: 'tsfb-1', subnets: [net('198.51.100.0/24')], isInternal: false } as const;
      const networks = [{ ...bridge, isIccAllowed: true, ipv6Firewall: 'closed' } as const];
      await firewall.apply({ networks, ports: [], overlay: [], routed: [], hosts: [], dockerBridges: [] });
      await firewall.close();
    }
    const { table, chain } = containerRulePlaces(INSTANCE);
    const { stdout } = await cleanUp('--json');
    assert.deepEqual((JSON.parse(stdout) as { removed: unknown }).removed, [
      `nft table ${table}`,
      `iptables filter/${chain.chain}`,
      `ip6tables filter/${chain.chain}`,
    ]);
    assert.match((await netns.run(['nft', 'list', 'tables'])).stdout, /table inet tsflannel-/);
    await cleanUp('--etcd-prefix=/other/network');
    const left = await Promise.all(['iptables-save', 'ip6tables-save'].map((each) => netns.run([each])));
    const tables = (await netns.run(['nft', 'list', 'tables'])).stdout;
    assert.doesNotMatch(tables + left.map(({ stdout: rules }) => rules).join(''), /tsflannel/i);
    await netns.run(['nft', 'delete', 'table', 'ip6', 'filter'], { mayFail: true });
  });

  it('removes networks of containers and routes to those of others, unless containers are in them', async () => {
    const stateDir = path.join(directory, 'state');
    const sandbox = path.join(directory, 'sandbox');
    const [device, other] = ['tsfb-1', net('10.30.0.16/28')];
    const destination = net('10.31.0.2/32');
    const route = { destination, type: 'unicast', gateway: undefined, isOnlink: false } as const;
    const bridge = { kind: 'bridge', name: device, mtu: 1500, mac: undefined } as const;
    await makeState({ links: [bridge], routes: [{ ...route, device }] }, `${INSTANCE}:docker`);
    await netns.ip([`route add ${other.toString()} via 192.0.2.77 proto 173`]);
    const { path: file, text } = networkEntry({ type: 'bridge' }, { pool: poolOf('10.30.0.0/16') });
    mkdirSync(stateDir, { recursive: true });
    const reach = { version: 1, etcdPrefix: '/coreos.com/network', entries: [[file, text, '1']] };
    writeFileSync(path.join(stateDir, STATE_FILES.containerReach), JSON.stringify(reach));
    const state = new PluginState({ directory: stateDir, files: systemFiles });
    const mac = parseMac('02:00:00:00:00:02');
    const id = 'e'.repeat(64);
    const endpoint = { id, networkId: id, mac, addresses: [], sandbox, isStale: false } as const;
    await state.change((before) => ({ ...before, endpoints: [endpoint] }));
    writeFileSync(sandbox, '');
    const kept = await cleanUp();
    assert.match(
      kept.stdout,
      /left networks of containers, with their rules: containers that run have interfaces in them \(1\)/,
    );
    assert.match(kept.stdout, /removed route 10\.30\.0\.16\/28/);
    assert.doesNotMatch(kept.stdout, /tsfb-1|10\.31\.0\.2/);
    rmSync(sandbox);
    const { stdout } = await cleanUp();
    assert.match(stdout, /removed link tsfb-1/);
    assert.doesNotMatch(stdout, /left/);
    rmSync(stateDir, { recursive: true });
    assert.deepEqual(await netState(netns), untouched);
  });

  it('names what commands of a backend may have left, and runs none of them', async () => {
    const state = path.join(directory, 'state');
    mkdirSync(state, { recursive: true });
    const file = path.join(directory, 'was-run');
    const backend = { Type: 'extension', SubnetAddCommand: 'true', ShutdownCommand: `touch ${file}` };
    writeFileSync(path.join(state, STATE_FILES.config), JSON.stringify({ Network: '10.5.0.0/16', Backend: backend }));
    const { stdout } = await cleanUp();
    rmSync(state, { recursive: true });
    assert.match(
      stdout,
      new RegExp(
        `^left what commands of backend extension have made: run its ShutdownCommand if you trust it: touch ${file}$`,
        'm',
      ),
    );
    assert.equal(existsSync(file), false);
  });

  it('removes what vxlan made, and nothing of others', async () => {
    await makeState(await vxlanState('flannel.1', 1));
    await install('iptables');
    const { code, stdout, stderr } = await cleanUp();
    assert.equal(code, 0, stderr);
    assert.match(stdout, /removed link flannel\.1\n/);
    assert.match(stdout, /removed .*FLANNEL-FWD/);
    assert.deepEqual(await netState(netns), untouched);
    assert.ok(existsSync(subnetFile));
  });

  it('removes routes without a device of ours and the rules of nftables', async () => {
    await makeState(hostGwState);
    await install('nftables');
    const { code, stdout } = await cleanUp('--json');
    const report = JSON.parse(stdout) as { networks: string[]; removed: string[]; left: string[] };
    assert.equal(code, 0);
    assert.deepEqual(report.networks, ['10.5.0.0/16']);
    assert.ok(report.removed.includes('route 10.5.3.0/24'), stdout);
    assert.ok(report.removed.includes('route 10.5.8.0/24'), stdout);
    assert.ok(
      report.removed.some((object) => object.startsWith('nft table')),
      stdout,
    );
    assert.deepEqual(report.left, []);
    assert.deepEqual(await netState(netns), untouched);
  });

  it('removes a TUN device that outlived its daemon', async () => {
    // A service manager that keeps the descriptors keeps the device as well.
    await netns.ip([
      'tuntap add dev flannel0 mode tun',
      'link set flannel0 alias tsflannel:coreos.com/network up',
      'addr add 10.5.1.0/32 dev flannel0',
      'route add 10.5.0.0/16 dev flannel0',
    ]);
    const { stdout } = await cleanUp();
    assert.match(stdout, /removed link flannel0\n/);
    assert.deepEqual(await netState(netns), untouched);
  });

  it('removes the files as well when asked, and then knows the network from the command line', async () => {
    await cleanUp('--remove-files');
    assert.ok(!existsSync(subnetFile));
    await makeState(hostGwState);
    const blind = await cleanUp();
    assert.match(blind.stderr, /overlay networks are not known.*give --network/);
    assert.match(blind.stdout, /left route 10\.5\.3\.0\/24: no known overlay network holds it/);
    const { stdout } = await cleanUp('--network', '10.5.0.0/16');
    assert.match(stdout, /removed route 10\.5\.3\.0\/24/);
    assert.deepEqual(await netState(netns), untouched);
  });

  it('leaves the devices and rules of a daemon with another prefix', async () => {
    await makeState(await vxlanState('flannel.9', 9), 'other');
    await install('iptables');
    const before = await netState(netns);
    const { code, stdout } = await cleanUp();
    assert.equal(code, 0);
    assert.match(stdout, /left link flannel\.9: it belongs to the daemon with --etcd-prefix=\/other/);
    assert.deepEqual(await netState(netns), before);
    await cleanUp('--etcd-prefix=/other');
    assert.deepEqual(await netState(netns), untouched);
  });

  it('says so when there is nothing to remove', async () => {
    assert.deepEqual(await cleanUp().then(({ code, stdout }) => [code, stdout]), [0, 'nothing to remove\n']);
  });

  it('refuses while a daemon answers, even an unhealthy one, unless forced', async () => {
    await makeState(hostGwState);
    const before = await netState(netns);
    const server = http.createServer((_request, response) => response.writeHead(503).end());
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      const refused = await cleanUp();
      assert.equal(refused.code, 5);
      assert.match(refused.stderr, /a daemon answers on .*status\.sock; run systemctl stop tsflanneld first/);
      assert.deepEqual(await netState(netns), before);
      assert.equal((await cleanUp('--force')).code, 0);
    } finally {
      server.close();
    }
    assert.deepEqual(await netState(netns), untouched);
  });
});
