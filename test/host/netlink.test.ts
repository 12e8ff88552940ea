import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { systemClock } from '../../src/clock.js';
import { OverlayError } from '../../src/errors.js';
import { IpAddress } from '../../src/ip/address.js';
import { type MacAddress, parseMac } from '../../src/ip/mac.js';
import { Prefix } from '../../src/ip/prefix.js';
import { NLMSG } from '../../src/netlink/constants.js';
import { type LinkInfo, type NewLink, readLink, writeLinkList } from '../../src/netlink/link.js';
import { type NetlinkEvent, NetlinkMonitor } from '../../src/netlink/monitor.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { SYS, close, getsockname, sendTo, sockaddrNl, socket } from '../../src/sys/libc.js';
import { NetlinkSocket, netlinkErrno } from '../../src/netlink/socket.js';
import { readSysctl, writeSysctl } from '../../src/netlink/sysctl.js';
import { ip, net } from '../support/builders.js';
import { deleteNamespaces, Netns, run } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import { skipBecause } from '../support/skip.js';
import { addUnderlay, clearNetwork, linkNamed } from '../support/veth-underlay.js';
import { waitFor } from '../support/wait.js';

type Json = Record<string, unknown>;

const hasErrno = (errno: string) => (error: unknown) => netlinkErrno(error) === errno;

describe('Netlink', function () {
  let netns: OwnNetns;
  let netlink: Netlink;
  let eth0: LinkInfo;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    netns = await OwnNetns.enter('netlink');
  });

  after(() => {
    netns.leave();
  });

  beforeEach(() => {
    netlink = Netlink.open();
    eth0 = addUnderlay(netlink);
  });

  afterEach(async () => {
    await clearNetwork(netlink);
    netlink.close();
  });

  const device = (name: string): LinkInfo => linkNamed(netlink, name);

  const showLink = async (name: string): Promise<Json> =>
    (await netns.ipJson(['-d', 'link', 'show', 'dev', name]))[0] ?? {};
  const showRoutes = (...args: string[]): Promise<Json[]> => netns.ipJson(['-d', ...args]);

  describe('on devices', () => {
    const mac = parseMac('02:00:00:00:00:07');
    const kinds: Record<string, { make: (lower: LinkInfo) => NewLink; data: Json }> = {
      'vxlan over IPv4': {
        make: ({ index }) => ({
          kind: 'vxlan',
          name: 'made',
          mtu: 1450,
          mac,
          vni: 0xffffff,
          underlayIndex: index,
          local: ip('192.0.2.1'),
          port: 4789,
          learning: false,
          gbp: true,
          txQueueLength: 0,
        }),
        data: { id: 0xffffff, link: 'eth0', local: '192.0.2.1', port: 4789, learning: false, gbp: true },
      },
      'vxlan over IPv6': {
        make: ({ index }) => ({
          kind: 'vxlan',
          name: 'made',
          vni: 1,
          underlayIndex: index,
          local: ip('2001:db8::1'),
          learning: true,
          l2miss: true,
        }),
        data: { id: 1, local6: '2001:db8::1', port: 8472, learning: true, l2miss: true },
      },
      'vxlan with a multicast group': {
        make: ({ index }) => ({ kind: 'vxlan', name: 'made', vni: 2, underlayIndex: index, group: ip('239.1.1.1') }),
        data: { id: 2, group: '239.1.1.1', learning: false },
      },
      ipip: {
        make: () => ({ kind: 'ipip', name: 'made', local: ip('192.0.2.1'), pmtuDiscovery: false }),
        data: { local: '192.0.2.1', pmtudisc: false },
      },
      bridge: { make: () => ({ kind: 'bridge', name: 'made', mac }), data: { stp_state: 0 } },
      dummy: { make: () => ({ kind: 'dummy', name: 'made', mac }), data: {} },
      veth: { make: () => ({ kind: 'veth', name: 'made', mac, peer: { name: 'other', mtu: 1400 } }), data: {} },
      vlan: { make: ({ index }) => ({ kind: 'vlan', name: 'made', lowerIndex: index, id: 77 }), data: { id: 77 } },
      macvlan: {
        make: ({ index }) => ({ kind: 'macvlan', name: 'made', lowerIndex: index, mode: 'bridge' }),
        data: { mode: 'bridge' },
      },
      ipvlan: {
        make: ({ index }) => ({ kind: 'ipvlan', name: 'made', lowerIndex: index, mode: 'l3s', flag: 'private' }),
        data: { mode: 'l3s', private: true },
      },
    };
    for (const [what, { make, data }] of Object.entries(kinds)) {
      it(`makes, reads and deletes: ${what}`, async function () {
        const spec = make(eth0);
        try {
          netlink.links.add(spec);
        } catch (error) {
          if (netlinkErrno(error) === 'EOPNOTSUPP') skipBecause(this, `no ${spec.kind} in this kernel`);
          throw error;
        }
        const shown = await showLink('made');
        const info = shown.linkinfo as { info_kind: string; info_data?: Json };
        assert.equal(info.info_kind, spec.kind);
        for (const [key, value] of Object.entries(data)) assert.equal(info.info_data?.[key], value, key);
        const link = device('made');
        // An IPIP device's hardware address is its outer one.
        const address = spec.kind === 'ipip' ? undefined : shown.address;
        const expected = [shown.ifindex, address, shown.mtu, shown.txqlen ?? 0, info.info_kind];
        assert.deepEqual([link.index, link.mac, link.mtu, link.txQueueLength, link.kind], expected);
        if (spec.mtu !== undefined) assert.equal(shown.mtu, spec.mtu);
        if (spec.mac !== undefined) assert.equal(shown.address, spec.mac);
        if (link.details?.kind === 'vxlan' && spec.kind === 'vxlan') {
          const { details } = link;
          assert.deepEqual(
            [details.vni, String(details.local), String(details.group), details.learning, details.gbp, details.l2miss],
            [
              spec.vni,
              String(spec.local),
              String(spec.group),
              spec.learning ?? false,
              spec.gbp ?? false,
              spec.l2miss ?? false,
            ],
          );
          assert.equal(details.underlayIndex, eth0.index);
        }
        netlink.links.del(link);
        assert.equal(netlink.links.get('made'), undefined);
      });
    }

    it('refuses to make a device whose name is taken', () => {
      assert.throws(() => {
        netlink.links.add({ kind: 'bridge', name: 'eth0' });
      }, hasErrno('EEXIST'));
    });

    it('lists every device, each as it is read by itself', async () => {
      await waitFor(() => ['eth0', 'eth0p'].every((name) => device(name).isRunning), { what: 'both ends to run' });
      const listed = await netlink.links.list();
      const names = (await netns.ipJson(['link', 'show'])).map(({ ifname }) => ifname);
      assert.deepEqual(listed.map(({ name }) => name).sort(), names.sort());
      for (const link of listed) {
        assert.equal(JSON.stringify(netlink.links.get(link.name)), JSON.stringify(link));
        assert.equal(JSON.stringify(netlink.links.get(link.index)), JSON.stringify(link));
      }
    });

    it('changes every attribute in place', async () => {
      netlink.links.add({ kind: 'bridge', name: 'br0' });
      netlink.links.set(eth0, { isUp: false });
      netlink.links.set(eth0, { mtu: 1400, mac, txQueueLength: 77, alias: 'mine', masterIndex: device('br0').index });
      const shown = await showLink('eth0');
      assert.deepEqual(
        [shown.mtu, shown.address, shown.txqlen, shown.ifalias, shown.master],
        [1400, mac, 77, 'mine', 'br0'],
      );
      assert.ok(!(shown.flags as string[]).includes('UP'));
      netlink.links.set(eth0, { alias: '', masterIndex: 0, isUp: true, name: 'eth9' });
      const again = await showLink('eth9');
      assert.deepEqual([again.ifalias, again.master], [undefined, undefined]);
      assert.ok((again.flags as string[]).includes('UP'));
      assert.equal(device('eth9').isUp, true);
    });

    it('isolates a port of a bridge, and lets it out', () => {
      netlink.links.add({ kind: 'bridge', name: 'br0' });
      assert.throws(() => netlink.links.set(eth0, { isIsolated: true }), hasErrno('EOPNOTSUPP'));
      netlink.links.set(eth0, { masterIndex: device('br0').index });
      for (const isIsolated of [true, false]) {
        netlink.links.set(eth0, { isIsolated });
        assert.equal(device('eth0').isIsolated, isIsolated);
        netlink.links.set(eth0, { isHairpin: !isIsolated });
        assert.deepEqual([device('eth0').isHairpin, device('eth0').isIsolated], [!isIsolated, isIsolated]);
      }
    });

    it('switches learning of a VXLAN device and nothing else of it', () => {
      netlink.links.add({ kind: 'vxlan', name: 'made', vni: 7, underlayIndex: eth0.index, gbp: true, port: 4789 });
      const before = device('made');
      netlink.links.set(before, { vxlan: { learning: true } });
      assert.deepEqual(device('made'), { ...before, details: { ...before.details, learning: true } });
    });

    it('reads a TUN device that a program made', async () => {
      await netns.run(['ip', 'tuntap', 'add', 'dev', 'tun7', 'mode', 'tun']);
      const { kind, mac: tunMac, details } = device('tun7');
      assert.deepEqual([kind, tunMac, details], ['tun', undefined, undefined]);
    });

    it('moves devices to another namespace by process and by descriptor', async () => {
      const name = `tsf${process.pid}-netlink2`;
      const [other] = await Netns.create([name]);
      const program = other?.start(['sleep', '60']);
      try {
        assert.ok(other && program);
        const { open, close } = await import('../../src/sys/libc.js');
        const fd = open(`/run/netns/${name}`, 0);
        netlink.links.add({ kind: 'veth', name: 'byfd', peer: { name: 'bypid' } });
        netlink.links.set(device('byfd'), { netns: { fd } });
        close(fd);
        const pid = await waitFor(async () => (await run(['ip', 'netns', 'pids', name])).stdout.trim() || undefined, {
          what: 'a process in the namespace',
        });
        netlink.links.set(device('bypid'), { netns: { pid: Number(pid) } });
        const names = (await other.ipJson(['link', 'show'])).map(({ ifname }) => ifname);
        assert.ok(names.includes('byfd') && names.includes('bypid'), names.join());
      } finally {
        deleteNamespaces([name]);
      }
    });
  });

  describe('on addresses', () => {
    it('adds, replaces, lists and deletes', async () => {
      const { index } = eth0;
      const show = async (): Promise<string[]> =>
        ((await netns.ipJson(['addr', 'show', 'dev', 'eth0']))[0]?.addr_info as Json[]).map(
          ({ local, prefixlen, address, scope }) =>
            `${String(local)}/${String(prefixlen)} ${JSON.stringify(address ?? '').slice(1, -1)} ${String(scope)}`,
        );
      const address = { index, address: ip('10.5.1.0'), length: 32 };
      netlink.addresses.add(address);
      assert.throws(() => {
        netlink.addresses.add(address);
      }, hasErrno('EEXIST'));
      netlink.addresses.replace(address);
      netlink.addresses.add({ index, address: ip('10.5.1.1'), length: 32, peer: ip('10.5.1.2') });
      netlink.addresses.add({ index, address: ip('fd00:10:5::'), length: 128, noDad: true });
      netlink.addresses.add({ index, address: ip('169.254.1.1'), length: 32 });
      const shown = await show();
      for (const line of [
        '10.5.1.0/32  global',
        '10.5.1.1/32 10.5.1.2 global',
        'fd00:10:5::/128  global',
        '169.254.1.1/32  link',
      ]) {
        assert.ok(shown.includes(line), `${line} not in ${shown.join(', ')}`);
      }
      const listed = await netlink.addresses.list(index);
      assert.equal(listed.length, shown.length);
      assert.equal(String(listed.find((one) => one.address.equals(ip('10.5.1.1')))?.peer), '10.5.1.2');
      const v6 = listed.find((one) => one.address.equals(ip('fd00:10:5::')));
      assert.deepEqual([v6?.isTentative, v6?.isPermanent, v6?.length], [false, true, 128]);
      const all = await netlink.addresses.list();
      assert.ok(all.some((one) => one.index !== index));
      netlink.addresses.del(address);
      assert.ok(!(await show()).includes('10.5.1.0/32  global'));
      assert.throws(() => {
        netlink.addresses.del(address);
      }, hasErrno('EADDRNOTAVAIL'));
    });
  });

  describe('on routes', () => {
    it('adds with every attribute, as ip shows it', async () => {
      const { index } = eth0;
      netlink.routes.add({
        destination: net('10.5.2.0/24'),
        index,
        gateway: ip('10.5.2.0'),
        isOnlink: true,
        protocol: 173,
        metric: 50,
        prefsrc: ip('192.0.2.1'),
      });
      const [shown] = await showRoutes('route', 'show', '10.5.2.0/24');
      const { gateway, dev, protocol, scope, metric, prefsrc, flags } = shown ?? {};
      assert.deepEqual(
        [gateway, dev, String(protocol), scope, metric, prefsrc, flags],
        ['10.5.2.0', 'eth0', '173', 'global', 50, '192.0.2.1', ['onlink']],
      );
      const [read] = (await netlink.routes.list({ family: 4 })).filter((route) => route.metric === 50);
      assert.deepEqual(
        [String(read?.gateway), read?.index, read?.protocol, read?.scope, read?.isOnlink, String(read?.prefsrc)],
        ['10.5.2.0', index, 173, 'global', true, '192.0.2.1'],
      );
    });

    it('knows add, replace and append apart', async () => {
      const { index } = eth0;
      const destination = net('10.5.2.0/24');
      const via = (last: number): { destination: Prefix; index: number; gateway: IpAddress } => ({
        destination,
        index,
        gateway: ip(`192.0.2.${last}`),
      });
      const gateways = async (): Promise<unknown[]> =>
        (await showRoutes('route', 'show', '10.5.2.0/24')).map(({ gateway }) => gateway);
      netlink.routes.add(via(2));
      assert.throws(() => {
        netlink.routes.add(via(3));
      }, hasErrno('EEXIST'));
      netlink.routes.replace(via(3));
      assert.deepEqual(await gateways(), ['192.0.2.3']);
      netlink.routes.append(via(4));
      assert.deepEqual(await gateways(), ['192.0.2.3', '192.0.2.4']);
      netlink.routes.del(via(3));
      assert.deepEqual(await gateways(), ['192.0.2.4']);
      assert.throws(() => {
        netlink.routes.del(via(3));
      }, hasErrno('ESRCH'));
    });

    it('makes link-scope, blackhole and IPv6 routes', async () => {
      const { index } = eth0;
      netlink.routes.add({ destination: net('10.5.0.0/16'), index });
      netlink.routes.add({ destination: net('10.5.1.0/24'), type: 'blackhole' });
      const v6 = { destination: net('fd00:10:5:2::/64'), index, gateway: ip('fd00:10:5:2::'), isOnlink: true };
      netlink.routes.add({ ...v6, protocol: 173 });
      netlink.routes.add({ destination: net('fd00:10:5:1::/64'), type: 'blackhole' });
      const shown4 = await showRoutes('route', 'show', 'root', '10.5.0.0/16');
      assert.deepEqual(
        shown4.map(({ type, dst, scope }) => [type, dst, scope]),
        [
          ['unicast', '10.5.0.0/16', 'link'],
          ['blackhole', '10.5.1.0/24', 'global'],
        ],
      );
      const shown6 = await showRoutes('-6', 'route', 'show', 'root', 'fd00:10:5::/48');
      assert.deepEqual(shown6.map(({ type, dst }) => [type, dst]).sort(), [
        ['blackhole', 'fd00:10:5:1::/64'],
        ['unicast', 'fd00:10:5:2::/64'],
      ]);
      const listed = await netlink.routes.list({ family: 6, table: 254 });
      const read = listed.find((route) => route.destination.equals(v6.destination));
      assert.deepEqual([read?.isOnlink, read?.metric, read?.protocol], [true, 1024, 173]);
    });

    it('lists by table, protocol and device', async () => {
      const { index } = eth0;
      netlink.routes.add({ destination: net('10.5.2.0/24'), index, protocol: 173 });
      netlink.routes.add({ destination: net('10.5.3.0/24'), index, table: 100 });
      netlink.routes.add({ destination: net('10.5.4.0/24'), index, table: 1000 });
      const destinations = async (filter: Parameters<Netlink['routes']['list']>[0]): Promise<string[]> =>
        (await netlink.routes.list(filter)).map((route) => route.destination.toString());
      assert.deepEqual(await destinations({ family: 4, protocol: 173 }), ['10.5.2.0/24']);
      assert.deepEqual(await destinations({ family: 4, table: 100 }), ['10.5.3.0/24']);
      assert.deepEqual(await destinations({ family: 4, table: 1000 }), ['10.5.4.0/24']);
      assert.deepEqual(await destinations({ family: 4, table: 77 }), []);
      assert.deepEqual((await destinations({ family: 4, table: 254, index })).sort(), ['10.5.2.0/24', '192.0.2.0/24']);
      for (const table of [100, 1000])
        for (const route of await netlink.routes.list({ family: 4, table })) netlink.routes.del(route);
    });

    it('reads multipath routes', async () => {
      await netns.ip([
        'route add 10.5.2.0/24 nexthop via 192.0.2.2 dev eth0 weight 3 nexthop via 192.0.2.3 dev eth0 onlink',
        'route add fd00:5::/64 nexthop via 2001:db8::2 dev eth0 nexthop via 2001:db8::3 dev eth0',
      ]);
      for (const [family, expected] of [
        [
          4,
          [
            ['192.0.2.2', 3, false],
            ['192.0.2.3', 1, true],
          ],
        ],
        [
          6,
          [
            ['2001:db8::2', 1, false],
            ['2001:db8::3', 1, false],
          ],
        ],
      ] as const) {
        const [route] = (await netlink.routes.list({ family, table: 254 })).filter((one) => one.multipath.length > 0);
        assert.deepEqual(
          route?.multipath.map(({ gateway, weight, isOnlink }) => [String(gateway), weight, isOnlink]),
          expected,
        );
      }
    });

    it('answers how the kernel would send to an address', () => {
      netlink.routes.add({ destination: net('10.5.2.0/24'), gateway: ip('192.0.2.9') });
      netlink.routes.add({ destination: net('10.5.3.0/24'), type: 'blackhole' });
      const direct = netlink.routes.lookup(ip('192.0.2.77'));
      assert.deepEqual([direct?.index, direct?.gateway, String(direct?.prefsrc)], [eth0.index, undefined, '192.0.2.1']);
      assert.equal(String(netlink.routes.lookup(ip('10.5.2.7'))?.gateway), '192.0.2.9');
      assert.equal(netlink.routes.lookup(ip('2001:db8::9'))?.index, eth0.index);
      assert.equal(netlink.routes.lookup(ip('203.0.113.1')), undefined);
      assert.equal(netlink.routes.lookup(ip('10.5.3.1')), undefined);
    });
  });

  describe('on neighbours and forwarding entries', () => {
    let vxlan: LinkInfo;
    const mac = (n: number): MacAddress => parseMac(`02:00:00:00:00:0${n}`);

    beforeEach(() => {
      netlink.links.add({
        kind: 'vxlan',
        name: 'flannel.1',
        vni: 1,
        underlayIndex: eth0.index,
        local: ip('192.0.2.1'),
      });
      vxlan = device('flannel.1');
      netlink.links.set(vxlan, { isUp: true });
    });

    it('adds, replaces, lists and deletes permanent neighbours of both families', async () => {
      const { index } = vxlan;
      for (const address of [ip('10.5.2.0'), ip('fd00:10:5:2::')]) {
        netlink.neighbours.add({ index, address, mac: mac(1) });
        assert.throws(() => {
          netlink.neighbours.add({ index, address, mac: mac(2) });
        }, hasErrno('EEXIST'));
        netlink.neighbours.replace({ index, address, mac: mac(2) });
        const [shown] = (await netns.ipJson(['neigh', 'show', 'dev', 'flannel.1'])).filter(
          ({ dst }) => dst === address.toString(),
        );
        assert.deepEqual([shown?.lladdr, shown?.state], [mac(2), ['PERMANENT']]);
        const listed = (await netlink.neighbours.list(address.family, index)).filter(({ isPermanent }) => isPermanent);
        assert.deepEqual(
          listed.map((one) => [String(one.address), one.mac]),
          [[address.toString(), mac(2)]],
        );
        netlink.neighbours.del({ index, address });
        assert.throws(() => {
          netlink.neighbours.del({ index, address });
        }, hasErrno('ENOENT'));
      }
    });

    it('adds, replaces, appends, lists and deletes forwarding entries', async () => {
      const { index } = vxlan;
      const show = async (): Promise<string[]> => {
        const { stdout } = await netns.run(['bridge', '-j', 'fdb', 'show', 'dev', 'flannel.1']);
        return (JSON.parse(stdout) as Json[]).map(
          ({ mac, dst, port, flags, state }) =>
            `${String(mac)} ${String(dst)} ${JSON.stringify(port ?? '').replaceAll('"', '')} ${String(flags)} ${String(state)}`,
        );
      };
      netlink.fdb.add({ index, mac: mac(1), destination: ip('192.0.2.2') });
      assert.throws(() => {
        netlink.fdb.add({ index, mac: mac(1), destination: ip('192.0.2.3') });
      }, hasErrno('EEXIST'));
      netlink.fdb.replace({ index, mac: mac(1), destination: ip('192.0.2.3') });
      assert.deepEqual(await show(), [`${mac(1)} 192.0.2.3  self permanent`]);
      const [entry, ...more] = await netlink.fdb.list(index);
      assert.deepEqual(more, []);
      assert.deepEqual(
        [entry?.mac, String(entry?.destination), entry?.port, entry?.isPermanent, entry?.isSelf],
        [mac(1), '192.0.2.3', undefined, true, true],
      );
      // Only broadcast and multicast have several destinations.
      const all = parseMac('00:00:00:00:00:00');
      netlink.fdb.append({ index, mac: all, destination: ip('192.0.2.5') });
      netlink.fdb.append({ index, mac: all, destination: ip('192.0.2.6'), port: 4789 });
      const listed = (await netlink.fdb.list(index)).filter((one) => one.mac === all);
      assert.deepEqual(
        listed.map(({ destination, port }) => [String(destination), port]),
        [
          ['192.0.2.5', undefined],
          ['192.0.2.6', 4789],
        ],
      );
      netlink.fdb.del({ index, mac: all, destination: ip('192.0.2.6'), port: 4789 });
      const left = [`${all} 192.0.2.5  self permanent`, `${mac(1)} 192.0.2.3  self permanent`];
      assert.deepEqual((await show()).sort(), left);
      netlink.fdb.del({ index, mac: mac(1) });
      assert.throws(() => {
        netlink.fdb.del({ index, mac: mac(1) });
      }, hasErrno('ENOENT'));
    });
  });

  it("explains refusals in the kernel's words, and names what was refused", () => {
    assert.throws(
      () => {
        netlink.routes.add({ destination: net('10.5.2.0/24'), gateway: ip('203.0.113.9') });
      },
      (error: unknown) => {
        assert.ok(error instanceof OverlayError);
        assert.match(
          error.message,
          /^cannot add route 10\.5\.2\.0\/24 via 203\.0\.113\.9: ENETUNREACH \(Nexthop has invalid gateway\)$/,
        );
        return netlinkErrno(error) === 'ENETUNREACH';
      },
    );
    assert.throws(() => {
      netlink.links.del({ index: 9999, name: 'nix' });
    }, /cannot delete device nix: ENODEV/);
  });

  describe('events', () => {
    let monitor: NetlinkMonitor;
    let events: NetlinkEvent[];

    beforeEach(() => {
      events = [];
      monitor = netlink.subscribe(['link', 'address', 'route', 'neighbour'], (event) => events.push(event));
    });

    afterEach(() => {
      monitor.close();
    });

    it('tell every change in order, with its content', () => {
      const { index } = eth0;
      const address = { index, address: ip('10.5.1.0'), length: 32 };
      const route = { destination: net('10.5.2.0/24'), index, gateway: ip('192.0.2.2') };
      const neighbour = { index, address: ip('192.0.2.2'), mac: parseMac('02:00:00:00:00:02') };
      netlink.links.add({ kind: 'vxlan', name: 'flannel.1', vni: 1, underlayIndex: index });
      const vxlan = device('flannel.1');
      netlink.links.set(vxlan, { alias: 'x', isUp: true });
      netlink.addresses.add(address);
      netlink.routes.add(route);
      netlink.routes.replace({ ...route, gateway: ip('192.0.2.3') });
      netlink.routes.del({ destination: route.destination });
      netlink.neighbours.add(neighbour);
      netlink.fdb.add({ index: vxlan.index, mac: neighbour.mac, destination: ip('192.0.2.9') });
      netlink.fdb.del({ index: vxlan.index, mac: neighbour.mac });
      netlink.addresses.del(address);
      netlink.links.del(vxlan);
      monitor.drain();
      const lines = events.flatMap((event) => {
        if (event.type === 'route') {
          const { destination, gateway, table } = event.route;
          if (table !== 254 || !destination.equals(route.destination)) return [];
          const verb = event.isDeleted ? 'del' : event.isReplacement ? 'replace' : 'add';
          return [`route ${verb} ${destination.toString()} ${String(gateway)}`];
        }
        if (event.type === 'link' && event.link.name === 'flannel.1') {
          return [`link ${event.isDeleted ? 'del' : 'new'}`];
        }
        if (event.type === 'address' && event.address.address.equals(address.address)) {
          return [`address ${event.isDeleted ? 'del' : 'new'} ${event.address.address.toString()}`];
        }
        if (event.type === 'neighbour' && event.neighbour.isPermanent) {
          return [`neighbour ${event.neighbour.address.toString()} ${String(event.neighbour.mac)}`];
        }
        if (event.type === 'fdb' && event.entry.isSelf && event.entry.destination !== undefined) {
          return [`fdb ${event.isDeleted ? 'del' : 'new'} ${event.entry.mac} ${event.entry.destination.toString()}`];
        }
        return [];
      });
      const distinct = lines.filter((line, at) => line !== lines[at - 1]);
      assert.deepEqual(distinct, [
        'link new',
        'address new 10.5.1.0',
        'route add 10.5.2.0/24 192.0.2.2',
        'route replace 10.5.2.0/24 192.0.2.3',
        'route del 10.5.2.0/24 192.0.2.3',
        'neighbour 192.0.2.2 02:00:00:00:00:02',
        'fdb new 02:00:00:00:00:02 192.0.2.9',
        'fdb del 02:00:00:00:00:02 192.0.2.9',
        'address del 10.5.1.0',
        'link new',
        'link del',
      ]);
    });

    it('arrive by themselves when others make changes', async () => {
      await netns.ip(['link add name other type bridge']);
      await waitFor(() => events.some((event) => event.type === 'link' && event.link.name === 'other'), {
        what: 'the event',
        timeoutMs: 2000,
      });
    });

    it('stop when the monitor is closed', async () => {
      monitor.close();
      monitor.close();
      netlink.links.add({ kind: 'bridge', name: 'br0' });
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.deepEqual(events, []);
    });

    it('that contradict themselves are announced as lost, and later ones arrive again', () => {
      const { fd } = monitor as unknown as { readonly fd: number };
      const address = sockaddrNl();
      getsockname(fd, address);
      const port = new Uint32Array(address.buffer, 4, 1)[0] ?? 0;
      // RTM_NEWNEIGH for IPv4 whose only attribute is longer than the message.
      const datagram = new Uint8Array(16 + 12 + 4);
      const view = new Uint16Array(datagram.buffer);
      view.set([datagram.length, 0, 28], 0);
      view[8] = SYS.AF_INET;
      view[14] = 999;
      const sender = socket(SYS.AF_NETLINK, SYS.SOCK_RAW, 0);
      assert.equal(sendTo(sender, datagram, 0, sockaddrNl(port)), datagram.length);
      close(sender);
      monitor.drain();
      assert.deepEqual(events, [{ type: 'resync' }]);
      netlink.routes.add({ destination: net('10.5.2.0/24'), index: eth0.index });
      monitor.drain();
      assert.equal(events.at(-1)?.type, 'route');
    });

    it('that were too many to hold are announced as lost, and later ones arrive again', () => {
      const seen: NetlinkEvent[] = [];
      const small = new NetlinkMonitor(['route'], (event) => seen.push(event), 4096);
      for (let n = 1; n < 200; n++) netlink.routes.add({ destination: net(`10.5.${n}.0/24`), index: eth0.index });
      small.drain();
      assert.ok(seen.some(({ type }) => type === 'resync'));
      assert.ok(seen.length < 200);
      netlink.routes.add({ destination: net('10.5.200.0/24'), index: eth0.index });
      small.drain();
      const last = seen.at(-1);
      assert.equal(last?.type === 'route' && last.route.destination.toString(), '10.5.200.0/24');
      small.close();
    });
  });

  describe('lists', () => {
    it('are read again from the start when something changed under way', async () => {
      const present = (await netlink.links.list()).length;
      for (let n = 0; n < 60; n++) netlink.links.add({ kind: 'veth', name: `a${n}`, peer: { name: `b${n}` } });
      const socket = NetlinkSocket.open({ clock: systemClock, deadlineMs: 5000 });
      let starts = 0;
      const names = await socket.dump<Set<string>>(NLMSG.RTM_GETLINK, () => 'list devices', writeLinkList, {
        start: () => {
          starts++;
          return new Set();
        },
        onMessage: (reader, result) => {
          const { name } = readLink(reader);
          assert.ok(!result.has(name), `${name} twice in one list`);
          // The list comes in several parts; this changes it between the first and the second.
          if (starts === 1 && result.size === 0) netlink.links.add({ kind: 'bridge', name: 'late' });
          result.add(name);
        },
      });
      socket.close();
      assert.equal(starts, 2);
      assert.ok(names.has('late'));
      assert.equal(names.size, present + 60 * 2 + 1);
    });

    it('give up when they are interrupted every time', async () => {
      for (let n = 0; n < 60; n++) netlink.links.add({ kind: 'veth', name: `a${n}`, peer: { name: `b${n}` } });
      const socket = NetlinkSocket.open({ clock: systemClock, deadlineMs: 5000 });
      let isFirst = true;
      let serial = 0;
      const listing = socket.dump(NLMSG.RTM_GETLINK, () => 'list devices', writeLinkList, {
        start: () => (isFirst = true),
        onMessage: () => {
          if (isFirst) netlink.links.set(device('a1'), { alias: `${serial++}`, mtu: 1400 + serial });
          if (isFirst) netlink.links.add({ kind: 'bridge', name: `late${serial}` });
          isFirst = false;
        },
      });
      await assert.rejects(listing, /interrupted by changes 10 times in a row/);
      socket.close();
    });

    it('end at their deadline', async () => {
      for (let n = 0; n < 60; n++) netlink.links.add({ kind: 'veth', name: `a${n}`, peer: { name: `b${n}` } });
      let nowMs = 0;
      const clock = { ...systemClock, monotonicMs: () => nowMs };
      const socket = NetlinkSocket.open({ clock, deadlineMs: 100 });
      const listing = socket.dump(NLMSG.RTM_GETLINK, () => 'list devices', writeLinkList, {
        start: () => undefined,
        onMessage: () => (nowMs = 101),
      });
      await assert.rejects(listing, /cannot list devices: not complete after 100 ms/);
      socket.close();
    });

    it('may be asked for all at once, together with changes', async () => {
      const lists = [
        netlink.links.list(),
        netlink.links.list(),
        netlink.addresses.list(),
        netlink.routes.list({ family: 4 }),
      ];
      netlink.links.add({ kind: 'bridge', name: 'br0' });
      const [first, second] = await Promise.all(lists);
      assert.ok((first?.length ?? 0) >= 3 && (second?.length ?? 0) >= 3);
    });

    it('of 15 000 objects let others have their turn', async function () {
      this.timeout(30_000);
      netlink.links.add({
        kind: 'vxlan',
        name: 'flannel.1',
        vni: 1,
        underlayIndex: eth0.index,
        local: ip('192.0.2.1'),
      });
      const { index } = device('flannel.1');
      netlink.links.set(device('flannel.1'), { isUp: true });
      for (let n = 1; n <= 5000; n++) {
        const address = IpAddress.fromValue(4, ip('10.5.0.0').value + (BigInt(n) << 8n));
        const mac = parseMac(
          `02:00:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`,
        );
        netlink.neighbours.add({ index, address, mac });
        netlink.fdb.add({ index, mac, destination: address });
        netlink.routes.add({ destination: Prefix.of(address, 24), index, gateway: address, isOnlink: true });
      }
      // On this clock every look at the time, one for each 128 KiB of answers or less, takes a millisecond.
      let nowMs = 0;
      const slow = Netlink.open({ clock: { ...systemClock, monotonicMs: () => nowMs++ }, deadlineMs: 1_000_000 });
      let turns = 0;
      let next = setImmediate(function takeTurn() {
        turns++;
        next = setImmediate(takeTurn);
      });
      try {
        for (const [list, count] of [
          [() => slow.routes.list({ family: 4, table: 254 }), 5001],
          [() => slow.neighbours.list(4, index), 5000],
          [() => slow.fdb.list(index), 5000],
        ] as const) {
          const [turnsBefore, startedAtMs] = [turns, nowMs];
          assert.equal((await list()).length, count);
          const looks = nowMs - startedAtMs;
          assert.ok(looks >= 5, `${looks} looks at the clock`);
          assert.ok(turns - turnsBefore >= looks / 10, `${turns - turnsBefore} turns in ${looks} ms`);
        }
      } finally {
        clearImmediate(next);
        slow.close();
      }
    });
  });

  it('leaves no descriptor open', async () => {
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    const another = Netlink.open();
    const monitor = another.subscribe(['link'], () => undefined);
    await another.links.list();
    assert.equal(count(), before + 3);
    monitor.close();
    another.close();
    another.close();
    assert.equal(count(), before);
    assert.throws(() => another.links.get('lo'), /cannot look up device lo: the netlink socket is closed/);
    await assert.rejects(another.links.list(), /cannot list devices: the netlink socket is closed/);
  });

  describe('sysctl', () => {
    const path = 'net/ipv4/conf/eth0/rp_filter';

    it('reads and writes parameters of this namespace', async () => {
      writeSysctl(path, '2');
      assert.equal(readSysctl(path), '2');
      assert.equal((await netns.run(['cat', `/proc/sys/${path}`])).stdout, '2\n');
      writeSysctl(path, '0');
      assert.equal(readSysctl(path), '0');
    });

    it('knows absent parameters, and says why one cannot be set', () => {
      assert.equal(readSysctl('net/ipv4/conf/nix/rp_filter'), undefined);
      assert.throws(() => {
        writeSysctl('net/ipv4/conf/nix/rp_filter', '1');
      }, /cannot write kernel parameter .*: ENOENT/);
      assert.throws(() => {
        writeSysctl(path, 'many');
      }, /EINVAL/);
      assert.throws(() => readSysctl('../../etc/passwd'), /not a path below \/proc\/sys/);
      assert.equal(readFileSync(`/proc/sys/${path}`, 'utf8').trim(), readSysctl(path));
    });
  });
});
