// Runs the suites that belong to a mutated file again and again in one process, each time with another mutant active
// and only the tests that reach it; see session.ts for the other side.
import fc from 'fast-check';
import Mocha from 'mocha';
import type { Exploration, Reply, Request } from './session.js';

declare global {
  /** Whether that mutant is active; called by the mutated file wherever there is one. */
  var isMutant: (id: number) => boolean;
}

const [activeWhileLoading = '-1', ...files] = process.argv.slice(2);
const { EVENT_TEST_BEGIN, EVENT_TEST_FAIL } = Mocha.Runner.constants;

/**
 * A test that waits in vain is known by this: so many looks in a row show nothing that could end the wait, or so many
 * went by in all. Looks are counted and not time, which says nothing while other programs have the processor.
 */
const LOOK_EVERY_MS = 20;
const LOOKS_AT_NOTHING = 25;
const LOOKS = 500;

let active = Number(activeWhileLoading);
let calls = 0;
let maxCalls = Infinity;
let hits: Set<number> | undefined = new Set<number>();
globalThis.isMutant = (id) => {
  hits?.add(id);
  if (++calls > maxCalls) throw new Error('this runs for ever');
  return id === active;
};

// The same inputs each time, and no search for the smallest one that fails.
fc.configureGlobal({ seed: 1, endOnFailure: true });

class Silent {
  // Mocha wants a reporter; this one reports nothing.
}

const mocha = new Mocha({ reporter: Silent as unknown as Mocha.ReporterConstructor, timeout: 0, bail: true });
mocha.cleanReferencesAfterRun(false);
for (const file of files) mocha.addFile(file);
await mocha.loadFilesAsync();

const whileLoading = [...hits];
const suites = new Map<Mocha.Suite, readonly Mocha.Test[]>();
const collect = (suite: Mocha.Suite): void => {
  suites.set(suite, [...suite.tests]);
  suite.suites.forEach(collect);
};
collect(mocha.suite);
const tests = [...suites.values()].flat();
/** In milliseconds, without a mutant. */
let durations: ReadonlyMap<Mocha.Test, number> = new Map();

/** Timers, sockets and what else keeps this process alive; a finished request for a file stays in the list for a while. */
const countActive = (): number => process.getActiveResourcesInfo().filter((kind) => kind !== 'FSReqPromise').length;
process.channel?.ref();
const countAtRest = countActive();

/** @returns the error of the first test or hook that failed. */
async function run(wanted: ReadonlySet<Mocha.Test>, onBegin: (test: Mocha.Test) => void = () => {}): Promise<unknown> {
  for (const [suite, of] of suites) {
    // What notices a mutant in a moment spares those that take long.
    suite.tests = of
      .filter((test) => wanted.has(test))
      .sort((a, b) => (durations.get(a) ?? 0) - (durations.get(b) ?? 0));
  }
  let failure: unknown;
  let stopWatching = (): void => {};
  await new Promise<void>((resolve) => {
    const runner = mocha.run(() => {
      resolve();
    });
    runner.on(EVENT_TEST_BEGIN, onBegin);
    runner.on(EVENT_TEST_FAIL, (_test, error: unknown) => (failure ??= error));
    stopWatching = endVainWaits(runner);
  });
  stopWatching();
  return failure;
}

/** Has whatever waits in vain, test or hook, fail. */
function endVainWaits(runner: Mocha.Runner): () => void {
  const ended: Mocha.Runnable[] = [];
  let watched: Mocha.Runnable | undefined;
  let looks = 0;
  let looksAtNothing = 0;
  const timer = setInterval(() => {
    const { currentRunnable } = runner as { readonly currentRunnable?: Mocha.Runnable };
    if (currentRunnable !== watched) looks = looksAtNothing = 0;
    watched = currentRunnable;
    looks++;
    // Mocha has a timer of its own for what it runs.
    looksAtNothing = countActive() <= countAtRest + 1 ? looksAtNothing + 1 : 0;
    if (watched === undefined || (looks < LOOKS && looksAtNothing < LOOKS_AT_NOTHING)) return;
    watched.timeout(1);
    ended.push(watched);
    looks = looksAtNothing = 0;
  }, LOOK_EVERY_MS).unref();
  return () => {
    clearInterval(timer);
    for (const runnable of ended) runnable.timeout(0);
  };
}

/** Which tests reach which mutants; what runs between two tests counts for both. */
async function explore(): Promise<Exploration> {
  const reach = new Map<number, Set<number>>();
  const callsOf = tests.map(() => 0);
  let latest = -1;
  const found = (hits = new Set<number>());
  const note = (...by: readonly number[]): void => {
    for (const test of by.filter((each) => each >= 0)) {
      callsOf[test] = (callsOf[test] ?? 0) + calls;
      for (const id of found) reach.set(id, (reach.get(id) ?? new Set()).add(test));
    }
    found.clear();
    calls = 0;
  };
  found.clear();
  calls = 0;
  const failure = await run(new Set(tests), (test) => {
    const next = tests.indexOf(test);
    note(latest, next);
    latest = next;
  });
  note(latest);
  hits = undefined;
  durations = new Map(tests.map((test) => [test, test.duration ?? 0]));
  // Tests that only pass the first time in a process would seem to notice everything.
  const failureAgain = failure ?? (await run(new Set(tests)));
  return {
    failure: failureAgain === undefined ? undefined : textOf(failureAgain),
    calls: callsOf,
    reach: [...reach].map(([id, by]) => [id, [...by]]),
    whileLoading,
  };
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function answer(request: Request): Promise<Reply> {
  if (request.kind === 'explore') return { kind: 'explored', ...(await explore()) };
  hits = undefined;
  calls = 0;
  ({ id: active, maxCalls } = request);
  const error = await run(new Set(request.tests.flatMap((index) => tests[index] ?? [])));
  active = -1;
  maxCalls = Infinity;
  const isSpoilt = countActive() > countAtRest;
  return { kind: 'tried', failure: error === undefined ? undefined : textOf(error), isSpoilt };
}

process.on('disconnect', () => process.exit());
process.on('message', (request: Request) => {
  void answer(request).then((reply) => process.send?.(reply));
});
