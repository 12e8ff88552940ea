import assert from 'node:assert/strict';
import { WireguardSecret } from '../../src/ip/wireguard-key.js';
import { netlinkErrno } from '../../src/netlink/socket.js';
import type { WireguardInfo } from '../../src/netlink/wireguard.js';
import type { WireguardPeerSpec } from '../../src/reconcile/desired.js';
import { changesTo, hasFixedAttributes } from '../../src/reconcile/kinds/links/table.js';
import type { Kernel } from '../../src/reconcile/kernel.js';
import type { Operation } from '../../src/reconcile/operation.js';
import { ip, net } from './builders.js';
import type { KernelFixture } from './kernel-contract.js';

const NAME = 'flannel-wg';
const SPEC = { kind: 'wireguard', name: NAME, mtu: 1420 } as const;
const LINK = { kind: 'link', key: `link ${NAME}`, reason: 'missing', device: NAME } as const;
const SETTINGS = { kind: 'wireguard', key: `wireguard ${NAME}`, reason: 'missing', verb: 'set', device: NAME } as const;
const PEER = { kind: 'wireguard-peer', key: `wireguard-peer ${NAME}`, reason: 'missing', device: NAME } as const;

/** A secret of 32 equal bytes. */
export function secretOf(byte: number): WireguardSecret {
  return WireguardSecret.fromBytes(new Uint8Array(32).fill(byte)) ?? assert.fail('not a key');
}

/** What every {@link Kernel} with WireGuard does; each test begins with the underlay device alone. */
export function describeWireguardContract(
  name: string,
  open: () => Promise<KernelFixture> | KernelFixture,
  close: (fixture: KernelFixture) => Promise<void> | void,
): void {
  describe(`${name} as a Kernel with WireGuard`, () => {
    let fixture: KernelFixture;
    let kernel: Kernel;

    beforeEach(async () => {
      fixture = await open();
      ({ kernel } = fixture);
    });

    afterEach(async () => {
      await close(fixture);
    });

    const index = (): number => kernel.getLink(NAME)?.index ?? 0;
    const apply = (operation: Operation): boolean => kernel.apply(operation, index);
    const info = async (): Promise<WireguardInfo> => (await kernel.getWireguard(index())) ?? assert.fail('no device');

    const make = (): void => {
      apply({ ...LINK, verb: 'add', spec: SPEC, alias: 'tsflannel:a', replaces: false });
      apply({ ...LINK, verb: 'set', aspect: 'up', change: { isUp: true } });
    };

    const replace = (n: number, changes: Partial<WireguardPeerSpec> = {}, setsEndpoint = true): void => {
      const peer: WireguardPeerSpec = {
        device: NAME,
        publicKey: secretOf(n).publicKey,
        presharedKey: undefined,
        endpoint: { address: ip(`192.0.2.${n}`), port: 51820 },
        keepaliveSeconds: 0,
        allowedIps: [net(`10.5.${n}.0/24`)],
        ...changes,
      };
      apply({ ...PEER, verb: 'replace', peer, setsEndpoint });
    };

    /** Peers in the order of their keys, as text. */
    const shown = async (): Promise<string[]> =>
      (await info()).peers
        .map(({ publicKey, presharedKey, endpoint, keepaliveSeconds, allowedIps }) =>
          [
            [2, 3].find((n) => secretOf(n).publicKey === publicKey),
            endpoint === undefined ? 'nowhere' : `${endpoint.address.toString()} ${endpoint.port}`,
            `keepalive ${keepaliveSeconds}`,
            presharedKey === undefined ? 'no psk' : `psk ${presharedKey.toBase64().slice(0, 4)}`,
            allowedIps.map(String).sort().join(' '),
          ].join(', '),
        )
        .sort();

    it('makes a device as specified, down, without a key', async () => {
      apply({ ...LINK, verb: 'add', spec: SPEC, alias: 'tsflannel:a', replaces: false });
      const link = kernel.getLink(NAME);
      assert.ok(link);
      assert.deepEqual([link.kind, link.isUp, link.alias, link.mtu], ['wireguard', false, 'tsflannel:a', 1420]);
      const defaults = { defaultVxlanPort: kernel.defaultVxlanPort() };
      assert.equal(hasFixedAttributes(SPEC, link, defaults), true);
      assert.deepEqual(changesTo(SPEC, link, defaults), []);
      assert.equal((await info()).publicKey, undefined);
    });

    it('tells nothing of a device that is gone', async () => {
      make();
      const gone = index();
      apply({ ...LINK, verb: 'del' });
      assert.equal(await kernel.getWireguard(gone), undefined);
    });

    it('sets key and port, and sets them anew', async () => {
      make();
      for (const [byte, listenPort] of [
        [1, 51820],
        [1, 51999],
        [9, 51999],
      ] as const) {
        assert.equal(apply({ ...SETTINGS, privateKey: secretOf(byte), listenPort }), true);
        const { publicKey, listenPort: port } = await info();
        assert.deepEqual([publicKey, port], [secretOf(byte).publicKey, listenPort]);
      }
    });

    it('makes a peer, changes it, and removes it', async () => {
      make();
      replace(2, {
        presharedKey: secretOf(7),
        keepaliveSeconds: 25,
        allowedIps: [net('10.5.2.0/24'), net('fd00:2::/64')],
      });
      assert.deepEqual(await shown(), ['2, 192.0.2.2 51820, keepalive 25, psk BwcH, 10.5.2.0/24 fd00:2::/64']);
      replace(2, { endpoint: { address: ip('2001:db8::2'), port: 7 } });
      assert.deepEqual(await shown(), ['2, 2001:db8::2 7, keepalive 0, no psk, 10.5.2.0/24']);
      const { publicKey } = secretOf(2);
      apply({ ...PEER, verb: 'del', publicKey });
      assert.deepEqual(await shown(), []);
      assert.doesNotThrow(() => apply({ ...PEER, verb: 'del', publicKey }));
    });

    it('leaves the endpoint alone when it is not told another', async () => {
      make();
      replace(2);
      replace(2, { endpoint: { address: ip('192.0.2.9'), port: 7 }, keepaliveSeconds: 5 }, false);
      assert.deepEqual(await shown(), ['2, 192.0.2.2 51820, keepalive 5, no psk, 10.5.2.0/24']);
    });

    it('gives what is allowed to one peer only, the last that it was given to', async () => {
      make();
      replace(2, { allowedIps: [net('10.5.2.0/24'), net('10.5.9.0/24')] });
      replace(3, { allowedIps: [net('10.5.9.0/24')] });
      assert.deepEqual(await shown(), [
        '2, 192.0.2.2 51820, keepalive 0, no psk, 10.5.2.0/24',
        '3, 192.0.2.3 51820, keepalive 0, no psk, 10.5.9.0/24',
      ]);
    });

    it('takes no peer that has its own key, and drops one whose key it is given', async () => {
      make();
      replace(2);
      apply({ ...SETTINGS, privateKey: secretOf(2), listenPort: 51820 });
      assert.deepEqual(await shown(), []);
      replace(2);
      assert.deepEqual(await shown(), []);
    });

    it('refuses peers of a device that is none of WireGuard, or gone', () => {
      const peer = { kind: 'wireguard-peer', key: 'wireguard-peer eth0 x', reason: 'missing', device: 'eth0' } as const;
      const operation = { ...peer, verb: 'del', publicKey: secretOf(2).publicKey } as const;
      assert.throws(
        () =>
          kernel.apply(
            { ...SETTINGS, device: 'eth0', privateKey: secretOf(1), listenPort: 1 },
            () => fixture.eth0.index,
          ),
        (error) => netlinkErrno(error) === 'EOPNOTSUPP',
      );
      assert.equal(
        kernel.apply(operation, () => 987_654),
        false,
        'there is nothing to delete',
      );
    });
  });
}
