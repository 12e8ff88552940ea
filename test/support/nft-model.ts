import assert from 'node:assert/strict';
import type { NftRule, NftTable } from '../../src/firewall/containers/nft-script.js';
import { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';

/** A packet at a hook, as rules see it. */
export interface ModelPacket {
  readonly iif?: string;
  readonly oif?: string;
  readonly from: string;
  readonly to: string;
  readonly state?: 'new' | 'established';
  /** Whether its destination was translated. */
  readonly isDnat?: boolean;
  readonly icmpv6?: string;
  readonly protocol?: 'tcp' | 'udp' | 'sctp';
  readonly port?: number;
  /** Whether the destination is an address of the host. */
  readonly isToHost?: boolean;
}

/** A reading of a table that is as slow and obvious as can be: what becomes of a packet at a hook; mostly `pass`. */
export function decide(table: NftTable, chain: string, packet: ModelPacket): string {
  const end = walk(table, chain, packet);
  return end === undefined || end === 'return' || end === 'accept' ? 'pass' : end;
}

function walk(table: NftTable, chain: string, packet: ModelPacket): string | undefined {
  const rules = table.chains.find(({ name }) => name === chain)?.rules;
  assert.ok(rules, `there is a chain ${chain}`);
  for (const rule of rules) {
    const verdict = apply(table, rule, packet);
    if (verdict !== undefined) return verdict;
  }
  return undefined;
}

/** Takes a rule apart from its left to its right end. */
function apply(table: NftTable, { text }: NftRule, packet: ModelPacket): string | undefined {
  let rest = text;
  const take = (pattern: RegExp): readonly string[] | undefined => {
    const found = pattern.exec(rest);
    if (found === null) return undefined;
    rest = rest.slice(found[0].length).trimStart();
    return found.slice(1);
  };
  const version = packet.from.includes(':') ? 'ip6' : 'ip';
  while (rest !== '') {
    const device = take(/^(i|o)ifname (!= )?(@\S+|"[^"]*")/);
    const address = device ?? take(/^(ip6?) (s|d)addr (!= )?(@\S+|\{[^}]*\}|[\w:./]+)/);
    if (device !== undefined) {
      const [side, not, set = ''] = device;
      const name = (side === 'i' ? packet.iif : packet.oif) ?? 'lo';
      if (elements(table, set).includes(`"${name}"`) === Boolean(not)) return undefined;
    } else if (address !== undefined) {
      const [protocol, side, not, set = ''] = address;
      if (protocol !== version) return undefined;
      const value = IpAddress.parse(side === 's' ? packet.from : packet.to);
      const isIn = elements(table, set).some((each) => prefixOf(each).contains(value));
      if (isIn === Boolean(not)) return undefined;
    } else if (take(/^ct state established,related/)) {
      if (packet.state !== 'established') return undefined;
    } else if (take(/^ct status dnat/)) {
      if (packet.isDnat !== true) return undefined;
    } else if (take(/^fib daddr type local/)) {
      if (packet.isToHost !== true) return undefined;
    } else {
      const family = take(/^meta nfproto (\S+)/);
      const icmp = family ?? take(/^icmpv6 type (\{[^}]*\})/);
      const verdicts = icmp ?? take(/^(i|o)ifname vmap (\{[^}]*\})/);
      const translation = verdicts ?? take(/^dnat (ip6?) to (.*) map @(\S+)/);
      if (family !== undefined) {
        if (family[0] !== (version === 'ip' ? 'ipv4' : 'ipv6')) return undefined;
      } else if (icmp !== undefined) {
        if (!elements(table, icmp[0] ?? '').includes(packet.icmpv6 ?? '')) return undefined;
      } else if (verdicts !== undefined) {
        const name = verdicts[0] === 'i' ? packet.iif : packet.oif;
        const found = elements(table, verdicts[1] ?? '').find((each) => each.startsWith(`"${name}" `));
        return found && jump(table, found.split(' : jump ')[1] ?? '', packet);
      } else if (translation !== undefined) {
        const [protocol, key = '', map = ''] = translation;
        if (protocol !== version) return undefined;
        const { to, protocol: l4 = '', port } = packet;
        const value = key
          .replace(/ip6? daddr/, to)
          .replace('meta l4proto', l4)
          .replace('th dport', String(port));
        return elements(table, `@${map}`)
          .find((each) => each.startsWith(`${value} : `))
          ?.split(' : ')[1];
      } else if (rest.startsWith('jump ')) {
        return jump(table, rest.slice(5), packet);
      } else {
        return rest;
      }
    }
  }
  assert.fail(`a rule has a verdict: ${text}`);
}

function jump(table: NftTable, chain: string, packet: ModelPacket): string | undefined {
  const end = walk(table, chain, packet);
  return end === 'return' ? undefined : end;
}

function elements(table: NftTable, set: string): readonly string[] {
  if (set.startsWith('@')) {
    const found = table.sets.find(({ name }) => name === set.slice(1));
    assert.ok(found, `there is a set ${set}`);
    return found.elements;
  }
  return set.startsWith('{')
    ? set
        .slice(1, -1)
        .split(',')
        .map((each) => each.trim())
    : [set];
}

const prefixOf = (text: string): Prefix =>
  text.includes('/') ? Prefix.parse(text) : Prefix.host(IpAddress.parse(text));
