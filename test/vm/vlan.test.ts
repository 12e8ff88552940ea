import assert from 'node:assert/strict';
import { encodeRecord } from '../../src/container/records.js';
import { net } from '../support/builders.js';
import { capture } from '../support/capture.js';
import { ctlFile } from '../support/daemon.js';
import type { Netns } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/** Two networks on the trunk that the hosts' switch is, each with the router's address there. */
const NETWORKS = { 19: '10.19.0', 20: '10.20.0' } as const;

type VlanId = keyof typeof NETWORKS;

/** EtherType of a tag and the tag control information, after the two MAC addresses (IEEE 802.1Q 9.6). */
function vlanOf(frame: Buffer): number | undefined {
  return frame.readUInt16BE(12) === 0x8100 ? frame.readUInt16BE(14) & 0xfff : undefined;
}

describe('networks on the VLANs of a trunk', () => {
  let rig: Rig;
  let namespaces: readonly Netns[];

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    for (const [id, base] of Object.entries(NETWORKS)) {
      await rig.router.ip([
        `link add link eth0 name eth0.${id} type vlan id ${id}`,
        `link set eth0.${id} up`,
        `addr add ${base}.1/24 dev eth0.${id}`,
      ]);
    }
    for (const host of rig.hosts) await start(host);
    namespaces = await Promise.all(rig.hosts.map((host) => rig.addNamespace(`${host.name}n`)));
  });

  after(() => rig.close());

  beforeEach(async () => {
    for (const [id, base] of Object.entries(NETWORKS)) {
      // As a host with Docker would have written it; it goes with the last host.
      const properties = { type: 'macvlan', internal: 'false', gateway: `${base}.1`, vlan: id };
      const text = encodeRecord({ range: net(`${base}.64/26`), properties });
      await rig.etcd.put(`${rig.etcdPrefix}-ts/network-records/v${id}/${base}.0-24`, text);
    }
  });

  const start = (host: Host): Promise<unknown> =>
    host.startDaemon({ hasPlugin: true, args: [`--host-id=${host.name}`] });

  const netnsOf = (number: number): Netns => {
    const found = namespaces[number - 1];
    assert.ok(found);
    return found;
  };

  const ctl = async (number: number, ...words: readonly string[]): Promise<string> => {
    const host = rig.host(number);
    const { statusSocket = '', pluginSocket = '' } = host.daemon ?? {};
    const sockets = ['--status-socket', statusSocket, '--plugin-socket', pluginSocket];
    const argv = [process.execPath, ctlFile(), ...words, '--netns', netnsOf(number).name, ...sockets];
    return (await host.netns.run(argv)).stdout;
  };

  /** @returns the address that the namespace of a host has got. */
  const attach = async (number: number, id: VlanId): Promise<string> => {
    const text = await ctl(number, 'attach', '--network', `v${id}`, '--json', `--etcd-endpoints=${rig.etcd.endpoint}`);
    const { addresses } = JSON.parse(text) as { readonly addresses: readonly string[] };
    return addresses[0]?.split('/')[0] ?? '';
  };

  /** Where nothing is attached, there is nothing to do. */
  const detachAll = (): Promise<unknown> =>
    Promise.all([1, 2].map((number) => ctl(number, 'detach').catch(() => undefined)));

  /** Sub-interfaces of a host, each with its id and whether it is up. */
  const subInterfaces = async (number: number): Promise<unknown> => {
    const links = await rig.host(number).netns.ipJson(['-d', 'link', 'show', 'type', 'vlan']);
    return links.map(({ ifname, linkinfo, operstate }) => [
      ifname,
      (linkinfo as { readonly info_data: { readonly id: number } }).info_data.id,
      operstate,
    ]);
  };

  afterEach(detachAll);

  it('carry the tag of their VLAN on the trunk, and nothing else does', async () => {
    const [, far] = await Promise.all([attach(1, 20), attach(2, 20)]);
    assert.deepEqual(await subInterfaces(1), [['eth0.20', 20, 'UP']]);
    // Not the echoes of the daemons themselves, which go without a tag.
    const trunk = await capture(rig.host(1).netns, 'eth0', 'net 10.20.0.0/24 and icmp or (vlan and icmp)');
    const { received } = await ping(netnsOf(1), far, { count: 3 });
    const { frames } = await trunk.stop();
    assert.equal(received, 3);
    assert.deepEqual(
      frames.map(({ data }) => vlanOf(data)),
      frames.map(() => 20),
    );
    assert.ok(frames.length >= 6, 'questions and answers');
  });

  it('reach each other through the router alone, with two hops', async () => {
    const [, far] = await Promise.all([attach(1, 19), attach(2, 20)]);
    const { output, received } = await ping(netnsOf(1), far, { count: 3 });
    assert.equal(received, 3, output);
    assert.match(output, /ttl=63/);
    await rig.router.run(['sysctl', '-qw', 'net.ipv4.ip_forward=0']);
    const without = await ping(netnsOf(1), far, { count: 3 });
    await rig.router.run(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    assert.equal(without.received, 0);
  });

  it('have their sub-interface for as long as somebody is in them', async () => {
    await attach(1, 20);
    await ctl(1, 'detach');
    await eventually('it to be gone', async () => assert.deepEqual(await subInterfaces(1), []));
  });

  it('use a sub-interface that was there, and leave it alone', async () => {
    const { netns } = rig.host(1);
    await netns.ip(['link add link eth0 name byhand type vlan id 20', 'link set byhand up']);
    const before = await netns.ipJson(['-d', 'link', 'show', 'dev', 'byhand']);
    const [, far] = await Promise.all([attach(1, 20), attach(2, 20)]);
    assert.deepEqual(await subInterfaces(1), [['byhand', 20, 'UP']]);
    assert.equal((await ping(netnsOf(1), far)).received, 3);
    await detachAll();
    // The macvlan interfaces on it made it promiscuous meanwhile.
    await eventually('it to be as before', async () =>
      assert.deepEqual(await netns.ipJson(['-d', 'link', 'show', 'dev', 'byhand']), before),
    );
    await netns.ip(['link del byhand']);
  });

  it('have their sub-interface again after a reboot, before anybody asks', async () => {
    await attach(1, 20);
    const host = rig.host(1);
    await host.daemon?.kill();
    await host.netns.ip(['link del eth0.20']);
    await start(host);
    await eventually('the sub-interface', async () =>
      assert.deepEqual(await subInterfaces(1), [['eth0.20', 20, 'UP']]),
    );
  });
});
