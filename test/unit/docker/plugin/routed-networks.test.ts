import assert from 'node:assert/strict';
import { PluginBed } from './plugin-bed.js';

const NETWORK = 'a'.repeat(64);
const OTHER = 'b'.repeat(64);
const ENDPOINT = 'e'.repeat(64);
const BRIDGE = 'tsfb-aaaaaaaaaa';
const OWN_END = 'tsfceeeeeeeeeee';
const HOST_END = 'tsfveeeeeeeeeee';
const POOL = '-/10.10.10.0-24/10.10.10.0-24';

type Options = Readonly<Record<string, string>>;

const joining = { NetworkID: NETWORK, EndpointID: ENDPOINT, SandboxKey: '/proc/self/ns/net', Options: {} };
const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };

/** What Docker sends for `docker network create`. */
function creation(options: Options, id = NETWORK, more: object = {}): object {
  return {
    NetworkID: id,
    Options: { 'com.docker.network.generic': options, ...more },
    IPv4Data: [{ AddressSpace: 'tsflannel', Pool: '10.10.10.0/24', Gateway: '10.10.10.1/24' }],
    IPv6Data: [],
  };
}

describe('a routed network', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
    await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
  });

  afterEach(() => bed.close());

  /** The answer of a call that may wait for devices of the host. */
  const call = async (method: string, body: object): Promise<Readonly<Record<string, unknown>>> => {
    const answer = bed.call(`NetworkDriver.${method}`, body);
    await bed.advanceUntil(answer);
    return answer;
  };

  const create = (options: Options = { type: 'bridge' }, id = NETWORK): Promise<unknown> =>
    call('CreateNetwork', creation(options, id));

  /** The last host that has it removes it. */
  const remove = async (): Promise<void> => {
    await call('DeleteNetwork', { NetworkID: NETWORK });
    bed.addresses.agreed.clear();
  };

  const createEndpoint = async (address = '10.10.10.2/24'): Promise<void> => {
    const Interface = { Address: address, AddressIPv6: '', MacAddress: '02:42:0a:0a:0a:02' };
    await call('CreateEndpoint', { ...ids, Interface, Options: {} });
  };

  const join = async (): Promise<Readonly<Record<string, unknown>>> => {
    await createEndpoint();
    return call('Join', joining);
  };

  const names = (): readonly string[] => [...bed.kernel.links.values()].map(({ name }) => name).sort();

  for (const type of ['bridge', 'overlay']) {
    it(`of type ${type} has a bridge before it is answered for, and has none after it`, async () => {
      await create({ type });
      assert.deepEqual([bed.link(BRIDGE).kind, bed.link(BRIDGE).isUp], ['bridge', true]);
      const [network] = bed.plugin.status().networks;
      assert.deepEqual([network?.parent, network?.isProbed], [BRIDGE, false]);
      await call('DeleteNetwork', { NetworkID: NETWORK });
      await bed.clock.advance(100);
      assert.deepEqual(names(), ['eth0']);
    });
  }

  for (const [title, carried, options, isTold] of [
    ['says that the overlay does not carry one of its families', [4], { type: 'overlay' }, true],
    ['says nothing where both are carried', [4, 6], { type: 'overlay' }, false],
    ['says nothing where nobody knows yet', undefined, { type: 'overlay' }, false],
    ['says nothing where the link carries it', [4], { type: 'overlay', 'ndp-proxy': 'true' }, false],
    ['says nothing where the overlay is not asked', [4], { type: 'bridge' }, false],
  ] as const) {
    it(`${title} when it is made`, async () => {
      bed.overlayFamilies = carried;
      await bed.call('IpamDriver.RequestPool', { Pool: '2001:db8:7::/64', V6: true });
      const IPv6Data = [{ AddressSpace: 'tsflannel', Pool: '2001:db8:7::/64' }];
      await call('CreateNetwork', { ...creation(options), IPv6Data });
      const told = bed.log.find(/do not reach those of other hosts/, 'warn');
      assert.deepEqual(
        told.map(({ fields }) => fields['subnet']),
        isTold ? ['2001:db8:7::/64'] : [],
      );
    });
  }

  it('is taken back where the bridge cannot be made, with the reason', async () => {
    bed.kernel.refuse = ({ kind }) => (kind === 'link' ? 'EOPNOTSUPP' : undefined);
    const answer = bed.failure('NetworkDriver.CreateNetwork', creation({ type: 'bridge' }));
    await bed.advanceUntil(answer);
    assert.match(await answer, /cannot make the bridge tsfb-aaaaaaaaaa: .*EOPNOTSUPP.*load the module bridge/s);
    assert.deepEqual(bed.plugin.status().networks, []);
  });

  it('gives a container one end of a pair, and has the other as a port of the bridge before it answers', async () => {
    await create({ type: 'bridge', icc: 'false', mtu: '1400' });
    const { InterfaceName } = await join();
    assert.deepEqual(InterfaceName, { SrcName: OWN_END, DstPrefix: 'eth' });
    const { masterIndex, isIsolated, isUp, mtu } = bed.link(HOST_END);
    assert.deepEqual([masterIndex, isIsolated, isUp, mtu], [bed.link(BRIDGE).index, true, true, 1400]);
    assert.deepEqual([bed.link(OWN_END).mac, bed.link(OWN_END).mtu], ['02:42:0a:0a:0a:02', 1400]);
  });

  it('lets no container in whose port cannot be isolated, and says so', async () => {
    await create({ type: 'bridge', icc: 'false' });
    await createEndpoint();
    bed.kernel.refuse = ({ kind }) => (kind === 'port' ? 'EOPNOTSUPP' : undefined);
    const failure = bed.failure('NetworkDriver.Join', joining);
    await bed.advanceUntil(failure);
    assert.match(await failure, /cannot isolate the port tsfveeeeeeeeeee for icc=false: .*kernel 4\.18/);
    assert.deepEqual(names(), ['eth0', BRIDGE]);
    assert.deepEqual(
      bed.plugin.status().endpoints.map(({ sandbox }) => sandbox),
      [undefined],
    );
  });

  it('gives a container a new pair when it joins again, whatever became of the one before', async () => {
    await create();
    await join();
    bed.kernel.delLink(bed.link(OWN_END).index); // in a container that has not left
    const { index } = bed.link(HOST_END);
    await call('Join', joining);
    assert.notEqual(bed.link(HOST_END).index, index);
    assert.equal(bed.link(OWN_END).lowerIndex, bed.link(HOST_END).index);
  });

  it('tells a container the gateway of the network, or that of its host', async () => {
    await create();
    const { Gateway, StaticRoutes } = await join();
    assert.deepEqual([Gateway, StaticRoutes], ['10.10.10.1', undefined]);
    await call('DeleteEndpoint', ids);
    await remove();
    await create({ type: 'overlay' });
    const joined = await join();
    assert.equal(joined['Gateway'], '169.254.1.1');
    assert.deepEqual(joined['StaticRoutes'], [{ Destination: '169.254.1.1/32', RouteType: 1, NextHop: '' }]);
  });

  it('tells a container of an internal one the way to the network alone', async () => {
    await call('CreateNetwork', creation({ type: 'overlay' }, NETWORK, { 'com.docker.network.internal': true }));
    const { Gateway, StaticRoutes } = await join();
    assert.equal(Gateway, '');
    assert.deepEqual(StaticRoutes, [
      { Destination: '169.254.1.1/32', RouteType: 1, NextHop: '' },
      { Destination: '10.10.10.0/24', RouteType: 0, NextHop: '169.254.1.1' },
    ]);
  });

  it('gives addresses that stand alone where nothing else is on the link, and gateways and others as before', async () => {
    const address = async (options: object): Promise<unknown> =>
      (await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Options: options }))['Address'];
    const container = { 'com.docker.network.endpoint.macaddress': '02:42:0a:0a:0a:09' };
    await create({ type: 'overlay' });
    assert.equal(await address({ RequestAddressType: 'com.docker.network.gateway' }), '10.10.10.1/24');
    assert.equal(await address(container), '10.10.10.2/32');
    await remove();
    await create({ type: 'bridge' });
    assert.equal(await address(container), '10.10.10.3/24');
  });

  for (const method of ['Leave', 'DeleteEndpoint', 'DeleteNetwork']) {
    it(`keeps no end of a pair after ${method}, wherever the container’s is`, async () => {
      await create();
      await join();
      bed.kernel.delLink(bed.link(OWN_END).index); // Docker has moved it into the container
      await call(method, ids);
      await bed.clock.advance(100);
      assert.deepEqual(
        names().filter((name) => name.startsWith('tsfv')),
        [],
      );
    });
  }

  it('removes what a crash left of a pair that no container took', async () => {
    await create();
    await createEndpoint();
    bed.files.writeErrno = 'ENOSPC';
    const failure = bed.failure('NetworkDriver.Join', joining);
    await bed.advanceUntil(failure);
    assert.match(await failure, /ENOSPC/);
    assert.deepEqual(names(), ['eth0', BRIDGE], 'when it fails');
    bed.files.writeErrno = undefined;
    await call('Join', joining);
    await call('Leave', ids);
    bed.kernel.addLink({ name: HOST_END, kind: 'veth', alias: 'tsflannel:test:docker' });
    await bed.restart();
    await bed.clock.advance(100);
    assert.deepEqual(names(), ['eth0', BRIDGE], 'after a crash');
  });

  it('leaves everything as it is when the plugin is started anew', async () => {
    await create();
    await join();
    const before = [...bed.kernel.links.values()];
    const count = bed.kernel.applied.length;
    await bed.restart();
    await bed.clock.advance(1000);
    assert.deepEqual([...bed.kernel.links.values()], before);
    assert.deepEqual(bed.kernel.applied.slice(count), []);
  });

  it('has its bridge again after a restart of the host, before anybody asks', async () => {
    await create();
    const { index } = bed.link(BRIDGE);
    await bed.plugin.stop();
    bed.kernel.delLink(index);
    await bed.restart();
    await bed.clock.advance(100);
    assert.ok(bed.link(BRIDGE).isUp);
  });

  it('follows what the overlay carries', async () => {
    await create({ type: 'overlay' });
    await join();
    bed.overlayMtu = 1480;
    bed.plugin.review();
    await bed.clock.advance(100);
    assert.deepEqual([bed.link(BRIDGE).mtu, bed.link(HOST_END).mtu], [1480, 1480]);
  });

  it('announces an address on the bridge once, before its container is there', async () => {
    await create();
    await join();
    await bed.clock.advance(5000);
    assert.deepEqual(bed.announcedFrom, [BRIDGE]);
  });

  it('is written down with its type, what addresses stand for, whether containers reach each other, and whether hosts answer for them', async () => {
    const agreed = async (options: Options): Promise<unknown> => {
      await create(options);
      const [properties] = bed.addresses.agreed.values();
      await remove();
      return properties;
    };
    const common = { internal: 'false', gateway: '10.10.10.1' };
    assert.deepEqual(await agreed({ type: 'bridge' }), { ...common, type: 'bridge', address: 'subnet' });
    assert.deepEqual(await agreed({ type: 'bridge', 'ndp-proxy': 'true' }), {
      ...common,
      type: 'bridge',
      address: 'subnet',
      'ndp-proxy': 'true',
    });
    assert.deepEqual(await agreed({ type: 'overlay', 'com.docker.network.bridge.enable_icc': 'false' }), {
      ...common,
      type: 'overlay',
      address: 'host',
      icc: 'false',
    });
  });

  it('shares its bridge with other networks of the host that have its addresses', async () => {
    await create();
    await create({ type: 'bridge' }, OTHER);
    assert.deepEqual(
      bed.plugin.status().networks.map(({ parent }) => parent),
      [BRIDGE, BRIDGE],
    );
    await call('DeleteNetwork', { NetworkID: NETWORK });
    await bed.clock.advance(100);
    assert.ok(bed.link(BRIDGE).isUp);
  });

  it('keeps what it was made with over a restart', async () => {
    await create({ type: 'bridge', address: 'host', icc: 'false', 'ipv6-firewall': 'open', 'ndp-proxy': 'true' });
    const before = bed.plugin.status().networks;
    const [network] = before;
    assert.deepEqual(
      [network?.addressing, network?.isIccAllowed, network?.ipv6Firewall, network?.hasNdpProxy],
      ['host', false, 'open', true],
    );
    await bed.restart();
    assert.deepEqual(bed.plugin.status().networks, before);
  });

  const refusals: readonly (readonly [options: Options, why: RegExp])[] = [
    [{ type: 'overlay', vlan: '20' }, /-o vlan: networks of type overlay have no such option; .*-o type=macvlan/],
    [{ type: 'bridge', parent: 'eth0' }, /-o parent: networks of type bridge have no such option/],
    [{ type: 'bridge', probe: 'off' }, /-o probe: networks of type bridge have no such option/],
    [{ type: 'overlay', address: 'subnet' }, /address=subnet: it has to be one of host/],
    [{ type: 'bridge', icc: 'no' }, /icc=no: it has to be one of true, false/],
    [{ type: 'bridge', 'ipv6-firewall': 'off' }, /ipv6-firewall=off: it has to be one of closed, open/],
    [{ type: 'ring' }, /type=ring: it has to be one of macvlan, .*bridge, overlay/],
  ];
  for (const [options, why] of refusals) {
    it(`refuses ${JSON.stringify(options)}, and says what to do`, async () => {
      assert.match(await bed.failure('NetworkDriver.CreateNetwork', creation(options)), why);
    });
  }
});
