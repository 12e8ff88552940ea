import assert from 'node:assert/strict';
import { AdmissionSource } from '../../../src/daemon/admission-source.js';
import { networksOf } from '../../../src/lease/admission.js';
import type { HostNetlink } from '../../../src/underlay/host-network.js';
import { ip, net, network, underlay } from '../../support/builders.js';

type Addresses = Awaited<ReturnType<HostNetlink['addresses']['list']>>;

describe('AdmissionSource', () => {
  let listed: { readonly address: ReturnType<typeof ip>; readonly length: number; readonly index: number }[];
  let source: AdmissionSource;

  beforeEach(() => {
    listed = [
      { address: ip('192.0.2.1'), length: 24, index: 2 },
      { address: ip('203.0.113.1'), length: 24, index: 3 },
      { address: ip('10.5.1.1'), length: 24, index: 4 },
      { address: ip('192.0.2.8'), length: 31, index: 2 },
    ];
    const list = (): Promise<Addresses> => Promise.resolve(listed as unknown as Addresses);
    source = new AdmissionSource({ addresses: { list } });
    source.setStore([ip('198.51.100.7')]);
  });

  const contextOf = (changes: object = {}): ReturnType<AdmissionSource['context']> =>
    source.context({
      network: network(),
      networks: networksOf(network()),
      underlay: underlay(),
      publicIp: ip('192.0.2.1'),
      own: undefined,
      ...changes,
    });

  it('guards the addresses of etcd and of this host, except those in the overlay', async () => {
    await source.refresh(underlay());
    assert.deepEqual(
      contextOf().guarded.map(({ address, owner }) => `${address.toString()} ${owner}`),
      [
        '198.51.100.7 etcd',
        '192.0.2.1 this host',
        '2001:db8::1 this host',
        '203.0.113.1 this host',
        '192.0.2.8 this host',
      ],
    );
  });

  it('knows where broadcasts go on the underlay, and that a /31 has none', async () => {
    await source.refresh(underlay());
    assert.deepEqual(contextOf().broadcasts.map(String), ['192.0.2.255']);
  });

  it('guards an underlay address even where the overlay is around it', async () => {
    await source.refresh(underlay());
    const { guarded } = contextOf({ networks: [net('192.0.2.0/24')] });
    assert.ok(guarded.some(({ address }) => address.equals(ip('192.0.2.1'))));
  });

  it('gives the same object until something in it changes', async () => {
    await source.refresh(underlay());
    const first = contextOf();
    await source.refresh(underlay());
    assert.equal(contextOf(), first);
    const own = { subnet: net('10.5.1.0/24'), ipv6Subnet: undefined };
    const second = contextOf({ own });
    assert.notEqual(second, first);
    assert.equal(contextOf({ own: { ...own } }), second);
    listed.push({ address: ip('203.0.113.9'), length: 32, index: 3 });
    await source.refresh(underlay());
    const third = contextOf({ own });
    assert.notEqual(third, second);
    source.setStore([ip('198.51.100.8')]);
    assert.notEqual(contextOf({ own }), third);
  });

  for (const [title, address, isKnown, message] of [
    ['etcd', '198.51.100.7', false, /contains 198\.51\.100\.7, an address of etcd/],
    ['the underlay', '192.0.2.1', true, /contains 192\.0\.2\.1, an address of this host/],
  ] as const) {
    it(`refuses a network around an address of ${title}`, () => {
      const around = network();
      const prefix = net(`${address}/24`);
      const bad = { ...around, ipv4: around.ipv4 && { ...around.ipv4, network: prefix } };
      assert.throws(() => source.assertSafe(bad, isKnown ? underlay() : undefined), {
        code: 'ERR_NETWORK_CONFIG',
        message,
      });
      source.assertSafe(around, underlay());
    });
  }

  it('refuses an IPv6 network around an address of the underlay', () => {
    const dual = network('udp', {}, true);
    const bad = { ...dual, ipv6: dual.ipv6 && { ...dual.ipv6, network: net('2001:db8::/32') } };
    assert.throws(() => source.assertSafe(bad, underlay()), { message: /2001:db8::1/ });
  });
});
