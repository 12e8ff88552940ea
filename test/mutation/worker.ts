// Runs the suites that belong to a mutated file again and again in one process, each time with another mutant active
// and only the tests that reach it; see session.ts for the other side.
import fc from 'fast-check';
import Mocha from 'mocha';
import type { Request, Reply } from './session.js';

declare global {
  /** Whether that mutant is active; called by the mutated file wherever there is one. */
  var isMutant: (id: number) => boolean;
}

const [activeWhileLoading = '-1', ...files] = process.argv.slice(2);
const { EVENT_TEST_BEGIN, EVENT_TEST_END, EVENT_TEST_FAIL } = Mocha.Runner.constants;

let active = Number(activeWhileLoading);
const hits = new Set<number>();
globalThis.isMutant = (id) => {
  hits.add(id);
  return id === active;
};

const send = (reply: Reply): void => void process.send?.(reply);

// The same inputs each time, and no search for the smallest one that fails.
fc.configureGlobal({ seed: 1, endOnFailure: true });

class Silent {
  // Mocha wants a reporter; this one reports nothing.
}

/** While nothing is wrong; a test that waits in vain is known by how long they take then. */
const PATIENCE_MS = 120_000;
const IN_VAIN_MS = 5000;
const IN_VAIN_FACTOR = 20;

const mocha = new Mocha({
  reporter: Silent as unknown as Mocha.ReporterConstructor,
  timeout: PATIENCE_MS,
  bail: true,
});
mocha.cleanReferencesAfterRun(false);
for (const file of files) mocha.addFile(file);
await mocha.loadFilesAsync();

const whileLoading = new Set(hits);
const all = new Map<Mocha.Suite, readonly Mocha.Test[]>();
const collect = (suite: Mocha.Suite): void => {
  all.set(suite, [...suite.tests]);
  suite.suites.forEach(collect);
};
collect(mocha.suite);

const select = (wanted: (test: Mocha.Test) => boolean): void => {
  for (const [suite, tests] of all) suite.tests = tests.filter(wanted);
};

/** @returns the error of the test that failed. */
function run(observe: (runner: Mocha.Runner) => void = () => {}): Promise<unknown> {
  return new Promise((resolve) => {
    let failure: unknown;
    const runner = mocha.run(() => {
      resolve(failure);
    });
    runner.on(EVENT_TEST_FAIL, (_test, error: unknown) => (failure ??= error));
    observe(runner);
  });
}

/** Which tests reach which mutants; what runs between two tests counts for both. */
async function explore(): Promise<{ readonly reached: Map<number, Set<Mocha.Test>>; readonly failure: unknown }> {
  const reached = new Map<number, Set<Mocha.Test>>();
  let latest: Mocha.Test | undefined;
  const note = (test: Mocha.Test | undefined): void => {
    if (test === undefined) return;
    for (const id of hits) reached.set(id, (reached.get(id) ?? new Set()).add(test));
  };
  hits.clear();
  const failure = await run((runner) => {
    runner.on(EVENT_TEST_BEGIN, () => {
      note(latest);
    });
    runner.on(EVENT_TEST_END, (test) => {
      note(test);
      hits.clear();
      latest = test;
    });
  });
  note(latest);
  return { reached, failure };
}

const { reached, failure } = await explore();
const longestMs = Math.max(0, ...[...all.values()].flat().map(({ duration = 0 }) => duration));
for (const test of [...all.values()].flat()) test.timeout(Math.max(IN_VAIN_MS, IN_VAIN_FACTOR * longestMs));
// Tests that only pass the first time in a process would seem to notice everything.
const failureAgain = failure ?? (await run());
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
send({
  kind: 'ready',
  failure: failureAgain === undefined ? undefined : textOf(failureAgain),
  reached: [...reached.keys()],
  whileLoading: [...whileLoading],
});

process.on('message', ({ id }: Request) => {
  active = id;
  const tests = reached.get(id) ?? new Set();
  select((test) => tests.has(test));
  void run().then((error) => {
    active = -1;
    const isSpoilt = error instanceof Error && 'code' in error && error.code === 'ERR_MOCHA_TIMEOUT';
    send({ kind: 'done', id, isKilled: error !== undefined, isSpoilt });
  });
});
