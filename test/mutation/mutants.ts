import ts from 'typescript';

/** One small change to a source file that some test should notice. */
export interface Mutant {
  /** Counted in order of their places. */
  readonly id: number;
  /** Counted from 1. */
  readonly line: number;
  /** The line on which it begins, without the space around. */
  readonly code: string;
  /** What is changed and how, such as `isOpen: always false`; white space is collapsed and what is long is cut. */
  readonly change: string;
}

/** A place of a source file with what may stand there instead. */
interface Place {
  readonly start: number;
  readonly end: number;
  readonly kind: 'expression' | 'statement';
  readonly variants: readonly { readonly id: number; readonly text: string }[];
}

/** The mutants of a source file and the file with all of them in it. */
export interface Mutation {
  readonly mutants: readonly Mutant[];
  /** Behaves like the source unless `globalThis.isMutant(id)` says that a mutant is the active one. */
  readonly instrumented: string;
  /** The source with that one change. */
  readonly sourceOf: (mutant: Mutant) => string;
}

const MAX_TEXT = 80;

/** Of a type from which the compiler does not conclude that what comes after is never reached. */
const ALWAYS = 'true as boolean';
const NEVER = 'false as boolean';

const OPERATORS: ReadonlyMap<ts.SyntaxKind, readonly string[]> = new Map([
  [ts.SyntaxKind.LessThanToken, ['<=', '>=']],
  [ts.SyntaxKind.LessThanEqualsToken, ['<', '>']],
  [ts.SyntaxKind.GreaterThanToken, ['>=', '<=']],
  [ts.SyntaxKind.GreaterThanEqualsToken, ['>', '<']],
  [ts.SyntaxKind.EqualsEqualsEqualsToken, ['!==']],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, ['===']],
  [ts.SyntaxKind.PlusToken, ['-']],
  [ts.SyntaxKind.MinusToken, ['+']],
  [ts.SyntaxKind.AsteriskToken, ['/']],
  [ts.SyntaxKind.SlashToken, ['*']],
]);

/** Of these either side alone is tried: one of two conditions is what tests forget. */
const CONNECTIVES: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);

const METHODS: ReadonlyMap<string, string> = new Map([
  ['some', 'every'],
  ['every', 'some'],
  ['min', 'max'],
  ['max', 'min'],
  ['overlaps', 'equals'],
  ['covers', 'equals'],
]);

/** Methods whose result has the type of what they are called on. */
const DROPPED_METHODS: ReadonlySet<string> = new Set(['filter', 'slice', 'sort', 'toSorted', 'reverse', 'toReversed']);

/**
 * Finds the mutants of a TypeScript source. Type annotations, texts and debug lines are left alone.
 *
 * @param firstId - for several files in one process, whose mutants must not share their numbers.
 */
export function mutate(fileName: string, source: string, firstId = 0): Mutation {
  const file = ts.createSourceFile(fileName, source, ts.ScriptTarget.Latest, true);
  const lines = source.split('\n');
  const mutants: Mutant[] = [];
  const places = new Map<ts.Node, Place>();

  const textOf = (node: ts.Node): string => source.slice(node.getStart(file), node.end);
  /** The text of a node with another text in place of a part of it. */
  const withPart = (node: ts.Node, part: { readonly start: number; readonly end: number }, text: string): string =>
    source.slice(node.getStart(file), part.start) + text + source.slice(part.end, node.end);
  const extentOf = (node: ts.Node): { start: number; end: number } => ({ start: node.getStart(file), end: node.end });

  function add(
    node: ts.Node,
    kind: Place['kind'],
    changes: readonly (readonly [change: string, text: string])[],
  ): void {
    if (changes.length === 0) return;
    const { start, end } = extentOf(node);
    const line = file.getLineAndCharacterOfPosition(start).line + 1;
    const code = (lines[line - 1] ?? '').trim();
    const whole = textOf(node).replace(/\s+/g, ' ');
    const what = whole.length > MAX_TEXT ? `${whole.slice(0, MAX_TEXT - 1)}…` : whole;
    const variants = changes.map(([how, text]) => {
      const id = firstId + mutants.length;
      mutants.push({ id, line, code, change: `${what}: ${how}` });
      return { id, text };
    });
    const before = places.get(node);
    places.set(node, { start, end, kind, variants: [...(before?.variants ?? []), ...variants] });
  }

  function visit(node: ts.Node): void {
    if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return;
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return;
    if (ts.isStatement(node)) {
      if (isDebugLine(node)) return;
      if (isRemovable(node)) add(node, 'statement', [['removed', '{}']]);
    } else if (ts.isExpression(node) && canBeWrapped(node)) add(node, 'expression', expressionChanges(node));
    ts.forEachChild(node, visit);
  }

  function expressionChanges(node: ts.Expression): (readonly [string, string])[] {
    const changes: (readonly [string, string])[] = [];
    if (isCondition(node)) {
      if (!isLoopCondition(node)) changes.push(['always true', ALWAYS]);
      changes.push(['always false', NEVER]);
    }
    if (ts.isBinaryExpression(node)) {
      const { left, right, operatorToken } = node;
      const { kind } = operatorToken;
      if (CONNECTIVES.has(kind)) {
        changes.push(['left side only', textOf(left)], ['right side only', textOf(right)]);
      } else if (kind !== ts.SyntaxKind.PlusToken || !isText(left, right)) {
        for (const other of OPERATORS.get(kind) ?? []) {
          changes.push([`${operatorToken.getText(file)} → ${other}`, withPart(node, extentOf(operatorToken), other)]);
        }
      }
    } else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
      changes.push(['not negated', textOf(node.operand)]);
    } else if (node.kind === ts.SyntaxKind.TrueKeyword) changes.push(['false', 'false']);
    else if (node.kind === ts.SyntaxKind.FalseKeyword) changes.push(['true', 'true']);
    else if (ts.isNumericLiteral(node) && isInFunction(node)) {
      const next = String(Number(node.text) + 1);
      changes.push([next, next]);
    } else if (ts.isCallExpression(node)) changes.push(...callChanges(node));
    else if (ts.isObjectLiteralExpression(node) && node.properties.some(ts.isSpreadAssignment)) {
      changes.push(...droppings(node.properties, '{', '}'));
    } else if (ts.isArrayLiteralExpression(node) && node.elements.some(ts.isSpreadElement)) {
      changes.push(...droppings(node.elements, '[', ']'));
    }
    return changes;
  }

  function callChanges(node: ts.CallExpression): (readonly [string, string])[] {
    const { expression } = node;
    if (!ts.isPropertyAccessExpression(expression)) return [];
    const name = expression.name.text;
    const other = METHODS.get(name);
    if (other !== undefined) return [[`${name} → ${other}`, withPart(node, extentOf(expression.name), other)]];
    return DROPPED_METHODS.has(name) ? [[`without ${name}`, textOf(expression.expression)]] : [];
  }

  function droppings(parts: readonly ts.Node[], open: string, close: string): (readonly [string, string])[] {
    return parts.map((part) => {
      const rest = parts.filter((each) => each !== part).map(textOf);
      const name = textOf(part).replace(/\s+/g, ' ').slice(0, 60);
      return [`without ${name}`, `${open}${rest.join(', ')}${close}`] as const;
    });
  }

  visit(file);
  const sorted = [...places.values()].sort((a, b) => a.start - b.start || b.end - a.end);
  const sourceOf = ({ id }: Mutant): string => {
    for (const { start, end, variants } of sorted) {
      const variant = variants.find((each) => each.id === id);
      if (variant !== undefined) return source.slice(0, start) + variant.text + source.slice(end);
    }
    throw new RangeError(`${fileName} has no mutant ${id}`);
  };
  return { mutants, instrumented: instrument(source, sorted), sourceOf };
}

/** Writes the variants into the source; outer places come before those inside them. */
function instrument(source: string, places: readonly Place[]): string {
  let next = 0;
  const render = (start: number, end: number): string => {
    let text = '';
    let at = start;
    for (let place = places[next]; place !== undefined && place.start < end; place = places[next]) {
      next++;
      text += source.slice(at, place.start);
      const inner = render(place.start, place.end);
      if (place.kind === 'statement') {
        const [variant] = place.variants;
        text += `{if (!isMutant(${variant?.id})) {${inner}}}`;
      } else {
        const variants = place.variants.map(({ id, text: other }) => `isMutant(${id}) ? (${other}) : `);
        text += `(${variants.join('')}(${inner}))`;
      }
      at = place.end;
    }
    return text + source.slice(at, end);
  };
  return render(0, source.length);
}

function isRemovable(node: ts.Statement): boolean {
  if (ts.isExpressionStatement(node)) {
    const { expression } = node;
    return !(ts.isCallExpression(expression) && expression.expression.kind === ts.SyntaxKind.SuperKeyword);
  }
  if (ts.isContinueStatement(node) || ts.isThrowStatement(node)) return true;
  return ts.isReturnStatement(node) && node.expression === undefined;
}

function isDebugLine(node: ts.Statement): boolean {
  return ts.isExpressionStatement(node) && /^[\w.#]*\blog(ger)?\.debug\(/.test(node.getText());
}

/** Whether parentheses around it change nothing: not the target of an assignment, a callee, or a part of an optional chain. */
function canBeWrapped(node: ts.Expression): boolean {
  const { parent } = node;
  if (ts.isCallExpression(parent) && parent.expression === node) return false;
  if ((node.flags & ts.NodeFlags.OptionalChain) !== 0 && 'expression' in parent && parent.expression === node) {
    return !(ts.isPropertyAccessExpression(parent) || ts.isElementAccessExpression(parent));
  }
  if (ts.isPropertyAssignment(parent) && parent.name === node) return false;
  if (ts.isPropertyDeclaration(parent) && parent.name === node) return false;
  return !(
    ts.isBinaryExpression(parent) &&
    parent.left === node &&
    parent.operatorToken.kind === ts.SyntaxKind.EqualsToken
  );
}

function isCondition(node: ts.Expression): boolean {
  const { parent } = node;
  if (isLoopCondition(node)) return node.kind !== ts.SyntaxKind.TrueKeyword;
  return (
    (ts.isIfStatement(parent) && parent.expression === node) ||
    (ts.isConditionalExpression(parent) && parent.condition === node)
  );
}

function isLoopCondition(node: ts.Expression): boolean {
  const { parent } = node;
  if (ts.isForStatement(parent)) return parent.condition === node;
  return ts.isWhileStatement(parent) && parent.expression === node;
}

/** Whether one of them is visibly a text, so that there is no difference of the two. */
function isText(...operands: readonly ts.Expression[]): boolean {
  return operands.some(
    (operand) =>
      ts.isStringLiteralLike(operand) ||
      ts.isTemplateExpression(operand) ||
      (ts.isBinaryExpression(operand) && isText(operand.left, operand.right)),
  );
}

/** Constants of a module state a choice, which tests refer to by name. */
function isInFunction(node: ts.Node): boolean {
  return ts.findAncestor(node, ts.isFunctionLike) !== undefined;
}
