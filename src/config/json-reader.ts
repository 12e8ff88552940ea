import type { JsonValue } from '../json.js';

/**
 * A value as it stands in a JSON text. Unlike the result of `JSON.parse` it keeps the order and the duplicates of an
 * object's keys and how a number was written: Go's decoder, which reads the same text in flannel, tells `24` from
 * `24.0`, and matches keys without regard to case.
 */
export type JsonNode =
  | { readonly kind: 'null' }
  | { readonly kind: 'boolean'; readonly value: boolean }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'number'; readonly literal: string }
  | { readonly kind: 'array'; readonly items: readonly JsonNode[] }
  | { readonly kind: 'object'; readonly entries: readonly (readonly [key: string, value: JsonNode])[] };

/** Where and why a text is not JSON. */
export class JsonSyntaxError extends Error {
  constructor(
    reason: string,
    /** Counted from 1. */
    readonly line: number,
    /** Counted from 1. */
    readonly column: number,
  ) {
    super(`line ${line}, column ${column}: ${reason}`);
    this.name = 'JsonSyntaxError';
  }
}

/** Deep enough for any configuration and far from the end of the stack; Go stops at 10000. */
const MAX_DEPTH = 200;

/**
 * Reads one JSON value (RFC 8259) with nothing but white space around it.
 *
 * @throws {@link JsonSyntaxError}
 */
export function readJson(text: string): JsonNode {
  const reader = new Reader(text);
  const node = reader.value(0);
  reader.end();
  return node;
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const WHITE_SPACE = /[ \t\r\n]*/y;
const WORD = /true|false|null/y;

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  value(depth: number): JsonNode {
    if (depth > MAX_DEPTH) this.fail(`more than ${MAX_DEPTH} levels of nesting`);
    this.take(WHITE_SPACE);
    const node = this.bareValue(depth);
    this.take(WHITE_SPACE);
    return node;
  }

  end(): void {
    if (this.at < this.text.length) this.fail('something follows the end of the value');
  }

  private bareValue(depth: number): JsonNode {
    switch (this.text.charAt(this.at)) {
      case '{':
        return { kind: 'object', entries: this.list('{', '}', () => [this.key(), this.value(depth + 1)] as const) };
      case '[':
        return { kind: 'array', items: this.list('[', ']', () => this.value(depth + 1)) };
      case '"':
        return { kind: 'string', value: this.string() };
      default:
        return this.scalar();
    }
  }

  private list<T>(open: string, close: string, element: () => T): T[] {
    this.skip(open);
    this.take(WHITE_SPACE);
    const elements: T[] = [];
    while (this.text[this.at] !== close || elements.length > 0) {
      elements.push(element());
      if (this.text[this.at] === close) break;
      if (this.text[this.at] !== ',') this.fail(`"," or "${close}" expected`);
      this.skip(',');
    }
    this.skip(close);
    return elements;
  }

  private key(): string {
    this.take(WHITE_SPACE);
    if (this.text[this.at] !== '"') this.fail('a key in double quotes expected');
    const key = this.string();
    this.take(WHITE_SPACE);
    if (this.text[this.at] !== ':') this.fail('":" expected');
    this.skip(':');
    return key;
  }

  private string(): string {
    const literal = this.take(STRING);
    if (literal === '') this.fail('a string that does not end, or holds a control character or a wrong escape');
    return JSON.parse(literal) as string;
  }

  private scalar(): JsonNode {
    const word = this.take(WORD);
    if (word === 'null') return { kind: 'null' };
    if (word !== '') return { kind: 'boolean', value: word === 'true' };
    const literal = this.take(NUMBER);
    if (literal === '') this.fail(this.at < this.text.length ? 'a value expected' : 'the text ends too early');
    return { kind: 'number', literal };
  }

  private skip(character: string): void {
    this.at += character.length;
  }

  private take(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.at += found.length;
    return found;
  }

  private fail(reason: string): never {
    const before = this.text.slice(0, this.at).split('\n');
    throw new JsonSyntaxError(reason, before.length, (before.at(-1)?.length ?? 0) + 1);
  }
}

/** The value that a node stands for; of several keys with one name the last one counts, as in Go. */
export function toJsonValue(node: JsonNode): JsonValue {
  switch (node.kind) {
    case 'null':
      return null;
    case 'boolean':
    case 'string':
      return node.value;
    case 'number':
      return Number(node.literal);
    case 'array':
      return node.items.map(toJsonValue);
    case 'object':
      return Object.fromEntries(node.entries.map(([key, value]) => [key, toJsonValue(value)]));
  }
}
