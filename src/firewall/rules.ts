import { type Family } from '../ip/address.js';
import { Prefix } from '../ip/prefix.js';

/** The overlay as one family's rules see it. */
export interface FirewallNetwork {
  /** All containers of the cluster. */
  readonly network: Prefix;
  /** The containers of this host. */
  readonly subnet: Prefix;
}

/** What the rules are computed from. */
export interface RuleInput {
  /** At most one per family. */
  readonly networks: readonly FirewallNetwork[];
  /** Hide containers behind the host's address outside the overlay (`--ip-masq`). */
  readonly ipMasq: boolean;
  /** Accept forwarded packets of containers (`--iptables-forward-rules`). */
  readonly forwardRules: boolean;
  /** Let the kernel choose source ports at random, which avoids clashes between parallel connections. */
  readonly isFullyRandom: boolean;
}

/** A network that an address must, or must not, lie in. */
export interface AddressMatch {
  readonly prefix: Prefix;
  readonly isNegated: boolean;
}

/** What happens to a packet that a rule matches. */
export type Verdict = 'return' | 'accept' | 'masquerade' | 'masquerade-fully-random';

/** One rule: every match that is present must hold. */
export interface Rule {
  /** Bits that must all be set in the packet's mark. */
  readonly markBits?: number;
  readonly source?: AddressMatch;
  readonly destination?: AddressMatch;
  readonly verdict: Verdict;
  /** For people who list the rules; plain ASCII without quotes, at most 100 characters. */
  readonly purpose: string;
}

/** The rules of one family, in the order in which packets meet them. An empty list means that there is no such chain. */
export interface FamilyRules {
  readonly family: Family;
  /** Met by packets that are about to leave the host and have no translation yet. */
  readonly masquerade: readonly Rule[];
  /** Met by packets that the host forwards. */
  readonly forward: readonly Rule[];
}

/** Set by kube-proxy on packets that it masquerades itself (`--iptables-masquerade-bit` 14). */
const KUBE_PROXY_MARK = 0x4000;

/** All multicast addresses: RFC 5771 and RFC 4291 2.7. */
const MULTICAST: Readonly<Record<Family, Prefix>> = { 4: Prefix.parse('224.0.0.0/4'), 6: Prefix.parse('ff00::/8') };

const FAMILIES: readonly Family[] = [4, 6];

/**
 * The rules a host needs, one entry for IPv4 and one for IPv6, whether or not the family is in use.
 *
 * @see flannel `pkg/trafficmngr/iptables/iptables.go`. Its nftables form has subnet and network swapped in the fourth
 * masquerade rule, which makes the last rule unreachable; both writers here share the iptables form.
 */
export function firewallRules(input: RuleInput): readonly FamilyRules[] {
  return FAMILIES.map((family) => {
    const network = input.networks.find((candidate) => candidate.network.family === family);
    return {
      family,
      masquerade: network !== undefined && input.ipMasq ? masqueradeRules(network, input.isFullyRandom) : [],
      forward: network !== undefined && input.forwardRules ? forwardRules(network) : [],
    };
  });
}

/** Whether there is anything to install for the family. */
export function hasRules(rules: FamilyRules): boolean {
  return rules.masquerade.length > 0 || rules.forward.length > 0;
}

function masqueradeRules({ network, subnet }: FirewallNetwork, isFullyRandom: boolean): readonly Rule[] {
  const masquerade = isFullyRandom ? 'masquerade-fully-random' : 'masquerade';
  return [
    { markBits: KUBE_PROXY_MARK, verdict: 'return', purpose: 'masqueraded by kube-proxy' },
    { source: is(subnet), destination: is(network), verdict: 'return', purpose: 'containers here to the overlay' },
    { source: is(network), destination: is(subnet), verdict: 'return', purpose: 'overlay to containers here' },
    { source: not(network), destination: is(subnet), verdict: 'return', purpose: 'outside to containers here' },
    {
      source: is(network),
      destination: not(MULTICAST[network.family]),
      verdict: masquerade,
      purpose: 'containers to the outside',
    },
    { source: not(network), destination: is(network), verdict: masquerade, purpose: 'this host to the overlay' },
  ];
}

function forwardRules({ network }: FirewallNetwork): readonly Rule[] {
  return [
    { source: is(network), verdict: 'accept', purpose: 'from containers' },
    { destination: is(network), verdict: 'accept', purpose: 'to containers' },
  ];
}

const is = (prefix: Prefix): AddressMatch => ({ prefix, isNegated: false });
const not = (prefix: Prefix): AddressMatch => ({ prefix, isNegated: true });
