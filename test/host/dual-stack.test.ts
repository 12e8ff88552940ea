import assert from 'node:assert/strict';
import { type Container, Rig } from '../support/rig.js';
import { ping, tcpTransfer } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const DUAL = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10:5::/48' };

for (const type of ['vxlan', 'host-gw']) {
  describe(`dual stack with ${type}`, () => {
    let rig: Rig;
    let near: Container;
    let far: Container;

    before(async () => {
      rig = await Rig.create({ hosts: 3, hasIpv6: true });
      for (const host of rig.hosts) await host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1']);
    });

    after(() => rig.close());

    it('keeps the IPv4 subnets when IPv6 is switched on', async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: type } });
      for (const host of rig.hosts) await host.startDaemon();
      const before = rig.hosts.map((host) => host.daemon?.subnetEnv().FLANNEL_SUBNET);
      await rig.putConfig({ ...DUAL, Backend: { Type: type } });
      for (const host of rig.hosts) {
        await waitFor(() => host.daemon?.subnetEnv().FLANNEL_IPV6_SUBNET, { what: `IPv6 subnet of ${host.name}` });
      }
      assert.deepEqual(
        rig.hosts.map((host) => host.daemon?.subnetEnv().FLANNEL_SUBNET),
        before,
      );
      const env = rig.host(1).daemon?.subnetEnv();
      assert.deepEqual(Object.keys(env ?? {}), [
        'FLANNEL_NETWORK',
        'FLANNEL_SUBNET',
        'FLANNEL_IPV6_NETWORK',
        'FLANNEL_IPV6_SUBNET',
        'FLANNEL_MTU',
        'FLANNEL_IPMASQ',
      ]);
      assert.equal(env?.FLANNEL_MTU, type === 'vxlan' ? '1430' : '1500');
      const keys = (await rig.etcd.list(`${rig.etcdPrefix}/subnets/`)).map(({ key }) => key);
      assert.equal(keys.length, 3);
      for (const key of keys) assert.match(key, /\/10\.5\.\d+\.0-24&fd00:10:5:[0-9a-f:]+-64$/);
    });

    it('carries both families between containers', async () => {
      near = await rig.host(1).addContainer();
      far = await rig.host(2).addContainer();
      assert.ok(far.address6 !== undefined);
      const address6 = far.address6;
      for (const address of [far.address, address6]) {
        await waitFor(async () => (await ping(near.netns, address, { count: 1, waitSeconds: 1 })).received === 1, {
          what: `an answer of ${address}`,
        });
        await tcpTransfer(near.netns, far.netns, address, { bytes: 2_000_000 });
      }
    });

    it('leaves an IPv4-only peer reachable over IPv4', async () => {
      // A host that another daemon registered without IPv6, as one that has not been changed yet.
      const value = JSON.stringify({
        PublicIP: rig.host(3).publicIp,
        PublicIPv6: null,
        BackendType: type,
        ...(type === 'vxlan' ? { BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:33' } } : {}),
      });
      await rig.host(3).daemon?.stop();
      for (const { key } of await rig.etcd.list(`${rig.etcdPrefix}/subnets/`)) {
        if ((await rig.etcd.get(key))?.value.includes(rig.host(3).publicIp) === true) await rig.etcd.delete(key);
      }
      await rig.etcd.put(`${rig.etcdPrefix}/subnets/10.5.200.0-24`, value);
      const routes = async (): Promise<string> => (await rig.host(1).netns.run(['ip', 'route'])).stdout;
      await waitFor(async () => (await routes()).includes('10.5.200.0/24'), { what: 'a route to the IPv4-only peer' });
      assert.equal((await ping(near.netns, far.address, { count: 3 })).received, 3);
    });

    it('goes back to IPv4 without harm', async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: type } });
      for (const host of [rig.host(1), rig.host(2)]) {
        await waitFor(() => host.daemon?.subnetEnv().FLANNEL_IPV6_SUBNET === undefined, {
          what: `${host.name} without IPv6`,
        });
      }
      await waitFor(async () => (await ping(near.netns, far.address, { count: 1 })).received === 1, {
        what: 'pings over IPv4',
      });
      await eventually('the end of the device for IPv6', async () => {
        const links = await rig.host(1).netns.ipJson(['link', 'show']);
        assert.ok(!links.some((link) => link.ifname === 'flannel-v6.1'));
      });
    });
  });
}
