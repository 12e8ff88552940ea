import assert from 'node:assert/strict';
import { ip } from '../../../support/builders.js';
import { parseMac } from '../../../../src/ip/mac.js';
import { PluginBed } from './plugin-bed.js';

const POOL = '-/10.10.10.0-24/10.10.10.0-24';
const NETWORK = 'a'.repeat(64);
const ENDPOINT = 'e'.repeat(64);
const ADDRESS = ip('10.10.10.2');
const MAC = parseMac('02:42:0a:0a:0a:02');
const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };

describe('the register of endpoints', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
    await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    await bed.call('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: { 'com.docker.network.generic': { parent: 'eth0' } },
      IPv4Data: [{ AddressSpace: 'tsflannel', Pool: '10.10.10.0/24', Gateway: '10.10.10.1/24' }],
    });
  });

  afterEach(() => bed.close());

  const requestAddress = async (owner?: string): Promise<string | undefined> => {
    const Options = {
      'com.docker.network.endpoint.macaddress': MAC,
      ...(owner === undefined ? {} : { 'com.docker.network.endpoint.name': owner }),
    };
    await bed.call('IpamDriver.RequestAddress', { PoolID: POOL, Options });
    return bed.addresses.requests.at(-1)?.register;
  };

  const create = async (): Promise<void> => {
    const Interface = { Address: '10.10.10.2/24', MacAddress: MAC };
    await bed.call('NetworkDriver.CreateEndpoint', { ...ids, Interface });
  };
  const join = (): Promise<object> => bed.call('NetworkDriver.Join', { ...ids, SandboxKey: '/proc/self/ns/net' });
  const found = (): string | undefined => bed.plugin.register?.interfaceOf(ADDRESS, MAC);

  it('says that an address will turn up in it, also after a restart', async () => {
    const id = await requestAddress();
    assert.equal(typeof id, 'string');
    assert.equal(id, bed.plugin.register?.id);
    await bed.restart();
    assert.equal(bed.plugin.register?.id, id);
  });

  it('has another name after it was lost', async () => {
    const id = await requestAddress();
    bed.files.texts.clear();
    await bed.restart();
    assert.notEqual(bed.plugin.register?.id, id);
  });

  it('does not say so of an attached namespace', async () => {
    assert.equal(await requestAddress('netns /run/netns/web eth0'), undefined);
  });

  it('does not say so of a network of another driver', async () => {
    await bed.call('NetworkDriver.DeleteNetwork', { NetworkID: NETWORK });
    assert.equal(await requestAddress(), undefined);
  });

  it('knows nothing before it was read', () => {
    const other = new PluginBed();
    assert.equal(other.plugin.register, undefined);
  });

  it('follows an interface, and tells of each change', async () => {
    for (const [action, state] of [
      [create, 'made'],
      [join, 'joined'],
      [() => bed.call('NetworkDriver.Leave', ids), 'made'],
      [() => bed.call('NetworkDriver.DeleteEndpoint', ids), undefined],
    ] as const) {
      const { reviews } = bed.addresses;
      await action();
      assert.equal(found(), state);
      assert.ok(bed.addresses.reviews > reviews);
    }
  });

  it('tells interfaces apart by their MAC addresses', async () => {
    await create();
    assert.equal(bed.plugin.register?.interfaceOf(ADDRESS, parseMac('02:42:0a:0a:0a:03')), undefined);
  });

  it('takes an interface in no container for gone after Docker has started, unless it comes', async () => {
    await create();
    await bed.call('Plugin.Activate');
    assert.equal(found(), undefined);
    await bed.restart();
    assert.equal(found(), undefined, 'also after a restart');
    await join();
    assert.equal(found(), 'joined');
    await bed.call('Plugin.Activate');
    assert.equal(found(), 'joined', 'as with live-restore');
  });

  it('forgets an interface in no container with its address, and none that is in one', async () => {
    await create();
    await join();
    await bed.plugin.register?.forget(ADDRESS, MAC);
    assert.equal(found(), 'joined');
    await bed.call('NetworkDriver.Leave', ids);
    await bed.plugin.register?.forget(ADDRESS, MAC);
    assert.deepEqual(bed.plugin.status().endpoints, []);
  });

  it('makes no interface for an address that was taken back', async () => {
    await create();
    bed.addresses.takenBack.add('10.10.10.2');
    const error = await bed.failure('NetworkDriver.Join', { ...ids, SandboxKey: '/proc/self/ns/net' });
    assert.match(error, /10\.10\.10\.2: it was taken back.*start the container again/);
    assert.equal(bed.kernel.getLink('tsfceeeeeeeeeee'), undefined);
  });

  it('keeps no endpoint that comes when Docker no longer waits for it', async () => {
    const write = bed.files.write.bind(bed.files);
    let goOn = (): void => {};
    bed.files.write = async (...args) => {
      await new Promise<void>((resolve) => (goOn = resolve));
      return write(...args);
    };
    const answer = bed.failure('NetworkDriver.CreateEndpoint', {
      ...ids,
      Interface: { Address: '10.10.10.2/24', MacAddress: MAC },
    });
    await bed.advanceUntil(answer);
    assert.match(await answer, /not done within 9 s/);
    bed.files.write = write;
    goOn();
    await bed.clock.advance(10);
    assert.deepEqual(bed.plugin.status().endpoints, []);
  });

  it('has an address freed, or says why not', async () => {
    await requestAddress();
    assert.deepEqual(await bed.call('IpamDriver.FreeAddress', { PoolID: POOL, Address: '10.10.10.1' }), {});
    const { Refusal } = await bed.call('IpamDriver.FreeAddress', { PoolID: POOL, Address: '10.10.10.1' });
    assert.equal(Refusal, 'nobody has it');
  });
});
