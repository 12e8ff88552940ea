import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IpAddress } from '../../../src/ip/address.js';
import { Prefix } from '../../../src/ip/prefix.js';
import { type FamilyRules, type Rule, firewallRules } from '../../../src/firewall/rules.js';
import { ip, net } from '../../support/builders.js';

const V4 = { network: net('198.18.0.0/16'), subnet: net('198.18.34.0/24') };
const V6 = { network: net('2001:db8:5::/48'), subnet: net('2001:db8:5:22::/64') };
const everything = { networks: [V4, V6], ipMasq: true, forwardRules: true, isFullyRandom: true };

const of = (rules: readonly FamilyRules[], family: 4 | 6): FamilyRules => rules.find((one) => one.family === family)!;

/** What a chain decides about a packet: the slow, obvious reading of the rules. */
function decide(rules: readonly Rule[], packet: { source: IpAddress; destination: IpAddress; mark?: number }): string {
  for (const { markBits = 0, source, destination, verdict } of rules) {
    const isMarked = ((packet.mark ?? 0) & markBits) === markBits;
    const matches = (match: typeof source, address: IpAddress): boolean =>
      match === undefined || match.prefix.contains(address) !== match.isNegated;
    if (isMarked && matches(source, packet.source) && matches(destination, packet.destination)) return verdict;
  }
  return 'none';
}

describe('firewallRules', () => {
  it('masquerades what enters or leaves the overlay and nothing inside it', () => {
    const cases: [source: string, destination: string, verdict: string][] = [
      ['198.18.34.2', '198.18.9.7', 'return'],
      ['198.18.9.7', '198.18.34.2', 'return'],
      ['198.18.34.2', '203.0.113.9', 'masquerade-fully-random'],
      ['198.18.9.7', '203.0.113.9', 'masquerade-fully-random'],
      ['192.0.2.1', '198.18.34.2', 'return'],
      ['192.0.2.1', '198.18.9.7', 'masquerade-fully-random'],
      ['198.18.34.2', '239.1.2.3', 'none'],
      ['192.0.2.1', '203.0.113.9', 'none'],
      ['2001:db8:5:22::2', '2001:db8:5:9::7', 'return'],
      ['2001:db8:5:22::2', '2001:db8:ff::9', 'masquerade-fully-random'],
      ['2001:db8::1', '2001:db8:5:9::7', 'masquerade-fully-random'],
      ['2001:db8::1', '2001:db8:5:22::2', 'return'],
      ['2001:db8:5:22::2', 'ff02::1', 'none'],
    ];
    const rules = firewallRules(everything);
    for (const [source, destination, verdict] of cases) {
      const { masquerade } = of(rules, ip(source).family);
      assert.equal(
        decide(masquerade, { source: ip(source), destination: ip(destination) }),
        verdict,
        `${source} → ${destination}`,
      );
    }
  });

  it('leaves packets alone that kube-proxy marked, whatever other bits are set', () => {
    const { masquerade } = of(firewallRules(everything), 4);
    const packet = { source: ip('198.18.34.2'), destination: ip('203.0.113.9') };
    assert.equal(decide(masquerade, { ...packet, mark: 0x4000 }), 'return');
    assert.equal(decide(masquerade, { ...packet, mark: 0xc001 }), 'return');
    assert.equal(decide(masquerade, { ...packet, mark: 0x8000 }), 'masquerade-fully-random');
  });

  it('masquerades from this host to every container elsewhere, in every layout of networks', () => {
    fc.assert(
      fc.property(
        fc.bigInt(0n, 0xffffffffn),
        fc.integer({ min: 8, max: 24 }),
        fc.integer({ min: 1, max: 6 }),
        (value, length, more) => {
          const network = Prefix.of(IpAddress.fromValue(4, value), length);
          fc.pre(!network.contains(ip('192.0.2.1')) && !network.address.isMulticast);
          const subnet = Prefix.of(network.address, length + more);
          const { masquerade } = of(firewallRules({ ...everything, networks: [{ network, subnet }] }), 4);
          const verdictTo = (destination: IpAddress): string =>
            decide(masquerade, { source: ip('192.0.2.1'), destination });
          assert.equal(verdictTo(network.last), 'masquerade-fully-random');
          assert.equal(verdictTo(subnet.last), 'return');
        },
      ),
    );
  });

  it('accepts what containers send and receive', () => {
    const { forward } = of(firewallRules(everything), 4);
    assert.equal(decide(forward, { source: ip('198.18.9.7'), destination: ip('203.0.113.9') }), 'accept');
    assert.equal(decide(forward, { source: ip('203.0.113.9'), destination: ip('198.18.9.7') }), 'accept');
    assert.equal(decide(forward, { source: ip('203.0.113.9'), destination: ip('192.0.2.1') }), 'none');
  });

  it('has no rules for what is not asked for', () => {
    const empty = { masquerade: 0, forward: 0 };
    const count = ({ masquerade, forward }: FamilyRules) => ({
      masquerade: masquerade.length,
      forward: forward.length,
    });
    assert.deepEqual(count(of(firewallRules({ ...everything, networks: [V4] }), 6)), empty);
    assert.deepEqual(count(of(firewallRules({ ...everything, ipMasq: false }), 4)), { masquerade: 0, forward: 2 });
    assert.deepEqual(count(of(firewallRules({ ...everything, forwardRules: false }), 6)), {
      masquerade: 6,
      forward: 0,
    });
    assert.deepEqual(count(of(firewallRules({ ...everything, networks: [] }), 4)), empty);
  });

  it('names each rule so that a listing explains itself and nft can store it', () => {
    for (const { masquerade, forward } of firewallRules(everything)) {
      for (const chain of [masquerade, forward]) {
        assert.equal(new Set(chain.map(({ purpose }) => purpose)).size, chain.length);
        for (const { purpose } of chain) assert.match(purpose, /^[\w -]{1,100}$/);
      }
    }
  });
});
