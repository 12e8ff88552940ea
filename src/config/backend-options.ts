import { OverlayError } from '../errors.js';
import { type JsonNode, toJsonValue } from './json-reader.js';

/** The keys inside `Backend` in lower case, each with what stands there. */
export type BackendOptions = Readonly<Record<string, JsonNode>>;

/** How one key inside `Backend` is read. `key` is spelled as flannel's documentation spells it. */
export type OptionRule =
  | { readonly key: string; readonly kind: 'bool'; readonly default: boolean }
  | { readonly key: string; readonly kind: 'string'; readonly default: string }
  /** A text that no message may show. */
  | { readonly key: string; readonly kind: 'secret'; readonly default: '' }
  | { readonly key: string; readonly kind: 'int'; readonly min: number; readonly max: number; readonly default: number }
  | {
      readonly key: string;
      readonly kind: 'choice';
      readonly choices: readonly string[];
      readonly default: string;
    };

/** How a backend reads its keys inside `Backend`, by the names it has for them. */
export type OptionRules = Readonly<Record<string, OptionRule>>;

type ValueOf<Rule> = Rule extends { kind: 'choice'; choices: readonly (infer Choice)[] }
  ? Choice
  : Rule extends { kind: 'bool' }
    ? boolean
    : Rule extends { kind: 'int' }
      ? number
      : string;

/** The values a table of rules yields. */
export type OptionValues<Rules> = { readonly [Name in keyof Rules]: ValueOf<Rules[Name]> };

/**
 * Reads the keys a backend knows out of `Backend`.
 *
 * @remarks Unknown keys are left alone, as in flannel; `null` counts as absent, and `1.0` is not an integer, as in Go.
 * @param backend - name for messages.
 * @throws {@link OverlayError} `ERR_BACKEND_OPTION` naming key, value and what would be right.
 */
export function readBackendOptions<const Rules extends OptionRules>(
  backend: string,
  options: BackendOptions,
  rules: Rules,
): OptionValues<Rules> {
  const entries = Object.entries(rules).map(([name, rule]): [string, boolean | number | string] => {
    const node = options[rule.key.toLowerCase()];
    if (node === undefined || node.kind === 'null') return [name, rule.default];
    const value = valueOf(rule, node);
    if (value !== undefined) return [name, value];
    throw new OverlayError(
      'ERR_BACKEND_OPTION',
      `cannot use backend ${backend}: Backend.${rule.key} is ${rule.kind === 'secret' ? 'not a text' : fault(node)}`,
      {
        hint: `set it to ${expectation(rule)}, or leave it out${rule.kind === 'secret' ? '' : ` for ${JSON.stringify(rule.default)}`}`,
      },
    );
  });
  return Object.fromEntries(entries) as OptionValues<Rules>;
}

/** Undefined if it is not what the rule asks for. */
function valueOf(rule: OptionRule, node: JsonNode): boolean | number | string | undefined {
  switch (rule.kind) {
    case 'bool':
      return node.kind === 'boolean' ? node.value : undefined;
    case 'string':
    case 'secret':
      return node.kind === 'string' ? node.value : undefined;
    case 'int': {
      const value = node.kind === 'number' && isWhole(node.literal) ? Number(node.literal) : Number.NaN;
      return value >= rule.min && value <= rule.max ? value : undefined;
    }
    case 'choice':
      return node.kind === 'string' && rule.choices.includes(node.value) ? node.value : undefined;
  }
}

function isWhole(literal: string): boolean {
  return /^-?\d+$/.test(literal);
}

function fault(node: JsonNode): string {
  if (node.kind !== 'number') return JSON.stringify(toJsonValue(node));
  return isWhole(node.literal) ? node.literal : `${node.literal}, which is not written as a whole number`;
}

function expectation(rule: OptionRule): string {
  switch (rule.kind) {
    case 'bool':
      return 'true or false, without quotes';
    case 'string':
    case 'secret':
      return 'a text';
    case 'int':
      return `a whole number from ${rule.min} to ${rule.max}, without quotes`;
    case 'choice':
      return `one of ${rule.choices.join(', ')}`;
  }
}
