import assert from 'node:assert/strict';
import type { AddressPoolsOptions } from '../../../src/container/address-pools.js';
import type { GivenPool } from '../../../src/container/addresses.js';
import { encodeRecord } from '../../../src/container/records.js';
import { type AddressHost, AddressHosts } from '../../support/address-hosts.js';
import { net } from '../../support/builders.js';

describe('networks of containers that overlap', () => {
  let hosts: AddressHosts;

  beforeEach(() => {
    hosts = new AddressHosts();
  });

  afterEach(() => hosts.close());

  const request = (host: AddressHost, subnet: string, name?: string): Promise<GivenPool> =>
    host.pools.requestPool({ pool: net(subnet), range: undefined, name, family: net(subnet).family });

  const join = async (host: AddressHost, subnet: string, name?: string): Promise<void> => {
    await hosts.settled(request(host, subnet, name));
  };

  const start = (name: string, options: Partial<AddressPoolsOptions> = {}): Promise<AddressHost> =>
    hosts.start(name, options);

  const records = (): string[] =>
    [...hosts.values.texts.keys()].filter((path) => path.startsWith('network-records/')).map((path) => path.slice(16));

  for (const [what, subnet, name] of [
    ['a part of one of another host', '10.10.10.128/25', undefined],
    ['one around that of another host', '10.10.0.0/16', undefined],
    ['a part of one of the same name', '10.20.20.0/25', 'lan'],
    ['an IPv6 subnet around that of another host', 'fd00:10::/48', undefined],
  ] as const) {
    it(`are refused: ${what}, with both subnets and the host`, async () => {
      const [a, b] = [await start('a'), await start('b')];
      await join(a, '10.10.10.0/24');
      await join(a, '10.20.20.0/24', 'lan');
      await join(a, 'fd00:10::/64');
      const before = records();
      const there = name === 'lan' ? '10.20.20.0/24' : subnet.includes(':') ? 'fd00:10::/64' : '10.10.10.0/24';
      await assert.rejects(join(b, subnet, name), ({ code, message }: Error & { code: string }) => {
        assert.equal(code, 'ERR_ADDRESS_POOL');
        assert.ok(
          message.includes(`cannot use ${subnet}`) && message.includes(`it overlaps ${there}, in use by a`),
          message,
        );
        return true;
      });
      await hosts.rest();
      assert.deepEqual(records(), before);
    });
  }

  it('are refused on one host as well', async () => {
    const a = await start('a');
    await join(a, '10.10.10.0/24');
    await assert.rejects(join(a, '10.10.10.0/25'), { message: /it overlaps 10\.10\.10\.0\/24, in use by this host/ });
  });

  it('are two networks if they have different names', async () => {
    const [a, b] = [await start('a'), await start('b')];
    await join(a, '10.10.10.0/24', 'red');
    await join(b, '10.10.10.0/25', 'blue');
    await join(b, '10.10.10.0/24');
    assert.equal(records().length, 3);
  });

  it('are not made by two hosts at the same instant', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      await hosts.close();
      hosts = new AddressHosts(seed);
      const [a, b] = [await start('a'), await start('b')];
      const both = await hosts.settled(
        Promise.allSettled([request(a, '10.10.10.0/24'), request(b, '10.10.10.128/25')]),
      );
      assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], `seed ${seed}`);
      assert.equal(records().length, 1);
    }
  });

  it('may follow one that no host is in any more, whose record goes', async () => {
    hosts.values.poke('network-records/-/10.10.10.0-24', encodeRecord({ range: net('10.10.10.0/24'), properties: {} }));
    await join(await start('a'), '10.10.10.128/25');
    assert.deepEqual(records(), ['-/10.10.10.128-25']);
  });

  it('are refused over the network of the overlay, with both', async () => {
    const a = await start('a', { overlay: () => [net('10.5.0.0/16'), net('fd05::/48')] });
    await assert.rejects(join(a, '10.5.3.0/24'), { message: /cannot use 10\.5\.3\.0\/24 .* overlaps 10\.5\.0\.0\/16/ });
    await assert.rejects(join(a, 'fd05::/64'), { message: /cannot use fd05::\/64 .* overlaps fd05::\/48/ });
    await join(a, '10.6.0.0/16');
  });

  it('are not chosen by a host itself', async () => {
    const a = await start('a', { overlay: () => [net('10.200.0.0/23')] });
    const given = await hosts.settled(
      a.pools.requestPool({ pool: undefined, range: undefined, name: undefined, family: 4 }),
    );
    assert.equal(given.subnet.toString(), '10.200.2.0/24');
  });

  it('stay usable for a host that was in one before the overlay was there', async () => {
    const a = await start('a', { overlay: () => [] });
    await join(a, '10.10.10.0/24');
    const overlay = { overlay: () => [net('10.10.0.0/16')] };
    a.crash();
    const again = hosts.make('a', overlay);
    Object.assign(again, { files: a.files });
    await again.start();
    await join(again, '10.10.10.0/24');
  });
});
