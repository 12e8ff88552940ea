import assert from 'node:assert/strict';
import fc from 'fast-check';
import { areAttributesEqual, decodeAttributes, encodeAttributes } from '../../../src/lease/attributes.js';
import type { JsonValue } from '../../../src/json.js';
import { backendOf } from '../../../src/lease/lease.js';
import { ip } from '../../support/builders.js';
import { attributesOf } from '../../support/store-contract.js';

describe('lease attributes', () => {
  const dual = { publicIpv6: ip('2001:db8::11') };
  const mac = { VNI: 1, VtepMAC: '02:42:ac:11:00:09' };
  const mac6 = { VNI: 1, VtepMAC: '0a:bc:00:00:00:01' };
  for (const [name, attributes, text] of [
    ['udp', attributesOf(11), '{"PublicIP":"192.0.2.11","PublicIPv6":null}'],
    [
      'host-gw, dual-stack',
      attributesOf(11, { ...dual, backendType: 'host-gw' }),
      '{"PublicIP":"192.0.2.11","PublicIPv6":"2001:db8::11","BackendType":"host-gw"}',
    ],
    [
      'vxlan',
      attributesOf(11, { backendType: 'vxlan', backendData: mac }),
      '{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:42:ac:11:00:09"}}',
    ],
    [
      'vxlan, dual-stack',
      attributesOf(11, { ...dual, backendType: 'vxlan', backendData: mac, backendV6Data: mac6 }),
      '{"PublicIP":"192.0.2.11","PublicIPv6":"2001:db8::11","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:42:ac:11:00:09"},"BackendV6Data":{"VNI":1,"VtepMAC":"0a:bc:00:00:00:01"}}',
    ],
    [
      'extension with characters that Go escapes',
      attributesOf(11, { backendType: 'extension', backendData: 'a<b>&"c"\u2028' }),
      '{"PublicIP":"192.0.2.11","PublicIPv6":null,"BackendType":"extension","BackendData":"a\\u003cb\\u003e\\u0026\\"c\\"\\u2028"}',
    ],
    ['no IPv4', attributesOf(0, { publicIp: ip('0.0.0.0') }), '{"PublicIP":"0.0.0.0","PublicIPv6":null}'],
  ] as const) {
    it(`are written byte for byte as flannel does: ${name}`, () => {
      assert.equal(encodeAttributes(attributes), text);
      assert.ok(areAttributesEqual(decodeAttributes(text), attributes));
    });
  }

  it('survive writing and reading, whatever the backend publishes', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), fc.string(), (data, type) => {
        // JSON has one zero.
        const backendData = JSON.parse(JSON.stringify(data)) as JsonValue;
        const attributes = attributesOf(1, { backendType: type, backendData });
        assert.deepEqual(decodeAttributes(encodeAttributes(attributes)), attributes);
      }),
    );
  });

  for (const [title, text, expected] of [
    ['of flannel up to 0.14', '{"PublicIP":"192.0.2.1"}', attributesOf(1)],
    [
      'in any case',
      '{"publicip":"192.0.2.1","PUBLICIPV6":null,"backendTYPE":"ipip"}',
      attributesOf(1, { backendType: 'ipip' }),
    ],
    ['with unknown fields', '{"PublicIP":"192.0.2.1","Zone":{"a":1}}', attributesOf(1)],
    ['with the last of several spellings', '{"PublicIP":"192.0.2.9","publicIP":"192.0.2.1"}', attributesOf(1)],
    [
      'without a public address',
      '{"BackendType":"ipip"}',
      attributesOf(0, { publicIp: ip('0.0.0.0'), backendType: 'ipip' }),
    ],
    ['with a null type', '{"PublicIP":"192.0.2.1","BackendType":null}', attributesOf(1)],
  ] as const) {
    it(`are read ${title}`, () => {
      assert.ok(areAttributesEqual(decodeAttributes(text), expected), encodeAttributes(decodeAttributes(text)));
    });
  }

  for (const [text, why] of [
    ['', /not JSON/],
    ['{"PublicIP":"192.0.2.1"} x', /not JSON/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    ['"192.0.2.1"', /not a JSON object/],
    ['{"PublicIP":null}', /PublicIP is not an IPv4 address/],
    ['{"PublicIP":"2001:db8::1"}', /PublicIP is not an IPv4 address/],
    ['{"PublicIP":"192.0.2.256"}', /PublicIP is not an IPv4 address/],
    ['{"PublicIP":3221225985}', /PublicIP is not an IPv4 address/],
    ['{"PublicIP":"192.0.2.1","PublicIPv6":"192.0.2.1"}', /PublicIPv6 is not an IPv6 address/],
    ['{"PublicIP":"192.0.2.1","BackendType":7}', /BackendType is not a string/],
  ] as const) {
    it(`are refused with a reason: ${text}`, () => {
      assert.throws(() => decodeAttributes(text), { code: 'ERR_LEASE_VALUE', message: why });
    });
  }

  it('name udp by leaving the type out', () => {
    assert.equal(backendOf(attributesOf(1)), 'udp');
    assert.equal(backendOf(attributesOf(1, { backendType: 'Host-GW' })), 'host-gw');
  });
});
