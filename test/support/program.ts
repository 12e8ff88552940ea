import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { onExit } from './cleanup.js';
import { patient } from './patience.js';

/** How a {@link Program} ended. */
export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What a {@link Program} is started with besides its command. */
export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** File that gets a copy of the output, for reading after a failure. */
  readonly logFile?: string;
  /** Open descriptors that it gets, from 3 on. */
  readonly descriptors?: readonly number[];
}

// Output written before the end of a process is in the pipe already; reading it takes far less.
const OUTPUT_GRACE_MS = 500;

/**
 * A long-running child process with its output kept in memory.
 *
 * It is killed when this process ends, in whatever way. Standard output and standard error go into one text, since the
 * order between them is what a reader of a failure needs.
 */
export class Program {
  readonly #child: ChildProcess;
  readonly #log: WriteStream | undefined;
  readonly #watchers = new Set<() => void>();
  #output = '';
  #exit: ExitStatus | undefined;
  /** Settles when the process has ended and its output has been read. */
  readonly exited: Promise<ExitStatus>;

  constructor(
    readonly argv: readonly string[],
    options: ProgramOptions = {},
  ) {
    const [command = '', ...args] = argv;
    this.#log = options.logFile === undefined ? undefined : createWriteStream(options.logFile, { flags: 'a' });
    this.#child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe', ...(options.descriptors ?? [])],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    // A child that ends early breaks the pipe; its exit status tells more than EPIPE does.
    this.#child.stdin?.on('error', () => undefined);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#append(text);
      });
    }
    const release = onExit(() => {
      if (this.#exit === undefined) this.#child.kill('SIGKILL');
    });
    this.exited = new Promise((resolve) => {
      const end = (status: ExitStatus): void => {
        release();
        this.#exit = status;
        this.#log?.end();
        this.#notify();
        resolve(status);
      };
      this.#child.on('error', (error) => {
        this.#append(`${error.message}\n`);
        end({ code: 127, signal: null });
      });
      this.#child.on('close', (code, signal) => {
        end({ code, signal });
      });
      // A grandchild that was left behind holds the pipes open; what it writes is of no interest.
      this.#child.on('exit', () => {
        setTimeout(() => {
          this.#child.stdout?.destroy();
          this.#child.stderr?.destroy();
        }, OUTPUT_GRACE_MS).unref();
      });
    });
  }

  /** Process id of the program itself: `ip netns exec` is replaced by what it starts. */
  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.argv.join(' ')} did not start: ${this.#output}`);
    return this.#child.pid;
  }

  /** Everything it has written so far. */
  get output(): string {
    return this.#output;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  /** Writes to its standard input, and closes that when asked. */
  write(text: string, options: { readonly end?: boolean } = {}): void {
    this.#child.stdin?.write(text);
    if (options.end === true) this.#child.stdin?.end();
  }

  /** A place in the output; give it to {@link waitForLine} to look only at what comes after it. */
  mark(): number {
    return this.#output.length;
  }

  /**
   * Waits for a line that matches.
   *
   * @param from - where to begin, see {@link mark}; default the beginning.
   * @throws Error with the output so far when the time is up or the program ended without such a line.
   */
  async waitForLine(pattern: RegExp, limitMs = 20_000, from = 0): Promise<RegExpMatchArray> {
    const timeoutMs = patient(limitMs);
    const lines = new RegExp(pattern.source, `${pattern.flags.replace('m', '')}m`);
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        settle();
      };
      const fail = (why: string): void => {
        finish(() => {
          reject(new Error(`${this.argv.join(' ')}: ${why} ${String(pattern)}; it said:\n${this.#output}`));
        });
      };
      const look = (): void => {
        const match = lines.exec(this.#output.slice(from));
        if (match !== null) {
          finish(() => {
            resolve(match);
          });
        } else if (this.#exit !== undefined) {
          fail(`ended (${this.#exit.signal ?? String(this.#exit.code)}) without`);
        }
      };
      const timer = setTimeout(() => {
        fail(`in ${timeoutMs / 1000} s no line`);
      }, timeoutMs);
      this.#watchers.add(look);
      look();
    });
  }

  /** Sends a signal; nothing happens if it has ended. */
  signal(name: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(name);
  }

  /**
   * Ends it in order and waits.
   *
   * @throws Error if it is still there after the time; it is killed then.
   */
  async stop(signal: NodeJS.Signals = 'SIGTERM', limitMs = 20_000): Promise<ExitStatus> {
    const timeoutMs = patient(limitMs);
    this.signal(signal);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => {
        resolve(undefined);
      }, timeoutMs);
    });
    const status = await Promise.race([this.exited, late]);
    clearTimeout(timer);
    if (status !== undefined) return status;
    await this.kill();
    throw new Error(`${this.argv.join(' ')} ignored ${signal} for ${timeoutMs / 1000} s; it said:\n${this.#output}`);
  }

  /** Ends it at once and waits until it is gone. */
  async kill(): Promise<ExitStatus> {
    this.signal('SIGKILL');
    return this.exited;
  }

  #append(text: string): void {
    this.#output += text;
    this.#log?.write(text);
    this.#notify();
  }

  #notify(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}
