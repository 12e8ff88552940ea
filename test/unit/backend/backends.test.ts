import assert from 'node:assert/strict';
import type { ConfiguredBackend, HostFacts, PeerState } from '../../../src/backend/backend.js';
import { backendFor, findBackend, isBackendDevice } from '../../../src/backend/registry.js';
import { isOverlayError } from '../../../src/errors.js';
import type { TunnelSpec } from '../../../src/dataplane/tunnel-spec.js';
import type { IpAddress } from '../../../src/ip/address.js';
import { KERNEL_PATH_DATA } from '../../../src/lease/kernel-announcement.js';
import { deriveMac } from '../../../src/ip/mac.js';
import type { JsonValue } from '../../../src/json.js';
import type { Lease } from '../../../src/lease/lease.js';
import {
  backendContext,
  backendOptions,
  hostFacts,
  ip,
  lease,
  mac,
  net,
  network,
  underlay,
} from '../../support/builders.js';

const backend = (type: string, options: Readonly<Record<string, JsonValue>> = {}): ConfiguredBackend =>
  backendFor(type).parse(backendOptions(options));
const vtep = (mac: string): JsonValue => ({ VNI: 1, VtepMAC: mac });
const text = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe('backend registry', () => {
  it('knows the backends that exist and refuses others with the list', () => {
    assert.equal(findBackend('gre'), undefined);
    assert.throws(
      () => backendFor('gre'),
      (error) => isOverlayError(error, 'ERR_BACKEND_UNKNOWN') && /udp, vxlan, host-gw/.test(error.toString()),
    );
  });

  it('knows the devices that a flanneld leaves behind, whatever its backend, and no others', () => {
    for (const name of ['flannel.1', 'flannel.16777215', 'flannel-v6.1', 'flannel.ipip']) {
      assert.ok(isBackendDevice(name), name);
    }
    for (const name of ['flannel0', 'flannel.', 'flannel.1x', 'xflannel.1', 'flannel.ipip0', 'docker0']) {
      assert.ok(!isBackendDevice(name), name);
    }
  });

  const mtus: [string, Record<string, JsonValue>, boolean, number][] = [
    ['udp', {}, false, 1472],
    ['vxlan', {}, false, 1450],
    ['vxlan', { mtu: 9000 }, false, 8950],
    ['vxlan', {}, true, 1430],
    ['host-gw', {}, false, 1500],
    ['ipip', {}, false, 1480],
    ['alloc', {}, false, 1500],
  ];
  for (const [type, options, isDualStack, expected] of mtus) {
    it(`gives containers ${expected} bytes with ${type} ${JSON.stringify(options)}${isDualStack ? ' dual stack' : ''}`, () => {
      assert.equal(backend(type, options).mtu(network(type, options, isDualStack), underlay()), expected);
    });
  }
});

describe('udp backend', () => {
  it('asks for the TUN, its /32, the route of the whole network and a tunnel that knows every lease', () => {
    const state = backend('udp').desired(backendContext({ peers: [lease(2), lease(3, { type: 'vxlan' })] })).base;
    assert.deepEqual(text(state), {
      links: [{ kind: 'tun', name: 'flannel0', mtu: 1472, txQueueLength: 1000 }],
      addresses: [{ device: 'flannel0', address: '10.5.1.0', length: 32 }],
      sysctls: [{ path: 'net/ipv4/conf/flannel0/accept_local', value: '0' }],
      routes: [{ destination: '10.5.0.0/16', type: 'unicast', device: 'flannel0', isOnlink: false }],
      tunnels: [
        {
          device: 'flannel0',
          bindAddress: '192.0.2.1',
          port: 8285,
          mtu: 1472,
          verifySource: 'outer',
          icmpSource: '10.5.1.0',
          ownPrefixes: ['10.5.1.0/24', '192.0.2.1/32'],
          peers: [
            { subnet: '10.5.2.0/24', publicIp: '192.0.2.2' },
            { subnet: '10.5.3.0/24', publicIp: '192.0.2.3' },
          ],
        },
      ],
    });
  });

  for (const [taken, handedDown, name] of [
    [[], [], 'flannel0'],
    [['flannel0', 'flannel.1', 'flannel2'], [], 'flannel1'],
    [['flannel0', 'flannel5'], ['flannel5'], 'flannel5'],
  ] as const) {
    it(`calls its device ${name} beside ${taken.join() || 'none'} with ${handedDown.join() || 'none'} handed down`, () => {
      const devices = taken.map((each) => ({ name: each, kind: 'tun', mac: undefined }));
      const host = hostFacts({ atStart: { ...hostFacts().atStart, devices, tunDevices: handedDown } });
      assert.equal(backend('udp').desired(backendContext({ host })).base.links?.[0]?.name, name);
    });
  }

  it('routes only its peers where another backend is the configured one', () => {
    const context = backendContext({ isOwn: false });
    const { base, peer } = backend('udp').desired(context);
    assert.deepEqual(base.routes, []);
    assert.deepEqual(
      peer(lease(2)).state.routes?.map((route) => route.destination.toString()),
      ['10.5.2.0/24'],
    );
  });

  it('publishes nothing about itself, as flannel', () => {
    assert.equal(backend('udp').publishedType, '');
    assert.deepEqual(backend('udp').leaseData(network(), hostFacts()), {
      backendData: undefined,
      backendV6Data: undefined,
    });
  });

  describe('with the kernel path', () => {
    const announcing = (number: number): Lease => lease(number, { data: KERNEL_PATH_DATA });
    const tunnelOf = (more: Partial<HostFacts>, ...peers: readonly Lease[]): TunnelSpec | undefined =>
      backend('udp').desired(backendContext({ host: hostFacts(more), peers })).base.tunnels?.[0];
    const kernelPath = { isAnnounced: true };

    it('announces that it receives, once it does', () => {
      const dataOf = (isAnnounced: boolean): unknown =>
        backend('udp').leaseData(network(), hostFacts({ kernelPath: { isAnnounced } })).backendData;
      assert.equal(dataOf(false), undefined);
      assert.equal(dataOf(true), KERNEL_PATH_DATA);
    });

    it('sends by the kernel to peers on its link that announce it, and to nobody else', () => {
      const isOnLink = (address: IpAddress): boolean => !address.equals(announcing(4).attributes.publicIp);
      const { peers = [], uplink } = tunnelOf({ kernelPath, isOnLink }, lease(2), announcing(3), announcing(4)) ?? {};
      assert.deepEqual(
        peers.map(({ isKernelPeer = false }) => isKernelPeer),
        [false, true, false],
      );
      assert.deepEqual(uplink, { device: hostFacts().underlay.device, index: hostFacts().underlay.ifindex });
    });

    it('leaves peers to the tunnel whose route is narrower than the uplink', () => {
      const { mtu } = hostFacts().underlay;
      const mtus = [undefined, mtu, mtu - 1];
      const peers = mtus.map((_, index) => announcing(index + 2));
      const routeMtu = (address: IpAddress): number | undefined =>
        mtus[peers.findIndex(({ attributes }) => attributes.publicIp.equals(address))];
      assert.deepEqual(
        tunnelOf({ kernelPath, routeMtu }, ...peers)?.peers.map(({ isKernelPeer = false }) => isKernelPeer),
        [true, true, false],
      );
    });

    it('has the kernel send nothing, and names no uplink, unless the host uses it', () => {
      const { peers = [], uplink } = tunnelOf({}, announcing(3)) ?? {};
      assert.deepEqual([peers[0]?.isKernelPeer, uplink], [undefined, undefined]);
    });
  });

  for (const options of [{ port: 0 }, { port: 65536 }, { port: '8285' }, { port: 1.5 }, { verifysource: 'loose' }]) {
    it(`refuses ${JSON.stringify(options)} and says what would be right`, () => {
      assert.throws(
        () => backend('udp', options),
        (error) => isOverlayError(error, 'ERR_BACKEND_OPTION') && error.hint !== undefined,
      );
    });
  }
});

describe('vxlan backend', () => {
  const context = backendContext({ network: network('vxlan') });

  it('asks for the device with the attributes of flannel', () => {
    assert.deepEqual(text(backend('vxlan').desired(context).base), {
      links: [
        {
          kind: 'vxlan',
          name: 'flannel.1',
          mtu: 1450,
          mac: '02:00:00:00:00:09',
          vni: 1,
          underlayIndex: 2,
          local: '192.0.2.1',
          port: 0,
          learning: false,
          gbp: false,
        },
      ],
      addresses: [{ device: 'flannel.1', address: '10.5.1.0', length: 32 }],
      sysctls: [{ path: 'net/ipv6/conf/flannel.1/accept_ra', value: '0' }],
    });
  });

  for (const [text6, isOnLink] of [
    ['2001:db8:0:0:8000::/66', true],
    ['2001:db8:0:1::/64', false],
    ['fd00:10:5::/48', false],
  ] as const) {
    it(`${isOnLink ? 'routes all of' : 'needs no route to'} ${text6} beside an address of 2001:db8::/64`, () => {
      const { address: min, last: max } = net(text6);
      const ipv6 = { network: net(text6), subnetLen: 80, min, max };
      const own = { ...lease(1), ipv6Subnet: net(text6) };
      const host = hostFacts({ underlay: underlay({ addressV6: ip('2001:db8::b') }) });
      const dual = backendContext({ network: { ...network('vxlan'), ipv6 }, own, host });
      const routes = backend('vxlan').desired(dual).base.routes ?? [];
      assert.deepEqual(
        routes.map(({ destination, device }) => `${destination.toString()} ${device ?? ''}`),
        isOnLink ? [`${text6} flannel-v6.1`] : [],
      );
    });
  }

  it('leaves its MAC to a peer that published it before, not to one that came later', () => {
    const mac = '02:00:00:00:00:09';
    // Who wrote last does not matter: a host writes its lease anew when it is started.
    const twin = (createdAt: string): Lease => ({ ...lease(2, { type: 'vxlan', data: vtep(mac) }), createdAt });
    const own = { ...lease(1), revision: '1', createdAt: '1000' };
    const meet = (createdAt: string): PeerState =>
      backend('vxlan')
        .desired({ ...context, own })
        .peer(twin(createdAt));
    assert.equal(meet('999').contested?.device, 'flannel.1');
    assert.equal(meet('1001').contested, undefined);
    for (const createdAt of ['999', '1001']) {
      assert.deepEqual(meet(createdAt).state, {});
      assert.equal(meet(createdAt).skipped?.cause, 'vtep-mac');
    }
  });

  describe('the MAC of its device', () => {
    const { atStart } = hostFacts();
    const published = { ...lease(1, { type: 'vxlan', data: vtep('02:00:00:00:00:77') }).attributes };
    const macWith = (changes: Partial<HostFacts>, options: Readonly<Record<string, JsonValue>> = {}): string => {
      const [device] = backend('vxlan', options).desired({ ...context, host: hostFacts(changes) }).base.links ?? [];
      assert.ok(device?.kind === 'vxlan');
      return device.mac;
    };
    const derived = deriveMac('host-a 192.0.2.1', 'flannel.1');

    it('is that of the device as it was found, then the published one, then one of the host and its address', () => {
      assert.equal(macWith({ atStart: { ...atStart, published } }), '02:00:00:00:00:09');
      assert.equal(macWith({ atStart: { ...atStart, devices: [], published } }), '02:00:00:00:00:77');
      assert.equal(macWith({ atStart: { ...atStart, devices: [] } }), derived);
    });

    it('is not that of a device of another kind, nor one that was published for another VNI or backend', () => {
      const bridge = { name: 'flannel.1', kind: 'bridge', mac: mac(9) };
      assert.equal(macWith({ atStart: { ...atStart, devices: [bridge] } }), derived);
      const away = { ...atStart, devices: [], published };
      assert.equal(macWith({ atStart: away }, { vni: 2 }), deriveMac('host-a 192.0.2.1', 'flannel.2'));
      assert.equal(macWith({ atStart: { ...away, published: { ...published, backendType: 'ipip' } } }), derived);
    });

    it('is the derived one where another host had the one it was found with, and there is no third', () => {
      const host = hostFacts({ atStart: { ...atStart, published }, contested: new Set(['flannel.1']) });
      assert.equal(macWith(host), derived);
      const own = { ...lease(1), createdAt: '1000' };
      const meet = (twin: string, facts: HostFacts): PeerState['contested'] =>
        backend('vxlan')
          .desired({ ...context, own, host: facts })
          .peer(lease(2, { type: 'vxlan', data: vtep(twin) })).contested;
      assert.deepEqual(meet('02:00:00:00:00:09', hostFacts()), { device: 'flannel.1', replacement: derived });
      assert.equal(meet(derived, host), undefined);
    });
  });

  it('reaches a peer by neighbour, forwarding entry and onlink route', () => {
    const peer = lease(2, { type: 'vxlan', data: vtep('02:00:00:00:00:22') });
    assert.deepEqual(text(backend('vxlan').desired(context).peer(peer).state), {
      neighbours: [{ device: 'flannel.1', address: '10.5.2.0', mac: '02:00:00:00:00:22' }],
      fdb: [{ device: 'flannel.1', mac: '02:00:00:00:00:22', destination: '192.0.2.2' }],
      routes: [
        {
          destination: '10.5.2.0/24',
          type: 'unicast',
          device: 'flannel.1',
          gateway: '10.5.2.0',
          isOnlink: true,
        },
      ],
    });
  });

  for (const data of [
    undefined,
    null,
    'text',
    {},
    vtep('02:00'),
    vtep('00:00:00:00:00:00'),
    vtep('01:00:5e:00:00:01'),
    { VNI: 0, VtepMAC: '02:00:00:00:00:22' },
    { VNI: 0x1000000, VtepMAC: '02:00:00:00:00:22' },
    { VNI: '1', VtepMAC: '02:00:00:00:00:22' },
    { VNI: 1, Port: 65536, VtepMAC: '02:00:00:00:00:22' },
    { VNI: 1, port: -1, VtepMAC: '02:00:00:00:00:22' },
  ]) {
    it(`skips a peer whose data is ${JSON.stringify(data)}`, () => {
      const result = backend('vxlan')
        .desired(context)
        .peer(lease(2, { type: 'vxlan', ...(data === undefined ? {} : { data }) }));
      assert.match(result.skipped?.reason ?? '', /VtepMAC/);
      assert.equal(result.skipped?.cause, 'data');
      assert.deepEqual(result.state, {});
    });
  }

  for (const data of [
    { vtepmac: '02:00:00:00:00:22' },
    { VNI: 5, VtepMAC: '02:00:00:00:00:22', Later: [] },
    { VNI: null, VtepMAC: '02:00:00:00:00:22', Port: 0 },
  ]) {
    it(`takes a peer whose data is ${JSON.stringify(data)}`, () => {
      const { state } = backend('vxlan')
        .desired(context)
        .peer(lease(2, { type: 'vxlan', data }));
      assert.equal(state.fdb?.[0]?.mac, '02:00:00:00:00:22');
    });
  }

  it('does not route to a peer with the VTEP MAC of this host, which would drop every packet', () => {
    const { state, skipped } = backend('vxlan')
      .desired(context)
      .peer(lease(2, { type: 'vxlan', data: vtep('02:00:00:00:00:09') }));
    assert.deepEqual(state, {});
    assert.equal(skipped?.cause, 'vtep-mac');
    assert.match(skipped.reason, /02:00:00:00:00:09 \(flannel\.1\) is also that of this host/);
    assert.match(skipped.hint, /ip link del flannel\.1/);
  });

  it('routes a peer on the link directly with DirectRouting, and through the device otherwise', () => {
    const peer = lease(2, { type: 'vxlan', data: vtep('02:00:00:00:00:22') });
    const vxlan = backend('vxlan', { directrouting: true });
    const direct = vxlan.desired(context).peer(peer).state;
    assert.deepEqual(text(direct.routes), [
      {
        destination: '10.5.2.0/24',
        type: 'unicast',
        device: 'eth0',
        gateway: '192.0.2.2',
        isOnlink: false,
      },
    ]);
    assert.deepEqual(direct.fdb ?? [], []);
    const far = { ...context, host: hostFacts({ isOnLink: () => false }) };
    assert.equal(vxlan.desired(far).peer(peer).state.routes?.[0]?.device, 'flannel.1');
  });

  it('adds a second device and second entries for IPv6, 20 bytes smaller', () => {
    const dual = backendContext({
      network: network('vxlan', {}, true),
      own: lease(1, { isDualStack: true }),
    });
    const base = backend('vxlan').desired(dual).base;
    assert.deepEqual(
      base.links?.map((link) => [link.name, link.mtu]),
      [
        ['flannel.1', 1450],
        ['flannel-v6.1', 1430],
      ],
    );
    assert.deepEqual(text(base.addresses?.[1]), { device: 'flannel-v6.1', address: 'fd00:10:5:1::', length: 128 });
    const peer = lease(2, {
      type: 'vxlan',
      isDualStack: true,
      data: vtep('02:00:00:00:00:22'),
      dataV6: vtep('02:00:00:00:00:66'),
    });
    const state = backend('vxlan').desired(dual).peer(peer).state;
    assert.deepEqual(text(state.fdb?.[1]), {
      device: 'flannel-v6.1',
      mac: '02:00:00:00:00:66',
      destination: '2001:db8::2',
    });
    assert.equal(state.routes?.[1]?.destination.toString(), 'fd00:10:5:2::/64');
  });

  it('takes the IPv4 half of a dual-stack peer in an IPv4 network', () => {
    const peer = lease(2, { type: 'vxlan', isDualStack: true, data: vtep('02:00:00:00:00:22') });
    assert.equal(backend('vxlan').desired(context).peer(peer).state.routes?.length, 1);
  });

  it('publishes VNI and VTEP MAC', () => {
    assert.equal(
      JSON.stringify(backend('vxlan', { vni: 7 }).leaseData(network('vxlan'), hostFacts()).backendData),
      `{"VNI":7,"VtepMAC":"${deriveMac('host-a 192.0.2.1', 'flannel.7')}"}`,
    );
  });

  it('refuses an underlay that leaves too few bytes', () => {
    assert.throws(
      () => backend('vxlan', { mtu: 100 }).check(network('vxlan'), underlay()),
      (error) => isOverlayError(error, 'ERR_BACKEND_OPTION') && /at least 118/.test(error.hint ?? ''),
    );
  });
});

describe('host-gw backend', () => {
  const context = backendContext({ network: network('host-gw') });

  it('routes a peer via its address on the underlay device', () => {
    assert.deepEqual(
      text(
        backend('host-gw')
          .desired(context)
          .peer(lease(2, { type: 'host-gw' })).state.routes,
      ),
      [
        {
          destination: '10.5.2.0/24',
          type: 'unicast',
          device: 'eth0',
          gateway: '192.0.2.2',
          isOnlink: false,
        },
      ],
    );
  });

  it('skips a peer behind a router and says which backend would reach it', () => {
    const far = { ...context, host: hostFacts({ isOnLink: () => false }) };
    const { state, skipped } = backend('host-gw')
      .desired(far)
      .peer(lease(2, { type: 'host-gw' }));
    assert.deepEqual(state.routes, []);
    assert.match(skipped?.hint ?? '', /vxlan/);
  });

  it('refuses an announced address that is not on the device', () => {
    assert.throws(
      () => backend('host-gw').check(network('host-gw'), underlay({ publicIp: ip('203.0.113.9') })),
      (error) => isOverlayError(error, 'ERR_BACKEND_HOST'),
    );
  });
});

describe('ipip backend', () => {
  it('routes onlink via the peer through one device', () => {
    const context = backendContext({ network: network('ipip') });
    assert.equal(backend('ipip').desired(context).base.links?.[0]?.name, 'flannel.ipip');
    const [route] =
      backend('ipip')
        .desired(context)
        .peer(lease(2, { type: 'ipip' })).state.routes ?? [];
    assert.deepEqual([route?.device, route?.isOnlink, route?.gateway?.toString()], ['flannel.ipip', true, '192.0.2.2']);
  });

  it('keeps the onlink flag on direct routes, as flannel', () => {
    const context = backendContext({ network: network('ipip') });
    const [route] =
      backend('ipip', { directrouting: true })
        .desired(context)
        .peer(lease(2, { type: 'ipip' })).state.routes ?? [];
    assert.deepEqual([route?.device, route?.isOnlink], ['eth0', true]);
  });
});
