import type { ProgramEnd, ProgramRun, RunProgram } from '../../src/sys/program-group.js';

/** A run of a {@link FakeProgramGroups} that has not ended. */
interface Pending {
  readonly run: ProgramRun;
  readonly end: (end: Partial<ProgramEnd>) => void;
}

/** Programs that end at once, or when they are told to. */
export class FakeProgramGroups {
  /** What was run, in order, as one line each: the words, and behind them what stood in standard input. */
  readonly lines: string[] = [];
  readonly runs: ProgramRun[] = [];
  /** Those that have not ended. */
  readonly pending: Pending[] = [];
  /** How a run ends; undefined: not until {@link pending} is told to, or it is interrupted. */
  answer: (words: string) => Partial<ProgramEnd> | undefined = () => ({});

  readonly run: RunProgram = (run) => {
    const words = [run.program, ...run.args].join(' ');
    this.lines.push(run.stdin === '\n' ? words : `${words} < ${run.stdin.trim()}`);
    this.runs.push(run);
    const answer = this.answer(words);
    if (answer !== undefined) return Promise.resolve(ended(answer));
    return new Promise((resolve) => {
      const end = (how: Partial<ProgramEnd>): void => {
        this.pending.splice(this.pending.indexOf(pending), 1);
        resolve(ended(how));
      };
      const pending = { run, end };
      this.pending.push(pending);
      run.signal.addEventListener('abort', () => end({ failure: 'interrupted' }), { once: true });
    });
  };
}

function ended(how: Partial<ProgramEnd>): ProgramEnd {
  return { failure: undefined, stdout: '', isStdoutComplete: true, output: '', ...how };
}
