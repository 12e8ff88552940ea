import assert from 'node:assert/strict';
import fc from 'fast-check';
import { toJsonValue } from '../../../src/config/json-reader.js';
import { type NetworkConfig, parseNetworkConfig, unknownConfigKeys } from '../../../src/config/network-config.js';
import { type ErrorCode, OverlayError, describeError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';

/** The range of one family as text, which compares at a glance. */
function rangeOf(config: NetworkConfig, family: 'ipv4' | 'ipv6' = 'ipv4'): string | undefined {
  const range = config[family];
  if (range === undefined) return undefined;
  return `${range.network.toString()} /${range.subnetLen} ${range.min.toString()} ${range.max.toString()}`;
}

/** The values of the keys inside `Backend`. */
function optionsOf({ backendOptions }: NetworkConfig): unknown {
  return Object.fromEntries(Object.entries(backendOptions).map(([key, node]) => [key, toJsonValue(node)]));
}

function parse(config: object): NetworkConfig {
  return parseNetworkConfig(JSON.stringify(config));
}

function assertRefused(text: string, code: ErrorCode, message: RegExp): void {
  assert.throws(
    () => parseNetworkConfig(text),
    (error: unknown) => {
      assert.ok(error instanceof OverlayError, String(error));
      assert.equal(error.code, code);
      assert.match(describeError(error), message);
      return true;
    },
  );
}

/** Neither loopback nor multicast. */
const usableAddress = fc.nat(0xffffffff).filter((bits) => bits >>> 24 !== 127 && bits >>> 28 !== 14);

describe('parseNetworkConfig', () => {
  for (const Network of ['127.0.0.0/8', '127.5.0.0/16', '64.0.0.0/2', '224.0.0.0/8', '239.255.0.0/16']) {
    it(`refuses ${Network}, which has addresses that no host can have`, () => {
      assertRefused(JSON.stringify({ Network }), 'ERR_NETWORK_CONFIG', /(loopback|multicast) addresses; use a network/);
    });
  }
  for (const IPv6Network of ['ff02::/48', 'fe80::/48', '::/48']) {
    it(`refuses ${IPv6Network}, which has addresses that no host can have`, () => {
      const text = JSON.stringify({ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network });
      assertRefused(text, 'ERR_NETWORK_CONFIG', /(loopback|multicast|link-local) address(es)?; use a network/);
    });
  }

  describe('defaults', () => {
    for (const [network, expected] of [
      ['10.5.0.0/16', '10.5.0.0/16 /24 10.5.1.0 10.5.255.0'],
      ['10.5.0.0/22', '10.5.0.0/22 /24 10.5.1.0 10.5.3.0'],
      ['10.5.0.0/23', '10.5.0.0/23 /25 10.5.0.128 10.5.1.128'],
      ['10.5.0.0/28', '10.5.0.0/28 /30 10.5.0.4 10.5.0.12'],
      ['10.5.3.9/16', '10.5.0.0/16 /24 10.5.1.0 10.5.255.0'],
      ['255.0.0.0/8', '255.0.0.0/8 /24 255.0.1.0 255.255.255.0'],
      ['128.0.0.0/2', '128.0.0.0/2 /24 128.0.1.0 191.255.255.0'],
    ] as const) {
      it(`completes ${network}`, () => assert.equal(rangeOf(parse({ Network: network })), expected));
    }

    for (const [network, expected] of [
      ['fd00:10:5::/48', 'fd00:10:5::/48 /64 fd00:10:5:1:: fd00:10:5:ffff::'],
      ['fd00::/62', 'fd00::/62 /64 fd00:0:0:1:: fd00:0:0:3::'],
      ['fd00::/63', 'fd00::/63 /65 fd00::8000:0:0:0 fd00:0:0:1:8000::'],
      ['fd00::/124', 'fd00::/124 /126 fd00::4 fd00::c'],
    ] as const) {
      it(`completes ${network}`, () => {
        const config = parse({ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: network });
        assert.equal(rangeOf(config, 'ipv6'), expected);
      });
    }

    it('leaves IPv6 and nftables off, and takes udp', () => {
      const config = parse({ Network: '10.5.0.0/16' });
      assert.equal(config.ipv6, undefined);
      assert.equal(config.useNftables, false);
      assert.equal(config.backendType, 'udp');
      assert.deepEqual(optionsOf(config), {});
    });

    it('does not look at IPv6 values that are switched off, beyond their syntax', () => {
      const config = parse({ Network: '10.5.0.0/16', IPv6Network: '10.6.0.0/16', IPv6SubnetLen: 3 });
      assert.equal(config.ipv6, undefined);
    });
  });

  describe('explicit ranges', () => {
    it('takes every subnet of the network, the first one included', () => {
      const config = parse({ Network: '10.5.0.0/16', SubnetLen: 26, SubnetMin: '10.5.0.64', SubnetMax: '10.5.0.64' });
      assert.equal(rangeOf(config), '10.5.0.0/16 /26 10.5.0.64 10.5.0.64');
      const first = parse({ Network: '10.5.0.0/16', SubnetMin: '10.5.0.0' });
      assert.equal(rangeOf(first), '10.5.0.0/16 /24 10.5.0.0 10.5.255.0');
    });

    it('counts the all-zero address as absent', () => {
      assert.equal(
        rangeOf(parse({ Network: '10.5.0.0/16', SubnetMin: '0.0.0.0', SubnetMax: '0.0.0.0', SubnetLen: 0 })),
        '10.5.0.0/16 /24 10.5.1.0 10.5.255.0',
      );
    });

    it('agrees with arithmetic done the slow way', () => {
      // Oracle: walk the subnets one by one instead of computing their ends.
      fc.assert(
        fc.property(usableAddress, fc.integer({ min: 16, max: 28 }), fc.nat(14), (bits, length, extra) => {
          const subnetLen = Math.min(length + 2 + (extra % 5), 30);
          const network = `${IpAddress.fromValue(4, BigInt(bits)).toString()}/${length}`;
          const { ipv4 } = parse({ Network: network, SubnetLen: subnetLen });
          assert.ok(ipv4 !== undefined);
          const starts: number[] = [];
          const base = Math.floor(bits / 2 ** (32 - length)) * 2 ** (32 - length);
          for (let at = base; at < base + 2 ** (32 - length); at += 2 ** (32 - subnetLen)) starts.push(at);
          assert.equal(ipv4.min.value, BigInt(starts[1] ?? -1));
          assert.equal(ipv4.max.value, BigInt(starts.at(-1) ?? -1));
          assert.equal(ipv4.network.address.value, BigInt(base));
        }),
        { numRuns: 300 },
      );
    });

    it('refuses exactly the lengths that leave too little', () => {
      for (let length = 2; length <= 32; length++) {
        for (let subnetLen = 0; subnetLen <= 34; subnetLen++) {
          const isUsable = subnetLen === 0 ? length <= 28 : subnetLen <= 30 && subnetLen >= length + 2;
          const text = JSON.stringify({ Network: `160.0.0.0/${length}`, SubnetLen: subnetLen });
          if (isUsable) assert.doesNotThrow(() => parseNetworkConfig(text), text);
          else assertRefused(text, 'ERR_NETWORK_CONFIG', /; use /);
        }
      }
    });
  });

  describe('decoding', () => {
    it('finds keys in any case, also inside Backend', () => {
      const config = parseNetworkConfig('{"NETWORK":"10.5.0.0/16","subnetlen":26,"backend":{"TYPE":"VXLAN","vni":7}}');
      assert.equal(rangeOf(config), '10.5.0.0/16 /26 10.5.0.64 10.5.255.192');
      assert.equal(config.backendType, 'vxlan');
      assert.deepEqual(optionsOf(config), { type: 'vxlan', vni: 7 });
    });

    it('lets the last of several keys win', () => {
      const config = parseNetworkConfig(
        '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":1},"network":"10.6.0.0/16","BACKEND":{"Type":"udp","Port":1,"port":2}}',
      );
      assert.equal(rangeOf(config), '10.6.0.0/16 /24 10.6.1.0 10.6.255.0');
      assert.deepEqual(optionsOf(config), { type: 'udp', port: 2 });
    });

    it('takes null as "as before" for switches and lengths, and as absent for IPv6 bounds', () => {
      const config = parseNetworkConfig(
        '{"Network":"10.5.0.0/16","EnableIPv4":null,"EnableIPv6":true,"EnableIPv6":null,"SubnetLen":26,"SubnetLen":null,' +
          '"IPv6Network":"fd00::/48","IPv6SubnetMin":"fd00::1","IPv6SubnetMin":null,"IPv6SubnetMax":null}',
      );
      assert.equal(rangeOf(config), '10.5.0.0/16 /26 10.5.0.64 10.5.255.192');
      assert.equal(rangeOf(config, 'ipv6'), 'fd00::/48 /64 fd00:0:0:1:: fd00:0:0:ffff::');
    });

    it('keeps nested values of Backend as they are', () => {
      const config = parse({
        Network: '10.5.0.0/16',
        Backend: { Type: 'udp', X: { Y: [1, null, 'Z', true] }, Z: 1.5 },
      });
      assert.deepEqual(optionsOf(config), { type: 'udp', x: { Y: [1, null, 'Z', true] }, z: 1.5 });
    });

    it('is not confused by keys that JavaScript objects have from birth', () => {
      const config = parseNetworkConfig(
        '{"Network":"10.5.0.0/16","__proto__":{"Backend":1},"Backend":{"Type":"udp","__proto__":{"port":1}}}',
      );
      assert.equal(config.backendType, 'udp');
      assert.equal((config.backendOptions as { port?: number }).port, undefined);
    });

    it('never answers with anything but a configuration or an OverlayError', () => {
      const value = fc.oneof(
        fc.constantFrom(
          '',
          '10.5.0.0/16',
          'fd00::/48',
          '10.5.1.0',
          'fd00::',
          'x',
          null,
          true,
          false,
          0,
          24,
          -1,
          1.5,
          1e30,
        ),
        fc.jsonValue({ maxDepth: 2 }),
      );
      const key = fc.constantFrom(
        ...['Network', 'SubnetLen', 'SubnetMin', 'SubnetMax', 'EnableIPv4', 'EnableIPv6', 'EnableNFTables', 'Backend'],
        ...['IPv6Network', 'IPv6SubnetLen', 'IPv6SubnetMin', 'IPv6SubnetMax'],
      );
      fc.assert(
        fc.property(fc.dictionary(key, value), (extra) => {
          try {
            const { ipv4 } = parse({ Network: '10.5.0.0/16', ...extra });
            assert.ok(ipv4 !== undefined && ipv4.network.contains(ipv4.min) && ipv4.network.contains(ipv4.max));
          } catch (error) {
            assert.ok(error instanceof OverlayError, String(error));
            assert.ok(error.hint !== undefined, error.message);
          }
        }),
        { numRuns: 2000 },
      );
    });
  });

  describe('ContainerNetworks', () => {
    const ranges = (containerNetworks: unknown): unknown =>
      JSON.parse(
        JSON.stringify(parse({ Network: '10.5.0.0/16', ContainerNetworks: containerNetworks }).containerNetworks),
      );

    it('says where subnets come from for container networks that name none', () => {
      assert.deepEqual(ranges({ IPv4: '10.200.0.0/16', SubnetLen: 26, IPv6: 'fd00:c8::/48', IPv6SubnetLen: 80 }), {
        ipv4: { network: '10.200.0.0/16', subnetLen: 26 },
        ipv6: { network: 'fd00:c8::/48', subnetLen: 80 },
      });
    });

    it('has subnets of the usual length, and is empty if it is left out', () => {
      assert.deepEqual(ranges({ ipv4: '10.200.0.0/16', IPv6: 'fd00:c8::/48' }), {
        ipv4: { network: '10.200.0.0/16', subnetLen: 24 },
        ipv6: { network: 'fd00:c8::/48', subnetLen: 64 },
      });
      assert.deepEqual(ranges({ IPv4: '10.200.0.0/28' }), { ipv4: { network: '10.200.0.0/28', subnetLen: 28 } });
      assert.deepEqual(ranges(undefined), {});
      assert.deepEqual(ranges(null), {});
    });

    for (const [value, message] of [
      [[], /ContainerNetworks is a list; write an object/],
      [{ IPv4: '10.200.0.0' }, /IPv4 is "10\.200\.0\.0"/],
      [{ IPv6: '10.200.0.0/16' }, /not an IPv6 network/],
      [{ IPv4: '224.0.0.0/8' }, /multicast/],
      [{ IPv4: '10.5.128.0/17' }, /overlaps Network 10\.5\.0\.0\/16/],
      [{ IPv4: '10.200.0.0/16', SubnetLen: 15 }, /SubnetLen 15 gives no subnets.*use 16…30/],
      [{ IPv4: '10.200.0.0/16', SubnetLen: 31 }, /SubnetLen 31/],
      [{ IPv4: '10.200.0.0/31' }, /fewer than four addresses/],
    ] as const) {
      it(`cannot be ${JSON.stringify(value)}`, () => {
        assert.throws(
          () => ranges(value),
          (error: Error) => {
            assert.match(String(error), message);
            return (error as { code?: unknown }).code === 'ERR_NETWORK_CONFIG';
          },
        );
      });
    }

    it('has no other keys', () => {
      const text = '{"Network":"10.5.0.0/16","ContainerNetworks":{"IPv4":"10.200.0.0/16","Subnetlen":24,"IPv5":1}}';
      assert.deepEqual(unknownConfigKeys(text, []), ['ContainerNetworks.IPv5']);
    });
  });

  describe('errors', () => {
    const v6 = '"Network":"10.5.0.0/16","EnableIPv6":true';
    for (const [text, message] of [
      ['{}', /Network is missing; add "Network"/],
      ['null', /Network is missing/],
      ['{"Network":"0.0.0.0/0"}', /Network is missing/],
      ['[]', /it is a list; write an object/],
      ['{"Network":"10.5.0.0/16"} {}', /not JSON: line 1, column 27: something follows/],
      ['{"Network":""}', /Network is ""; write a network such as/],
      ['{"Network":null}', /Network is null/],
      ['{"Network":"10.5.0.0"}', /Network is "10\.5\.0\.0"/],
      ['{"Network":"fd00::/48"}', /write an IPv4 network here/],
      ['{"Network":"10.5.0.0/16","Network":""}', /Network is ""/],
      ['{"Network":"10.5.0.0/16","SubnetMin":""}', /SubnetMin is ""; write an address or leave it out/],
      ['{"Network":"10.5.0.0/16","SubnetMax":null}', /SubnetMax is null/],
      ['{"Network":"10.5.0.0/16","SubnetLen":"24"}', /SubnetLen is "24"; write a whole number without quotes/],
      ['{"Network":"10.5.0.0/16","SubnetLen":24.0}', /SubnetLen is 24\.0/],
      ['{"Network":"10.5.0.0/16","SubnetLen":2e1}', /SubnetLen is 2e1/],
      ['{"Network":"10.5.0.0/16","SubnetLen":-24}', /SubnetLen is -24/],
      ['{"Network":"10.5.0.0/16","EnableIPv6":"true"}', /EnableIPv6 is "true"; write true or false without quotes/],
      [
        '{"Network":"10.5.0.0/16","SubnetLen":17}',
        /SubnetLen 17 leaves fewer than four subnets in 10\.5\.0\.0\/16; use 18…30/,
      ],
      [
        '{"Network":"10.5.0.0/16","SubnetLen":31}',
        /SubnetLen 31 leaves fewer than four addresses in a subnet; use 18…30/,
      ],
      ['{"Network":"10.5.0.0/29"}', /10\.5\.0\.0\/29 is too small .*; use a Network of \/28 or larger/],
      [
        '{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}',
        /SubnetMin 10\.6\.0\.0 is outside 10\.5\.0\.0\/16; use an address in 10\.5\.0\.0…10\.5\.255\.255/,
      ],
      ['{"Network":"10.5.0.0/16","SubnetMax":"fd00::"}', /SubnetMax fd00:: is outside/],
      [
        '{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.7"}',
        /SubnetMin 10\.5\.1\.7 is not the start of a \/24 subnet; use 10\.5\.1\.0/,
      ],
      [
        '{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.3.0"}',
        /SubnetMin 10\.5\.9\.0 is above SubnetMax 10\.5\.3\.0/,
      ],
      ['{"Network":"10.5.0.0/16","Backend":"vxlan"}', /Backend is "vxlan"; write an object/],
      ['{"Network":"10.5.0.0/16","Backend":{"Type":1}}', /Backend\.Type is 1/],
      ['{"Network":"10.5.0.0/16","EnableIPv4":false}', /EnableIPv4 and EnableIPv6 are both false/],
      [
        '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}',
        /a network of IPv6 alone has no form in etcd/,
      ],
      [`{${v6}}`, /IPv6Network is missing/],
      [`{${v6},"IPv6Network":"10.6.0.0/16"}`, /IPv6Network 10\.6\.0\.0\/16 is not an IPv6 network/],
      [`{${v6},"IPv6Network":"fd00::/125"}`, /IPv6Network fd00::\/125 is too small/],
      [`{${v6},"IPv6Network":"fd00::/48","IPv6SubnetLen":127}`, /IPv6SubnetLen 127 .*; use 50…126/],
      [
        `{${v6},"IPv6Network":"fd00::/48","IPv6SubnetMax":"fd00::1"}`,
        /IPv6SubnetMax fd00::1 is not the start of a \/64/,
      ],
    ] as const) {
      it(`refuses ${text}`, () => assertRefused(text, 'ERR_NETWORK_CONFIG', message));
    }

    it('reports the first failing check of IPv4 before any of IPv6', () => {
      assertRefused(
        '{"EnableIPv6":true,"Network":"10.5.0.0/30"}',
        'ERR_NETWORK_CONFIG',
        /Network 10\.5\.0\.0\/30 is too small/,
      );
    });

    for (const backend of ['{}', 'null', '{"Type":""}', '{"Type":null}', '{"VNI":1}']) {
      it(`does not guess a type for Backend ${backend}`, () => {
        assertRefused(
          `{"Network":"10.5.0.0/16","Backend":${backend}}`,
          'ERR_BACKEND_UNKNOWN',
          /Backend has no Type; add "Type"/,
        );
      });
    }
  });
});

describe('unknownConfigKeys', () => {
  it('names what nobody reads, in both levels', () => {
    assert.deepEqual(
      unknownConfigKeys('{"network":"10.5.0.0/16","SubnetLenght":24,"Backend":{"Type":"udp","port":1,"VNI":2}}', [
        'Port',
      ]),
      ['SubnetLenght', 'Backend.vni'],
    );
  });
});
