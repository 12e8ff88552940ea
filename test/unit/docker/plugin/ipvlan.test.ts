import assert from 'node:assert/strict';
import type { LinkInfo } from '../../../../src/netlink/link.js';
import type { PoolId } from '../../../../src/container/pool-id.js';
import { PluginBed } from './plugin-bed.js';

const [FIRST, SECOND] = ['a'.repeat(64), 'b'.repeat(64)] as const;
const ENDPOINT = 'e'.repeat(64);
const LINK = 'tsfceeeeeeeeeee';
const POOL = '-/10.10.10.0-24/10.10.10.0-24' as PoolId;
const HOST_LINK = 'eth0-host';

type Options = Readonly<Record<string, string>>;

describe('networks of type ipvlan', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
  });

  afterEach(() => bed.close());

  /** What Docker sends for `docker network create`, with addresses of the cluster unless another subnet is given. */
  const creation = (
    options: Options,
    { id = FIRST, subnet = '10.10.10', ipam = 'tsflannel-ipvlan', more = {} } = {},
  ) => ({
    NetworkID: id,
    Options: { 'com.docker.network.generic': { type: 'ipvlan', parent: 'eth0', ...options }, ...more },
    IPv4Data: [{ AddressSpace: ipam, Pool: `${subnet}.0/24`, Gateway: `${subnet}.1/24`, AuxAddresses: {} }],
    IPv6Data: [],
  });

  const create = async (options: Options = {}, place: Parameters<typeof creation>[1] = {}): Promise<void> => {
    await bed.call('IpamDriver.RequestPool', { Pool: `${place.subnet ?? '10.10.10'}.0/24` });
    await bed.call('NetworkDriver.CreateNetwork', creation(options, place));
  };

  const refusal = (options: Options, place: Parameters<typeof creation>[1] = {}): Promise<string> =>
    bed.failure('NetworkDriver.CreateNetwork', creation(options, place));

  const createEndpoint = (more: object = {}): Promise<Readonly<Record<string, unknown>>> =>
    bed.call('NetworkDriver.CreateEndpoint', {
      NetworkID: FIRST,
      EndpointID: ENDPOINT,
      Interface: { Address: '10.10.10.2/24', AddressIPv6: '', ...more },
    });

  const join = async (): Promise<Readonly<Record<string, unknown>>> => {
    await createEndpoint();
    return bed.call('NetworkDriver.Join', {
      NetworkID: FIRST,
      EndpointID: ENDPOINT,
      SandboxKey: '/proc/self/ns/net',
    });
  };

  /** Puts an interface of somebody else on eth0. */
  const addForeign = (kind: 'ipvlan' | 'macvlan', details: LinkInfo['details']): void => {
    bed.kernel.addLink({ name: 'foreign0', kind, lowerIndex: bed.link('eth0').index, details });
  };

  it('give a container an interface of their mode and flag, and say nothing of a MAC address', async () => {
    await create({ ipvlan_mode: 'l2', ipvlan_flag: 'private', mtu: '1400' });
    assert.deepEqual(await createEndpoint(), { Interface: {} });
    await join();
    const { kind, mtu, mac, details } = bed.link(LINK);
    assert.deepEqual([kind, mtu, mac], ['ipvlan', 1400, bed.link('eth0').mac]);
    assert.deepEqual(details, { kind: 'ipvlan', mode: 'l2', flag: 'private' });
    assert.equal(bed.plugin.status().endpoints[0]?.mac, bed.link('eth0').mac);
  });

  it('give no container that asks for it the gateway, an auxiliary address or that of the host', async () => {
    const aux = { printer: '10.10.10.65/24' };
    await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    const made = creation({ 'host-access': 'true' });
    const [data] = (made as { readonly IPv4Data: readonly object[] }).IPv4Data;
    await bed.call('NetworkDriver.CreateNetwork', { ...made, IPv4Data: [{ ...data, AuxAddresses: aux }] });
    const [own] = bed.plugin.status().networks.flatMap(({ subnets }) => subnets.map(({ host }) => host));
    for (const address of ['10.10.10.1', '10.10.10.65', own?.toString()]) {
      const error = await bed.failure('NetworkDriver.CreateEndpoint', {
        NetworkID: FIRST,
        EndpointID: ENDPOINT,
        Interface: { Address: `${address}/24` },
      });
      assert.match(error, new RegExp(`cannot give a container ${address}: it is the gateway, the host or`));
    }
    await createEndpoint({ Address: '10.10.10.66/24' });
  });

  it('lead to the gateway in l2, and are announced there', async () => {
    await create();
    const { Gateway, StaticRoutes } = await join();
    assert.deepEqual([Gateway, StaticRoutes], ['10.10.10.1', undefined]);
    await bed.clock.advance(2000);
    assert.deepEqual(bed.announcedFrom, [LINK, 'eth0', 'eth0']);
  });

  for (const mode of ['l3', 'l3s']) {
    it(`lead out by the interface in ${mode}, whatever gateway there is, and nothing is resolved there`, async () => {
      await create({ mode });
      const { Gateway, StaticRoutes } = await join();
      assert.equal(Gateway, '');
      assert.deepEqual(StaticRoutes, [{ Destination: '0.0.0.0/0', RouteType: 1, NextHop: '' }]);
      await bed.clock.advance(2000);
      assert.deepEqual(bed.announcedFrom, []);
      assert.equal(bed.plugin.probeParentOf(POOL), undefined);
    });
  }

  it('lead nowhere in l3 if they are internal', async () => {
    await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    const { Options, ...rest } = creation({ mode: 'l3' }, { more: { 'com.docker.network.internal': true } });
    const generic = { type: 'ipvlan', mode: 'l3' };
    const wanted = { ...rest, Options: { ...Options, 'com.docker.network.generic': generic } };
    await bed.call('NetworkDriver.CreateNetwork', wanted);
    const joined = join();
    await bed.advanceUntil(joined);
    assert.equal((await joined)['StaticRoutes'], undefined);
  });

  it('are said not to reach other hosts in l3 where these are reached by another interface than their parent', async () => {
    const said = (): unknown[] => bed.log.find(/do not reach/, 'warn').map(({ fields }) => [fields.dev, fields.hint]);
    bed.kernel.addLink({ name: 'eth1', isUp: true, isRunning: true });
    await create({ mode: 'l3' });
    await create({ parent: 'eth1' }, { id: SECOND, subnet: '10.20.20' });
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: SECOND });
    assert.deepEqual(said(), []);
    await create({ parent: 'eth1', mode: 'l3s' }, { id: SECOND, subnet: '10.30.30' });
    assert.deepEqual(said(), [['eth1', 'make the network with -o parent=eth0']]);
  });

  it('are asked for on the network in l2 before an address is given', async () => {
    await create();
    assert.equal(bed.plugin.probeParentOf(POOL), 'eth0');
  });

  it('have all hosts agree on mode and flag, and on no gateway where there is none', async () => {
    await create({ mode: 'l3' });
    const common = { type: 'ipvlan', internal: 'false' };
    assert.deepEqual([...bed.addresses.agreed.values()], [{ ...common, mode: 'l3', flag: 'bridge' }]);
  });

  it('refuse a MAC address, which the kernel would not set', async () => {
    await create();
    const error = await bed.failure('NetworkDriver.CreateEndpoint', {
      NetworkID: FIRST,
      EndpointID: ENDPOINT,
      Interface: { Address: '10.10.10.2/24', MacAddress: '02:42:0a:0a:0a:02' },
    });
    assert.match(error, /cannot give an interface the MAC address 02:42:0a:0a:0a:02: all of type ipvlan on eth0 have /);
    assert.match(error, /leave out --mac-address/);
    assert.deepEqual(bed.plugin.status().endpoints, []);
  });

  it('refuse the IPAM driver that has Docker set one, and say what to type instead', async () => {
    await bed.call('IpamDriver.RequestPool', {
      Pool: '10.10.10.0/24',
      SubPool: '10.10.10.128/25',
      Options: { network: 'lan' },
    });
    assert.match(
      await refusal({ mode: 'l2' }, { ipam: 'tsflannel' }),
      /docker network create -d tsflannel --ipam-driver tsflannel-ipvlan --subnet 10\.10\.10\.0\/24 --ip-range 10\.10\.10\.128\/25 --gateway 10\.10\.10\.1 --ipam-opt network=lan -o type=ipvlan -o parent=eth0 -o mode=l2 NAME$/,
    );
    assert.deepEqual(bed.plugin.status().networks, []);
  });

  for (const [what, options, shown] of [
    ['mode', { mode: 'l3' }, '-o mode=l2 -o flag=bridge'],
    ['flag', { flag: 'vepa' }, '-o mode=l2 -o flag=bridge'],
  ] as const) {
    it(`take no second ${what} on a parent, which would be that of all`, async () => {
      await create();
      await create({}, { id: SECOND, subnet: '10.20.20' });
      const error = await refusal(options, { id: 'c'.repeat(64), subnet: '10.30.30' });
      assert.ok(error.includes(`network ${FIRST.slice(0, 12)} has it with ${shown}, and the kernel has one`), error);
      assert.ok(error.includes(`use ${shown}, or another parent`), error);
    });

    it(`take none that has another ${what} than an interface of somebody else on the parent`, async () => {
      addForeign('ipvlan', { kind: 'ipvlan', mode: 'l2', flag: 'bridge' });
      assert.match(await refusal(options), /the interface foreign0 has it with -o mode=l2 -o flag=bridge/);
      await create();
    });
  }

  it('do not mix with macvlan on a parent, whoever comes first', async () => {
    await create();
    const macvlan = { type: 'macvlan' };
    assert.match(
      await refusal(macvlan, { id: SECOND, subnet: '10.20.20' }),
      /the ipvlan network aaaaaaaaaaaa is on it/,
    );
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: FIRST });
    await create(macvlan, { id: SECOND, subnet: '10.20.20' });
    assert.match(await refusal({}), /cannot put an ipvlan network on eth0: the macvlan network bbbbbbbbbbbb is on it/);
  });

  it('do not mix with a macvlan interface of somebody else', async () => {
    addForeign('macvlan', { kind: 'macvlan', mode: 'bridge' });
    assert.match(await refusal({}), /the macvlan interface foreign0 is on it; put macvlan and ipvlan on different/);
  });

  it('say what the kernel lacks', async () => {
    await create({ mode: 'l3s' });
    await createEndpoint();
    bed.refuse = ({ kind }) => (kind === 'ipvlan' ? 'EOPNOTSUPP' : undefined);
    const error = await bed.failure('NetworkDriver.Join', {
      NetworkID: FIRST,
      EndpointID: ENDPOINT,
      SandboxKey: '/proc/self/ns/net',
    });
    assert.match(error, /the kernel makes none; load the module ipvlan, and look whether this kernel has mode l3s/);
  });

  describe('with host access', () => {
    const access = { 'host-access': 'true' };

    const converged = async (): Promise<void> => {
      await bed.clock.advance(100);
    };

    /** Addresses of the host's own interface there. */
    const ownAddresses = (): string[] => {
      const index = bed.kernel.getLink(HOST_LINK)?.index;
      return [...bed.kernel.addresses.values()]
        .filter((each) => each.index === index)
        .map(({ address, length }) => `${String(address)}/${length}`);
    };

    const routes = (): string[] => {
      const index = bed.kernel.getLink(HOST_LINK)?.index;
      return [...bed.kernel.routes.values()]
        .flat()
        .filter((each) => each.index === index)
        .map((each) => String(each.destination));
    };

    it('lease an address of the pool for the host in l2, and give it back with the last network that has it', async () => {
      await create(access);
      await create(access, { id: SECOND });
      await join();
      await converged();
      assert.deepEqual(bed.link(HOST_LINK).details, { kind: 'ipvlan', mode: 'l2', flag: 'bridge' });
      assert.deepEqual([ownAddresses(), routes()], [['10.10.10.1/32'], ['10.10.10.2/32']]);
      const given = (): string[] => [...bed.addresses.given.values()].flatMap((each) => [...each.keys()]);
      assert.deepEqual(given(), ['10.10.10.1']);
      await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: SECOND });
      assert.deepEqual(given(), ['10.10.10.1']);
      await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: FIRST });
      assert.deepEqual(given(), []);
    });

    it('leave the parent to another mode at once, although the host has its interface there for a moment', async () => {
      await create(access);
      await converged();
      await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: FIRST });
      assert.ok(bed.kernel.getLink(HOST_LINK));
      await create({ mode: 'l3' }, { id: SECOND, subnet: '10.20.20' });
    });

    it('have that address after a restart', async () => {
      await create(access);
      await bed.restart();
      await converged();
      assert.deepEqual(ownAddresses(), ['10.10.10.1/32']);
    });

    it('are not made if the host gets no address', async () => {
      await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
      bed.addresses.gate = Promise.reject(new Error('no address left'));
      assert.match(await refusal(access), /no address left/);
      assert.deepEqual(bed.plugin.status().networks, []);
    });

    for (const mode of ['l3', 'l3s'] as const) {
      it(`give the host an interface without an address in ${mode}`, async () => {
        await create({ ...access, mode });
        await join();
        await converged();
        assert.deepEqual(bed.link(HOST_LINK).details, { kind: 'ipvlan', mode, flag: 'bridge' });
        assert.deepEqual([ownAddresses(), routes()], [[], ['10.10.10.2/32']]);
        assert.deepEqual(bed.addresses.requests, []);
      });
    }

    it('need the flag bridge, and in l2 addresses of the cluster', async () => {
      assert.match(
        await refusal({ ...access, flag: 'private' }),
        /host access needs flag=bridge, and the flag is private/,
      );
      const error = await refusal(access, { ipam: 'LocalDefault' });
      assert.match(error, /another IPAM driver has those; use --ipam-driver tsflannel-ipvlan/);
      await create({ ...access, mode: 'l3' }, { ipam: 'LocalDefault' });
    });
  });
});
