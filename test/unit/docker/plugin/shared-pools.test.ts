import assert from 'node:assert/strict';
import type { PoolId } from '../../../../src/container/pool-id.js';
import { attachedNetworkId, attachmentId, madeNetworkId } from '../../../../src/docker/plugin/own-ids.js';
import { PluginBed } from './plugin-bed.js';

const DOCKER = 'a'.repeat(64);
const OTHER = 'b'.repeat(64);
const ATTACHED = attachedNetworkId('lan');
const MADE = madeNetworkId('lan');
const POOL = 'lan/10.10.10.0-24/10.10.10.0-24' as PoolId;
const SANDBOX = '/proc/self/ns/net';

describe('a pool that several networks of one host have', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
  });

  afterEach(() => bed.close());

  const isOwn = (id: string): boolean => id === ATTACHED || id === MADE;

  const requestPool = (id: string, name = 'lan'): Promise<object> =>
    bed.call('IpamDriver.RequestPool', {
      Pool: '10.10.10.0/24',
      Options: { network: name },
      ...(isOwn(id) ? { NetworkID: id } : {}),
    });

  const requestShared = async (): Promise<void> => {
    const Options = { RequestAddressType: 'com.docker.network.gateway' };
    await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Address: '10.10.10.254', Options });
    await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Address: '10.10.10.9' });
  };

  const creation = (
    id: string,
    { gateway = '10.10.10.254', internal = false, probe = 'on', parent = 'eth0' } = {},
  ): object => ({
    NetworkID: id,
    Options: {
      'com.docker.network.generic': internal ? {} : { parent, probe },
      'com.docker.network.internal': internal,
    },
    IPv4Data: [
      {
        AddressSpace: 'tsflannel',
        Pool: '10.10.10.0/24',
        Gateway: `${gateway}/24`,
        AuxAddresses: { printer: '10.10.10.9/24' },
        ...(isOwn(id) ? { PoolID: POOL } : {}),
      },
    ],
  });

  /** All that `docker network create` asks for, or what tsflannelctl does. */
  const create = async (id: string, options: Parameters<typeof creation>[1] = {}): Promise<void> => {
    await requestPool(id);
    await requestShared();
    await bed.call('NetworkDriver.CreateNetwork', creation(id, options));
  };

  /** As Docker does it for `docker network rm`; 20.10 deletes the network last. */
  const removeFromDocker = async (id: string, isNetworkFirst = true): Promise<void> => {
    if (isNetworkFirst) await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: id });
    for (const Address of ['10.10.10.254', '10.10.10.9']) {
      await bed.call('IpamDriver.ReleaseAddress', { PoolID: POOL, Address });
    }
    await bed.call('IpamDriver.ReleasePool', { PoolID: POOL });
    if (!isNetworkFirst) await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: id });
  };

  const attach = async (networkId: string, owner: string): Promise<string> => {
    const EndpointID = attachmentId(owner);
    const ids = { NetworkID: networkId, EndpointID };
    const Interface = { Address: '10.10.10.77/24', MacAddress: '02:42:0a:0a:0a:4d' };
    await bed.call('NetworkDriver.CreateEndpoint', { ...ids, Interface });
    const joined = bed.call('NetworkDriver.Join', { ...ids, SandboxKey: SANDBOX });
    await bed.advanceUntil(joined); // one that leads nowhere waits for its device
    return EndpointID;
  };

  const detach = async (networkId: string, EndpointID: string): Promise<void> => {
    const ids = { NetworkID: networkId, EndpointID };
    await bed.call('NetworkDriver.Leave', ids);
    await bed.call('NetworkDriver.DeleteEndpoint', ids);
  };

  const poolsOf = (id: string): readonly (PoolId | undefined)[] =>
    (bed.plugin.status().networks.find((each) => each.id === id)?.subnets ?? []).map(({ pool }) => pool);

  const networks = (): string[] => bed.plugin.status().networks.map(({ id }) => id);

  const shared = (): string[] => [...(bed.addresses.given.get(POOL)?.keys() ?? [])].sort();

  it('is that of a network of Docker’s after an attachment as well, which agrees on it and probes', async () => {
    await create(ATTACHED, { probe: 'on' });
    bed.addresses.agreed.clear();
    await create(DOCKER);
    assert.deepEqual(poolsOf(DOCKER), [POOL]);
    assert.equal(bed.addresses.agreed.get(POOL)?.['gateway'], '10.10.10.254');
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: ATTACHED });
    assert.equal(bed.plugin.probeParentOf(POOL), 'eth0');
  });

  it('is not probed if one of them does not want that', async () => {
    await create(ATTACHED);
    await create(DOCKER, { probe: 'off' });
    assert.equal(bed.plugin.probeParentOf(POOL), undefined);
  });

  it('is the newest with its subnet for each network, whatever names were asked for before', async () => {
    const wan = 'wan/10.10.10.0-24/10.10.10.0-24';
    await requestPool('under a driver of Docker’s own', 'wan');
    await create(ATTACHED);
    await create(DOCKER);
    assert.deepEqual(poolsOf(DOCKER), [POOL]);
    bed.kernel.addLink({ name: 'eth1', isUp: true });
    await bed.call('NetworkDriver.CreateNetwork', creation(OTHER, { parent: 'eth1' }));
    assert.deepEqual(poolsOf(OTHER), [wan], 'the one that no network has taken');
  });

  it('is left with the last of them, in whatever order they go', async () => {
    for (const order of [
      [ATTACHED, DOCKER],
      [DOCKER, ATTACHED],
      [MADE, DOCKER],
      [DOCKER, MADE],
      [DOCKER, OTHER],
    ]) {
      for (const id of order) await create(id);
      const [first = '', second = ''] = order;
      const remove = (id: string): Promise<unknown> =>
        isOwn(id) ? bed.call('NetworkDriver.DeleteNetwork', { NetworkID: id }) : removeFromDocker(id);
      await remove(first);
      assert.ok(bed.addresses.pools.has(POOL), order.join());
      assert.deepEqual(shared(), ['10.10.10.254', '10.10.10.9'], order.join());
      await remove(second);
      assert.equal(bed.addresses.pools.has(POOL), false, order.join());
      assert.deepEqual(networks(), []);
    }
  });

  it('is left when Docker gives it back before it deletes the network', async () => {
    await create(DOCKER);
    await create(ATTACHED);
    await removeFromDocker(DOCKER, false);
    assert.deepEqual(shared(), ['10.10.10.254', '10.10.10.9']);
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: ATTACHED });
    assert.equal(bed.addresses.pools.has(POOL), false);
    await create(OTHER);
    await removeFromDocker(OTHER, false);
    assert.equal(bed.addresses.pools.has(POOL), false);
    assert.deepEqual(shared(), []);
  });

  it('is not left while Docker has it under a driver of its own', async () => {
    await requestPool(DOCKER);
    await requestShared();
    await create(ATTACHED);
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: ATTACHED });
    await bed.call('IpamDriver.ReleasePool', { PoolID: POOL, NetworkID: MADE });
    assert.ok(bed.addresses.pools.has(POOL));
    assert.deepEqual(shared(), ['10.10.10.254', '10.10.10.9']);
    await bed.call('IpamDriver.ReleasePool', { PoolID: POOL });
    assert.equal(bed.addresses.pools.has(POOL), false);
  });

  it('stays after an attempt of tsflannelctl that failed, if somebody else has it, and is left otherwise', async () => {
    const giveUp = async (): Promise<void> => {
      await requestPool(MADE);
      await bed.call('IpamDriver.ReleasePool', { PoolID: POOL, NetworkID: MADE });
    };
    await giveUp();
    assert.equal(bed.addresses.pools.has(POOL), false);
    await create(DOCKER);
    await giveUp();
    assert.ok(bed.addresses.pools.has(POOL));
  });

  it('is refused to a network that wants another gateway than one of this host, with both values', async () => {
    await create(DOCKER);
    await requestPool(MADE);
    const error = await bed.failure('NetworkDriver.CreateNetwork', creation(MADE, { gateway: '10.10.10.2' }));
    assert.match(
      error,
      /lan\/10\.10\.10\.0-24 with gateway 10\.10\.10\.2: this host has it with gateway 10\.10\.10\.254/,
    );
    assert.deepEqual(networks(), [DOCKER]);
  });

  describe('with something attached', () => {
    it('goes on after Docker has removed its network, until the last is detached', async () => {
      await create(DOCKER);
      const first = await attach(DOCKER, 'first');
      const second = await attach(DOCKER, 'second');
      const device = { NetworkID: DOCKER, EndpointID: 'e'.repeat(64), Interface: { Address: '10.10.10.78/24' } };
      await bed.call('NetworkDriver.CreateEndpoint', device);
      await removeFromDocker(DOCKER);
      await bed.restart();
      const [left = ''] = networks();
      assert.notEqual(left, DOCKER);
      assert.deepEqual(poolsOf(left), [POOL]);
      const { endpoints } = bed.plugin.status();
      assert.deepEqual(
        endpoints.map((each) => [each.id, each.networkId, each.sandbox]),
        [first, second].map((id) => [id, left, SANDBOX]),
      );
      assert.ok(bed.addresses.pools.has(POOL));
      assert.deepEqual(shared(), ['10.10.10.254', '10.10.10.9']);
      await detach(left, first);
      assert.deepEqual(networks(), [left]);
      await detach(left, second);
      assert.deepEqual(networks(), []);
      assert.equal(bed.addresses.pools.has(POOL), false);
    });

    it('is shared again by a network that Docker makes afterwards, which stays after the last was detached', async () => {
      await create(DOCKER);
      const attached = await attach(DOCKER, 'first');
      await removeFromDocker(DOCKER);
      const [left = ''] = networks();
      await create(OTHER);
      assert.deepEqual(poolsOf(OTHER), [POOL]);
      await detach(left, attached);
      assert.deepEqual(networks(), [OTHER]);
      assert.ok(bed.addresses.pools.has(POOL));
    });

    it('lies on one device where nothing leads out', async () => {
      await create(DOCKER, { internal: true });
      await attach(DOCKER, 'first');
      await removeFromDocker(DOCKER);
      await create(OTHER, { internal: true });
      const parents = new Set(bed.plugin.status().networks.map(({ parent }) => parent));
      assert.equal(parents.size, 1);
      await bed.clock.advance(100);
      const [parent = ''] = parents;
      assert.ok(bed.link(parent).isUp);
    });

    it('keeps the network that an operator has made, until that is removed', async () => {
      await create(MADE);
      const attached = await attach(MADE, 'first');
      assert.match(
        await bed.failure('NetworkDriver.DeleteNetwork', { NetworkID: MADE }),
        /1 interfaces are attached to it; see them in tsflannelctl docker-networks/,
      );
      await detach(MADE, attached);
      assert.deepEqual(networks(), [MADE]);
      await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: MADE });
      assert.deepEqual(networks(), []);
    });
  });
});
