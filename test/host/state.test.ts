import assert from 'node:assert/strict';
import { type NetLines, netChange } from '../support/net-change.js';
import { type NetState, netState } from '../support/net-state.js';
import { type Host, Rig } from '../support/rig.js';
import { eventually, waitFor } from '../support/wait.js';

const DUAL = { EnableIPv6: true, IPv6Network: 'fd00:10:5::/48' };

/** A network of three hosts whose n-th one has the subnet 10.5.n.0/24, and what its daemons make. */
class ThreeHosts {
  private readonly before: NetState[] = [];

  private constructor(readonly rig: Rig) {}

  static async start(options: {
    backend: object;
    isDualStack?: boolean;
    config?: object;
    args?: readonly string[];
  }): Promise<ThreeHosts> {
    const { backend, isDualStack = false, config = {}, args = [] } = options;
    const rig = await Rig.create({ hosts: 3, hasIpv6: isDualStack });
    const three = new ThreeHosts(rig);
    try {
      await rig.putConfig({ Network: '10.5.0.0/16', ...(isDualStack ? DUAL : {}), ...config, Backend: backend });
      for (const [index, host] of rig.hosts.entries()) {
        const subnet = `10.5.${index + 1}.0-24${isDualStack ? `&fd00:10:5:${index + 1}::-64` : ''}`;
        // A reservation: the daemon takes exactly this one. Without a type it would be a peer of backend udp at first.
        await rig.etcd.put(
          `${rig.etcdPrefix}/subnets/${subnet}`,
          JSON.stringify({ PublicIP: host.publicIp, BackendType: 'host-gw' }),
        );
        three.before.push(await netState(host.netns));
      }
      await Promise.all(rig.hosts.map((host) => host.startDaemon({ args })));
      return three;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  /** Waits until what the daemon of the n-th host has added is this, and nothing is removed. */
  async assertAdded(number: number, expected: NetLines): Promise<void> {
    const host = this.rig.host(number);
    const before = this.before[number - 1];
    assert.ok(before);
    const change = async (): Promise<{ added: NetLines; removed: NetLines }> => {
      const { added, removed } = netChange(comparable(before), comparable(await netState(host.netns)));
      return { added, removed };
    };
    const wanted = { added: expected, removed: {} };
    const check = async (): Promise<void> => assert.deepEqual(await change(), wanted, `on ${host.name}`);
    await eventually(`the expected state on ${host.name}`, check, { intervalMs: 200 });
  }

  /** MAC of the n-th host's VTEP as its lease tells the others, which may be some time after the daemon's start. */
  async vtepMac(number: number, family: 4 | 6 = 4): Promise<string> {
    const published = async (): Promise<string | undefined> => {
      const entries = await this.rig.etcd.list(`${this.rig.etcdPrefix}/subnets/`);
      const value = entries.find(({ key }) => key.includes(`/10.5.${number}.0-24`))?.value ?? '{}';
      const lease = JSON.parse(value) as Record<string, { VtepMAC?: string } | undefined>;
      return lease[family === 4 ? 'BackendData' : 'BackendV6Data']?.VtepMAC;
    };
    return waitFor(published, { what: `the VtepMAC of host ${number}` });
  }
}

/**
 * Without what is not ours or not the same in every run: link-local addresses, which the kernel gives by itself, and
 * what iptables looks like to nft where it is made of nftables.
 */
function comparable(state: NetState): NetState {
  return {
    ...state,
    links: state.links.map((link) => withoutDefaults(link as Record<string, unknown>)),
    addresses: state.addresses.filter((address) => !address.includes(' fe80::')),
    nftables: state.nftables.filter((entry) => JSON.stringify(entry).includes('flannel-ipv')),
  };
}

/** Attributes of a VXLAN device that flannel leaves at the kernel's default are checked and left out. */
function withoutDefaults(link: Record<string, unknown>): object {
  if (link.kind !== 'vxlan') return link;
  const data = link.data as Record<string, unknown>;
  const off = ['group', 'group6', 'remote', 'remote6', 'proxy', 'rsc', 'l2miss', 'l3miss', 'external', 'gbp', 'tos'];
  for (const key of off) assert.ok(data[key] === undefined || data[key] === false, `${String(link.name)} has ${key}`);
  assert.equal(data.udp_zero_csum6_rx ?? false, false);
  assert.equal(data.ttl ?? 0, 0);
  const { id, local, local6, port, learning } = data;
  return {
    ...link,
    txqueuelen: link.txqueuelen ?? 0,
    data: { id, on: data.link, local: local ?? local6, port, learning },
  };
}

const FLANNEL_0 = {
  name: 'flannel0',
  kind: 'tun',
  flags: ['NOARP', 'POINTOPOINT', 'UP'],
  mtu: 1472,
  txqueuelen: 1000,
  mac: undefined,
  master: undefined,
  data: { type: 'tun', pi: false, vnet_hdr: true, multi_queue: true, numqueues: 2, numdisabled: 0, persist: false },
};

/** The VXLAN device that flannel makes: unicast only, nothing learnt, no queue, the port of Linux and not of IANA. */
function vxlanDevice(name: string, mac: string, mtu: number, local: string, vni = 1, port = 8472): object {
  return {
    name,
    kind: 'vxlan',
    flags: ['BROADCAST', 'UP'],
    mtu,
    txqueuelen: 0,
    mac,
    master: undefined,
    data: { id: vni, on: 'eth0', local, port, learning: false },
  };
}

describe('kernel state with udp', () => {
  let three: ThreeHosts;

  before(async () => {
    three = await ThreeHosts.start({ backend: { Type: 'udp' }, args: ['--iptables-forward-rules=false'] });
  });

  after(() => three.rig.close());

  it('is one TUN device with a /32 address and one route of the whole network', async () => {
    for (const number of [1, 2, 3]) {
      await three.assertAdded(number, {
        links: [FLANNEL_0],
        addresses: [`flannel0 10.5.${number}.0/32 global`],
        routes: ['10.5.0.0/16 dev flannel0 proto 173', 'fe80::/64 dev flannel0 proto kernel metric 256 pref medium'],
      });
    }
  });

  it('goes with the daemon', async () => {
    await three.rig.host(3).daemon?.stop();
    await three.assertAdded(3, {});
  });
});

describe('kernel state with vxlan', () => {
  let three: ThreeHosts;

  before(async () => {
    three = await ThreeHosts.start({ backend: { Type: 'vxlan' }, args: ['--iptables-forward-rules=false'] });
  });

  after(() => three.rig.close());

  const assertState = async (number: number): Promise<void> => {
    const others = [1, 2, 3].filter((other) => other !== number);
    const macs = new Map<number, string>();
    for (const other of [1, 2, 3]) macs.set(other, await three.vtepMac(other));
    const mac = (other: number): string => macs.get(other) ?? '';
    await three.assertAdded(number, {
      links: [vxlanDevice('flannel.1', mac(number), 1450, `192.0.2.1${number}`)],
      addresses: [`flannel.1 10.5.${number}.0/32 global`],
      routes: [
        ...others.map((other) => `10.5.${other}.0/24 via 10.5.${other}.0 dev flannel.1 proto 173 onlink`),
        'fe80::/64 dev flannel.1 proto kernel metric 256 pref medium',
      ],
      neighbours: others.map((other) => `10.5.${other}.0 dev flannel.1 lladdr ${mac(other)} PERMANENT`),
      fdb: others.map((other) => `${mac(other)} dev flannel.1 dst 192.0.2.1${other} self permanent`).sort(),
    });
  };

  it('is a device, and per peer an onlink route, a permanent neighbour and a forwarding entry', async () => {
    for (const number of [1, 2, 3]) await assertState(number);
    assert.equal(await sysctl(three.rig.host(1), 'net/ipv6/conf/flannel.1/accept_ra'), '0');
  });

  it('is the same after a restart', async () => {
    const [before] = await three.rig.host(1).netns.ipJson(['link', 'show', 'dev', 'flannel.1']);
    await three.rig.host(1).daemon?.stop();
    await assertState(1);
    await three.rig.host(1).startDaemon({ args: ['--iptables-forward-rules=false'] });
    await assertState(1);
    const [after] = await three.rig.host(1).netns.ipJson(['link', 'show', 'dev', 'flannel.1']);
    assert.equal(after?.ifindex, before?.ifindex);
  });

  it('follows VNI, port and MTU of the configuration', async () => {
    await three.rig.putConfig({
      Network: '10.5.0.0/16',
      Backend: { Type: 'vxlan', VNI: 4711, Port: 4789, MTU: 1400 },
    });
    const device = await waitFor(
      async () =>
        (await three.rig.host(1).netns.ipJson(['-d', 'link', 'show'])).find(({ ifname }) => ifname === 'flannel.4711'),
      { what: 'flannel.4711' },
    );
    const { info_data: data } = device.linkinfo as { info_data: { id: number; port: number } };
    assert.deepEqual([data.id, data.port, device.mtu], [4711, 4789, 1350]);
    await waitFor(
      async () =>
        !(await three.rig.host(1).netns.ipJson(['link', 'show'])).some(({ ifname }) => ifname === 'flannel.1'),
      { what: 'no flannel.1' },
    );
  });
});

describe('kernel state with vxlan and both families', () => {
  let three: ThreeHosts;

  before(async () => {
    three = await ThreeHosts.start({
      backend: { Type: 'vxlan' },
      isDualStack: true,
      args: ['--iptables-forward-rules=false'],
    });
  });

  after(() => three.rig.close());

  it('has one device per family, the IPv6 one with room for the larger outer header', async () => {
    for (const number of [1, 2, 3]) {
      const others = [1, 2, 3].filter((other) => other !== number);
      const macs = new Map<number, string>();
      const macs6 = new Map<number, string>();
      for (const other of [1, 2, 3]) {
        macs.set(other, await three.vtepMac(other));
        macs6.set(other, await three.vtepMac(other, 6));
      }
      const mac = (other: number): string => macs.get(other) ?? '';
      const mac6 = (other: number): string => macs6.get(other) ?? '';
      const outer6 = (other: number): string => three.rig.host(other).publicIpv6;
      await three.assertAdded(number, {
        links: [
          vxlanDevice('flannel-v6.1', mac6(number), 1430, outer6(number)),
          vxlanDevice('flannel.1', mac(number), 1450, `192.0.2.1${number}`),
        ],
        addresses: [`flannel-v6.1 fd00:10:5:${number}::/128 global`, `flannel.1 10.5.${number}.0/32 global`],
        routes: [
          ...others.map((other) => `10.5.${other}.0/24 via 10.5.${other}.0 dev flannel.1 proto 173 onlink`),
          `fd00:10:5:${number}:: dev flannel-v6.1 proto kernel metric 256 pref medium`,
          ...others.map(
            (other) =>
              `fd00:10:5:${other}::/64 via fd00:10:5:${other}:: dev flannel-v6.1 proto 173 metric 1024 onlink pref medium`,
          ),
          'fe80::/64 dev flannel-v6.1 proto kernel metric 256 pref medium',
          'fe80::/64 dev flannel.1 proto kernel metric 256 pref medium',
        ].sort(),
        neighbours: [
          ...others.map((other) => `10.5.${other}.0 dev flannel.1 lladdr ${mac(other)} PERMANENT`),
          ...others.map((other) => `fd00:10:5:${other}:: dev flannel-v6.1 lladdr ${mac6(other)} PERMANENT`),
        ],
        fdb: [
          ...others.map((other) => `${mac(other)} dev flannel.1 dst 192.0.2.1${other} self permanent`),
          ...others.map((other) => `${mac6(other)} dev flannel-v6.1 dst ${outer6(other)} self permanent`),
        ].sort(),
      });
    }
    assert.equal(await sysctl(three.rig.host(1), 'net/ipv6/conf/flannel-v6.1/accept_ra'), '0');
  });
});

describe('kernel state with host-gw', () => {
  let three: ThreeHosts;

  before(async () => {
    three = await ThreeHosts.start({ backend: { Type: 'host-gw' }, isDualStack: true, args: ['--ip-masq'] });
  });

  after(() => three.rig.close());

  it("is a route per peer, and the rules under flannel's chain names, in flannel's order", async () => {
    for (const number of [1, 2, 3]) {
      const others = [1, 2, 3].filter((other) => other !== number);
      await three.assertAdded(number, {
        routes: [
          ...others.map((other) => `10.5.${other}.0/24 via 192.0.2.1${other} dev eth0 proto 173`),
          ...others.map(
            (other) =>
              `fd00:10:5:${other}::/64 via ${three.rig.host(other).publicIpv6} dev eth0 proto 173 metric 1024 pref medium`,
          ),
        ],
        iptables: iptablesRules('10.5.0.0/16', `10.5.${number}.0/24`, '224.0.0.0/4'),
        ip6tables: iptablesRules('fd00:10:5::/48', `fd00:10:5:${number}::/64`, 'ff00::/8'),
      });
    }
  });

  it('is one nftables table per family with the same rules, once that is configured', async () => {
    await three.rig.putConfig({
      Network: '10.5.0.0/16',
      ...DUAL,
      EnableNFTables: true,
      Backend: { Type: 'host-gw' },
    });
    const list = async (family: string, table: string): Promise<string[]> => {
      const { stdout } = await three.rig.host(1).netns.run(['nft', 'list', 'table', family, table], { mayFail: true });
      return stdout.split('\n').flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
    };
    await eventually('the nftables tables', async () => {
      assert.deepEqual(await list('ip', 'flannel-ipv4'), nftRules('ip', '10.5.0.0/16', '10.5.1.0/24', '224.0.0.0/4'));
      assert.deepEqual(
        await list('ip6', 'flannel-ipv6'),
        nftRules('ip6', 'fd00:10:5::/48', 'fd00:10:5:1::/64', 'ff00::/8'),
      );
    });
  });
});

/** As iptables-save prints them, filter before nat. */
function iptablesRules(network: string, subnet: string, multicast: string): string[] {
  const forward = '-m comment --comment "flanneld forward"';
  const masq = '-m comment --comment "flanneld masq"';
  return [
    ':FLANNEL-FWD -',
    `-A FORWARD ${forward} -j FLANNEL-FWD`,
    `-A FLANNEL-FWD -s ${network} ${forward} -j ACCEPT`,
    `-A FLANNEL-FWD -d ${network} ${forward} -j ACCEPT`,
    ':FLANNEL-POSTRTG -',
    `-A POSTROUTING ${masq} -j FLANNEL-POSTRTG`,
    `-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${masq} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${subnet} -d ${network} ${masq} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${network} -d ${subnet} ${masq} -j RETURN`,
    `-A FLANNEL-POSTRTG ! -s ${network} -d ${subnet} ${masq} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${network} ! -d ${multicast} ${masq} -j MASQUERADE --random-fully`,
    `-A FLANNEL-POSTRTG ! -s ${network} -d ${network} ${masq} -j MASQUERADE --random-fully`,
  ];
}

/** As `nft list table` prints them. */
function nftRules(ip: 'ip' | 'ip6', network: string, subnet: string, multicast: string): string[] {
  return [
    `table ${ip} flannel-ipv${ip === 'ip' ? 4 : 6} {`,
    'chain forward {',
    'type filter hook forward priority filter; policy accept;',
    `${ip} saddr ${network} accept comment "from containers"`,
    `${ip} daddr ${network} accept comment "to containers"`,
    '}',
    'chain postrtg {',
    'type nat hook postrouting priority srcnat; policy accept;',
    'meta mark & 0x00004000 == 0x00004000 return comment "masqueraded by kube-proxy"',
    `${ip} saddr ${subnet} ${ip} daddr ${network} return comment "containers here to the overlay"`,
    `${ip} saddr ${network} ${ip} daddr ${subnet} return comment "overlay to containers here"`,
    `${ip} saddr != ${network} ${ip} daddr ${subnet} return comment "outside to containers here"`,
    `${ip} saddr ${network} ${ip} daddr != ${multicast} masquerade fully-random comment "containers to the outside"`,
    `${ip} saddr != ${network} ${ip} daddr ${network} masquerade fully-random comment "this host to the overlay"`,
    '}',
    '}',
  ];
}

async function sysctl(host: Host, path: string): Promise<string> {
  return (await host.netns.run(['cat', `/proc/sys/${path}`])).stdout.trim();
}
