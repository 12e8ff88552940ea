import assert from 'node:assert/strict';
import { type Container, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

/** Hosts 1 and 2 share a link; host 3 is behind the router, in 198.51.100.0/24. */
describe('hosts on and behind the link', () => {
  let rig: Rig;
  let containers: Container[];

  before(async () => {
    rig = await Rig.create({ hosts: 3 });
    await rig.router.run(['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv4.conf.all.send_redirects=0']);
    await rig.router.run(['sysctl', '-qw', 'net.ipv4.conf.eth0.send_redirects=0']);
    await rig.router.ip(['addr add 198.51.100.1/24 dev eth0']);
    await rig
      .host(3)
      .netns.ip(['addr flush dev eth0', 'addr add 198.51.100.13/24 dev eth0', 'route add default via 198.51.100.1']);
    const back = 'route add 198.51.100.0/24 via 192.0.2.1';
    await rig.etcd.options.netns.ip([back]);
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'vxlan', DirectRouting: true } });
    containers = [];
    for (const host of rig.hosts) {
      await host.startDaemon();
      containers.push(await host.addContainer());
    }
  });

  after(() => rig.close());

  const address = (number: number): string => containers[number - 1]?.address ?? '';
  const netns = (number: number): Container['netns'] => {
    const container = containers[number - 1];
    if (container === undefined) throw new RangeError(`no container ${number}`);
    return container.netns;
  };
  const routeTo = async (number: number): Promise<string> => {
    const subnet = (rig.host(number).daemon?.subnetEnv().FLANNEL_SUBNET ?? '').replace('.1/24', '.0/24');
    return (await rig.host(1).netns.run(['ip', 'route', 'show', subnet])).stdout.trim();
  };
  const answers = async (from: number, to: number): Promise<void> => {
    await waitFor(async () => (await ping(netns(from), address(to), { count: 1, waitSeconds: 1 })).received === 1, {
      what: `an answer from container ${to} to container ${from}`,
    });
  };

  it('routes vxlan peers on the link directly and the others through the device', async () => {
    await answers(1, 2);
    await answers(1, 3);
    assert.match(await routeTo(2), / via 192\.0\.2\.12 dev eth0 /);
    assert.match(await routeTo(3), / dev flannel\.1 .*onlink/);
  });

  it('follows when a peer is no longer on the link, and when it is again', async () => {
    await rig.host(1).netns.ip(['route add 192.0.2.12/32 via 192.0.2.1']);
    await waitFor(async () => (await routeTo(2)).includes('dev flannel.1'), { what: 'the route through the device' });
    await answers(1, 2);
    await rig.host(1).netns.ip(['route del 192.0.2.12/32']);
    await waitFor(async () => (await routeTo(2)).includes('dev eth0'), { what: 'the direct route' });
    await answers(1, 2);
  });

  it('reaches what it can with host-gw, and says what to do about the peer behind the router', async () => {
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    const daemon = rig.host(1).daemon;
    await daemon?.waitForLog(/peer cannot be reached .*198\.51\.100\.13 is not on the link of eth0.*use vxlan/);
    await answers(1, 2);
    const status = await daemon?.status();
    assert.equal(status?.peers.filter((peer) => peer.skipped !== null).length, 1);
  });

  it('keeps a lease and writes subnet.env, but carries nothing with alloc', async () => {
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'alloc' } });
    await waitFor(async () => (await routeTo(2)) === '', { what: 'the routes to go' });
    await waitFor(() => rig.host(1).daemon?.subnetEnv().FLANNEL_MTU === '1500', { what: 'the MTU of the interface' });
    const leases = await rig.etcd.list(`${rig.etcdPrefix}/subnets/`);
    assert.equal(leases.length, 3);
  });
});
