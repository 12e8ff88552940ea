import { OverlayError } from '../../errors.js';
import { IpAddress } from '../../ip/address.js';
import { Prefix } from '../../ip/prefix.js';
import {
  type Action,
  type Answer,
  type BaseHook,
  HOOKS,
  type TracedChain,
  type TracedPacket,
  type TracedRule,
  type TracedTable,
  actionsOf,
  negatedIf,
  some,
} from './ruleset.js';

type Json = Readonly<Record<string, unknown>>;

/** The elements of named sets of one table, as far as they can be told. */
type Sets = ReadonlyMap<string, readonly unknown[]>;

/** Families whose chains see IPv4. */
const FAMILIES: ReadonlySet<string> = new Set(['ip', 'inet', 'netdev', 'bridge']);

/**
 * Reads the output of `nft -j list ruleset`: every table whose chains see IPv4 packets that are routed.
 *
 * @throws {@link OverlayError} `ERR_FIREWALL` if it is not JSON.
 */
export function nftRuleset(json: string): readonly TracedTable[] {
  const objects = readObjects(json);
  const of = (kind: string): readonly Json[] => jsonObjects(objects.map((object) => object[kind]));
  const [chains, rules, sets] = [of('chain'), of('rule'), of('set')];
  const tables = of('table').filter(({ family }) => FAMILIES.has(textOf(family)) && family !== 'bridge');
  return tables.map((table) => {
    const isInside = (object: Json): boolean =>
      object['family'] === table['family'] && object['table'] === table['name'];
    const named: Sets = new Map(sets.filter(isInside).map((set) => [textOf(set['name']), asList(set['elem'])]));
    const traced = chains.filter(isInside).map((chain): [string, TracedChain] => {
      const name = textOf(chain['name']);
      const own = rules.filter((rule) => isInside(rule) && rule['chain'] === name);
      return [name, { name, base: baseHook(chain), rules: own.map((rule) => tracedRule(rule, named)) }];
    });
    return { tool: 'nft', name: `${textOf(table['family'])} ${textOf(table['name'])}`, chains: new Map(traced) };
  });
}

function readObjects(json: string): readonly Json[] {
  let root: unknown;
  try {
    root = JSON.parse(json);
  } catch (cause) {
    throw new OverlayError('ERR_FIREWALL', 'cannot read the rules of nft: it is not JSON', { cause });
  }
  return jsonObjects(asList(asJson(root)?.['nftables']));
}

function baseHook(chain: Json): BaseHook | undefined {
  const hook = HOOKS.find((name) => name === chain['hook']);
  if (hook === undefined) return undefined;
  const { dev } = chain;
  const devices = dev === undefined ? undefined : Array.isArray(dev) ? dev.map(textOf) : [textOf(dev)];
  const priority = Number(chain['prio'] ?? 0);
  return { hook, priority, policy: chain['policy'] === 'drop' ? 'drop' : 'accept', devices };
}

function tracedRule(rule: Json, sets: Sets): TracedRule {
  const statements = jsonObjects(asList(rule['expr']));
  return {
    text: statements
      .map(statementText)
      .filter((text) => text !== '')
      .join(' '),
    number: Number(rule['handle'] ?? 0),
    decide: (packet) => decide(statements, packet, sets),
  };
}

/** Statements are met one after another; the first verdict ends the rule. */
function decide(statements: readonly Json[], packet: TracedPacket, sets: Sets): readonly Action[] {
  let isCertain = true;
  for (const statement of statements) {
    const [kind = ''] = Object.keys(statement);
    const content = asJson(statement[kind]);
    if (kind === 'vmap') {
      const actions = mappedActions(content, packet, sets);
      return isCertain ? actions : [...actions, { kind: 'continue' }];
    }
    const action = verdict(kind, content);
    if (action !== undefined) return actionsOf(isCertain ? true : undefined, action);
    const answer = kind === 'match' ? matches(content, packet, sets) : isPassedBy(kind, content);
    if (answer === false) return [{ kind: 'continue' }];
    if (answer === undefined) isCertain = false;
  }
  return [{ kind: 'continue' }];
}

function verdict(kind: string, content: Json | undefined): Action | undefined {
  switch (kind) {
    case 'accept':
    case 'drop':
    case 'return':
    case 'continue':
      return { kind };
    case 'reject':
      return { kind: 'drop' };
    case 'jump':
    case 'goto':
      return { kind, chain: textOf(content?.['target']) };
    // An address is translated, and the packet has passed the chain.
    case 'masquerade':
    case 'snat':
    case 'dnat':
    case 'redirect':
      return { kind: 'accept' };
    case 'queue':
    case 'tproxy':
    case 'synproxy':
    case 'fwd':
      return { kind: 'unknown' };
    case 'xt':
      return content?.['type'] === 'target' && content['name'] === 'REJECT' ? { kind: 'drop' } : undefined;
    default:
      return undefined;
  }
}

/** What only counts, notes or alters does not decide whether the rest of the rule is met. */
const PASSING: ReadonlySet<string> = new Set([
  'counter',
  'log',
  'mangle',
  'notrack',
  'ct helper',
  'comment',
  'set',
  'flow',
]);

function isPassedBy(kind: string, content: Json | undefined): Answer {
  if (PASSING.has(kind)) return true;
  return kind === 'xt' && content?.['name'] === 'comment' ? true : undefined;
}

function mappedActions(content: Json | undefined, packet: TracedPacket, sets: Sets): readonly Action[] {
  const entries = asList(asJson(content?.['data'])?.['set']);
  const actions: Action[] = [];
  for (const entry of entries) {
    const [key, result] = asList(entry);
    const answer = isIn(content?.['key'], [key], packet, sets);
    if (answer === false) continue;
    const [kind = ''] = Object.keys(asJson(result) ?? {});
    actions.push(verdict(kind, asJson(asJson(result)?.[kind])) ?? { kind: 'unknown' });
    if (answer === true) return actions;
  }
  // A map with a name is not looked into.
  return entries.length === 0 ? [{ kind: 'unknown' }, { kind: 'continue' }] : [...actions, { kind: 'continue' }];
}

function matches(content: Json | undefined, packet: TracedPacket, sets: Sets): Answer {
  const op = content?.['op'];
  const right = content?.['right'];
  const set = asJson(right)?.['set'];
  const wanted = Array.isArray(right)
    ? (right as readonly unknown[])
    : Array.isArray(set)
      ? (set as readonly unknown[])
      : [right];
  if (op !== '==' && op !== '!=' && op !== 'in') return undefined;
  if (fieldOf(content?.['left'], packet) === 'absent') return false; // also `!=` asks for the protocol first
  return negatedIf(op === '!=', isIn(content?.['left'], wanted, packet, sets));
}

/** Whether a field of the packet is one of these values. */
function isIn(left: unknown, wanted: readonly unknown[], packet: TracedPacket, sets: Sets): Answer {
  const field = fieldOf(left, packet);
  if (field === undefined) return undefined;
  if (field === 'absent') return false;
  const values = wanted.flatMap((value) => {
    if (typeof value !== 'string' || !value.startsWith('@')) return [value];
    return sets.get(value.slice(1)) ?? [undefined];
  });
  return some(values.map((value) => isValue(field, asJson(asJson(value)?.['elem'])?.['val'] ?? value)));
}

/** A field of the packet: an address, a word with the numbers that stand for it, or a device. */
type Field =
  | { readonly address: IpAddress }
  | { readonly words: readonly (string | number)[] }
  | { readonly device: string }
  | { readonly number: number };

function isValue(field: Field, value: unknown): Answer {
  if (value === undefined) return undefined;
  if ('address' in field) return isAddress(field.address, value);
  if ('words' in field) return field.words.some((word) => word === value);
  if ('device' in field) {
    if (typeof value !== 'string') return undefined;
    return value.endsWith('*') ? field.device.startsWith(value.slice(0, -1)) : field.device === value;
  }
  const range = asList(asJson(value)?.['range']).map(Number);
  const [low, high] = range;
  if (low !== undefined && high !== undefined) return low <= field.number && field.number <= high;
  return typeof value === 'number' ? field.number === value : undefined;
}

function isAddress(address: IpAddress, value: unknown): Answer {
  if (typeof value === 'string') {
    const single = IpAddress.tryParse(value);
    return single === undefined ? undefined : single.equals(address);
  }
  const prefix = asJson(asJson(value)?.['prefix']);
  if (prefix !== undefined)
    return Prefix.tryParse(`${textOf(prefix['addr'])}/${Number(prefix['len'])}`)?.contains(address);
  const [first, last] = asList(asJson(value)?.['range']).map((end) => IpAddress.tryParse(textOf(end)));
  if (first === undefined || last === undefined) return undefined;
  return first.family === address.family && first.value <= address.value && address.value <= last.value;
}

const PROTOCOLS: Readonly<Record<TracedPacket['protocol'], readonly (string | number)[]>> = {
  tcp: ['tcp', 6],
  udp: ['udp', 17],
  ipip: ['ipencap', 'ipip', 4],
};

/** What the left side of a comparison is for the packet: undefined if it cannot be told, `absent` if it has no such field. */
function fieldOf(left: unknown, packet: TracedPacket): Field | 'absent' | undefined {
  const expression = asJson(left);
  const masked = asList(expression?.['&']);
  // Marks are 0, whatever is masked out of them.
  if (masked.length === 2) return isMark(masked[0]) ? { number: 0 } : undefined;
  if (isMark(left)) return { number: 0 };
  const meta = asJson(expression?.['meta']);
  if (meta !== undefined) return metaField(textOf(meta['key']), packet);
  const payload = asJson(expression?.['payload']);
  if (payload !== undefined) return payloadField(textOf(payload['protocol']), textOf(payload['field']), packet);
  const ct = asJson(expression?.['ct']);
  if (ct !== undefined) return CT_FIELDS.get(textOf(ct['key']));
  const fib = asJson(expression?.['fib']);
  if (fib?.['result'] === 'type' && asList(fib['flags']).join() === 'daddr') {
    return { words: [packet.isForHost ? 'local' : 'unicast'] };
  }
  return undefined;
}

function isMark(left: unknown): boolean {
  const expression = asJson(left);
  return [expression?.['meta'], expression?.['ct']].some((object) => asJson(object)?.['key'] === 'mark');
}

/** A packet that begins a connection, of which nothing has been translated. */
const CT_FIELDS: ReadonlyMap<string, Field> = new Map<string, Field>([
  ['state', { words: ['new'] }],
  ['status', { words: [] }],
  ['direction', { words: ['original'] }],
]);

function metaField(key: string, packet: TracedPacket): Field | undefined {
  const device = (name: string | null | undefined): Field | undefined =>
    name === undefined ? undefined : { device: name ?? '' };
  switch (key) {
    case 'iifname':
    case 'iif':
      return device(packet.inDevice);
    case 'oifname':
    case 'oif':
      return device(packet.outDevice);
    case 'nfproto':
      return { words: ['ipv4', 2] };
    case 'protocol':
      return { words: ['ip', 0x0800] };
    case 'l4proto':
      return { words: PROTOCOLS[packet.protocol] };
    default:
      return undefined;
  }
}

function payloadField(protocol: string, name: string, packet: TracedPacket): Field | 'absent' | undefined {
  if (protocol === 'ip') {
    if (name === 'saddr') return { address: packet.source };
    if (name === 'daddr') return { address: packet.destination };
    return name === 'protocol' ? { words: PROTOCOLS[packet.protocol] } : undefined;
  }
  if (protocol !== packet.protocol && protocol !== 'th') return 'absent';
  return name === 'dport' && packet.destinationPort !== undefined ? { number: packet.destinationPort } : undefined;
}

/** A statement in the words of nft, as far as they help to find the rule. */
function statementText(statement: Json): string {
  const [kind = ''] = Object.keys(statement);
  const content = asJson(statement[kind]);
  switch (kind) {
    case 'match': {
      const op = content?.['op'] === '!=' ? '!= ' : '';
      return `${leftText(content?.['left'])} ${op}${rightText(content?.['right'])}`;
    }
    case 'counter':
      return '';
    case 'jump':
    case 'goto':
      return `${kind} ${textOf(content?.['target'])}`;
    case 'reject':
      return content === undefined
        ? 'reject'
        : `reject with ${textOf(content['type'])} ${textOf(content['expr'])}`.trim();
    case 'xt':
      return textOf(content?.['name']);
    default:
      return kind;
  }
}

function leftText(left: unknown): string {
  const [kind = '', value] = Object.entries(asJson(left) ?? {})[0] ?? [];
  const content = asJson(value);
  if (kind === 'payload') return `${textOf(content?.['protocol'])} ${textOf(content?.['field'])}`;
  return kind === 'meta' || kind === 'ct' ? `${kind} ${textOf(content?.['key'])}` : kind;
}

function rightText(right: unknown): string {
  if (Array.isArray(right)) return right.map(rightText).join(',');
  const content = asJson(right);
  if (content === undefined) return textOf(right);
  const prefix = asJson(content['prefix']);
  if (prefix !== undefined) return `${textOf(prefix['addr'])}/${textOf(prefix['len'])}`;
  if (Array.isArray(content['range'])) return content['range'].map(textOf).join('-');
  return Array.isArray(content['set']) ? `{ ${content['set'].map(rightText).join(', ')} }` : JSON.stringify(right);
}

function asJson(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

function jsonObjects(values: readonly unknown[]): readonly Json[] {
  return values.map(asJson).filter((object) => object !== undefined);
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : '';
}
