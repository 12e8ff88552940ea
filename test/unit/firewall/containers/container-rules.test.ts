import assert from 'node:assert/strict';
import {
  type ContainerRuleInput,
  containerRules,
  needsRules,
} from '../../../../src/firewall/containers/container-rules.js';
import { type NftTable, tableScript } from '../../../../src/firewall/containers/nft-script.js';
import { ip, net } from '../../../support/builders.js';
import { type ModelPacket, decide } from '../../../support/nft-model.js';

const BASE = { isInternal: false, isIccAllowed: true, ipv6Firewall: 'closed' } as const;

const INPUT: ContainerRuleInput = {
  networks: [
    { ...BASE, bridge: 'tsfb-web', subnets: [net('198.51.100.0/25'), net('fd00:1::/64')] },
    { ...BASE, bridge: 'tsfb-db', subnets: [net('198.51.100.128/26'), net('2001:db8:d::/64')], isIccAllowed: false },
    { ...BASE, bridge: 'tsfb-in', subnets: [net('198.51.100.192/27'), net('fd00:4::/64')], isInternal: true },
    { ...BASE, bridge: 'tsfb-six', subnets: [net('2001:db8:6::/64')], ipv6Firewall: 'open' },
  ],
  ports: [
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8080, address: ip('198.51.100.2'), port: 80 },
    { protocol: 'udp', hostAddress: ip('192.0.2.1'), hostPort: 53, address: ip('198.51.100.2'), port: 5353 },
    { protocol: 'tcp', hostAddress: ip('127.0.0.1'), hostPort: 8081, address: ip('198.51.100.2'), port: 81 },
    { protocol: 'tcp', hostAddress: undefined, hostPort: 8080, address: ip('2001:db8:d::2'), port: 80 },
    { protocol: 'tcp', hostAddress: ip('2001:db8::1'), hostPort: 8081, address: ip('2001:db8:d::2'), port: 81 },
  ],
  overlay: [net('198.18.0.0/16'), net('2001:db8:c::/48')],
  routed: [net('198.51.100.0/24'), net('2001:db8:d::/64')],
  hosts: [ip('192.0.2.2'), ip('198.18.2.0'), ip('2001:db8::2'), ip('2001:db8:c::2')],
  dockerBridges: ['docker0'],
};

const TABLE = containerRules('inet tsflannel-test', INPUT);

/** Addresses by what they are. */
const WEB = '198.51.100.2';
const WEB2 = '198.51.100.9';
const WEB6 = 'fd00:1::2';
const DB = '198.51.100.130';
const DB2 = '198.51.100.131';
const DB6 = '2001:db8:d::2';
const INTERNAL = '198.51.100.194';
const INTERNAL2 = '198.51.100.195';
const SIX = '2001:db8:6::2';
const PEER = '192.0.2.2';
const PEER6 = '2001:db8::2';
const OUTSIDE = '203.0.113.9';
const OUTSIDE6 = '2001:db8:ffff::9';

interface Case extends ModelPacket {
  readonly at: string;
  readonly gives: string;
}

const FORWARD: readonly (readonly [name: string, packet: ModelPacket, verdict: string])[] = [
  ['within a network', { iif: 'tsfb-web', oif: 'tsfb-web', from: WEB, to: WEB2 }, 'pass'],
  ['within a network, to another host', { iif: 'tsfb-web', oif: 'flannel.1', from: WEB, to: WEB2 }, 'pass'],
  ['within a network, from another host', { iif: 'flannel.1', oif: 'tsfb-web', from: WEB2, to: WEB }, 'pass'],
  [
    'within a network over IPv6, to another host',
    { iif: 'tsfb-web', oif: 'eth0', from: WEB6, to: 'fd00:1::9' },
    'pass',
  ],
  [
    'within a network over IPv6, from another host',
    { iif: 'eth0', oif: 'tsfb-web', from: 'fd00:1::9', to: WEB6 },
    'pass',
  ],
  ['icc=false, on one host', { iif: 'tsfb-db', oif: 'tsfb-db', from: DB, to: DB2 }, 'drop'],
  ['icc=false, to another host', { iif: 'tsfb-db', oif: 'flannel.1', from: DB, to: DB2 }, 'drop'],
  ['icc=false, from another host', { iif: 'flannel.1', oif: 'tsfb-db', from: DB2, to: DB }, 'drop'],
  ['icc=false over IPv6, to another host', { iif: 'tsfb-db', oif: 'eth0', from: DB6, to: '2001:db8:d::9' }, 'drop'],
  [
    'icc=false over IPv6, from another host, even a ping',
    { iif: 'eth0', oif: 'tsfb-db', from: '2001:db8:d::9', to: DB6, icmpv6: 'echo-request' },
    'drop',
  ],
  ['icc=false, to a published port', { iif: 'tsfb-db', oif: 'tsfb-db', from: DB, to: DB2, isDnat: true }, 'pass'],
  ['answers of any network', { iif: 'tsfb-db', oif: 'eth0', from: DB, to: OUTSIDE, state: 'established' }, 'pass'],
  ['between networks of one host', { iif: 'tsfb-web', oif: 'tsfb-db', from: WEB, to: DB }, 'drop'],
  ['between networks of one host over IPv6', { iif: 'tsfb-six', oif: 'tsfb-db', from: SIX, to: DB6 }, 'drop'],
  ['between networks of one host, to open IPv6', { iif: 'tsfb-web', oif: 'tsfb-six', from: WEB6, to: SIX }, 'drop'],
  [
    'between networks of one host, by a published port',
    { iif: 'tsfb-db', oif: 'tsfb-web', from: DB, to: WEB, isDnat: true },
    'pass',
  ],
  ['to a network that only others have', { iif: 'tsfb-web', oif: 'flannel.1', from: WEB, to: '198.18.9.2' }, 'drop'],
  [
    'to a network that only others have, IPv6',
    { iif: 'tsfb-six', oif: 'eth0', from: SIX, to: '2001:db8:c::9' },
    'drop',
  ],
  [
    'from a network that only others have, to open IPv6',
    { iif: 'eth0', oif: 'tsfb-six', from: '2001:db8:c::9', to: SIX },
    'drop',
  ],
  ['with an address of another network', { iif: 'tsfb-web', oif: 'flannel.1', from: DB, to: DB2 }, 'drop'],
  ['with an address of nobody here', { iif: 'tsfb-web', oif: 'eth0', from: OUTSIDE, to: '203.0.113.1' }, 'drop'],
  [
    'with an address of nobody here, IPv6',
    { iif: 'tsfb-web', oif: 'eth0', from: OUTSIDE6, to: '2001:db8:ffff::1' },
    'drop',
  ],
  ['IPv4 where the network has none', { iif: 'tsfb-six', oif: 'eth0', from: WEB, to: OUTSIDE }, 'drop'],
  ['to the outside', { iif: 'tsfb-web', oif: 'eth0', from: WEB, to: OUTSIDE }, 'pass'],
  ['to the outside over IPv6', { iif: 'tsfb-six', oif: 'eth0', from: SIX, to: OUTSIDE6 }, 'pass'],
  ['to the outside with icc=false', { iif: 'tsfb-db', oif: 'eth0', from: DB, to: OUTSIDE }, 'pass'],
  ['from the outside', { iif: 'eth0', oif: 'tsfb-web', from: OUTSIDE, to: WEB }, 'drop'],
  [
    'from the outside to a published port',
    { iif: 'eth0', oif: 'tsfb-web', from: OUTSIDE, to: WEB, isDnat: true },
    'pass',
  ],
  ['from the outside over IPv6', { iif: 'eth0', oif: 'tsfb-db', from: OUTSIDE6, to: DB6 }, 'drop'],
  ['from the outside over IPv6 where it is open', { iif: 'eth0', oif: 'tsfb-six', from: OUTSIDE6, to: SIX }, 'pass'],
  [
    'from the outside, ICMPv6 that must pass',
    { iif: 'eth0', oif: 'tsfb-db', from: OUTSIDE6, to: DB6, icmpv6: 'packet-too-big' },
    'pass',
  ],
  [
    'from the outside, other ICMPv6',
    { iif: 'eth0', oif: 'tsfb-db', from: OUTSIDE6, to: DB6, icmpv6: 'nd-redirect' },
    'drop',
  ],
  ['from another host', { iif: 'flannel.1', oif: 'tsfb-web', from: '198.18.2.0', to: WEB }, 'pass'],
  ['from another host over IPv6', { iif: 'eth0', oif: 'tsfb-db', from: PEER6, to: DB6 }, 'pass'],
  ['to another host', { iif: 'tsfb-web', oif: 'flannel.1', from: WEB, to: '198.18.2.0' }, 'pass'],
  ['to another host over IPv6', { iif: 'tsfb-six', oif: 'eth0', from: SIX, to: PEER6 }, 'pass'],
  ['to a container of Docker itself', { iif: 'tsfb-web', oif: 'docker0', from: WEB, to: '172.17.0.2' }, 'drop'],
  [
    'to a published port of Docker itself',
    { iif: 'tsfb-web', oif: 'docker0', from: WEB, to: '172.17.0.2', isDnat: true },
    'pass',
  ],
  ['from Docker to other hosts', { iif: 'docker0', oif: 'flannel.1', from: '172.17.0.2', to: '198.51.100.9' }, 'drop'],
  [
    'from Docker to other hosts over IPv6',
    { iif: 'docker0', oif: 'eth0', from: 'fd00:17::2', to: '2001:db8:d::9' },
    'drop',
  ],
  ['from Docker to the overlay', { iif: 'docker0', oif: 'flannel.1', from: '172.17.0.2', to: '198.18.2.0' }, 'pass'],
  ['from a container of Docker itself', { iif: 'docker0', oif: 'tsfb-six', from: 'fd00:17::2', to: SIX }, 'drop'],
  [
    'with an address of nobody here, icc=false',
    { iif: 'tsfb-db', oif: 'eth0', from: OUTSIDE, to: '203.0.113.1' },
    'drop',
  ],
  [
    'with an address of nobody here, icc=false, IPv6',
    { iif: 'tsfb-db', oif: 'eth0', from: OUTSIDE6, to: '2001:db8:ffff::1' },
    'drop',
  ],
  [
    'with an address of nobody here, IPv6 alone',
    { iif: 'tsfb-six', oif: 'eth0', from: OUTSIDE6, to: '2001:db8:ffff::1' },
    'drop',
  ],
  ['with an address of nobody here, internal', { iif: 'tsfb-in', oif: 'eth0', from: OUTSIDE, to: INTERNAL2 }, 'drop'],
  [
    'with an address of nobody here, internal, IPv6',
    { iif: 'tsfb-in', oif: 'eth0', from: OUTSIDE6, to: 'fd00:4::9' },
    'drop',
  ],
  [
    'within a network over IPv6 alone, to another host',
    { iif: 'tsfb-six', oif: 'eth0', from: SIX, to: '2001:db8:6::9' },
    'pass',
  ],
  [
    'within a network over IPv6 alone, from another host',
    { iif: 'eth0', oif: 'tsfb-six', from: '2001:db8:6::9', to: SIX },
    'pass',
  ],
  [
    'to another host inside of a network of others, IPv6',
    { iif: 'tsfb-six', oif: 'eth0', from: SIX, to: '2001:db8:c::2' },
    'pass',
  ],
  ['answers from the outside', { iif: 'eth0', oif: 'tsfb-db', from: OUTSIDE, to: DB, state: 'established' }, 'pass'],
  ['internal over IPv6, to another host', { iif: 'tsfb-in', oif: 'eth0', from: 'fd00:4::2', to: 'fd00:4::9' }, 'pass'],
  [
    'internal over IPv6, from another host',
    { iif: 'eth0', oif: 'tsfb-in', from: 'fd00:4::9', to: 'fd00:4::2' },
    'pass',
  ],
  ['internal, on one host', { iif: 'tsfb-in', oif: 'tsfb-in', from: INTERNAL, to: INTERNAL2 }, 'pass'],
  ['internal, to another host', { iif: 'tsfb-in', oif: 'flannel.1', from: INTERNAL, to: INTERNAL2 }, 'pass'],
  ['internal, from another host', { iif: 'flannel.1', oif: 'tsfb-in', from: INTERNAL2, to: INTERNAL }, 'pass'],
  ['internal, to the outside', { iif: 'tsfb-in', oif: 'eth0', from: INTERNAL, to: OUTSIDE }, 'drop'],
  ['internal, from the outside', { iif: 'eth0', oif: 'tsfb-in', from: OUTSIDE, to: INTERNAL }, 'drop'],
  [
    'internal, from the outside, translated',
    { iif: 'eth0', oif: 'tsfb-in', from: OUTSIDE, to: INTERNAL, isDnat: true },
    'drop',
  ],
  [
    'internal, to a published port of another network',
    { iif: 'tsfb-in', oif: 'tsfb-web', from: INTERNAL, to: WEB, isDnat: true },
    'drop',
  ],
  ['internal, from the hosts', { iif: 'eth0', oif: 'tsfb-in', from: PEER, to: INTERNAL }, 'drop'],
  ['of others', { iif: 'eth0', oif: 'eth1', from: OUTSIDE, to: PEER }, 'pass'],
];

const OTHERS: readonly (readonly [name: string, hook: string, packet: ModelPacket, verdict: string])[] = [
  ['of the loopback, from a bridge', 'raw-prerouting', { iif: 'tsfb-web', from: WEB, to: '127.0.0.1' }, 'drop'],
  ['from a forged loopback', 'raw-prerouting', { iif: 'tsfb-web', from: '127.0.0.1', to: '192.0.2.1' }, 'drop'],
  ['of the loopback itself', 'raw-prerouting', { iif: 'lo', from: '127.0.0.1', to: '127.0.0.1' }, 'pass'],
  [
    'published',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '192.0.2.1', isToHost: true, protocol: 'tcp', port: 8080 },
    `${WEB} . 80`,
  ],
  [
    'published, to somebody else',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '192.0.2.7', protocol: 'tcp', port: 8080 },
    'pass',
  ],
  [
    'published by another protocol',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '192.0.2.1', isToHost: true, protocol: 'udp', port: 8080 },
    'pass',
  ],
  [
    'published under one address',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '192.0.2.1', isToHost: true, protocol: 'udp', port: 53 },
    `${WEB} . 5353`,
  ],
  [
    'published under another address',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '192.0.2.3', isToHost: true, protocol: 'udp', port: 53 },
    'pass',
  ],
  [
    'published, IPv6',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE6, to: '2001:db8::1', isToHost: true, protocol: 'tcp', port: 8080 },
    `${DB6} . 80`,
  ],
  [
    'published under one address, IPv6',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE6, to: '2001:db8::1', isToHost: true, protocol: 'tcp', port: 8081 },
    `${DB6} . 81`,
  ],
  [
    'published under loopback, from elsewhere',
    'nat-prerouting',
    { iif: 'eth0', from: OUTSIDE, to: '127.0.0.1', isToHost: true, protocol: 'tcp', port: 8081 },
    'pass',
  ],
  [
    'published, from this host',
    'nat-output',
    { oif: 'lo', from: '127.0.0.1', to: '127.0.0.1', isToHost: true, protocol: 'tcp', port: 8080 },
    `${WEB} . 80`,
  ],
  [
    'published under loopback, from this host',
    'nat-output',
    { oif: 'lo', from: '127.0.0.1', to: '127.0.0.1', isToHost: true, protocol: 'tcp', port: 8081 },
    `${WEB} . 81`,
  ],
  [
    'published, from this host to its IPv6 loopback',
    'nat-output',
    { oif: 'lo', from: '::1', to: '::1', isToHost: true, protocol: 'tcp', port: 8080 },
    'pass',
  ],
  [
    'published, from this host, IPv6',
    'nat-output',
    { oif: 'lo', from: '2001:db8::1', to: '2001:db8::1', isToHost: true, protocol: 'tcp', port: 8080 },
    `${DB6} . 80`,
  ],
  [
    'published under one address, from this host, IPv6',
    'nat-output',
    { oif: 'lo', from: '2001:db8::1', to: '2001:db8::1', isToHost: true, protocol: 'tcp', port: 8081 },
    `${DB6} . 81`,
  ],
  ['of an internal network, to the host', 'filter-input', { iif: 'tsfb-in', from: INTERNAL, to: '192.0.2.1' }, 'drop'],
  [
    'of an internal network, answers',
    'filter-input',
    { iif: 'tsfb-in', from: INTERNAL, to: '192.0.2.1', state: 'established' },
    'pass',
  ],
  [
    'of an internal network, neighbours',
    'filter-input',
    { iif: 'tsfb-in', from: 'fe80::2', to: 'fe80::1', icmpv6: 'nd-neighbor-solicit' },
    'pass',
  ],
  ['of another network, to the host', 'filter-input', { iif: 'tsfb-web', from: WEB, to: '192.0.2.1' }, 'pass'],
  ['to the outside', 'nat-postrouting', { oif: 'eth0', from: WEB, to: OUTSIDE }, 'masquerade fully-random'],
  ['within a network', 'nat-postrouting', { oif: 'flannel.1', from: WEB, to: WEB2 }, 'pass'],
  ['to multicast', 'nat-postrouting', { oif: 'eth0', from: WEB, to: '239.1.2.3' }, 'pass'],
  [
    'to a published port of another network here',
    'nat-postrouting',
    { oif: 'tsfb-db', from: WEB, to: DB, isDnat: true },
    'pass',
  ],
  [
    'to a published port of its own network',
    'nat-postrouting',
    { oif: 'tsfb-web', from: WEB2, to: WEB, isDnat: true },
    'masquerade fully-random',
  ],
  [
    'to the outside, unique local',
    'nat-postrouting',
    { oif: 'eth0', from: WEB6, to: OUTSIDE6 },
    'masquerade fully-random',
  ],
  ['to the outside, global', 'nat-postrouting', { oif: 'eth0', from: SIX, to: OUTSIDE6 }, 'pass'],
  [
    'to a published port of its own network, IPv6',
    'nat-postrouting',
    { oif: 'tsfb-six', from: SIX, to: '2001:db8:6::3', isDnat: true },
    'masquerade fully-random',
  ],
  ['to the outside, icc=false', 'nat-postrouting', { oif: 'eth0', from: DB, to: OUTSIDE }, 'masquerade fully-random'],
  [
    'to a published port of its own network, icc=false',
    'nat-postrouting',
    { oif: 'tsfb-db', from: DB2, to: DB, isDnat: true },
    'masquerade fully-random',
  ],
  [
    'to a published port of its own network, icc=false, IPv6',
    'nat-postrouting',
    { oif: 'tsfb-db', from: DB6, to: '2001:db8:d::3', isDnat: true },
    'masquerade fully-random',
  ],
  [
    'to a published port of its own network, unique local',
    'nat-postrouting',
    { oif: 'tsfb-web', from: WEB6, to: 'fd00:1::3', isDnat: true },
    'masquerade fully-random',
  ],
  [
    'from loopback to a published port',
    'nat-postrouting',
    { oif: 'tsfb-web', from: '127.0.0.1', to: WEB, isDnat: true },
    'masquerade fully-random',
  ],
  ['from an internal network', 'nat-postrouting', { oif: 'eth0', from: INTERNAL, to: OUTSIDE }, 'pass'],
  ['of others', 'nat-postrouting', { oif: 'eth0', from: OUTSIDE, to: PEER }, 'pass'],
];

const CASES: readonly (Case & { readonly title: string })[] = [
  ...FORWARD.map(([title, packet, gives]) => ({ title, at: 'filter-forward', ...packet, gives })),
  ...OTHERS.map(([title, at, packet, gives]) => ({ title, at, ...packet, gives })),
];

const outcome = (table: NftTable, { at, ...packet }: Case): string => decide(table, at, packet);

/** The table without one of its rules. */
const without = (chain: string, index: number): NftTable => ({
  ...TABLE,
  chains: TABLE.chains.map((each) =>
    each.name === chain ? { ...each, rules: each.rules.filter((_, at) => at !== index) } : each,
  ),
});

describe('containerRules', () => {
  for (const { title, ...each } of CASES) {
    it(`${each.at}: packets ${title}: ${each.gives}`, () => {
      assert.equal(outcome(TABLE, each), each.gives);
    });
  }

  it('has no rule that could be left out', () => {
    const spare = TABLE.chains.flatMap(({ name, rules }) =>
      rules.flatMap(({ text, purpose }, index) => {
        const rest = without(name, index);
        return CASES.some((each) => outcome(rest, each) !== outcome(TABLE, each))
          ? []
          : [`${name}: ${text} (${purpose})`];
      }),
    );
    assert.deepEqual(spare, []);
  });

  describe('on a host that is in none of the networks', () => {
    const table = containerRules('inet tsflannel-test', { ...INPUT, networks: [], ports: [] });
    const docker = { iif: 'docker0', oif: 'flannel.1', from: '172.17.0.2' } as const;

    for (const [title, packet, gives] of [
      ["to containers of other hosts, from Docker's own networks", { ...docker, to: DB }, 'drop'],
      ["likewise over IPv6, from Docker's own networks", { ...docker, from: 'fd00:d::2', to: DB6 }, 'drop'],
      ['to them, as an answer', { ...docker, to: DB, state: 'established' }, 'pass'],
      ["to the outside, from Docker's own networks", { ...docker, to: OUTSIDE }, 'pass'],
      ['to containers of other hosts, from elsewhere', { ...docker, iif: 'eth1', from: OUTSIDE, to: DB }, 'pass'],
    ] as const) {
      it(`packets ${title}: ${gives}`, () => {
        assert.equal(decide(table, 'filter-forward', packet), gives);
      });
    }

    it('does not name the hosts, so that it is not written anew whenever one comes or goes', () => {
      assert.deepEqual(table.sets.map(({ name }) => name).sort(), ['bridges', 'docker', 'routed-ip', 'routed-ip6']);
    });

    it("is needed where there are both such networks and containers of Docker's own", () => {
      const rest = { ...INPUT, networks: [] };
      assert.deepEqual([INPUT, rest, { ...rest, routed: [] }, { ...rest, dockerBridges: [] }].map(needsRules), [
        true,
        true,
        false,
        false,
      ]);
    });
  });

  it('is the same for the same networks in any order', () => {
    const reversed = {
      ...INPUT,
      networks: INPUT.networks.toReversed(),
      dockerBridges: INPUT.dockerBridges.toReversed(),
    };
    assert.equal(tableScript(containerRules('inet x', reversed)), tableScript(containerRules('inet x', INPUT)));
  });

  it('lists every rule with a purpose that nft takes', () => {
    for (const { rules } of TABLE.chains) for (const { purpose } of rules) assert.match(purpose, /^[^"]{1,100}$/);
  });
});
