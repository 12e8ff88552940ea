import assert from 'node:assert/strict';
import { netState } from '../support/net-state.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { SteadyPing } from '../support/steady-ping.js';
import { type PingResult, ping } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const NETWORK = { Network: '10.5.0.0/16', Backend: { Type: 'vxlan' } };

/** A host whose daemon gets exactly this subnet. */
async function reserve(host: Host, subnet: string): Promise<void> {
  const { rig, publicIp } = host;
  const value = JSON.stringify({ PublicIP: publicIp, BackendType: 'vxlan' });
  await rig.etcd.put(`${rig.etcdPrefix}/subnets/${subnet}`, value);
}

describe('rules of a running daemon', () => {
  let rig: Rig;
  let host: Host;
  let container: Container;

  before(async () => {
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    host = rig.host(1);
    await rig.putConfig(NETWORK);
    await reserve(host, '10.5.1.0-24');
    await host.netns.run(['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '172.17.0.0/16', '-j', 'MASQUERADE']);
    await host.netns.run(['nft', 'add table inet admin { chain input { type filter hook input priority 0; }; }']);
    await host.startDaemon({ args: ['--ip-masq', '--iptables-resync=1'] });
    container = await host.addContainer();
  });

  after(() => rig.close());

  const flannelRules = async (): Promise<string[]> =>
    (await netState(host.netns)).iptables.filter((line) => /FLANNEL|flanneld/.test(line));

  const flannelTables = async (): Promise<string[]> => {
    const { stdout } = await host.netns.run(['nft', 'list', 'tables']);
    return stdout.split('\n').filter((line) => line.includes('flannel'));
  };

  /** What everybody else made must be there all the time. */
  const assertForeignRules = async (): Promise<void> => {
    const { iptables } = await netState(host.netns);
    assert.ok(iptables.includes('-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE'), iptables.join('\n'));
    assert.match((await host.netns.run(['nft', 'list', 'tables'])).stdout, /table inet admin/);
  };

  const putMode = (isNft: boolean): Promise<void> => rig.putConfig({ ...NETWORK, EnableNFTables: isNft });

  it('hide containers behind the host in iptables mode', async () => {
    await waitFor(async () => (await flannelRules()).length === 12, { what: 'the rules' });
    assert.deepEqual(await flannelTables(), []);
    // The router has no route to containers: an answer comes only to the address of the host.
    assert.equal((await ping(container.netns, '192.0.2.1')).received, 3);
  });

  it('go over to nftables, leave nothing in iptables, and lose no packet on the way', async () => {
    const pings = SteadyPing.start(container.netns, '192.0.2.1');
    await putMode(true);
    await waitFor(async () => (await flannelRules()).length === 0, { what: 'no rules of flannel in iptables' });
    await waitFor(async () => (await flannelTables()).length > 0, { what: 'tables' });
    assert.deepEqual(await flannelTables(), ['table ip flannel-ipv4']);
    const { sent, received } = await pings.stop();
    assert.equal(received, sent);
    assert.equal((await ping(container.netns, '192.0.2.1')).received, 3, 'a new connection is masqueraded too');
    await assertForeignRules();
  });

  it('come back when the nftables table is deleted', async () => {
    await host.netns.run(['nft', 'delete table ip flannel-ipv4']);
    await waitFor(async () => (await flannelTables()).length === 1, { what: 'the table' });
    assert.equal((await ping(container.netns, '192.0.2.1')).received, 3);
  });

  it('go back to iptables and leave no table', async () => {
    await putMode(false);
    await waitFor(async () => (await flannelTables()).length === 0, { what: 'no nftables tables of flannel' });
    await waitFor(async () => (await flannelRules()).length === 12, { what: 'the rules' });
    assert.equal((await ping(container.netns, '192.0.2.1')).received, 3);
    await assertForeignRules();
  });

  it('follow the subnet and the network, and leave nothing of the former', async () => {
    await rig.putConfig({ ...NETWORK, Network: '10.64.0.0/16' });
    await waitFor(async () => (await flannelRules()).some((line) => line.includes('10.64.')), { what: 'new rules' });
    await eventually('no old rules', async () => {
      const rules = await flannelRules();
      assert.deepEqual(
        rules.filter((line) => line.includes('10.5.')),
        [],
      );
      assert.equal(rules.length, 12);
    });
    await assertForeignRules();
  });

  it('stay when the daemon ends, and are not doubled by the next one', async () => {
    const before = await flannelRules();
    await host.daemon?.stop();
    assert.deepEqual(await flannelRules(), before);
    await host.startDaemon({ args: ['--ip-masq', '--iptables-resync=1'] });
    assert.deepEqual(await flannelRules(), before);
  });
});

/*
 * A container that does not exist, seen from another host:
 *
 *   h2 ──vxlan──▶ h1 (10.5.1.0/24, no bridge) ──default route──▶ gw ──10.5.0.0/16──▶ h1 ──▶ gw ──▶ …
 */
describe('--ip-blackhole-route', () => {
  let rig: Rig;
  let host: Host;

  const ABSENT = '10.5.1.77';
  const blackhole = 'blackhole 10.5.1.0/24 proto 173 metric 4278198272';

  const routes = async (): Promise<string[]> =>
    (await host.netns.run(['ip', 'route', 'show', '10.5.1.0/24'])).stdout.split('\n').map((line) => line.trim());

  const pingAbsent = async (): Promise<PingResult> =>
    ping(rig.host(2).netns, ABSENT, { count: 2, source: '10.5.2.0', waitSeconds: 1 });

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    host = rig.host(1);
    await rig.putConfig(NETWORK);
    await reserve(host, '10.5.1.0-24');
    await reserve(rig.host(2), '10.5.2.0-24');
    await rig.router.ip(['route add 10.5.0.0/16 via 192.0.2.11']);
    await host.startDaemon();
    await rig.host(2).startDaemon();
  });

  after(() => rig.close());

  it('is needed: without it packets for absent containers loop until their TTL is used up', async () => {
    await waitFor(async () => /Time to live exceeded/.test((await pingAbsent()).output), { what: 'a loop' });
    assert.deepEqual(await routes(), ['']);
  });

  it('drops them at once', async () => {
    await host.daemon?.stop();
    await host.startDaemon({ args: ['--ip-blackhole-route'] });
    await waitFor(async () => (await routes()).includes(blackhole), { what: 'the blackhole route' });
    const { received, output } = await pingAbsent();
    assert.equal(received, 0);
    assert.doesNotMatch(output, /Time to live exceeded/);
  });

  it("gives way to the bridge's route, comes back with its end, and both work", async () => {
    const near = await host.addContainer();
    const far = await rig.host(2).addContainer();
    const connected = '10.5.1.0/24 dev docker0 proto kernel scope link src 10.5.1.1';
    assert.deepEqual(await routes(), [connected, blackhole, '']);
    assert.equal((await ping(far.netns, near.address)).received, 3);
    await host.netns.ip(['link set docker0 down']);
    assert.equal((await ping(far.netns, near.address, { count: 1, waitSeconds: 1 })).received, 0);
    assert.doesNotMatch((await pingAbsent()).output, /Time to live exceeded/);
    await host.netns.ip(['link set docker0 up']);
    await waitFor(async () => (await ping(far.netns, near.address, { count: 1, waitSeconds: 1 })).received === 1, {
      what: 'the container behind the bridge',
    });
  });

  it('can be added to a host whose bridge is there already', async () => {
    await host.daemon?.stop();
    await host.netns.ip([`route del ${blackhole}`]);
    await host.startDaemon({ args: ['--ip-blackhole-route'] });
    await waitFor(async () => (await routes()).some((line) => line.startsWith('blackhole')), { what: 'the blackhole' });
    assert.equal((await ping(rig.host(2).netns, '10.5.1.2', { source: '10.5.2.0' })).received, 3);
    assert.deepEqual((await host.daemon?.status())?.reconcile.conflicts, []);
  });

  it('is restored when somebody removes it, and goes when it is no longer wanted', async () => {
    await host.netns.ip([`route del ${blackhole}`]);
    // Long before the daemon looks at everything by itself, which it does every 30 s.
    await waitFor(async () => (await routes()).some((line) => line.startsWith('blackhole')), { what: 'the blackhole' });
    await host.daemon?.stop();
    await host.startDaemon();
    await waitFor(async () => !(await routes()).some((line) => line.startsWith('blackhole')), { what: 'its end' });
  });
});

describe('--ip-blackhole-route with both families', () => {
  let rig: Rig;

  before(async () => {
    rig = await Rig.create({ hosts: 1, hasIpv6: true });
    await rig.putConfig({ ...NETWORK, EnableIPv6: true, IPv6Network: 'fd00:10:5::/48' });
    await reserve(rig.host(1), '10.5.1.0-24&fd00:10:5:1::-64');
  });

  after(() => rig.close());

  it("makes one of each behind the bridge's routes, and has nothing more to do", async () => {
    const host = rig.host(1);
    const daemon = await host.startDaemon({ args: ['--ip-blackhole-route'] });
    await host.addContainer();
    await daemon.waitUntilReady();
    const routes = async (): Promise<string[]> =>
      (await netState(host.netns)).routes.filter((line) => /10\.5\.1\.0\/24|fd00:10:5:1::\/64/.test(line));
    assert.deepEqual(await routes(), [
      '10.5.1.0/24 dev docker0 proto kernel scope link src 10.5.1.1',
      'blackhole 10.5.1.0/24 proto 173 metric 4278198272',
      'blackhole fd00:10:5:1::/64 dev lo proto 173 metric 4278198272 pref medium',
      'fd00:10:5:1::/64 dev docker0 proto kernel metric 256 pref medium',
    ]);
    const { changes, conflicts } = (await daemon.status()).reconcile;
    assert.deepEqual([changes.route.add, changes.route.replace, changes.route.del, conflicts], [2, 0, 0, []]);
  });
});
