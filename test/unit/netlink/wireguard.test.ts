import assert from 'node:assert/strict';
import os from 'node:os';
import fc from 'fast-check';
import { isOverlayError } from '../../../src/errors.js';
import { WireguardSecret, parseWireguardPublicKey, publicKeyFromBytes } from '../../../src/ip/wireguard-key.js';
import { GENERIC_HEADER_BYTES, readFamilyId, writeGenericHeader } from '../../../src/netlink/generic.js';
import { MessageReader, MessageWriter } from '../../../src/netlink/message.js';
import {
  WireguardAssembly,
  type WireguardInfo,
  writeWireguardPeer,
  writeWireguardPeerRemoval,
  writeWireguardQuery,
  writeWireguardSettings,
} from '../../../src/netlink/wireguard.js';
import { ip, net } from '../../support/builders.js';

/** The number that the kernel has given the family. */
const FAMILY = 0x1c;

const spaced = (...parts: string[]): string => parts.join('').replaceAll(' ', '');
const fromHex = (...parts: string[]): Uint8Array => Uint8Array.from(Buffer.from(spaced(...parts), 'hex'));

/** 32 bytes of that value, as hexadecimal text and as keys. */
const raw = (byte: string): string => byte.repeat(32);
const publicKey = (byte: string) => publicKeyFromBytes(fromHex(raw(byte))) ?? assert.fail();
const secret = (byte: string): WireguardSecret => WireguardSecret.fromBytes(fromHex(raw(byte))) ?? assert.fail();

/** The message with sequence number 7 that begins with the generic header of that command. */
function written(command: number, fill: (writer: MessageWriter) => void): string {
  const writer = new MessageWriter();
  writer.start(FAMILY, 5, 7);
  writeGenericHeader(writer, command, 1);
  fill(writer);
  return Buffer.from(writer.finish()).toString('hex');
}

const u16 = (value: number): string => Buffer.from([value & 0xff, value >> 8]).toString('hex');
const u32 = (value: number): string => u16(value & 0xffff) + u16(value >>> 16);

/** An attribute with its padding; the type says whether it is nested. */
function attribute(type: number, ...content: string[]): string {
  const hex = spaced(...content);
  const length = hex.length / 2;
  return u16(4 + length) + u16(type) + hex + '00'.repeat((4 - (length % 4)) % 4);
}

const nested = (type: number, ...content: string[]): string => attribute(type | 0x8000, ...content);

/** One answer of the kernel. */
function answer(...attributes: string[]): Uint8Array {
  const body = `00010000${attributes.join('')}`;
  return fromHex(u32(16 + body.length / 2), u16(FAMILY), '0200', '07000000 00000000', body);
}

function assembled(...messages: Uint8Array[]): WireguardInfo {
  const assembly = new WireguardAssembly(4);
  for (const message of messages) {
    const reader = new MessageReader(message).reset(message.length);
    while (reader.next()) assembly.add(reader, GENERIC_HEADER_BYTES);
  }
  return assembly.device;
}

/** An allowed IP as the kernel writes it. */
function allowed(family: 2 | 10, address: string, bits: string): string {
  return nested(0, attribute(1, u16(family)), attribute(2, address), attribute(3, bits));
}

const allowedText = (info: WireguardInfo): string[][] => info.peers.map((peer) => peer.allowedIps.map(String));

describe('the codec of WireGuard', () => {
  before(() => {
    // The expected bytes below are those of a little-endian machine.
    assert.equal(os.endianness(), 'LE');
  });

  it('asks for a device by its index', () => {
    assert.equal(
      written(0, (to) => {
        writeWireguardQuery(to, 4);
      }),
      spaced(
        '1c000000 1c00 0500 07000000 00000000', // length 28, family, flags, sequence, port
        '00 01 0000', // WG_CMD_GET_DEVICE, version
        '0800 0100 04000000', // WGDEVICE_A_IFINDEX
      ),
    );
  });

  it('sets the port, and the private key in the form in which the kernel keeps it', () => {
    assert.equal(
      written(1, (to) => {
        writeWireguardSettings(to, { index: 4, privateKey: secret('ff'), listenPort: 51820 });
      }),
      spaced(
        '48000000 1c00 0500 07000000 00000000',
        '01 01 0000', // WG_CMD_SET_DEVICE
        '0800 0100 04000000', // WGDEVICE_A_IFINDEX
        `2400 0300 f8${'ff'.repeat(30)}7f`, // WGDEVICE_A_PRIVATE_KEY, clamped
        '0600 0600 6cca 0000', // WGDEVICE_A_LISTEN_PORT in the order of the machine
      ),
    );
  });

  it('sets a peer over IPv4 with everything that it can have', () => {
    const bytes = written(1, (to) => {
      writeWireguardPeer(to, {
        index: 4,
        publicKey: publicKey('aa'),
        presharedKey: secret('bb'),
        endpoint: { address: ip('192.0.2.2'), port: 51820 },
        keepaliveSeconds: 25,
        allowedIps: [net('10.5.2.0/24'), net('fd00:10:5:2::/64')],
      });
    });
    assert.equal(
      bytes,
      spaced(
        'd8000000 1c00 0500 07000000 00000000',
        '01 01 0000',
        '0800 0100 04000000', // WGDEVICE_A_IFINDEX
        'bc00 0880', // WGDEVICE_A_PEERS, nested
        'b800 0080', // the first, nested
        `2400 0100 ${raw('aa')}`, // WGPEER_A_PUBLIC_KEY
        '0800 0300 02000000', // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
        `2400 0200 ${raw('bb')}`, // WGPEER_A_PRESHARED_KEY
        '1400 0400 0200 ca6c c0000202 0000000000000000', // WGPEER_A_ENDPOINT, struct sockaddr_in
        '0600 0500 1900 0000', // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
        '4800 0980', // WGPEER_A_ALLOWEDIPS, nested
        '1c00 0080 0600 0100 0200 0000 0800 0200 0a050200 0500 0300 18 000000', // AF_INET, address, 24
        '2800 0080 0600 0100 0a00 0000 1400 0200 fd000010000500020000000000000000 0500 0300 40 000000', // AF_INET6, 64
      ),
    );
  });

  it('takes the preshared key away, and leaves the endpoint alone, where there is none', () => {
    const bytes = written(1, (to) => {
      const none = { presharedKey: undefined, endpoint: undefined, keepaliveSeconds: 0, allowedIps: [] };
      writeWireguardPeer(to, { index: 4, publicKey: publicKey('aa'), ...none });
    });
    assert.equal(
      bytes,
      spaced(
        '80000000 1c00 0500 07000000 00000000 01 01 0000 0800 0100 04000000',
        '6400 0880 6000 0080',
        `2400 0100 ${raw('aa')} 0800 0300 02000000`,
        `2400 0200 ${raw('00')}`,
        '0600 0500 0000 0000',
        '0400 0980',
      ),
    );
  });

  it('sets an endpoint over IPv6', () => {
    const bytes = written(1, (to) => {
      const endpoint = { address: ip('2001:db8::2'), port: 51821 };
      const rest = { presharedKey: undefined, keepaliveSeconds: 0, allowedIps: [] };
      writeWireguardPeer(to, { index: 4, publicKey: publicKey('aa'), endpoint, ...rest });
    });
    // WGPEER_A_ENDPOINT, struct sockaddr_in6: family, port, flow, address, scope
    assert.ok(bytes.includes(spaced('2000 0400 0a00 ca6d 00000000 20010db8000000000000000000000002 00000000')), bytes);
  });

  it('removes a peer by its key', () => {
    const bytes = written(1, (to) => {
      writeWireguardPeerRemoval(to, { index: 4, publicKey: publicKey('aa') });
    });
    assert.equal(
      bytes,
      spaced(
        '50000000 1c00 0500 07000000 00000000 01 01 0000 0800 0100 04000000',
        `3400 0880 3000 0080 2400 0100 ${raw('aa')} 0800 0300 01000000`, // WGPEER_F_REMOVE_ME
      ),
    );
  });

  const own = [
    attribute(1, u32(4)), // WGDEVICE_A_IFINDEX
    attribute(2, '666c616e6e656c2d776700'), // WGDEVICE_A_IFNAME
    attribute(3, raw('01')), // WGDEVICE_A_PRIVATE_KEY
    attribute(4, raw('02')), // WGDEVICE_A_PUBLIC_KEY
    attribute(6, u16(51820)), // WGDEVICE_A_LISTEN_PORT
    attribute(7, u32(0)), // WGDEVICE_A_FWMARK
  ];

  const wholePeer = nested(
    0,
    attribute(1, raw('aa')),
    attribute(2, raw('bb')),
    attribute(6, 'e80300000000000000a3e11100000000'), // 1000 s, 300 000 000 ns
    attribute(5, u16(25)),
    attribute(8, '0000000001000000'), // WGPEER_A_TX_BYTES: 2^32
    attribute(7, '2a00000000000000'),
    attribute(10, u32(1)),
    attribute(4, '0200 ca6c c0000202 0000000000000000'),
    nested(9, allowed(2, '0a050200', '18'), allowed(10, 'fd000010000500020000000000000000', '40')),
  );

  it('reads a device with a peer that has everything', () => {
    const info = assembled(answer(...own, nested(8, wholePeer)));
    assert.deepEqual([info.index, info.publicKey, info.listenPort], [4, publicKey('02'), 51820]);
    const [peer] = info.peers;
    assert.ok(peer);
    assert.equal(peer.publicKey, publicKey('aa'));
    assert.ok(peer.presharedKey?.equals(secret('bb')));
    assert.deepEqual([peer.endpoint?.address.toString(), peer.endpoint?.port], ['192.0.2.2', 51820]);
    assert.deepEqual(
      [peer.keepaliveSeconds, peer.lastHandshakeMs, peer.rxBytes, peer.txBytes],
      [25, 1_000_300, 42, 2 ** 32],
    );
    assert.deepEqual(allowedText(info), [['10.5.2.0/24', 'fd00:10:5:2::/64']]);
  });

  it('reads zeros as nothing: no preshared key, no handshake, no key of the device', () => {
    const bare = nested(0, attribute(1, raw('aa')), attribute(2, raw('00')), attribute(6, '00'.repeat(16)));
    const info = assembled(answer(attribute(6, u16(0)), nested(8, bare)));
    assert.equal(info.publicKey, undefined);
    const [peer] = info.peers;
    assert.deepEqual(
      [peer?.presharedKey, peer?.lastHandshakeMs, peer?.endpoint, peer?.keepaliveSeconds],
      [undefined, undefined, undefined, 0],
    );
  });

  it('joins what follows in further messages: more peers, and the rest of what one is allowed', () => {
    const rest = nested(0, attribute(1, raw('aa')), nested(9, allowed(2, '0a050300', '18')));
    const other = nested(0, attribute(1, raw('cc')), nested(9, allowed(2, '0a050400', '18')));
    const last = nested(0, attribute(1, raw('dd')));
    const info = assembled(
      answer(...own, nested(8, wholePeer)),
      answer(attribute(2, '666c616e6e656c2d776700'), nested(8, rest, other)),
      answer(attribute(2, '666c616e6e656c2d776700'), nested(8, last)),
    );
    assert.deepEqual([info.publicKey, info.listenPort], [publicKey('02'), 51820]);
    assert.deepEqual(
      info.peers.map((peer) => [peer.publicKey, peer.keepaliveSeconds]),
      [
        [publicKey('aa'), 25],
        [publicKey('cc'), 0],
        [publicKey('dd'), 0],
      ],
    );
    assert.deepEqual(allowedText(info), [['10.5.2.0/24', 'fd00:10:5:2::/64', '10.5.3.0/24'], ['10.5.4.0/24'], []]);
  });

  it('reads an endpoint over IPv6', () => {
    const endpoint = '0a00 ca6d 00000000 20010db8000000000000000000000002 00000000';
    const info = assembled(answer(nested(8, nested(0, attribute(1, raw('aa')), attribute(4, endpoint)))));
    const found = info.peers[0]?.endpoint;
    assert.deepEqual([found?.address.toString(), found?.port], ['2001:db8::2', 51821]);
  });

  for (const [what, peer, expected] of [
    ['a peer without a key', nested(0, attribute(5, u16(1))), []],
    ['a peer with a key of 31 bytes', nested(0, attribute(1, 'aa'.repeat(31))), []],
    ['an endpoint that is cut off', nested(0, attribute(1, raw('aa')), attribute(4, '0200 ca6c')), [[]]],
    [
      'an IPv6 endpoint in the room of IPv4',
      nested(0, attribute(1, raw('aa')), attribute(4, '0a00'.padEnd(32, '0'))),
      [[]],
    ],
    ['a network of 33 bits', nested(0, attribute(1, raw('aa')), nested(9, allowed(2, '0a050200', '21'))), [[]]],
    ['a network of five bytes', nested(0, attribute(1, raw('aa')), nested(9, allowed(2, '0a05020000', '18'))), [[]]],
  ] as const) {
    it(`leaves out ${what}`, () => {
      const info = assembled(answer(nested(8, peer)));
      assert.deepEqual(allowedText(info), expected);
      assert.equal(info.peers[0]?.endpoint, undefined);
    });
  }

  it('refuses lengths that contradict the bytes', () => {
    for (const bad of [
      nested(8, 'ff00 0080'),
      nested(8, nested(0, '0200 0100')),
      nested(8, nested(0, attribute(1, raw('aa')), nested(9, '6400 0080'))),
    ]) {
      assert.throws(
        () => assembled(answer(bad)),
        (error) => isOverlayError(error, 'ERR_NETLINK'),
        bad,
      );
    }
  });

  it('survives whatever stands in the attributes', () => {
    const good = answer(...own, nested(8, wholePeer));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 20, max: good.length - 1 }), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 8,
        }),
        (changes) => {
          const spoilt = Uint8Array.from(good);
          for (const [at, byte] of changes) spoilt[at] = byte;
          try {
            assert.ok(assembled(spoilt).peers.length <= 20);
          } catch (error) {
            assert.ok(isOverlayError(error, 'ERR_NETLINK'), String(error));
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('reads the number of a family', () => {
    const bytes = answer(attribute(2, '776972656775617264 00'), attribute(1, u16(0x1c)), attribute(3, u32(1)));
    const reader = new MessageReader(bytes).reset(bytes.length);
    assert.ok(reader.next());
    assert.equal(readFamilyId(reader), 0x1c);
  });

  it('knows a key by its text', () => {
    assert.equal(parseWireguardPublicKey(publicKey('aa')), publicKey('aa'));
  });
});
