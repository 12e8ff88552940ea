import assert from 'node:assert/strict';
import { IpAddress } from '../../../../src/ip/address.js';
import { PluginBed } from './plugin-bed.js';

const NETWORK = 'a'.repeat(64);
const OTHER = 'b'.repeat(64);
const ENDPOINT = 'e'.repeat(64);

type Options = Readonly<Record<string, string>>;

/** What Docker sends for `docker network create`. */
function creation(options: Options, id = NETWORK): object {
  return {
    NetworkID: id,
    Options: { 'com.docker.network.generic': options },
    IPv4Data: [{ AddressSpace: 'tsflannel', Pool: '10.10.10.0/24', Gateway: '10.10.10.1/24' }],
    IPv6Data: [],
  };
}

describe('a network on a VLAN', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
  });

  afterEach(() => bed.close());

  /** The answer of a call that waits for devices of the host. */
  const call = async (method: string, body: object): Promise<void> => {
    const answer = bed.call(`NetworkDriver.${method}`, body);
    await bed.advanceUntil(answer);
    await answer;
  };

  const create = (options: Options, id = NETWORK): Promise<void> => call('CreateNetwork', creation(options, id));

  const refusal = async (options: Options): Promise<string> => {
    const answer = bed.failure('NetworkDriver.CreateNetwork', creation(options));
    await bed.advanceUntil(answer);
    assert.deepEqual(bed.plugin.status().networks, []);
    return answer;
  };

  const remove = async (id = NETWORK): Promise<void> => {
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: id });
    await bed.clock.advance(100);
  };

  /** Names and ids of the sub-interfaces that are up, and what they lie on. */
  const subInterfaces = (): readonly unknown[] =>
    [...bed.kernel.links.values()].flatMap(({ name, details, lowerIndex, isUp }) =>
      details?.kind === 'vlan' ? [[name, details.id, bed.kernel.links.get(lowerIndex)?.name, isUp]] : [],
    );

  /** One that an operator has made by hand. */
  const addByHand = (name: string, id: number): number => {
    const details = { kind: 'vlan', id } as const;
    return bed.kernel.addLink({ name, kind: 'vlan', lowerIndex: bed.link('eth0').index, isUp: true, details }).index;
  };

  const ways: readonly (readonly [what: string, options: Options])[] = [
    ['its id and the trunk', { parent: 'eth0', vlan: '20' }],
    ['the name of a sub-interface', { parent: 'eth0.20' }],
    ['both', { parent: 'eth0.20', vlan: '20' }],
    ['its id alone, on the daemon’s own interface', { vlan: '20' }],
  ];
  for (const [what, options] of ways) {
    it(`makes the sub-interface for ${what}`, async () => {
      await create(options);
      assert.deepEqual(subInterfaces(), [['eth0.20', 20, 'eth0', true]]);
      const [network] = bed.plugin.status().networks;
      assert.deepEqual([network?.parent, network?.vlan], ['eth0.20', { id: 20, trunk: 'eth0' }]);
    });
  }

  it('puts containers on the sub-interface', async () => {
    await create({ parent: 'eth0.20' });
    const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };
    const Interface = { Address: '10.10.10.2/24', MacAddress: '02:42:0a:0a:0a:02' };
    await bed.call('NetworkDriver.CreateEndpoint', { ...ids, Interface });
    await call('Join', { ...ids, SandboxKey: '/proc/self/ns/net' });
    assert.equal(bed.link('tsfceeeeeeeeeee').lowerIndex, bed.link('eth0.20').index);
  });

  it('shares the sub-interface with other networks, and removes it with the last one', async () => {
    await create({ parent: 'eth0', vlan: '20' });
    const { index } = bed.link('eth0.20');
    await create({ parent: 'eth0.20' }, OTHER);
    await remove();
    assert.equal(bed.link('eth0.20').index, index);
    await remove(OTHER);
    assert.deepEqual(subInterfaces(), []);
  });

  for (const options of [{ parent: 'eth0', vlan: '20' }, { parent: 'byhand' }]) {
    it(`uses one that was there, and leaves it alone: ${JSON.stringify(options)}`, async () => {
      const index = addByHand('byhand', 20);
      const before = bed.kernel.links.get(index);
      await create(options);
      const [network] = bed.plugin.status().networks;
      assert.deepEqual([network?.parent, network?.vlan], ['byhand', { id: 20, trunk: undefined }]);
      await remove();
      assert.deepEqual(bed.kernel.links.get(index), before);
    });
  }

  it('leaves one alone that the system has made before it at a start of the host', async () => {
    await create({ vlan: '20' });
    await bed.plugin.stop();
    bed.kernel.delLink(bed.link('eth0.20').index);
    const before = bed.kernel.links.get(addByHand('eth0.20', 20));
    await bed.restart();
    await bed.clock.advance(1000);
    await remove();
    assert.deepEqual(bed.link('eth0.20'), before);
  });

  it('has it again after a restart of the host, before anybody asks', async () => {
    await create({ vlan: '20' });
    await bed.plugin.stop();
    bed.kernel.delLink(bed.link('eth0.20').index);
    await bed.restart();
    await bed.clock.advance(100);
    assert.deepEqual(subInterfaces(), [['eth0.20', 20, 'eth0', true]]);
  });

  it('makes it again when its trunk was away', async () => {
    await create({ vlan: '20' });
    bed.kernel.delLink(bed.link('eth0.20').index);
    bed.kernel.delLink(bed.link('eth0').index);
    await bed.clock.advance(1000);
    bed.kernel.addLink({ name: 'eth0', isUp: true });
    await bed.clock.advance(1000);
    assert.deepEqual(subInterfaces(), [['eth0.20', 20, 'eth0', true]]);
  });

  it('follows the MTU of the trunk', async () => {
    await create({ vlan: '20' });
    bed.kernel.setLink(bed.link('eth0').index, { mtu: 9000 });
    await bed.clock.advance(1000);
    assert.equal(bed.link('eth0.20').mtu, 9000);
  });

  it('has all hosts agree on its id, whoever has made the sub-interface', async () => {
    const { PoolID } = await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    addByHand('byhand', 20);
    await create({ parent: 'byhand' });
    assert.equal(bed.addresses.agreed.get(PoolID as never)?.['vlan'], '20');
  });

  it('takes the sub-interface with an address in the subnet for the parent', async () => {
    bed.kernel.putAddress(addByHand('byhand', 20), IpAddress.parse('10.10.10.250'), 24);
    await create({ vlan: '20' });
    assert.equal(bed.plugin.status().networks[0]?.parent, 'byhand');
  });

  const refusals: readonly (readonly [what: string, options: Options, why: RegExp])[] = [
    ['another id than that of the parent', { parent: 'byhand', vlan: '30' }, /VLAN 30 on byhand: that is VLAN 20/],
    ['a name and another id', { parent: 'eth0.30', vlan: '31' }, /this host has no interface eth0\.30/],
    ['a sub-interface of nothing', { parent: 'eth7.30' }, /this host has no interface eth7\.30/],
    ['an id that is none', { parent: 'eth0.4095' }, /this host has no interface eth0\.4095/],
    ['a name that is too long', { parent: 'enp0s31f6abcd', vlan: '4000' }, /enp0s31f6abcd\.4000, would be longer/],
    ['a name that something else has', { parent: 'eth0', vlan: '40' }, /eth0\.40 is something else/],
    ['the loopback interface', { parent: 'lo', vlan: '20' }, /it is the loopback interface/],
    ['an MTU above the trunk’s', { vlan: '30', mtu: '9000' }, /its MTU is 1500, below the wanted 9000/],
  ];
  for (const [what, options, why] of refusals) {
    it(`refuses ${what}, with the reason`, async () => {
      addByHand('byhand', 20);
      bed.kernel.addLink({ name: 'lo', isLoopback: true });
      bed.kernel.addLink({ name: 'enp0s31f6abcd', isUp: true });
      bed.kernel.addLink({ name: 'eth0.40', kind: 'veth' });
      assert.match(await refusal(options), why);
    });
  }

  it('says what is missing where the kernel makes none', async () => {
    bed.kernel.refuse = ({ kind }) => (kind === 'link' ? 'EOPNOTSUPP' : undefined);
    assert.match(await refusal({ vlan: '20' }), /the kernel has no 802\.1Q there; load the module 8021q/);
  });
});
