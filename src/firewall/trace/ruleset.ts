import type { IpAddress } from '../../ip/address.js';

/**
 * A packet as far as rules can ask about it. What is undefined is not known, and a rule that asks for it may match or
 * may not.
 */
export interface TracedPacket {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: 'tcp' | 'udp' | 'ipip';
  readonly destinationPort: number | undefined;
  /** Device it came in by; null for what this host sends. */
  readonly inDevice: string | null | undefined;
  /** Device it leaves by; null for what this host receives, and before it has been routed. */
  readonly outDevice: string | null | undefined;
  /** Whether its destination is an address of this host. */
  readonly isForHost: boolean;
}

/** Places in the kernel where rules look at packets, in the order in which packets meet them. */
export const HOOKS = ['ingress', 'prerouting', 'input', 'forward', 'output', 'postrouting'] as const;

/** One of {@link HOOKS}. */
export type Hook = (typeof HOOKS)[number];

/** What a rule does with a packet that it matches. */
export type Action =
  | { readonly kind: 'accept' | 'drop' | 'return' | 'continue' }
  /** Somebody else decides, such as a program behind a queue. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/** One rule, whoever wrote it and through whichever interface. */
export interface TracedRule {
  /** As its own tool shows it, for people. */
  readonly text: string;
  /** The number that tools call it by: nftables its handle, iptables its position, counted from 1. */
  readonly number: number;
  /**
   * What happens to the packet; several where the rule may match or may not. `continue` is what happens to a packet
   * that it does not match.
   */
  decide(packet: TracedPacket): readonly Action[];
}

/** Where a chain hangs in the path of packets. */
export interface BaseHook {
  readonly hook: Hook;
  /** Lower ones come first. */
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
  /** For `ingress`; undefined for every device. */
  readonly devices: readonly string[] | undefined;
}

/** A chain; one without a hook is only jumped to. */
export interface TracedChain {
  readonly name: string;
  readonly base: BaseHook | undefined;
  readonly rules: readonly TracedRule[];
}

/** A table of chains that jump only to each other. */
export interface TracedTable {
  /** Program that lists and changes it. */
  readonly tool: 'nft' | 'iptables' | 'iptables-legacy' | 'iptables-nft';
  /** Name as the tool wants it: `inet firewalld`, or `filter`. */
  readonly name: string;
  readonly chains: ReadonlyMap<string, TracedChain>;
}

/** Answers to a question about a packet, of which undefined is *cannot be told*. */
export type Answer = boolean | undefined;

/** All must hold. */
export function every(answers: readonly Answer[]): Answer {
  if (answers.includes(false)) return false;
  return answers.includes(undefined) ? undefined : true;
}

/** One must hold. */
export function some(answers: readonly Answer[]): Answer {
  if (answers.includes(true)) return true;
  return answers.includes(undefined) ? undefined : false;
}

/** The opposite, if asked for. */
export function negatedIf(isNegated: boolean, answer: Answer): Answer {
  return answer === undefined || !isNegated ? answer : !answer;
}

/** What a rule does whose conditions hold, do not, or cannot be told. */
export function actionsOf(answer: Answer, action: Action): readonly Action[] {
  if (answer === false) return [{ kind: 'continue' }];
  return answer === true || action.kind === 'continue' ? [action] : [action, { kind: 'continue' }];
}
