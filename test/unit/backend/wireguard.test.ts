import assert from 'node:assert/strict';
import type { BackendContext, ConfiguredBackend, PeerState } from '../../../src/backend/backend.js';
import { OverlayState } from '../../../src/backend/overlay-state.js';
import { backendFor, isBackendDevice } from '../../../src/backend/registry.js';
import { isOverlayError } from '../../../src/errors.js';
import { WireguardSecret } from '../../../src/ip/wireguard-key.js';
import type { JsonValue } from '../../../src/json.js';
import type { Lease } from '../../../src/lease/lease.js';
import {
  backendContext,
  backendOptions,
  defaultBackend,
  hostFacts,
  ip,
  lease,
  network,
  underlay,
} from '../../support/builders.js';
import { finish } from '../../support/steps.js';

type Options = Readonly<Record<string, JsonValue>>;

const backend = (options: Options = {}): ConfiguredBackend => backendFor('wireguard').parse(backendOptions(options));
const secretOf = (byte: number): WireguardSecret =>
  WireguardSecret.fromBytes(new Uint8Array(32).fill(byte)) ?? assert.fail();
const text = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** Of this host, and of peer `n`. */
const OWN = secretOf(1);
const keyOf = (n: number): string => secretOf(n).publicKey;
const PSK = secretOf(99);

const data = (n: number, port: JsonValue = 51820): JsonValue => ({ PublicKey: keyOf(n), Port: port });
const peerLease = (n: number, more: Parameters<typeof lease>[1] = {}): Lease =>
  lease(n, { type: 'wireguard', data: data(n), ...more });
const dualLease = (n: number, more: Parameters<typeof lease>[1] = {}): Lease =>
  peerLease(n, { isDualStack: true, dataV6: data(n, 51821), ...more });

function contextOf(changes: Partial<BackendContext> = {}, isDualStack = false): BackendContext {
  return backendContext({
    network: network('wireguard', {}, isDualStack),
    host: hostFacts({ privateKey: OWN }),
    own: lease(1, { type: 'wireguard', data: data(1), isDualStack }),
    peers: [],
    ...changes,
  });
}

const peerOf = (one: Lease, options: Options = {}, context = contextOf()): PeerState =>
  backend(options).desired(context).peer(one);

/** Where each device looks for the peer, and what it is allowed. */
function waysTo(one: Lease, options: Options, context: BackendContext): string[] {
  return (peerOf(one, options, context).state.wireguardPeers ?? []).map(
    ({ device, endpoint, allowedIps }) =>
      `${device}: ${endpoint.address.toString()} ${endpoint.port} ${allowedIps.map(String).join(' ')}`,
  );
}

describe('wireguard backend', () => {
  it('asks for the device of flannel with key, port, address and the route of the whole network', () => {
    const { base } = backend().desired(contextOf());
    assert.deepEqual(text(base), {
      links: [{ kind: 'wireguard', name: 'flannel-wg', mtu: 1420 }],
      wireguard: [{ device: 'flannel-wg', privateKey: '[secret]', listenPort: 51820 }],
      addresses: [{ device: 'flannel-wg', address: '10.5.1.0', length: 32 }],
      routes: [{ destination: '10.5.0.0/16', type: 'unicast', device: 'flannel-wg', isOnlink: false }],
    });
    assert.ok(base.wireguard?.[0]?.privateKey.equals(OWN));
  });

  it('asks for the peer with its subnet, and the route to it', () => {
    assert.deepEqual(text(peerOf(peerLease(2)).state), {
      wireguardPeers: [
        {
          device: 'flannel-wg',
          publicKey: keyOf(2),
          endpoint: { address: '192.0.2.2', port: 51820 },
          keepaliveSeconds: 0,
          allowedIps: ['10.5.2.0/24'],
        },
      ],
      routes: [{ destination: '10.5.2.0/24', type: 'unicast', device: 'flannel-wg', isOnlink: false }],
    });
  });

  it('takes every option of flannel', () => {
    const options = { listenport: 4000, mtu: 1400, psk: PSK.toBase64(), persistentkeepaliveinterval: 25 };
    const { base } = backend(options).desired(contextOf());
    assert.deepEqual([base.links?.[0]?.mtu, base.wireguard?.[0]?.listenPort], [1320, 4000]);
    const [peer] = peerOf(peerLease(2), options).state.wireguardPeers ?? [];
    assert.deepEqual([peer?.presharedKey?.equals(PSK), peer?.keepaliveSeconds], [true, 25]);
    assert.equal(backend(options).mtu(network(), underlay()), 1320);
    assert.deepEqual(backend(options).carrier, { protocol: 'udp', port: 4000 });
  });

  for (const [what, published, expected] of [
    ['the port that a peer publishes', data(2, 4001), 4001],
    ['its own port for a peer that publishes none', { PublicKey: keyOf(2) }, 51820],
    ['its own port for a peer that publishes 0', data(2, 0), 51820],
    ['keys in any case, as Go', { publickey: keyOf(2), PORT: 4001 }, 4001],
  ] as const) {
    it(`uses ${what}`, () => {
      const [peer] = peerOf(peerLease(2, { data: published })).state.wireguardPeers ?? [];
      assert.equal(peer?.endpoint.port, expected);
    });
  }

  it('tells its key and port byte for byte as flannel', () => {
    const facts = hostFacts({ privateKey: OWN });
    assert.deepEqual(backend().leaseData(network(), facts), {
      backendData: { PublicKey: OWN.publicKey, Port: 51820 },
      backendV6Data: undefined,
    });
    assert.equal(
      JSON.stringify(backend().leaseData(network('wireguard', {}, true), facts)),
      `{"backendData":{"PublicKey":"${OWN.publicKey}","Port":51820},"backendV6Data":{"PublicKey":"${OWN.publicKey}","Port":51821}}`,
    );
    assert.deepEqual(backend({ mode: 'auto' }).leaseData(network('wireguard', {}, true), facts).backendV6Data, {
      PublicKey: OWN.publicKey,
      Port: 51820,
    });
  });

  describe('in dual stack', () => {
    const context = contextOf({}, true);

    it('has two devices in mode separate, each with its family inside and outside', () => {
      const { base } = backend().desired(context);
      assert.deepEqual(
        base.wireguard?.map(({ device, listenPort }) => [device, listenPort]),
        [
          ['flannel-wg', 51820],
          ['flannel-wg-v6', 51821],
        ],
      );
      assert.deepEqual(
        base.addresses?.map(({ device, address, length }) => `${device} ${address.toString()}/${length}`),
        ['flannel-wg 10.5.1.0/32', 'flannel-wg-v6 fd00:10:5:1::/128'],
      );
      assert.deepEqual(
        base.routes?.map(({ device, destination }) => `${String(device)} ${destination.toString()}`),
        ['flannel-wg 10.5.0.0/16', 'flannel-wg-v6 fd00:10:5::/48'],
      );
      assert.deepEqual(waysTo(dualLease(2), {}, context), [
        'flannel-wg: 192.0.2.2 51820 10.5.2.0/24',
        'flannel-wg-v6: 2001:db8::2 51821 fd00:10:5:2::/64',
      ]);
    });

    for (const [mode, endpoint] of [
      ['ipv4', '192.0.2.2 51820'],
      ['ipv6', '2001:db8::2 51820'],
      ['auto', '192.0.2.2 51820'],
    ] as const) {
      it(`has one device for both families in mode ${mode}`, () => {
        const { base } = backend({ mode }).desired(context);
        assert.deepEqual(text(base.links), [{ kind: 'wireguard', name: 'flannel-wg', mtu: 1420 }]);
        assert.equal(base.addresses?.length, 2);
        assert.equal(base.routes?.length, 2);
        const ways = waysTo(dualLease(2), { mode }, context);
        assert.deepEqual(ways, [`flannel-wg: ${endpoint} 10.5.2.0/24 fd00:10:5:2::/64`]);
      });
    }

    for (const [v4, v6, ownV6, expected] of [
      ['198.51.100.2', '2001:db8::2', '2001:db8::1', '198.51.100.2'],
      ['10.9.9.2', '2001:db8::2', '2001:db8::1', '2001:db8::2'],
      ['172.31.0.2', '2001:db8::2', 'fd00::1', '172.31.0.2'],
      ['192.168.0.2', 'fd00::2', '2001:db8::1', '192.168.0.2'],
      ['172.32.0.2', '2001:db8::2', '2001:db8::1', '172.32.0.2'],
      ['10.9.9.2', undefined, '2001:db8::1', '10.9.9.2'],
    ] as const) {
      it(`looks for ${v4} and ${String(v6)} at ${expected} from a host with ${ownV6} in mode auto`, () => {
        const attributes = { publicIp: ip(v4), publicIpv6: v6 && ip(v6) };
        const facts = hostFacts({ privateKey: OWN, underlay: underlay({ publicIpv6: ip(ownV6) }) });
        const [way] = waysTo(dualLease(2, { attributes }), { mode: 'auto' }, { ...context, host: facts });
        assert.equal(way?.split(' ')[1], expected);
      });
    }

    it('looks for a peer at its IPv6 address from a host without IPv4 in mode auto', () => {
      const facts = hostFacts({ privateKey: OWN, underlay: underlay({ address: undefined, publicIp: undefined }) });
      const [way] = waysTo(dualLease(2), { mode: 'auto' }, { ...context, host: facts });
      assert.equal(way?.split(' ')[1], '2001:db8::2');
    });

    it('talks IPv4 alone with a peer that has nothing else, in each mode', () => {
      for (const mode of ['separate', 'auto', 'ipv4']) {
        assert.deepEqual(waysTo(peerLease(2), { mode }, context), ['flannel-wg: 192.0.2.2 51820 10.5.2.0/24'], mode);
      }
    });

    it('needs no IPv6 address of a peer in mode ipv4, and says so where it does', () => {
      const attributes = { publicIpv6: undefined };
      const [way] = waysTo(dualLease(2, { attributes }), { mode: 'ipv4' }, context);
      assert.equal(way, 'flannel-wg: 192.0.2.2 51820 10.5.2.0/24 fd00:10:5:2::/64');
      for (const mode of ['separate', 'ipv6']) {
        const { skipped } = peerOf(dualLease(2, { attributes }), { mode }, context);
        assert.equal(skipped?.cause, 'address', mode);
        assert.match(skipped.reason, /no PublicIPv6/);
      }
    });
  });

  describe('does not believe a peer', () => {
    for (const [what, bad] of [
      ['without backend data', undefined],
      ['without a key', { Port: 51820 }],
      ['whose key is no text', { PublicKey: 7 }],
      ['whose key is short', { PublicKey: keyOf(2).slice(4) }],
      ['whose key is zeros', { PublicKey: Buffer.alloc(32).toString('base64') }],
      ['whose port is too large', data(2, 65536)],
      ['whose port is a fraction', data(2, 1.5)],
      ['whose port is a text', data(2, '51820')],
      ['whose data is a list', [data(2)]],
    ] as const) {
      it(what, () => {
        const { state, skipped } = peerOf(peerLease(2, { data: bad as JsonValue }));
        assert.deepEqual(state, {});
        assert.equal(skipped?.cause, 'data');
      });
    }

    it('with the key of this host', () => {
      const { state, skipped } = peerOf(peerLease(2, { data: data(1) }));
      assert.deepEqual(state, {});
      assert.equal(skipped?.cause, 'public-key');
    });

    it('at an address of this host', () => {
      const { state, skipped } = peerOf(peerLease(2, { attributes: { publicIp: ip('192.0.2.1') } }));
      assert.deepEqual(state, {});
      assert.equal(skipped?.cause, 'address');
    });

    it('that has not told its address', () => {
      const { skipped } = peerOf(peerLease(2, { attributes: { publicIp: ip('0.0.0.0') } }));
      assert.equal(skipped?.cause, 'address');
    });

    it('with the key of a peer that had it first', () => {
      const first = { ...peerLease(3), createdAt: '5' };
      const copy = { ...peerLease(2, { data: data(3) }), createdAt: '9' };
      const { peers, skipped } = finish(
        new OverlayState().compute({
          ...contextOf({ peers: [copy, first] }),
          backendFor: defaultBackend,
          lingering: [],
        }),
      );
      assert.deepEqual(
        peers.map(({ wireguardPeers = [] }) => wireguardPeers.map(({ allowedIps }) => allowedIps.map(String).join())),
        [[], ['10.5.3.0/24']],
      );
      assert.deepEqual(
        skipped.map((one) => [one.lease, one.cause]),
        [[copy, 'public-key']],
      );
    });
  });

  describe('where another backend is configured', () => {
    const others = { isOwn: false, network: network('vxlan') };

    it('still reaches peers over the device while they know this host by its lease, and routes only them', () => {
      const context = contextOf(others);
      assert.deepEqual(backend().desired(context).base.routes, []);
      const { state, skipped } = peerOf(peerLease(2), {}, context);
      assert.equal(state.routes?.length, 1);
      assert.equal(skipped, undefined);
    });

    it('says that a peer lets this host in no longer once its lease names the other one', () => {
      const { state, skipped } = peerOf(peerLease(2), {}, contextOf({ ...others, own: lease(1, { type: 'vxlan' }) }));
      assert.equal(skipped?.cause, 'backend');
      assert.equal(state.wireguardPeers?.length, 1, 'what it still sends is taken');
    });

    it('makes no device without a key', () => {
      const context = contextOf({ ...others, own: lease(1, { type: 'vxlan' }), host: hostFacts() });
      const { base, peer } = backend().desired(context);
      assert.deepEqual(base, {});
      assert.deepEqual(peer(peerLease(2)).state, {});
      assert.equal(peer(peerLease(2)).skipped?.cause, 'backend');
    });
  });

  for (const options of [
    { listenport: 0 },
    { listenport: 65536 },
    { listenportv6: '51821' },
    { persistentkeepaliveinterval: -1 },
    { persistentkeepaliveinterval: 65536 },
    { mtu: -1 },
    { mode: 'both' },
    { mode: 'Auto' },
  ] as const) {
    it(`refuses ${JSON.stringify(options)} and says what would be right`, () => {
      assert.throws(
        () => backend(options),
        (error) => isOverlayError(error, 'ERR_BACKEND_OPTION') && error.hint !== undefined,
      );
    });
  }

  for (const psk of [PSK.toBase64().slice(2), `${PSK.toBase64()}A`, 'hunter2', 12345, ['hunter2']]) {
    it(`refuses a PSK that is no key (${typeof psk} ${String(psk).length}), without showing it`, () => {
      assert.throws(
        () => backend({ psk }),
        (error) =>
          isOverlayError(error, 'ERR_BACKEND_OPTION') &&
          !`${error.message} ${String(error.hint)}`.includes(String(psk)),
      );
    });
  }

  const v4Only = underlay({ addressV6: undefined, publicIpv6: undefined });
  const v6Only = underlay({ address: undefined, publicIp: undefined });
  for (const [what, options, isDualStack, on, code] of [
    ['dual stack without IPv6 outside', {}, true, v4Only, 'ERR_BACKEND_HOST'],
    ['mode ipv6 without IPv6 outside', { mode: 'ipv6' }, true, v4Only, 'ERR_BACKEND_HOST'],
    ['mode ipv6 in a network of IPv4 alone', { mode: 'ipv6' }, false, v4Only, 'ERR_BACKEND_HOST'],
    ['mode ipv4 without IPv4 outside', { mode: 'ipv4' }, true, v6Only, 'ERR_BACKEND_HOST'],
    ['mode auto without any address', { mode: 'auto' }, false, { ...v4Only, address: undefined }, 'ERR_BACKEND_HOST'],
    ['one port for two devices', { listenportv6: 51820 }, true, underlay(), 'ERR_BACKEND_OPTION'],
    ['an MTU that leaves too little for IPv6', { mtu: 1359 }, true, underlay(), 'ERR_BACKEND_OPTION'],
    ['an MTU that leaves too little for IPv4', { mtu: 147 }, false, underlay(), 'ERR_BACKEND_OPTION'],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => {
          backend(options).check(network('wireguard', {}, isDualStack), on);
        },
        (error) => isOverlayError(error, code) && error.hint !== undefined,
      );
    });
  }

  for (const [what, options, isDualStack, on] of [
    ['dual stack inside IPv4', { mode: 'ipv4' }, true, v4Only],
    ['either address outside in mode auto', { mode: 'auto' }, true, v6Only],
    ['IPv6 alone outside in mode ipv6', { mode: 'ipv6' }, true, v6Only],
    ['one port where there is one device', { listenportv6: 51820 }, false, v4Only],
    ['the smallest MTU', { mtu: 1360 }, true, underlay()],
  ] as const) {
    it(`runs with ${what}`, () => {
      backend(options).check(network('wireguard', {}, isDualStack), on);
    });
  }

  it('knows the devices of flannel by their names', () => {
    for (const name of ['flannel-wg', 'flannel-wg-v6']) assert.ok(isBackendDevice(name), name);
    for (const name of ['flannel-wg0', 'flannel-wg-v4', 'wg0']) assert.ok(!isBackendDevice(name), name);
  });
});
