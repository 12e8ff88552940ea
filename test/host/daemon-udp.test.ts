import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { netState } from '../support/net-state.js';
import { Overlay, leaseKey } from '../support/overlay.js';
import { ping, tcpTransfer, udpExchange } from '../support/traffic.js';

const MTU = 1472;
const UDP_HEADERS = 28;

/** Which tunnel each host uses; both kinds have to understand each other. */
const MIXTURES = [
  { title: 'two hosts, native', datapaths: ['native', 'native'] },
  { title: 'two hosts, portable', datapaths: ['portable', 'portable'] },
  { title: 'three hosts, native and portable', datapaths: ['native', 'portable', 'auto'] },
] as const;

for (const { title, datapaths } of MIXTURES) {
  describe(`the daemon with backend udp: ${title}`, () => {
    let overlay: Overlay;

    before(async () => {
      overlay = await Overlay.create({
        hosts: datapaths.length,
        link: 'wire',
        args: (host) => ['--datapath', datapaths[host - 1] ?? 'auto'],
      });
    });
    after(() => overlay.close());

    it('carries pings between all containers, up to the MTU without a fragment', async () => {
      for (const [from, to] of overlay.pairs) {
        const options = { count: 20, size: MTU - UDP_HEADERS, dontFragment: true };
        const { received } = await ping(overlay.container(from).netns, overlay.container(to).address, options);
        assert.equal(received, 20, `host ${from} to host ${to}`);
      }
    });

    it('carries TCP unaltered between all containers', async () => {
      for (const [from, to] of overlay.pairs) {
        const [source, target] = [overlay.container(from), overlay.container(to)];
        const bytes = 3_000_000 + from;
        const result = await tcpTransfer(source.netns, target.netns, target.address, { bytes, seed: 10 * from + to });
        assert.equal(result.bytes, bytes);
      }
    });

    it('carries UDP of every size from nothing to the MTU, and larger ones in fragments', async () => {
      const [near, far] = [overlay.container(1), overlay.container(2)];
      const whole = Array.from({ length: MTU - UDP_HEADERS + 1 }, (_, size) => size);
      const fragmented = [1, 2, 7, 8, 9].map((more) => MTU - UDP_HEADERS + more);
      const sizes = [...whole, ...fragmented, 2880, 2881, 9000, 20_000, 40_001, 65_507];
      assert.deepEqual(await udpExchange(near.netns, far.netns, far.address, sizes), { lost: [], altered: [] });
    });

    it('writes a subnet.env that says what is in etcd and on the host', async () => {
      for (const [index, host] of overlay.rig.hosts.entries()) {
        const env = overlay.daemon(index + 1).subnetEnv();
        const subnet = env.FLANNEL_SUBNET ?? '';
        assert.match(subnet, /^10\.5\.\d+\.1\/24$/);
        assert.equal(
          readFileSync(overlay.daemon(index + 1).subnetFile, 'utf8'),
          `FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=${subnet}\nFLANNEL_MTU=${MTU}\nFLANNEL_IPMASQ=false\n`,
        );
        const entry = await overlay.rig.etcd.get(leaseKey(overlay.rig, subnet));
        // The kernel of a host with auto receives; flannel reads past what says so.
        const data = datapaths[index] === 'auto' ? { BackendData: 'kernel-path-1' } : {};
        assert.deepEqual(JSON.parse(entry?.value ?? ''), { PublicIP: host.publicIp, PublicIPv6: null, ...data });
        assert.ok(entry?.leaseId !== undefined, 'the key has a TTL');
      }
      assert.equal((await overlay.rig.etcd.list(`${overlay.rig.etcdPrefix}/subnets/`)).length, datapaths.length);
    });

    it('makes one device with one address and one route', async () => {
      for (const [index, { netns }] of overlay.rig.hosts.entries()) {
        const network =
          overlay
            .daemon(index + 1)
            .subnetEnv()
            .FLANNEL_SUBNET?.replace(/\.1\/24$/, '.0') ?? '';
        const state = await netState(netns);
        const links = state.links as { name: string; kind: string; flags: string[]; mtu: number }[];
        const devices = links.filter(({ name }) => name.startsWith('flannel'));
        assert.deepEqual(
          devices.map(({ name, kind, flags, mtu }) => ({ name, kind, flags, mtu })),
          [{ name: 'flannel0', kind: 'tun', flags: ['NOARP', 'POINTOPOINT', 'UP'], mtu: MTU }],
        );
        assert.deepEqual(
          state.addresses.filter((line) => /^flannel\S+ [\d.]+\//.test(line)),
          [`flannel0 ${network}/32 global`],
        );
        assert.deepEqual(
          state.routes
            .filter((route) => /^[\d.]+\/\d+ dev flannel/.test(route))
            .map((route) => route.replace(/ (proto|scope|src) \S+/g, '')),
          ['10.5.0.0/16 dev flannel0'],
        );
      }
    });
  });
}
