import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ForwardingTable } from '../../../src/dataplane/forwarding-table.js';
import { isOverlayError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { ipv4Number } from '../../support/packets.js';

const peer = (subnet: string, publicIp: string): { subnet: Prefix; publicIp: IpAddress } => ({
  subnet: Prefix.parse(subnet),
  publicIp: IpAddress.parse(publicIp),
});
const A = '192.0.2.1';
const B = '192.0.2.2';

describe('ForwardingTable', () => {
  it('finds the host with the longest prefix, whatever the order of the peers', () => {
    const peers = [peer('10.5.0.0/16', A), peer('10.5.7.0/24', B)];
    for (const table of [new ForwardingTable(peers, []), new ForwardingTable(peers.reverse(), [])]) {
      assert.equal(table.lookup(ipv4Number('10.5.7.255')), B);
      assert.equal(table.lookup(ipv4Number('10.5.8.0')), A);
      assert.equal(table.lookup(ipv4Number('10.6.0.0')), undefined);
    }
  });

  it('takes the last of two peers with one subnet', () => {
    const table = new ForwardingTable([peer('10.5.7.0/24', A), peer('10.5.7.0/24', B)], []);
    assert.equal(table.lookup(ipv4Number('10.5.7.1')), B);
  });

  it('agrees with a search through all peers', () => {
    const value = fc.integer({ min: 0, max: 0xffffffff });
    const peers = fc.array(fc.tuple(value, fc.integer({ min: 0, max: 32 }), fc.nat(5)), { maxLength: 20 });
    fc.assert(
      fc.property(peers, fc.array(value, { minLength: 1, maxLength: 20 }), (rows, probes) => {
        const list = rows.map(([address, length, host]) => ({
          subnet: Prefix.of(IpAddress.fromValue(4, BigInt(address)), length),
          publicIp: IpAddress.fromValue(4, BigInt(0xc0000200 + host)),
        }));
        const table = new ForwardingTable(list, []);
        for (const probe of [...probes, ...rows.map(([address]) => address)]) {
          const address = IpAddress.fromValue(4, BigInt(probe));
          const best = list
            .filter(({ subnet }) => subnet.contains(address))
            .reduce<(typeof list)[number] | undefined>(
              (found, each) => (found !== undefined && found.subnet.length > each.subnet.length ? found : each),
              undefined,
            );
          assert.equal(table.lookup(probe), best?.publicIp.toString());
        }
      }),
    );
  });

  it('checks the sender as strictly as asked', () => {
    const own = [Prefix.parse('10.5.3.0/24'), Prefix.parse('192.0.2.3/32'), Prefix.parse('200.0.0.0/8')];
    const table = new ForwardingTable([peer('10.5.1.0/24', A), peer('10.5.2.0/24', B)], own);
    const rows = [
      ['off', '192.0.2.99', '10.5.2.9', undefined, undefined],
      ['outer', '192.0.2.99', '10.5.2.9', 'source-unknown', undefined],
      ['outer', A, '10.5.2.9', undefined, undefined],
      ['strict', '192.0.2.99', '10.5.2.9', 'source-unknown', 'source-spoofed'],
      ['strict', A, '10.5.2.9', undefined, 'source-spoofed'],
      ['strict', A, '10.9.9.9', undefined, 'source-spoofed'],
      ['strict', B, '10.5.2.9', undefined, undefined],
      ['off', A, '10.5.3.9', undefined, undefined],
      ['outer', A, '10.5.3.0', undefined, 'source-spoofed'],
      ['outer', A, '10.5.3.255', undefined, 'source-spoofed'],
      ['outer', A, '10.5.4.0', undefined, undefined],
      ['outer', A, '192.0.2.3', undefined, 'source-spoofed'],
      ['outer', A, '192.0.2.4', undefined, undefined],
      ['outer', A, '200.1.2.3', undefined, 'source-spoofed'],
      ['strict', A, '10.5.3.9', undefined, 'source-spoofed'],
    ] as const;
    for (const [mode, host, inner, sender, source] of rows) {
      assert.equal(table.checkSender(mode, host), sender);
      assert.equal(table.checkInnerSource(mode, host, ipv4Number(inner)), source);
    }
    assert.equal(table.isSender(A), true);
    assert.equal(table.isSender('192.0.2.99'), false);
  });

  it('refuses what the wire format cannot carry', () => {
    const isTunnelError = (error: unknown): boolean => isOverlayError(error, 'ERR_TUNNEL');
    assert.throws(() => new ForwardingTable([peer('2001:db8::/64', A)], []), isTunnelError);
    assert.throws(() => new ForwardingTable([peer('10.5.1.0/24', '2001:db8::1')], []), isTunnelError);
    assert.throws(() => new ForwardingTable([], [Prefix.parse('2001:db8::/64')]), isTunnelError);
  });
});
