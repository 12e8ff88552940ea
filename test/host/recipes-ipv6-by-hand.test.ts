import assert from 'node:assert/strict';
import type { Netns } from '../support/netns.js';
import { ON_LINK_NETWORK } from '../support/on-link-network.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/**
 * What people type today, on hosts of a running cluster: it does what it always did, the daemon neither does it for them
 * nor undoes it. What they need not type any more is in recipes-ipv6.test.ts and ndp-proxy.test.ts.
 */
describe('the recipes for IPv6 by hand, on two hosts with daemons', function () {
  this.timeout(120_000);
  let rig: Rig;
  let serial = 0;
  let made: { readonly host: Host; readonly device: string }[] = [];

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    rig = await Rig.create({ hosts: 2, hasIpv6: true });
    await rig.putConfig(ON_LINK_NETWORK);
    for (const host of rig.hosts) await host.startDaemon();
  });

  afterEach(async () => {
    for (const { host, device } of made) await host.netns.ip([`link del ${device}`]);
    made = [];
    for (const { netns } of rig.hosts) setForwarding(netns, true);
  });

  after(() => rig.close());

  const setForwarding = (netns: Netns, isOn: boolean): void =>
    netns.setParameters({ 'net/ipv6/conf/all/forwarding': isOn ? 1 : 0 });

  /** A namespace behind a host on a veth pair, with an address beside that of the host and a default route via it. */
  const behind = async (host: Host, gateway: string, address: string): Promise<Netns> => {
    const netns = await rig.addNamespace(`n${++serial}`);
    const device = `hand${serial}`;
    await host.netns.ip([
      `link add ${device} type veth peer name eth0 netns ${netns.name}`,
      `addr add ${gateway} dev ${device} nodad`,
      `link set ${device} up`,
    ]);
    made.push({ host, device });
    const length = gateway.split('/')[1] ?? '';
    await netns.ip([
      'link set eth0 up',
      `addr add ${address}/${length} dev eth0 nodad`,
      `route add default via ${gateway.split('/')[0] ?? ''}`,
    ]);
    return netns;
  };

  const answers = async (from: Netns, address: string): Promise<boolean> =>
    (await ping(from, address, { count: 1, waitSeconds: 3 })).received === 1;

  const neighbourOf = async (netns: Netns, address: string): Promise<Record<string, unknown> | undefined> =>
    (await netns.ipJson(['-6', 'neigh', 'show', address, 'dev', 'eth0']))[0];

  const macOf = async (netns: Netns): Promise<unknown> =>
    (await netns.ipJson(['link', 'show', 'dev', 'eth0']))[0]?.['address'];

  const forgetNeighbours = (): Promise<unknown> => rig.router.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);

  it('X1: hosts with both families reach each other, and are each other’s neighbours', async () => {
    const [one, two] = [rig.host(1), rig.host(2)];
    assert.ok(await answers(one.netns, two.publicIp));
    assert.ok(await answers(one.netns, two.publicIpv6));
    assert.equal((await neighbourOf(one.netns, two.publicIpv6))?.['lladdr'], await macOf(two.netns));
  });

  it('X2: more prefixes behind hosts are reached by a route per prefix, which the daemons leave alone', async () => {
    const near = await behind(rig.host(1), 'fd00:a::1/64', 'fd00:a::2');
    const far = await behind(rig.host(2), 'fd00:b::1/64', 'fd00:b::2');
    assert.equal(await answers(near, 'fd00:b::2'), false);
    await rig.host(1).netns.ip([`route add fd00:b::/64 via ${rig.host(2).publicIpv6}`]);
    await rig.host(2).netns.ip([`route add fd00:a::/64 via ${rig.host(1).publicIpv6}`]);
    assert.ok(await answers(near, 'fd00:b::2'));
    assert.ok(await answers(far, 'fd00:a::2'));
    await rig.putConfig({ ...ON_LINK_NETWORK, Backend: { Type: 'vxlan', Port: 8473 } });
    await eventually('the daemons to have changed everything of their own', async () => {
      for (const { netns } of rig.hosts) {
        const [link] = await netns.ipJson(['-details', 'link', 'show', 'dev', 'flannel-v6.1']);
        const { info_data: data } = link?.['linkinfo'] as { info_data: { port: number } };
        assert.equal(data.port, 8473);
      }
    });
    assert.ok(await answers(near, 'fd00:b::2'));
    for (const [host, prefix] of [
      [rig.host(1), 'fd00:b::/64'],
      [rig.host(2), 'fd00:a::/64'],
    ] as const) {
      await host.netns.ip([`route del ${prefix}`]);
    }
  });

  it('X3: a host passes packets on, and calls itself a router, only while forwarding is on', async () => {
    const host = rig.host(1);
    const one = await behind(host, 'fd00:a::1/64', 'fd00:a::2');
    await behind(host, 'fd00:b::1/64', 'fd00:b::2');
    for (const isOn of [false, true]) {
      setForwarding(host.netns, isOn);
      await one.run(['ip', '-6', 'neigh', 'flush', 'dev', 'eth0']);
      assert.ok(await answers(one, 'fd00:a::1'), 'the host itself');
      assert.equal(await answers(one, 'fd00:b::2'), isOn, `forwarding ${isOn ? 'on' : 'off'}`);
      assert.equal((await neighbourOf(one, 'fd00:a::1')) !== undefined, true);
      assert.equal('router' in ((await neighbourOf(one, 'fd00:a::1')) ?? {}), isOn, 'the flag of the neighbour');
    }
  });

  it('X10, X11: a part of the on-link prefix is reached where the host answers for each address in it, and only there', async () => {
    const host = rig.host(1);
    const { netns } = host;
    const inside = await behind(host, '2001:db8:0:0:4000::1/66', '2001:db8:0:0:4000::2');
    await forgetNeighbours();
    assert.equal(await answers(rig.router, '2001:db8:0:0:4000::2'), false, 'X10: nothing but the prefix');
    await netns.run(['sysctl', '-qw', 'net.ipv6.conf.eth0.proxy_ndp=1']);
    assert.equal(await answers(rig.router, '2001:db8:0:0:4000::2'), false, 'nor with the parameter alone');
    await netns.ip(['neigh add proxy 2001:db8:0:0:4000::2 dev eth0']);
    await forgetNeighbours();
    assert.ok(await answers(rig.router, '2001:db8:0:0:4000::2'), 'X11');
    assert.equal((await neighbourOf(rig.router, '2001:db8:0:0:4000::2'))?.['lladdr'], await macOf(netns));
    assert.ok(await answers(inside, '2001:db8::1'), 'the router');
    assert.equal(await answers(rig.router, '2001:db8:0:0:4000::3'), false, 'an address without an entry');
  });

  it('X11: what was typed stays while a daemon with --ndp-proxy comes, and when it goes', async () => {
    const host = rig.host(2);
    await behind(host, '2001:db8:0:0:4000::1/66', '2001:db8:0:0:4000::2');
    await host.netns.run(['sysctl', '-qw', 'net.ipv6.conf.eth0.proxy_ndp=1']);
    await host.netns.ip(['neigh add proxy 2001:db8:0:0:4000::2 dev eth0']);
    const isReached = async (): Promise<boolean> => {
      await forgetNeighbours();
      return answers(rig.router, '2001:db8:0:0:4000::2');
    };
    assert.ok(await isReached());
    await host.daemon?.stop();
    await host.startDaemon({ args: ['--ndp-proxy'] });
    const { address6 = '' } = await host.addContainer();
    await forgetNeighbours();
    assert.ok(await answers(rig.router, address6), 'X12: one for which nobody has typed anything');
    assert.ok(await isReached());
    await rig.putConfig({ Network: ON_LINK_NETWORK.Network, Backend: ON_LINK_NETWORK.Backend });
    await eventually('nothing of the daemon to be answered for', async () => {
      await host.netns.run(['ip', 'link', 'del', 'docker0'], { mayFail: true });
      const { stdout } = await host.netns.run(['ip', '-6', 'neigh', 'show', 'proxy']);
      assert.deepEqual(
        stdout
          .split('\n')
          .filter(Boolean)
          .map((line) => line.split(' ')[0]),
        ['2001:db8::4000:0:0:2'],
      );
    });
    await host.daemon?.stop();
    assert.ok(await isReached());
  });
});
