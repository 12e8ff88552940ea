import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Daemon } from '../support/daemon.js';
import { netState } from '../support/net-state.js';
import { withoutLoss } from '../support/overlay.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const MASQ = '-m comment --comment "flanneld masq"';
const FORWARD = '-m comment --comment "flanneld forward"';
const ARGS = ['--ip-masq', '--iptables-resync=1'];

/** Rules of flanneld 0.28 for 10.5.1.0/24 in 10.5.0.0/16 with `--ip-masq`, as input of iptables-restore. */
const STOCK_RULES = `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING ${MASQ} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${MASQ} -j RETURN
-A FLANNEL-POSTRTG -s 10.5.1.0/24 -d 10.5.0.0/16 ${MASQ} -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.1.0/24 ${MASQ} -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.1.0/24 ${MASQ} -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 ${MASQ} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 ${MASQ} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD ${FORWARD} -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 ${FORWARD} -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 ${FORWARD} -j ACCEPT
COMMIT
`;

const MAC = '8a:4f:1c:9e:20:b7';

/**
 * Host 1 as stock flanneld leaves it, made with ip(8), iptables and etcdctl; host 2 with a daemon of ours. While stock
 * flanneld runs it does nothing but renew its lease, so host 1 is also the stock half of a mixed cluster.
 */
class MixedCluster {
  private constructor(
    readonly rig: Rig,
    readonly stock: Host,
    readonly daemon: Daemon,
    readonly near: Container,
    readonly far: Container,
    readonly lease: string,
  ) {}

  static async create(
    type: 'vxlan' | 'host-gw',
    options: { vni?: number; wantedVni?: number } = {},
  ): Promise<MixedCluster> {
    const { vni = 1, wantedVni = 1 } = options;
    const rig = await Rig.create({ hosts: 2 });
    try {
      const [stock, other] = [rig.host(1), rig.host(2)];
      await rig.putConfig({
        Network: '10.5.0.0/16',
        Backend: { Type: type, ...(type === 'vxlan' ? { VNI: wantedVni } : {}) },
      });
      const data = type === 'vxlan' ? `,"BackendData":{"VNI":${vni},"VtepMAC":"${MAC}"}` : '';
      const lease = `{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"${type}"${data}}`;
      await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.1.0-24`, lease, await rig.etcd.grantLease(86_400));
      const value = JSON.stringify({ PublicIP: other.publicIp, BackendType: 'host-gw' });
      await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.2.0-24`, value);
      await other.startDaemon({ args: ARGS });
      await (type === 'vxlan' ? makeStockVxlan(rig, stock, vni) : stock.netns.ip([STOCK_HOST_GW_ROUTE]));
      await stock.netns.run(['iptables-restore', '--noflush'], { input: STOCK_RULES });
      const mtu = type === 'vxlan' ? 1450 : 1500;
      const env = `FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=${mtu}\nFLANNEL_IPMASQ=true\n`;
      const daemon = stock.makeDaemon({ args: ARGS });
      mkdirSync(path.dirname(daemon.subnetFile), { recursive: true });
      writeFileSync(daemon.subnetFile, env);
      const near = await stock.addContainer();
      const far = await other.addContainer();
      return new MixedCluster(rig, stock, daemon, near, far, lease);
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  /** Pings in both directions while something happens; what only shows at the next look of the daemon shows as well. */
  async withoutLoss(happen: () => Promise<void>): Promise<void> {
    await withoutLoss([this.near, this.far], happen, { intervalMs: 5, afterMs: 1200 });
  }

  /** Waits until the routes to the other host's subnet are these, and no others. */
  async assertRoutes(...expected: readonly string[]): Promise<void> {
    await eventually('the routes to the other host', async () => {
      const { routes } = await netState(this.stock.netns);
      assert.deepEqual(
        routes.filter((line) => line.startsWith('10.5.2.0/24')),
        expected,
      );
    });
  }

  async leases(): Promise<{ key: string; value: string; hasTtl: boolean }[]> {
    const entries = await this.rig.etcd.list(`${this.rig.etcdPrefix}/subnets/`);
    return entries.map(({ key, value, leaseId }) => ({
      key: key.replace(/.*\//, ''),
      value,
      hasTtl: leaseId !== undefined,
    }));
  }

  async flannelRules(): Promise<string[]> {
    return (await netState(this.stock.netns)).iptables.filter((line) => /FLANNEL|flanneld/.test(line));
  }

  async close(): Promise<void> {
    await this.rig.close();
  }
}

/** iproute2 gives routes protocol `boot` when none is named, as flannel does. */
const STOCK_HOST_GW_ROUTE = 'route add 10.5.2.0/24 via 192.0.2.12 dev eth0';

async function makeStockVxlan(rig: Rig, host: Host, vni: number): Promise<void> {
  const device = `flannel.${vni}`;
  const peer = JSON.parse((await rig.etcd.get(`${rig.etcdPrefix}/subnets/10.5.2.0-24`))?.value ?? '{}') as {
    BackendData: { VtepMAC: string };
  };
  const mac = peer.BackendData.VtepMAC;
  await host.netns.ip([
    `link add ${device} address ${MAC} mtu 1450 type vxlan id ${vni} dev eth0 local 192.0.2.11 dstport 8472 nolearning`,
    `link set ${device} txqueuelen 0`,
    `addr add 10.5.1.0/32 dev ${device}`,
    `link set ${device} up`,
    `neigh replace 10.5.2.0 lladdr ${mac} dev ${device} nud permanent`,
    `route add 10.5.2.0/24 via 10.5.2.0 dev ${device} onlink`,
  ]);
  await host.netns.run(['bridge', 'fdb', 'replace', mac, 'dev', device, 'dst', '192.0.2.12', 'self', 'permanent']);
}

describe('taking over from flannel with vxlan', () => {
  let cluster: MixedCluster;

  before(async () => {
    cluster = await MixedCluster.create('vxlan');
  });

  after(() => cluster.close());

  const device = async (): Promise<Record<string, unknown>> => {
    const [link] = await cluster.stock.netns.ipJson(['-d', 'link', 'show', 'dev', 'flannel.1']);
    assert.ok(link);
    return link;
  };

  it('works together with flannel on another host', async () => {
    await waitFor(async () => (await ping(cluster.near.netns, cluster.far.address, { count: 1 })).received === 1, {
      what: 'the first ping',
    });
    await cluster.withoutLoss(() => Promise.resolve());
  });

  it('adopts device, MAC, subnet, lease, routes and rules without losing a packet', async () => {
    const before = await device();
    const rules = await cluster.flannelRules();
    await cluster.withoutLoss(async () => {
      await cluster.daemon.startAndWait();
      await cluster.daemon.waitUntilReady();
    });
    const after = await device();
    assert.deepEqual([after.ifindex, after.address, after.mtu], [before.ifindex, MAC, 1450]);
    assert.equal(after.ifalias, 'tsflannel:coreos.com/network');
    assert.deepEqual(after.linkinfo, before.linkinfo);
    assert.equal(cluster.daemon.subnetEnv().FLANNEL_SUBNET, '10.5.1.1/24');
    const [own, ...others] = await cluster.leases();
    assert.deepEqual(own, { key: '10.5.1.0-24', value: cluster.lease, hasTtl: true });
    assert.deepEqual(
      others.map(({ key }) => key),
      ['10.5.2.0-24'],
    );
    assert.deepEqual(await cluster.flannelRules(), rules);
    await cluster.assertRoutes('10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 173 onlink');
  });

  it('leaves when it ends what flannel reuses, and flannel can write over it', async () => {
    const rules = await cluster.flannelRules();
    await cluster.withoutLoss(async () => {
      await cluster.daemon.stop();
    });
    // What flannel compares before it reuses a device: kind, VNI, lower device, local, group, L2 miss, port, GBP.
    const link = await device();
    const { info_kind: kind, info_data: data } = link.linkinfo as {
      info_kind: string;
      info_data: Record<string, unknown>;
    };
    assert.equal(kind, 'vxlan');
    assert.deepEqual([data.id, data.link, data.local, data.port], [1, 'eth0', '192.0.2.11', 8472]);
    for (const key of ['group', 'l2miss', 'gbp']) assert.ok(data[key] === undefined || data[key] === false, key);
    assert.deepEqual((await cluster.leases())[0], { key: '10.5.1.0-24', value: cluster.lease, hasTtl: true });
    assert.deepEqual(await cluster.flannelRules(), rules);

    const peerMac = (await netState(cluster.stock.netns)).neighbours[0]?.split(' ')[4] ?? '';
    await cluster.withoutLoss(async () => {
      await cluster.stock.netns.ip([
        `neigh replace 10.5.2.0 lladdr ${peerMac} dev flannel.1 nud permanent`,
        'route replace 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink',
      ]);
      const entry = ['bridge', 'fdb', 'replace', peerMac, 'dev', 'flannel.1', 'dst', '192.0.2.12', 'self', 'permanent'];
      await cluster.stock.netns.run(entry);
    });
    const state = await netState(cluster.stock.netns);
    await cluster.assertRoutes('10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink');
    assert.deepEqual(state.neighbours, [`10.5.2.0 dev flannel.1 lladdr ${peerMac} PERMANENT`]);
    assert.deepEqual(
      state.fdb.filter((line) => line.includes('flannel.1')),
      [`${peerMac} dev flannel.1 dst 192.0.2.12 self permanent`],
    );
  });

  it('adopts it once more', async () => {
    await cluster.withoutLoss(async () => {
      await cluster.daemon.startAndWait();
      await cluster.daemon.waitUntilReady();
    });
    await cluster.assertRoutes('10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 173 onlink');
  });
});

describe('taking over from flannel with host-gw', () => {
  let cluster: MixedCluster;

  before(async () => {
    cluster = await MixedCluster.create('host-gw');
  });

  after(() => cluster.close());

  it('adopts routes, subnet, lease and rules without losing a packet, and back again', async () => {
    await waitFor(async () => (await ping(cluster.near.netns, cluster.far.address, { count: 1 })).received === 1, {
      what: 'the first ping',
    });
    const rules = await cluster.flannelRules();
    await cluster.withoutLoss(async () => {
      await cluster.daemon.startAndWait();
      await cluster.daemon.waitUntilReady();
    });
    await cluster.assertRoutes('10.5.2.0/24 via 192.0.2.12 dev eth0 proto 173');
    assert.deepEqual((await cluster.leases())[0], { key: '10.5.1.0-24', value: cluster.lease, hasTtl: true });
    assert.deepEqual(await cluster.flannelRules(), rules);
    await cluster.withoutLoss(async () => {
      await cluster.daemon.stop();
    });
    // flannel keeps a route with this destination, gateway and device whatever its protocol.
    await cluster.assertRoutes('10.5.2.0/24 via 192.0.2.12 dev eth0 proto 173');
    assert.deepEqual(await cluster.flannelRules(), rules);
  });
});

describe('a VXLAN device that flannel left behind', () => {
  let cluster: MixedCluster;

  before(async () => {
    cluster = await MixedCluster.create('vxlan', { vni: 9, wantedVni: 1 });
  });

  after(() => cluster.close());

  it('with another VNI is removed with everything on it, once the wanted one is there', async () => {
    const foreign = 'link add vx5 type vxlan id 5 dstport 4790 dev eth0';
    await cluster.stock.netns.ip([foreign, 'addr add 10.99.0.1/32 dev vx5', 'link set vx5 up']);
    await cluster.daemon.startAndWait();
    await cluster.daemon.waitUntilReady();
    const names = (await cluster.stock.netns.ipJson(['link', 'show'])).map(({ ifname }) => ifname);
    assert.ok(!names.includes('flannel.9'), names.join());
    assert.ok(names.includes('flannel.1') && names.includes('vx5'), names.join());
    await cluster.assertRoutes('10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 173 onlink');
    assert.equal((await cluster.leases())[0]?.key, '10.5.1.0-24');
    await waitFor(async () => (await ping(cluster.near.netns, cluster.far.address, { count: 1 })).received === 1, {
      what: 'a ping over the new VNI',
    });
  });
});
