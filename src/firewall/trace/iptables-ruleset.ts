import { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import { type RuleWords, type SavedTables, formatWords } from '../iptables-plan.js';
import {
  type Action,
  type Answer,
  type BaseHook,
  type Hook,
  type TracedChain,
  type TracedPacket,
  type TracedRule,
  type TracedTable,
  actionsOf,
  every,
  negatedIf,
  some,
} from './ruleset.js';

/** Built-in chains, which hang in the path of packets. */
const CHAIN_HOOKS: Readonly<Record<string, Hook>> = {
  PREROUTING: 'prerouting',
  INPUT: 'input',
  FORWARD: 'forward',
  OUTPUT: 'output',
  POSTROUTING: 'postrouting',
};

/** `enum nf_ip_hook_priorities` in `linux/netfilter_ipv4.h`; of `nat` the one for destinations. */
const TABLE_PRIORITIES: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  nat: -100,
  filter: 0,
  security: 50,
};

/** Targets that end a packet's way through the table; translating its address does, too. */
const ACCEPTING: ReadonlySet<string> = new Set([
  ...['ACCEPT', 'MASQUERADE', 'SNAT', 'DNAT', 'REDIRECT', 'NETMAP', 'BALANCE'],
]);

/** Targets that leave the decision to somebody else. */
const DEFERRING: ReadonlySet<string> = new Set(['NFQUEUE', 'QUEUE', 'TPROXY', 'SYNPROXY', 'STEAL']);

/** The tables of one set of iptables programs. */
export function iptablesRuleset(saved: SavedTables, tool: TracedTable['tool']): readonly TracedTable[] {
  return [...saved.rules].map(([name, chains]) => {
    const names = new Set(chains.keys());
    const traced = [...chains].map(([chain, rules]): [string, TracedChain] => [
      chain,
      {
        name: chain,
        base: baseHook(name, chain, saved.policies.get(`${name}/${chain}`)),
        rules: rules.map((words, index) => tracedRule(words, index + 1, names)),
      },
    ]);
    return { tool, name, chains: new Map(traced) };
  });
}

function baseHook(table: string, chain: string, policy: string | undefined): BaseHook | undefined {
  const hook = CHAIN_HOOKS[chain];
  if (hook === undefined || policy === undefined) return undefined;
  return {
    hook,
    priority: TABLE_PRIORITIES[table] ?? 0,
    policy: policy === 'DROP' ? 'drop' : 'accept',
    devices: undefined,
  };
}

/** One option of a rule with the words that belong to it. */
interface Option {
  readonly name: string;
  readonly isNegated: boolean;
  readonly values: readonly string[];
}

function tracedRule(words: RuleWords, number: number, chains: ReadonlySet<string>): TracedRule {
  const { matches, target } = readOptions(words);
  const action = actionOf(target, chains);
  return {
    text: formatWords(words),
    number,
    decide: (packet) => actionsOf(every(matches.map((option) => answer(option, packet, matches))), action),
  };
}

function readOptions(words: RuleWords): { readonly matches: readonly Option[]; readonly target: Option | undefined } {
  const matches: { name: string; isNegated: boolean; values: string[] }[] = [];
  let isNegated = false;
  for (const word of words) {
    if (word === '!') {
      isNegated = true;
    } else if (/^--?[a-zA-Z]/.test(word)) {
      matches.push({ name: word, isNegated, values: [] });
      isNegated = false;
    } else {
      matches.at(-1)?.values.push(word);
    }
  }
  const at = matches.findIndex(({ name }) => name === '-j' || name === '-g');
  // What follows the target are options of the target.
  return at < 0 ? { matches, target: undefined } : { matches: matches.slice(0, at), target: matches[at] };
}

function actionOf(target: Option | undefined, chains: ReadonlySet<string>): Action {
  const name = target?.values[0] ?? '';
  if (chains.has(name)) return { kind: target?.name === '-g' ? 'goto' : 'jump', chain: name };
  if (ACCEPTING.has(name)) return { kind: 'accept' };
  if (name === 'DROP' || name === 'REJECT') return { kind: 'drop' };
  if (name === 'RETURN') return { kind: 'return' };
  return { kind: DEFERRING.has(name) ? 'unknown' : 'continue' };
}

function answer({ name, isNegated, values }: Option, packet: TracedPacket, all: readonly Option[]): Answer {
  const [value = ''] = values;
  const told = (positive: Answer): Answer => negatedIf(isNegated, positive);
  switch (name) {
    case '-s':
      return told(isWithin(value, packet.source));
    case '-d':
      return told(isWithin(value, packet.destination));
    case '-i':
      return told(isDevice(value, packet.inDevice));
    case '-o':
      return told(isDevice(value, packet.outDevice));
    case '-p':
      return told(isProtocol(value, packet));
    case '-m':
    case '--comment':
      return true; // modules say nothing by themselves
    case '--ctstate':
    case '--state':
      return told(value.split(',').includes('NEW'));
    case '--ctdir':
      return told(value === 'ORIGINAL');
    case '--dport':
    case '--dports':
    case '--ports':
      return told(isPort(value, packet.destinationPort));
    case '--mark':
      return told(isUnmarked(value));
    case '--dst-type':
      return told(isAddressType(value, packet));
    // Packets that a host forwards between others come from none of its own addresses.
    case '--src-type':
      return all.length > 0 && packet.inDevice !== null && value === 'LOCAL' ? told(false) : undefined;
    default:
      return undefined;
  }
}

function isWithin(text: string, address: IpAddress): Answer {
  const prefix = text.includes('/') ? Prefix.tryParse(text) : hostPrefix(text);
  return prefix?.contains(address); // undefined for a mask that is no length
}

function hostPrefix(text: string): Prefix | undefined {
  const address = IpAddress.tryParse(text);
  return address === undefined ? undefined : Prefix.host(address);
}

/** A trailing `+` stands for anything (iptables(8), `-i`). */
function isDevice(pattern: string, device: string | null | undefined): Answer {
  if (device === undefined) return pattern === '+' ? true : undefined;
  if (device === null) return false;
  return pattern.endsWith('+') ? device.startsWith(pattern.slice(0, -1)) : device === pattern;
}

const PROTOCOL_NUMBERS: Readonly<Record<TracedPacket['protocol'], readonly string[]>> = {
  tcp: ['tcp', '6'],
  udp: ['udp', '17'],
  ipip: ['ipencap', 'ipip', '4'],
};

function isProtocol(text: string, { protocol }: TracedPacket): boolean {
  return text === 'all' || text === '0' || PROTOCOL_NUMBERS[protocol].includes(text);
}

function isPort(text: string, port: number | undefined): Answer {
  if (port === undefined) return undefined;
  return some(
    text.split(',').map((range) => {
      const [low, high = low] = range.split(':').map(Number);
      return low !== undefined && high !== undefined && low <= port && port <= high;
    }),
  );
}

/** The packets that are traced have the mark 0, whatever the mask. */
function isUnmarked(text: string): boolean {
  return Number(text.split('/')[0]) === 0;
}

function isAddressType(text: string, { isForHost }: TracedPacket): Answer {
  if (text === 'LOCAL') return isForHost;
  return text === 'UNICAST' ? !isForHost : false;
}
