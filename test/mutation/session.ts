import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** To a worker: try that mutant. */
export interface Request {
  readonly id: number;
}

/** From a worker. */
export type Reply =
  | {
      readonly kind: 'ready';
      /** The tests fail although nothing is wrong. */
      readonly failure: string | undefined;
      /** Mutants that some test reaches. */
      readonly reached: readonly number[];
      /** Mutants that count when the module is loaded, which happens once in a process. */
      readonly whileLoading: readonly number[];
    }
  /** `isSpoilt`: what was under way may disturb the next one. */
  | { readonly kind: 'done'; readonly id: number; readonly isKilled: boolean; readonly isSpoilt: boolean };

type Ready = Extract<Reply, { kind: 'ready' }>;

/** What became of a mutant; `unreached`: no test comes by. */
export type Fate = 'killed' | 'survived' | 'unreached';

/** Processor time that a mutant may take before it is held to run for ever; real time says nothing on a busy machine. */
const HUNG_AFTER_CPU_SECONDS = 10;
const LOOK_EVERY_MS = 1000;
/** `USER_HZ` of every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Tries mutants of one file in worker processes that begin in a copy of the tree with the instrumented file. */
export class Session {
  #worker: ChildProcess | undefined;
  #ready: Ready | undefined;

  constructor(
    private readonly root: string,
    private readonly tests: readonly string[],
  ) {}

  /** @throws Error if the tests fail without a mutant. */
  async try(id: number): Promise<Fate> {
    this.#ready ??= await this.#start();
    const { reached, whileLoading } = this.#ready;
    if (whileLoading.includes(id)) return this.#tryFromTheStart(id);
    if (!reached.includes(id)) return 'unreached';
    if (this.#worker === undefined) await this.#start();
    const reply = await this.#exchange({ id });
    if (reply?.kind !== 'done' || reply.isSpoilt) this.close();
    return reply?.kind === 'done' && !reply.isKilled ? 'survived' : 'killed';
  }

  close(): void {
    this.#worker?.kill('SIGKILL');
    this.#worker = undefined;
  }

  async #start(): Promise<Ready> {
    const worker = this.#fork(-1);
    this.#worker = worker;
    const reply = await replyOf(worker);
    if (reply?.kind !== 'ready') throw new Error(`${this.tests.join(' ')}: the tests cannot be run`);
    if (reply.failure !== undefined) throw new Error(`${this.tests.join(' ')} fail without a mutant: ${reply.failure}`);
    return reply;
  }

  async #tryFromTheStart(id: number): Promise<Fate> {
    const worker = this.#fork(id);
    try {
      const reply = await replyOf(worker);
      return reply?.kind === 'ready' && reply.failure === undefined ? 'survived' : 'killed';
    } finally {
      worker.kill('SIGKILL');
    }
  }

  #fork(active: number): ChildProcess {
    return fork(path.join(this.root, 'test/mutation/worker.ts'), [String(active), ...this.tests], {
      cwd: this.root,
      execArgv: ['--import', 'tsx', '--max-old-space-size=1024'],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
  }

  #exchange(request: Request): Promise<Reply | undefined> {
    const worker = this.#worker;
    if (worker === undefined) return Promise.resolve(undefined);
    worker.send(request);
    return replyOf(worker);
  }
}

/** The next reply; undefined from a worker that ends or hangs, which is ended. */
function replyOf(worker: ChildProcess): Promise<Reply | undefined> {
  return new Promise((resolve) => {
    const untilSeconds = cpuSecondsOf(worker) + HUNG_AFTER_CPU_SECONDS;
    const watch = setInterval(() => {
      if (cpuSecondsOf(worker) > untilSeconds) worker.kill('SIGKILL');
    }, LOOK_EVERY_MS);
    const done = (reply?: Reply): void => {
      clearInterval(watch);
      worker.removeAllListeners('message').removeAllListeners('exit');
      resolve(reply);
    };
    worker.on('message', (message) => {
      done(message as Reply);
    });
    worker.on('exit', () => {
      done();
    });
  });
}

function cpuSecondsOf({ pid }: ChildProcess): number {
  try {
    // After the name, which may hold anything: proc_pid_stat(5), fields 14 and 15.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return 0; // it has ended
  }
}
