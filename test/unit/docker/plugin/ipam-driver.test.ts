import assert from 'node:assert/strict';
import { PluginBed, post } from './plugin-bed.js';

const POOL = '-/10.10.10.0-24/10.10.10.0-24';

describe('the IPAM driver', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
  });

  afterEach(() => bed.close());

  it('wants MAC addresses and no replay', async () => {
    assert.deepEqual(await bed.call('IpamDriver.GetCapabilities'), {
      RequiresMACAddress: true,
      RequiresRequestReplay: false,
    });
  });

  it('has one address space', async () => {
    assert.deepEqual(await bed.call('IpamDriver.GetDefaultAddressSpaces'), {
      LocalDefaultAddressSpace: 'tsflannel',
      GlobalDefaultAddressSpace: 'tsflannel',
    });
  });

  const pools: readonly (readonly [what: string, request: object, id: string, subnet: string])[] = [
    ['a subnet', { Pool: '10.10.10.0/24' }, POOL, '10.10.10.0/24'],
    [
      'a part of a subnet',
      { Pool: '10.10.10.0/24', SubPool: '10.10.10.128/25', Options: {} },
      '-/10.10.10.0-24/10.10.10.128-25',
      '10.10.10.0/24',
    ],
    [
      'a named network',
      { Pool: '10.10.10.0/24', SubPool: '', Options: { network: 'lan' } },
      'lan/10.10.10.0-24/10.10.10.0-24',
      '10.10.10.0/24',
    ],
    [
      'IPv6 in whatever spelling',
      { Pool: '2001:DB8:0:0::/64', V6: true },
      '-/2001:db8::-64/2001:db8::-64',
      '2001:db8::/64',
    ],
    ['any subnet', { Pool: '', Options: null }, '-/10.99.0.0-24/10.99.0.0-24', '10.99.0.0/24'],
  ];
  for (const [what, request, id, subnet] of pools) {
    it(`gives a pool for ${what}`, async () => {
      assert.deepEqual(await bed.call('IpamDriver.RequestPool', request), { PoolID: id, Pool: subnet, Data: {} });
    });
  }

  it('refuses an option that there is not, and names the one that there is', async () => {
    const error = await bed.failure('IpamDriver.RequestPool', { Pool: '10.10.10.0/24', Options: { nam: 'lan' } });
    assert.match(error, /--ipam-opt nam: there is no such option; the one that there is: network=NAME/);
  });

  const kinds: readonly (readonly [what: string, request: object, kind: string])[] = [
    ['the gateway', { Options: { RequestAddressType: 'com.docker.network.gateway' } }, 'gateway'],
    [
      'a gateway that is named',
      { Address: '10.10.10.1', Options: { RequestAddressType: 'com.docker.network.gateway' } },
      'gateway',
    ],
    ['an auxiliary address', { Address: '10.10.10.7', Options: null }, 'auxiliary'],
    ['a container', { Options: { 'com.docker.network.endpoint.macaddress': '02:42:AC:11:00:02' } }, 'container'],
    [
      'a container with a fixed address',
      { Address: '10.10.10.7', Options: { 'com.docker.network.endpoint.macaddress': '02:42:ac:11:00:02' } },
      'container',
    ],
    ['somebody without a MAC address', { Options: {} }, 'container'],
  ];
  for (const [what, request, kind] of kinds) {
    it(`tells a request for ${what} from others`, async () => {
      const { Address } = await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, ...request });
      assert.match(String(Address), /^10\.10\.10\.[17]\/24$/);
      assert.deepEqual(
        bed.addresses.requests.map((each) => each.kind),
        [kind],
      );
    });
  }

  it('passes on whose address it is', async () => {
    await bed.call('IpamDriver.RequestAddress', {
      PoolID: POOL,
      Options: {
        'com.docker.network.endpoint.macaddress': '02:42:AC:11:00:02',
        'com.docker.network.endpoint.name': 'web',
      },
    });
    const [request] = bed.addresses.requests;
    assert.deepEqual([request?.mac, request?.owner], ['02:42:ac:11:00:02', 'web']);
  });

  it('releases what was given', async () => {
    const { Address } = await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Address: '10.10.10.7' });
    assert.equal(Address, '10.10.10.7/24');
    await bed.call('IpamDriver.ReleaseAddress', { PoolID: POOL, Address: '10.10.10.7' });
    assert.deepEqual(
      [...bed.addresses.given.values()].map((given) => given.size),
      [0],
    );
  });

  it('takes the release of what was never given for done', async () => {
    for (const PoolID of [POOL, 'of another time', '']) {
      assert.deepEqual(await bed.call('IpamDriver.ReleaseAddress', { PoolID, Address: '10.10.10.9' }), {});
      assert.deepEqual(await bed.call('IpamDriver.ReleasePool', { PoolID }), {});
    }
  });

  it('refuses an address of a pool that it never gave', async () => {
    const error = await bed.failure('IpamDriver.RequestAddress', { PoolID: 'of another time' });
    assert.match(error, /as a pool id/);
  });

  it('has no address given once Docker no longer waits', async () => {
    let open = (): void => {};
    bed.addresses.gate = new Promise((resolve) => (open = resolve));
    const answer = bed.failure('IpamDriver.RequestAddress', {
      PoolID: POOL,
      Options: { 'com.docker.network.endpoint.macaddress': '02:42:ac:11:00:02' },
    });
    await bed.advanceUntil(answer);
    assert.match(await answer, /not done within 9 s/);
    open();
    await bed.clock.advance(1);
    assert.deepEqual(
      [...bed.addresses.given.values()].flatMap((given) => [...given.keys()]),
      [],
    );
  });

  it('takes an address that is asked for by name for an attachment for that, without a MAC address too', async () => {
    const Options = { 'com.docker.network.endpoint.name': 'netns /run/netns/web eth0' };
    await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Address: '10.10.10.7', Options });
    assert.deepEqual(
      bed.addresses.requests.map(({ kind }) => kind),
      ['container'],
    );
  });

  describe('under the name for ipvlan', () => {
    const call = async (method: string, body: object = {}): Promise<Readonly<Record<string, unknown>>> => {
      const { body: answer } = await post(bed.noMacSocket, method, body);
      assert.equal(answer['Error'], undefined);
      return answer;
    };

    /** What the addresses were for that were asked for by name. */
    const kindOf = async (Address: string): Promise<string | undefined> => {
      await call('IpamDriver.RequestAddress', { PoolID: POOL, Address, Options: null });
      return bed.addresses.requests.at(-1)?.kind;
    };

    const createNetwork = async (id: string, auxiliary: readonly string[]): Promise<void> => {
      await call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
      const AuxAddresses = Object.fromEntries(auxiliary.map((address) => [address, `${address}/24`]));
      const data = { AddressSpace: 'tsflannel-ipvlan', Pool: '10.10.10.0/24', AuxAddresses };
      await bed.call('NetworkDriver.CreateNetwork', {
        NetworkID: id.repeat(64),
        Options: {},
        IPv4Data: [data],
        IPv6Data: [],
      });
    };

    it('is an IPAM driver alone, and wants no MAC addresses, which Docker would set', async () => {
      assert.deepEqual((await post(bed.noMacSocket, 'Plugin.Activate')).body, { Implements: ['IpamDriver'] });
      assert.deepEqual(await call('IpamDriver.GetCapabilities'), {
        RequiresMACAddress: false,
        RequiresRequestReplay: false,
      });
    });

    it('has an address space of that name, whose networks get our addresses', async () => {
      const { LocalDefaultAddressSpace } = await call('IpamDriver.GetDefaultAddressSpaces');
      assert.equal(LocalDefaultAddressSpace, 'tsflannel-ipvlan');
      await createNetwork('a', []);
      const [network] = bed.plugin.status().networks;
      assert.equal(network?.subnets[0]?.pool, POOL);
    });

    it('takes what is asked for by name for auxiliary until the network is made, and for a container’s from then on', async () => {
      assert.equal(await kindOf('10.10.10.7'), 'auxiliary');
      await createNetwork('a', ['10.10.10.7']);
      assert.equal(await kindOf('10.10.10.9'), 'container');
    });

    it('gives the auxiliary addresses of a network again, as a second network on its pool asks for', async () => {
      await createNetwork('a', ['10.10.10.7']);
      assert.equal(await kindOf('10.10.10.7'), 'auxiliary');
    });
  });
});
