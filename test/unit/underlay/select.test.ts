import assert from 'node:assert/strict';
import fc from 'fast-check';
import { OverlayError, describeError } from '../../../src/errors.js';
import { IpAddress } from '../../../src/ip/address.js';
import {
  type HostNetwork,
  type RouteTo,
  type UnderlayRequest,
  selectUnderlay,
  usableAddresses,
} from '../../../src/underlay/select.js';
import { host, request } from './host-builder.js';

const ip = (text: string): IpAddress => IpAddress.parse(text);

const noRoutes: RouteTo = () => undefined;

/** Device and addresses of the chosen underlay, as one text. */
function choose(network: HostNetwork, given: Partial<UnderlayRequest> = {}, routeTo = noRoutes): string {
  const { underlay } = selectUnderlay(network, request(given), routeTo);
  const texts = [underlay.address, underlay.addressV6].filter((address) => address !== undefined).map(String);
  return [underlay.device, ...texts].join(' ');
}

function assertNone(
  message: RegExp,
  network: HostNetwork,
  given: Partial<UnderlayRequest> = {},
  routeTo = noRoutes,
): void {
  assert.throws(
    () => selectUnderlay(network, request(given), routeTo),
    (error: unknown) => {
      assert.ok(error instanceof OverlayError, String(error));
      assert.equal(error.code, 'ERR_UNDERLAY');
      assert.match(describeError(error), message);
      return true;
    },
  );
}

const TWO = host(
  [
    { name: 'eth0', addresses: ['192.0.2.1', '2001:db8::1', 'fe80::1'] },
    { name: 'eth1', addresses: ['198.51.100.1', '2001:db8:1::1'], mtu: 9000 },
  ],
  ['4 eth0', '6 eth0'],
);

describe('selectUnderlay', () => {
  describe('default route', () => {
    it('takes its device with index, MTU and address', () => {
      const { underlay, rejected } = selectUnderlay(TWO, request(), noRoutes);
      assert.deepEqual(underlay, {
        device: 'eth0',
        ifindex: 2,
        mtu: 1500,
        address: ip('192.0.2.1'),
        addressV6: undefined,
        publicIp: ip('192.0.2.1'),
        publicIpv6: undefined,
      });
      assert.deepEqual(rejected, []);
    });

    it('takes the one with the lowest metric', () => {
      const defaultRoutes = [
        { family: 4, metric: 100, ifindexes: [2] },
        { family: 4, metric: 50, ifindexes: [3] },
      ] as const;
      assert.equal(choose({ ...TWO, defaultRoutes }), 'eth1 198.51.100.1');
    });

    it('takes several next hops through one device', () => {
      assert.equal(
        choose({ ...TWO, defaultRoutes: [{ family: 4, metric: 0, ifindexes: [3, 3] }] }),
        'eth1 198.51.100.1',
      );
    });

    it('wants both families on one device in a dual-stack network', () => {
      assert.equal(choose(TWO, { families: [4, 6] }), 'eth0 192.0.2.1 2001:db8::1');
      const defaultRoutes = [
        { family: 4, metric: 0, ifindexes: [2] },
        { family: 6, metric: 0, ifindexes: [3] },
      ] as const;
      const split = { ...TWO, defaultRoutes };
      assertNone(
        /IPv4 leaves through eth0, but IPv6 through eth1; name one with --iface: eth0 \(192\.0\.2\.1, 2001:db8::1, fe80::1\), eth1/,
        split,
        {
          families: [4, 6],
        },
      );
    });

    it('takes IPv6 alone', () => assert.equal(choose(TWO, { families: [6] }), 'eth0 2001:db8::1'));

    it('says what is wrong with it and what there is to choose from', () => {
      const noDefault = { ...TWO, defaultRoutes: [] };
      assertNone(
        /default route: there is none for IPv4; name one with --iface: eth0 \(192\.0\.2\.1\), eth1 \(198\.51\.100\.1\)$/,
        noDefault,
      );
      assertNone(
        /there is none for IPv6/,
        { ...TWO, defaultRoutes: TWO.defaultRoutes.slice(0, 1) },
        { families: [4, 6] },
      );
      assertNone(/is spread over eth0 and eth1; name one/, {
        ...TWO,
        defaultRoutes: [{ family: 4, metric: 0, ifindexes: [2, 3] }],
      });
      assertNone(/its device with index 77 is gone/, {
        ...TWO,
        defaultRoutes: [{ family: 4, metric: 0, ifindexes: [77] }],
      });
      assertNone(/has no device/, { ...TWO, defaultRoutes: [{ family: 4, metric: 0, ifindexes: [] }] });
      assertNone(
        /eth0 has no usable IPv4 address; .*: no interface has a usable address yet/,
        host([{ name: 'eth0' }], ['4 eth0']),
      );
      assertNone(/eth0 has no MTU/, host([{ name: 'eth0', mtu: 0, addresses: ['192.0.2.1'] }], ['4 eth0']));
    });

    it('lists no loopback, whatever addresses it has', () => {
      const network = host([{ name: 'eth0', addresses: ['192.0.2.1'] }]);
      const [address] = network.addresses;
      assert.ok(address);
      const addresses = [...network.addresses, { ...address, ifindex: 1, address: ip('203.0.113.5') }];
      assertNone(/: eth0 \(192\.0\.2\.1\)$/, { ...network, addresses });
    });

    it('lists a dozen interfaces, not a hundred containers', () => {
      const many = Array.from({ length: 100 }, (_, i) => ({ name: `veth${i}`, addresses: [`10.0.0.${i}` as const] }));
      assertNone(/veth0 \(10\.0\.0\.0\),.*veth11 \(10\.0\.0\.11\), …$/, host(many));
      assertNone(/veth11 \(10\.0\.0\.11\)$/, host(many.slice(0, 12)));
    });
  });

  describe('--iface', () => {
    it('takes a name', () => assert.equal(choose(TWO, { iface: ['eth1'] }), 'eth1 198.51.100.1'));

    it('takes exactly the address it is given', () => {
      const network = host([{ name: 'eth0', addresses: ['192.0.2.1', '192.0.2.9'] }]);
      assert.equal(choose(network, { iface: ['192.0.2.9'] }), 'eth0 192.0.2.9');
      assert.equal(choose(network, { iface: ['127.0.0.1'] }), 'lo 127.0.0.1');
      assert.equal(choose(TWO, { iface: ['2001:DB8:0::1'], families: [4, 6] }), 'eth0 192.0.2.1 2001:db8::1');
    });

    it('takes the device with the lowest index when several have the address', () => {
      const network = host([
        { name: 'eth0', addresses: ['192.0.2.9'], index: 9 },
        { name: 'eth1', addresses: ['192.0.2.9'], index: 3 },
      ]);
      assert.equal(choose(network, { iface: ['192.0.2.9'] }), 'eth1 192.0.2.9');
    });

    it('goes on to the next one, and tells which did not fit', () => {
      const network = host([{ name: 'eth0' }, { name: 'eth1', addresses: ['192.0.2.1'] }], ['4 eth1']);
      const { underlay, rejected } = selectUnderlay(network, request({ iface: ['eth9', 'eth0', 'eth1'] }), noRoutes);
      assert.equal(underlay.device, 'eth1');
      assert.deepEqual(rejected, [
        '--iface eth9: there is no such interface or address',
        '--iface eth0: eth0 has no usable IPv4 address',
      ]);
    });

    it('gives the advice that one of them calls for, whatever follows it', () => {
      const given = { iface: ['192.0.2.1', 'eth9'], families: [4, 6], publicIpv6: ip('2001:db8:1::1') } as const;
      assertNone(/no such interface or address; give both addresses to one interface/, TWO, given);
    });

    it('never falls back to the default route', () => {
      assertNone(/--iface eth9: there is no such interface or address, --iface-regex \^x: no interface matches/, TWO, {
        iface: ['eth9'],
        ifaceRegex: ['^x'],
      });
    });

    it('wants --public-ipv6 on the same device, if it is on one at all', () => {
      const given = { iface: ['192.0.2.1'], families: [4, 6] } as const;
      const network = host([
        { name: 'eth0', addresses: ['192.0.2.7', '192.0.2.1', '2001:db8::1', '2001:db8::2'] },
        { name: 'eth1', addresses: ['2001:db8::3'] },
      ]);
      assert.equal(choose(network, { ...given, publicIpv6: ip('2001:db8::2') }), 'eth0 192.0.2.1 2001:db8::2');
      assert.equal(choose(network, { ...given, publicIpv6: ip('2001:db8::ffff') }), 'eth0 192.0.2.1 2001:db8::1');
      assertNone(/it is on eth0, but --public-ipv6 is on eth1/, network, { ...given, publicIpv6: ip('2001:db8::3') });
      assert.equal(choose(network, { iface: ['192.0.2.1'], publicIpv6: ip('2001:db8::3') }), 'eth0 192.0.2.1');
    });
  });

  describe('--iface-regex', () => {
    it('looks at addresses of all devices before it looks at names', () => {
      const network = host([
        { name: 'net198', addresses: ['192.0.2.1'] },
        { name: 'eth1', addresses: ['198.51.100.1', '198.51.100.2'] },
      ]);
      assert.equal(choose(network, { ifaceRegex: ['198'] }), 'eth1 198.51.100.1');
      assert.equal(choose(network, { ifaceRegex: ['100.2$'] }), 'eth1 198.51.100.2');
      assert.equal(choose(network, { ifaceRegex: ['^net'] }), 'net198 192.0.2.1');
    });

    it('takes the device with the lowest index when several match', () => {
      const network = host([
        { name: 'eth0', addresses: ['192.0.2.1'], index: 9 },
        { name: 'eth1', addresses: ['192.0.2.2'], index: 3 },
      ]);
      for (const pattern of ['^192', '^eth']) {
        assert.equal(choose(network, { ifaceRegex: [pattern] }), 'eth1 192.0.2.2', pattern);
      }
    });

    it('comes after --iface, in order', () => {
      assert.equal(choose(TWO, { iface: ['eth9'], ifaceRegex: ['^x', 'eth1', 'eth0'] }), 'eth1 198.51.100.1');
    });

    it('wants a match of each family on the same device', () => {
      const network = host([
        { name: 'a', addresses: ['192.0.2.1', '2001:db8:1::1'] },
        { name: 'b', addresses: ['192.0.2.2', '2001:db8:2::1'] },
      ]);
      const given = { families: [4, 6] } as const;
      assert.equal(choose(network, { ...given, ifaceRegex: ['^192|:2::'] }), 'b 192.0.2.2 2001:db8:2::1');
      // Only the name matches: no address of another device may be kept from the first pass.
      assert.equal(choose(network, { ...given, ifaceRegex: ['^192\\.0\\.2\\.1$|^b$'] }), 'b 192.0.2.2 2001:db8:2::1');
    });

    it('understands the flags of RE2', () =>
      assert.equal(choose(TWO, { ifaceRegex: ['(?i)^ETH1'] }), 'eth1 198.51.100.1'));
  });

  describe('--iface-can-reach', () => {
    const given = { ifaceCanReach: ip('203.0.113.1') };

    it('takes device and source address of the route', () => {
      const network = host([{ name: 'eth0', addresses: ['192.0.2.1', '192.0.2.2'] }]);
      assert.equal(
        choose(network, given, () => ({ ifindex: 2, source: ip('192.0.2.2') })),
        'eth0 192.0.2.2',
      );
      assert.equal(
        choose(network, given, () => ({ ifindex: 2, source: undefined })),
        'eth0 192.0.2.1',
      );
    });

    it('asks for the address of the flag, after the other two', () => {
      const asked: string[] = [];
      const routeTo: RouteTo = (address) => {
        asked.push(address.toString());
        return { ifindex: 3, source: undefined };
      };
      assert.equal(choose(TWO, { ...given, iface: ['eth0'] }, routeTo), 'eth0 192.0.2.1');
      assert.deepEqual(asked, []);
      assert.equal(choose(TWO, { ...given, iface: ['eth9'], ifaceRegex: ['^x'] }, routeTo), 'eth1 198.51.100.1');
      assert.deepEqual(asked, ['203.0.113.1']);
    });

    it('does not take a source of a family that the network has not', () => {
      assert.equal(
        choose(TWO, given, () => ({ ifindex: 2, source: ip('2001:db8::1') })),
        'eth0 192.0.2.1',
      );
    });

    it('says why it cannot', () => {
      assertNone(/--iface-can-reach 203\.0\.113\.1: the kernel has no route to it/, TWO, given);
      assertNone(/it is an address of this host; give the address of another host/, TWO, given, () => ({
        ifindex: 1,
        source: undefined,
      }));
    });
  });

  describe('--public-ip', () => {
    it('takes the device that carries it', () => {
      assert.equal(choose(TWO, { publicIp: ip('198.51.100.1') }), 'eth1 198.51.100.1');
      assert.equal(
        choose(TWO, { publicIpv6: ip('2001:db8:1::1'), families: [4, 6] }),
        'eth1 198.51.100.1 2001:db8:1::1',
      );
    });

    it('is announced instead of the address where an interface is named', () => {
      const { underlay } = selectUnderlay(TWO, request({ iface: ['eth0'], publicIp: ip('203.0.113.7') }), noRoutes);
      assert.equal(String(underlay.address), '192.0.2.1');
      assert.equal(String(underlay.publicIp), '203.0.113.7');
    });

    it('is announced for IPv6 as well, where none is given the address of the device', () => {
      const given = { iface: ['eth0'], families: [4, 6] } as const;
      const announced = (publicIpv6?: IpAddress): string =>
        String(selectUnderlay(TWO, request({ ...given, publicIpv6 }), noRoutes).underlay.publicIpv6);
      assert.deepEqual([announced(), announced(ip('2001:db8::77'))], ['2001:db8::1', '2001:db8::77']);
    });

    it('needs --iface when it is translated on the way', () => {
      assertNone(
        /--public-ip 203\.0\.113\.7: no interface has this address; if it is translated on the way, name the interface with --iface: eth0/,
        TWO,
        {
          publicIp: ip('203.0.113.7'),
        },
      );
      assertNone(/--public-ipv6 2001:db8::77: no interface has this address/, TWO, { publicIpv6: ip('2001:db8::77') });
    });
  });

  it('keeps its promises for any host and request', () => {
    const texts = ['192.0.2.1', '192.0.2.2', '169.254.0.1', '2001:db8::1', 'fe80::1', '2001:db8::2'] as const;
    const device = fc.record({
      name: fc.constantFrom('eth0', 'eth1', 'br0'),
      addresses: fc.uniqueArray(
        fc.constantFrom(...texts, ...texts.map((text) => `${text} y` as const), '192.0.2.3 d', '192.0.2.4 u'),
        { maxLength: 4 },
      ),
      mtu: fc.constantFrom(0, 1500),
    });
    const devices = fc.uniqueArray(device, { selector: ({ name }) => name, maxLength: 3 });
    const route = fc.constantFrom('4 eth0', '4 eth1 metric 5', '6 eth0', '6 br0', '4 eth0 eth1');
    const asked = fc.record({
      families: fc.constantFrom<UnderlayRequest['families']>([4], [6], [4, 6]),
      iface: fc.array(fc.constantFrom('eth0', 'eth1', '192.0.2.1', 'fe80::1'), { maxLength: 2 }),
      ifaceRegex: fc.array(fc.constantFrom('^eth', '192', '1$'), { maxLength: 1 }),
    });
    fc.assert(
      fc.property(devices, fc.array(route, { maxLength: 3 }), asked, (given, routes, wanted) => {
        const network = host(given, routes);
        let chosen;
        try {
          chosen = selectUnderlay(network, request(wanted), noRoutes).underlay;
        } catch (error) {
          assert.ok(error instanceof OverlayError && error.hint !== undefined, String(error));
          return;
        }
        const link = network.links.find(({ index }) => index === chosen.ifindex);
        assert.ok(link?.name === chosen.device && link.mtu === chosen.mtu && chosen.mtu > 0);
        for (const [family, address] of [
          [4, chosen.address],
          [6, chosen.addressV6],
        ] as const) {
          assert.equal(address !== undefined, wanted.families.includes(family));
          const isThere = network.addresses.some(
            (entry) => entry.ifindex === chosen.ifindex && entry.address.equals(address),
          );
          assert.ok(address === undefined || (isThere && address.family === family));
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('usableAddresses', () => {
  for (const [what, addresses, expected] of [
    ['global before link-local', ['169.254.0.1', '192.0.2.1'], ['192.0.2.1', '169.254.0.1']],
    ['permanent before dynamic', ['192.0.2.1 y', '192.0.2.2'], ['192.0.2.2', '192.0.2.1']],
    ['lasting before temporary', ['192.0.2.1 t', '192.0.2.2'], ['192.0.2.2', '192.0.2.1']],
    ['dynamic global before permanent link-local', ['169.254.0.1', '192.0.2.1 yt'], ['192.0.2.1', '169.254.0.1']],
    ['permanent temporary before dynamic lasting', ['192.0.2.1 y', '192.0.2.2 t'], ['192.0.2.2', '192.0.2.1']],
    [
      'the kernel’s order among equals',
      ['192.0.2.9', '192.0.2.1', '192.0.2.5'],
      ['192.0.2.9', '192.0.2.1', '192.0.2.5'],
    ],
    ['nothing deprecated, unfinished or loopback', ['192.0.2.1 d', '192.0.2.2 u', '127.0.0.2'], []],
  ] as const) {
    it(`puts ${what}`, () => {
      const network = host([
        { name: 'eth0', addresses },
        { name: 'eth1', addresses: ['203.0.113.1', '2001:db8::1'] },
      ]);
      assert.deepEqual(usableAddresses(network, 2, 4).map(String), expected);
    });
  }
});
