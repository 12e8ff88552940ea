import assert from 'node:assert/strict';
import { Netns } from '../support/netns.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

/** Everything that may happen to an underlay device, for every backend: the overlay has to come back by itself. */
for (const type of ['udp', 'vxlan', 'host-gw']) {
  const overhead = { udp: 28, vxlan: 50 }[type] ?? 0;

  describe(`changes of the underlay with ${type}`, () => {
    let rig: Rig;
    let first: Host;
    let near: Container;
    let far: Container;

    before(async () => {
      rig = await Rig.create({ hosts: 2 });
      await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: type } });
      for (const host of rig.hosts) await host.startDaemon();
      first = rig.host(1);
      near = await first.addContainer();
      far = await rig.host(2).addContainer();
    });

    after(() => rig.close());

    const works = async (): Promise<void> => {
      await waitFor(async () => (await ping(near.netns, far.address, { count: 1, waitSeconds: 1 })).received === 1, {
        what: 'the overlay to carry pings',
        timeoutMs: 20_000,
      });
    };

    const publicIps = async (): Promise<string[]> =>
      (await rig.etcd.list(`${rig.etcdPrefix}/subnets/`)).map(
        ({ value }) => (JSON.parse(value) as { PublicIP: string }).PublicIP,
      );

    it('follows the MTU of the device', async () => {
      await works();
      await first.netns.ip(['link set eth0 mtu 1400']);
      await waitFor(() => first.daemon?.subnetEnv().FLANNEL_MTU === String(1400 - overhead), {
        what: 'the smaller MTU in subnet.env',
      });
      await works();
      await first.netns.ip(['link set eth0 mtu 1500']);
      await waitFor(() => first.daemon?.subnetEnv().FLANNEL_MTU === String(1500 - overhead), {
        what: 'the former MTU in subnet.env',
      });
    });

    it('comes back after the link was down, with the same subnet', async () => {
      const subnet = first.daemon?.subnetEnv().FLANNEL_SUBNET;
      await first.netns.ip(['link set eth0 down']);
      await first.daemon?.waitForLog(/interface cannot be used, keeping its last state/);
      await first.netns.ip(['link set eth0 up', 'route replace default via 192.0.2.1']);
      await works();
      assert.equal(first.daemon?.subnetEnv().FLANNEL_SUBNET, subnet);
    });

    it('publishes another address and receives on it', async () => {
      const subnet = first.daemon?.subnetEnv().FLANNEL_SUBNET;
      await first.netns.ip([
        'addr add 192.0.2.99/24 dev eth0',
        `addr del ${first.publicIp}/24 dev eth0`,
        'addr replace 192.0.2.99/24 dev eth0',
        'route replace default via 192.0.2.1',
      ]);
      await waitFor(async () => (await publicIps()).includes('192.0.2.99'), {
        what: 'the new address in the lease',
        timeoutMs: 20_000,
      });
      await works();
      assert.equal(first.daemon?.subnetEnv().FLANNEL_SUBNET, subnet);
      assert.deepEqual((await publicIps()).sort(), ['192.0.2.12', '192.0.2.99']);
    });

    it('finds the device again after it was deleted and made anew', async () => {
      const subnet = first.daemon?.subnetEnv().FLANNEL_SUBNET;
      const [device] = await first.netns.ipJson(['-d', 'link', 'show', 'dev', 'eth0']);
      const index = device?.ifindex;
      const theSwitch = new Netns(first.netns.name.replace(/h1$/, 'sw'));
      await first.netns.ip(['link del eth0', `link add eth0 type veth peer name h1 netns ${theSwitch.name}`]);
      await theSwitch.ip(['link set h1 master br0 up']);
      await first.netns.ip(['link set eth0 up', 'addr add 192.0.2.99/24 dev eth0', 'route add default via 192.0.2.1']);
      const [again] = await first.netns.ipJson(['link', 'show', 'dev', 'eth0']);
      assert.notEqual(again?.ifindex, index);
      await works();
      assert.equal(first.daemon?.subnetEnv().FLANNEL_SUBNET, subnet);
    });
  });
}
