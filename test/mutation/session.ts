import { type ChildProcess, fork } from 'node:child_process';
import path from 'node:path';
import { type Spent, Stopwatch, processorTimeOf } from './processor-time.js';

/** To a worker. */
export type Request =
  | { readonly kind: 'explore' }
  /** Run the tests at those places of the list of all, and hold a mutant that comes by more places for one that runs for ever. */
  | { readonly kind: 'try'; readonly id: number; readonly tests: readonly number[]; readonly maxCalls: number };

/** What the tests do while no mutant is active. */
export interface Exploration {
  /** They fail although nothing is wrong. */
  readonly failure: string | undefined;
  /** How often each of them comes by a place that is mutated. */
  readonly calls: readonly number[];
  /** Mutants with the tests that reach them. */
  readonly reach: readonly (readonly [id: number, tests: readonly number[]])[];
  /** Mutants that count when the module is loaded, which happens once in a process. */
  readonly whileLoading: readonly number[];
}

/** From a worker; `isSpoilt`: what is still under way may disturb the next one. */
export type Reply =
  | ({ readonly kind: 'explored' } & Exploration)
  | { readonly kind: 'tried'; readonly failure: string | undefined; readonly isSpoilt: boolean };

interface Known {
  readonly exploration: Exploration;
  readonly testsOf: ReadonlyMap<number, readonly number[]>;
  readonly allTests: readonly number[];
}

/** What became of a mutant; `unreached`: no test comes by. */
export type Fate = 'killed' | 'survived' | 'unreached';

/** Instead of a mutant. */
const NONE = -1;

/** Mutants lead tests to more places than there are without; what loops for ever goes far beyond this. */
const MORE_CALLS = 100_000;
const MORE_CALLS_FACTOR = 20;

/**
 * A mutant that takes so much more than all tests without one is held to run for ever, or to wait in vain. The clock
 * would blame it for what other programs take of a busy machine.
 */
const MORE: Spent = { runMs: 10_000, idleMs: 60_000 };
const LOOK_EVERY_MS = 250;

/** Tries mutants of one file in worker processes that begin in a copy of the tree with the instrumented file. */
export class Session {
  #worker: ChildProcess | undefined;
  #known: Known | undefined;
  /** What the tests take by themselves is not limited. */
  #limit: Spent = { runMs: Infinity, idleMs: Infinity };

  /** @param endMs - when the time is over, by `performance.now()`. */
  constructor(
    private readonly root: string,
    private readonly tests: readonly string[],
    private readonly endMs: number,
  ) {}

  /**
   * @returns undefined if the time was over first.
   * @throws Error if the tests fail without a mutant.
   */
  async try(id: number): Promise<Fate | undefined> {
    if (this.#isOver()) return undefined;
    this.#known ??= await this.#explore();
    if (this.#known === undefined) return undefined;
    const { exploration, testsOf, allTests } = this.#known;
    const isWhileLoading = exploration.whileLoading.includes(id);
    const tests = isWhileLoading ? allTests : testsOf.get(id);
    if (tests === undefined) return 'unreached';
    const reply = await this.#run(id, tests, isWhileLoading ? id : NONE);
    if (reply === undefined && this.#isOver()) return undefined;
    return reply?.kind === 'tried' && reply.failure === undefined ? 'survived' : 'killed';
  }

  /**
   * Runs the tests once more without a mutant.
   *
   * @throws Error if they fail now: then what an earlier mutant left behind may have killed those after it.
   */
  async check(): Promise<void> {
    if (this.#worker === undefined || this.#known === undefined || this.#isOver()) return;
    const reply = await this.#run(NONE, this.#known.allTests, NONE);
    if (reply?.kind === 'tried' && reply.failure !== undefined) {
      throw new Error(`${this.tests.join(' ')} fail after the mutants, without any of them: ${reply.failure}`);
    }
  }

  close(): void {
    this.#worker?.kill('SIGKILL');
    this.#worker = undefined;
  }

  async #explore(): Promise<Known | undefined> {
    const worker = (this.#worker = this.#fork(NONE));
    const stopwatch = new Stopwatch(() => processorTimeOf(worker.pid));
    const reply = await this.#exchange(worker, { kind: 'explore' });
    if (reply === undefined && this.#isOver()) return undefined;
    const { runMs, idleMs } = stopwatch.read();
    this.#limit = { runMs: runMs + MORE.runMs, idleMs: idleMs + MORE.idleMs };
    if (reply?.kind !== 'explored') throw new Error(`${this.tests.join(' ')}: the tests cannot be run`);
    if (reply.failure !== undefined) throw new Error(`${this.tests.join(' ')} fail without a mutant: ${reply.failure}`);
    return { exploration: reply, testsOf: new Map(reply.reach), allTests: [...reply.calls.keys()] };
  }

  /** @param whileLoading - what is active while the modules are loaded: a mutant has a process of its own then. */
  async #run(id: number, tests: readonly number[], whileLoading: number): Promise<Reply | undefined> {
    // What ended by itself after it had answered leaves the next mutant alone.
    if (whileLoading !== NONE || this.#worker?.connected === false) this.close();
    this.#worker ??= this.#fork(whileLoading);
    const calls = tests.reduce((sum, test) => sum + (this.#known?.exploration.calls[test] ?? 0), 0);
    const maxCalls = MORE_CALLS + MORE_CALLS_FACTOR * calls;
    const reply = await this.#exchange(this.#worker, { kind: 'try', id, tests, maxCalls });
    if (whileLoading !== NONE || reply?.kind !== 'tried' || reply.isSpoilt) this.close();
    return reply;
  }

  #fork(active: number): ChildProcess {
    return fork(path.join(this.root, 'test/mutation/worker.ts'), [String(active), ...this.tests], {
      cwd: this.root,
      execArgv: ['--import', 'tsx', '--max-old-space-size=1024'],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
  }

  #isOver(): boolean {
    return performance.now() >= this.endMs;
  }

  /** @returns the reply; undefined from a worker that ends, or is ended because it hangs or the time is over. */
  #exchange(worker: ChildProcess, request: Request): Promise<Reply | undefined> {
    return new Promise((resolve) => {
      const stopwatch = new Stopwatch(() => processorTimeOf(worker.pid));
      const watch = setInterval(() => {
        const { runMs, idleMs } = stopwatch.read();
        const isHung = runMs > this.#limit.runMs || idleMs > this.#limit.idleMs;
        if (isHung || this.#isOver()) worker.kill('SIGKILL');
      }, LOOK_EVERY_MS);
      const done = (reply?: Reply): void => {
        clearInterval(watch);
        worker.removeAllListeners();
        resolve(reply);
      };
      worker.on('message', (message) => {
        done(message as Reply);
      });
      worker.on('error', () => {
        done();
      });
      worker.on('exit', () => {
        done();
      });
      worker.send(request);
    });
  }
}
