import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import ts from 'typescript';
import { Compiler } from '../../mutation/compiler.js';
import { type Explanation, findStale, readExplanations } from '../../mutation/explanations.js';
import { mutate } from '../../mutation/mutants.js';
import { mutateNative } from '../../mutation/native-mutants.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');

/** What an instrumented script leaves in `result` with that mutant active. */
function evaluate(source: string, active: number | undefined): unknown {
  const { instrumented } = mutate('test.ts', source);
  const script = ts.transpile(instrumented, { target: ts.ScriptTarget.ES2022 });
  const scope = { result: undefined, isMutant: (id: number) => id === active };
  vm.runInNewContext(script, scope);
  return scope.result;
}

/** What each mutant of a script gives, by its change. */
function outcomes(source: string): Record<string, unknown> {
  return Object.fromEntries(mutate('test.ts', source).mutants.map(({ id, change }) => [change, evaluate(source, id)]));
}

describe('mutants of TypeScript', () => {
  it('change one thing each, and nothing while none is active', () => {
    const source = 'const f = (a: number, b: number): boolean => a < b && b < 9;\nresult = f(2, 2);';
    assert.equal(evaluate(source, undefined), false);
    assert.deepEqual(outcomes(source), {
      'a < b && b < 9: left side only': false,
      'a < b && b < 9: right side only': true,
      'a < b: < → <=': true,
      'a < b: < → >=': true,
      'b < 9: < → <=': false,
      'b < 9: < → >=': false,
      '9: 10': false,
      'result = f(2, 2);: removed': undefined,
    });
  });

  it('leave parts of a state out', () => {
    const source = 'const old = { a: 1, b: 1 };\nresult = JSON.stringify({ ...old, b: old.a });';
    const found = outcomes(source);
    assert.equal(found['{ ...old, b: old.a }: without b: old.a'], '{"a":1,"b":1}');
    assert.equal(found['{ ...old, b: old.a }: without ...old'], '{"b":1}');
  });

  it('weaken what is asked: conditions, overlaps, lists', () => {
    const source =
      'const a = { overlaps: () => true, equals: () => false };\nresult = a.overlaps() ? [1, 2].filter((n) => n > 1) : 7;';
    const found = outcomes(source);
    assert.equal(found['a.overlaps(): always false'], 7);
    assert.equal(found['a.overlaps(): overlaps → equals'], 7);
    assert.deepEqual(Array.from(found['[1, 2].filter((n) => n > 1): without filter'] as number[]), [1, 2]);
  });

  it('keep optional chains, callees and the else of an outer condition together', () => {
    const source = `
      const list = (given?: number[]): number | undefined => given?.filter((n) => n > 1).at(-1);
      let said = '';
      if (list() === undefined) said += 'none';
      else if (list([1]) === undefined) said += 'few';
      else said += 'some';
      result = said + String(list([1, 2]));`;
    assert.equal(evaluate(source, undefined), 'none2');
  });

  it('leave types and debug lines alone', () => {
    const source = "type A = 1 | true;\nlog.debug('x', { n: 1 < 2 });\nconst a: A = 1;";
    assert.deepEqual(mutate('test.ts', source).mutants, []);
  });
});

describe('the compiler of mutants', function () {
  this.timeout(120_000);

  it('refuses what has a wrong type, and nothing that is only unused, unreachable or empty', () => {
    const file = 'src/reconcile/equality.ts';
    const source = `
      import path from 'node:path';
      export function f(a: number | undefined, b: number[]): number {
        if (a === undefined) return 0;
        if (b.length === 0) return a;
        for (const each of b) b.push(each);
        return a + path.sep.length;
      }`;
    const { mutants, sourceOf } = mutate(file, source);
    const compiler = new Compiler(ROOT);
    const refused = mutants.filter((mutant) => !compiler.doesCompile(file, sourceOf(mutant)));
    assert.deepEqual(
      refused.map(({ change }) => change),
      ['always true', 'always false', '=== → !=='].map((how) => `a === undefined: ${how}`),
      'a may be undefined then',
    );
    assert.ok(mutants.some(({ change }) => change === 'b.push(each);: removed'));
    assert.ok(mutants.some(({ change }) => change === 'b.length === 0: always true'));
  });
});

describe('mutants of C++', () => {
  const changes = (line: string): string[] => mutateNative(line).map(({ change, source }) => `${change}: ${source}`);

  it('change operators and leave statements out', () => {
    assert.deepEqual(changes('  if (a < b) return true;'), [
      '< → <=:   if (a <= b) return true;',
      'return true; → return false;:   if (a < b) return false;',
    ]);
    assert.deepEqual(changes('  count_ += 1;'), ['+= → =:   count_ = 1;', 'removed: ']);
  });

  it('leave templates, comments, texts and constants alone', () => {
    for (const line of ['std::array<int, 2> a{};', '// a < b', 'f(" < "); // x', 'constexpr int a = b + 1;']) {
      assert.deepEqual(
        changes(line).filter((change) => !change.startsWith('removed')),
        [],
      );
    }
  });
});

describe('the explained survivors', () => {
  it('are mutants that exist', () => {
    const stale = findStale(readExplanations(), (file) => {
      const source = readFileSync(path.join(ROOT, file), 'utf8');
      return file.endsWith('.cc') ? mutateNative(source) : mutate(file, source).mutants;
    });
    assert.deepEqual(stale, []);
  });

  it('are found out when their mutant is gone, stand there once, and say why', () => {
    const { mutants } = mutate('a.ts', 'f(a < b);');
    const explanation: Explanation = {
      file: 'a.ts',
      code: 'f(a < b);',
      change: 'a < b: < → <=',
      why: 'it is the same',
    };
    const gone = { ...explanation, code: 'f(a < c);' };
    assert.deepEqual(
      findStale([explanation], () => mutants),
      [],
    );
    assert.equal(findStale([gone], () => mutants).length, 1);
    assert.equal(readExplanations(JSON.stringify([explanation])).length, 1);
    assert.throws(() => readExplanations(JSON.stringify([explanation, explanation])), /twice/);
    assert.throws(() => readExplanations(JSON.stringify([{ ...explanation, why: '' }])), /needs the texts/);
  });
});
