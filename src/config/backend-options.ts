import { OverlayError } from '../errors.js';
import type { JsonValue } from '../json.js';

/** How one key inside `Backend` is read. `key` is spelled as flannel's documentation spells it. */
export type OptionRule =
  | { readonly key: string; readonly kind: 'bool'; readonly default: boolean }
  | { readonly key: string; readonly kind: 'string'; readonly default: string }
  | { readonly key: string; readonly kind: 'int'; readonly min: number; readonly max: number; readonly default: number }
  | {
      readonly key: string;
      readonly kind: 'choice';
      readonly choices: readonly string[];
      readonly default: string;
    };

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
 * @remarks Unknown keys are left alone, as in flannel; `null` counts as absent, as in Go.
 * @param backend - name for messages.
 * @param options - the keys of `Backend` in lower case.
 * @throws {@link OverlayError} `ERR_BACKEND_OPTION` naming key, value and what would be right.
 */
export function readBackendOptions<const Rules extends Readonly<Record<string, OptionRule>>>(
  backend: string,
  options: Readonly<Record<string, JsonValue>>,
  rules: Rules,
): OptionValues<Rules> {
  const entries = Object.entries(rules).map(([name, rule]): [string, JsonValue] => {
    const value = options[rule.key.toLowerCase()];
    if (value === undefined || value === null) return [name, rule.default];
    if (fits(rule, value)) return [name, value];
    throw new OverlayError(
      'ERR_BACKEND_OPTION',
      `cannot use backend ${backend}: Backend.${rule.key} is ${JSON.stringify(value)}`,
      { hint: `set it to ${expectation(rule)}, or leave it out for ${JSON.stringify(rule.default)}` },
    );
  });
  return Object.fromEntries(entries) as OptionValues<Rules>;
}

function fits(rule: OptionRule, value: JsonValue): boolean {
  switch (rule.kind) {
    case 'bool':
      return typeof value === 'boolean';
    case 'string':
      return typeof value === 'string';
    case 'int':
      return Number.isInteger(value) && Number(value) >= rule.min && Number(value) <= rule.max;
    case 'choice':
      return typeof value === 'string' && rule.choices.includes(value);
  }
}

function expectation(rule: OptionRule): string {
  switch (rule.kind) {
    case 'bool':
      return 'true or false, without quotes';
    case 'string':
      return 'a text';
    case 'int':
      return `a whole number from ${rule.min} to ${rule.max}, without quotes`;
    case 'choice':
      return `one of ${rule.choices.join(', ')}`;
  }
}
