import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { Clock } from '../clock.js';
import { describeError } from '../errors.js';
import { errnoOf } from './errno.js';

/** A program to be run together with all that it starts. */
export interface ProgramRun {
  readonly program: string;
  readonly args: readonly string[];
  /** All variables that it gets. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly stdin: string;
  /** It is ended when this time is over. */
  readonly timeoutMs: number;
  /** Ends it before that. */
  readonly signal: AbortSignal;
}

/** How a program ended. */
export interface ProgramEnd {
  /** As *exit status 2*, *not ended within 30 s*; undefined if it ended with 0. */
  readonly failure: string | undefined;
  /** The beginning of what it wrote to standard output, at most {@link STDOUT_BYTES_MAX} bytes. */
  readonly stdout: string;
  readonly isStdoutComplete: boolean;
  /** The end of what it wrote to either output, for people. */
  readonly output: string;
}

/** Runs a program to its end, whatever that is; never rejects. */
export type RunProgram = (run: ProgramRun) => Promise<ProgramEnd>;

/** Far more than fits a lease: a public key has 44 bytes. */
export const STDOUT_BYTES_MAX = 16 * 1024;

/** The last lines of a program that complains. */
const OUTPUT_BYTES_MAX = 4096;

/** What a program has left for putting things in order, from SIGTERM to SIGKILL. */
const TERM_GRACE_MS = 1000;

/** How long output is waited for after the end of the program: something that it left running may hold the pipe. */
const DRAIN_MS = 200;

/**
 * {@link RunProgram} on this host. The program leads a process group of its own (setsid(2)), so that what has to be
 * ended is ended with everything that it started; what it leaves running after its own end in order goes on.
 */
export function programGroups(clock: Clock): RunProgram {
  return ({ program, args, environment, stdin, timeoutMs, signal }) =>
    new Promise((resolve) => {
      const stdout = new Head(STDOUT_BYTES_MAX);
      const output = new Tail(OUTPUT_BYTES_MAX);
      const cancels: (() => void)[] = [];
      let interruption: string | undefined;

      const finish = (failure: string | undefined): void => {
        for (const cancel of cancels) cancel();
        const { text, isComplete } = stdout;
        resolve({ failure: interruption ?? failure, stdout: text, isStdoutComplete: isComplete, output: output.text });
      };
      const child = start(program, args, environment);
      if (typeof child === 'string') {
        finish(child);
        return;
      }
      const interrupt = (why: string): void => {
        if (interruption !== undefined) return;
        interruption = why;
        kill(child.pid, 'SIGTERM');
        cancels.push(clock.after(TERM_GRACE_MS, () => kill(child.pid, 'SIGKILL')));
      };
      const onAbort = (): void => interrupt('interrupted');
      cancels.push(() => signal.removeEventListener('abort', onAbort));

      child.stdout.on('data', (bytes: Buffer) => {
        stdout.add(bytes);
        output.add(bytes);
      });
      child.stderr.on('data', (bytes: Buffer) => output.add(bytes));
      child.on('error', (error) => {
        const errno = errnoOf(error);
        const isMissing = errno === 'ENOENT';
        finish(isMissing ? `there is no program ${program}` : `cannot be started: ${errno ?? error.message}`);
      });
      let end: string | undefined;
      child.on('exit', (exitCode, signalName) => {
        if (exitCode !== 0)
          end = exitCode === null ? `ended by ${signalName ?? 'a signal'}` : `exit status ${exitCode}`;
        // All that is left of a group that was to end; its leader may have been the only one to obey.
        if (interruption !== undefined) kill(child.pid, 'SIGKILL');
        cancels.push(
          clock.after(DRAIN_MS, () => {
            child.stdout.destroy();
            child.stderr.destroy();
          }),
        );
      });
      child.on('close', () => finish(end));
      // A program that ends without reading everything is judged by its exit status, not by the broken pipe.
      child.stdin.on('error', () => {});
      child.stdin.end(stdin);

      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      cancels.push(clock.after(timeoutMs, () => interrupt(`not ended within ${timeoutMs / 1000} s`)));
    });
}

/** @returns why it could not be started, where Node throws that instead of telling it by an event. */
function start(
  program: string,
  args: readonly string[],
  environment: ProgramRun['environment'],
): ChildProcessWithoutNullStreams | string {
  try {
    return spawn(program, [...args], { env: { ...environment }, detached: true, stdio: 'pipe' });
  } catch (error) {
    return `cannot be started: ${errnoOf(error) ?? describeError(error)}`;
  }
}

/** Signals a whole process group. */
function kill(pid: number | undefined, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: it has gone by itself. EPERM: all of it has become another user's, and there is nobody else to ask.
  }
}

/** The first bytes of a stream. */
class Head {
  private readonly parts: Buffer[] = [];
  private length = 0;
  isComplete = true;

  constructor(private readonly maxBytes: number) {}

  get text(): string {
    return Buffer.concat(this.parts).toString('utf8');
  }

  add(bytes: Buffer): void {
    const taken = bytes.subarray(0, this.maxBytes - this.length);
    this.isComplete &&= taken.length === bytes.length;
    this.length += taken.length;
    if (taken.length > 0) this.parts.push(taken);
  }
}

/** The last bytes of a stream. */
class Tail {
  private bytes = Buffer.alloc(0);

  constructor(private readonly maxBytes: number) {}

  get text(): string {
    return this.bytes.toString('utf8');
  }

  add(bytes: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, bytes]).subarray(-this.maxBytes);
  }
}
