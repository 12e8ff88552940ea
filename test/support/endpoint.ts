import { fileURLToPath } from 'node:url';
import type { Netns } from './netns.js';
import type { Program } from './program.js';

const SCRIPT = fileURLToPath(new URL('endpoint.mjs', import.meta.url));

/** What an end of a TCP connection says when that is over. */
export interface TcpEnd {
  readonly bytes: number;
  readonly sha256: string;
}

/** What ends say, by what is waited for. */
interface Answers {
  readonly port: { readonly port: number };
  readonly connected: { readonly connected: true };
  readonly sha256: TcpEnd;
  readonly ms: TcpEnd & { readonly ms: number };
  readonly lost: { readonly lost: readonly number[]; readonly altered: readonly number[] };
  readonly sent: { readonly sent: number };
  readonly flows: { readonly flows: readonly { readonly received: number; readonly late: number }[] };
}

/** The process of each namespace that has one. It ends with its namespace. */
const programs = new WeakMap<Netns, Program>();
let serial = 0;

/** One end of a transfer in a namespace, see `endpoint.mjs` for what there is. */
export class Endpoint {
  readonly #id = ++serial;
  readonly #program: Program;
  readonly #from: number;

  constructor(netns: Netns, command: string, args: Readonly<Record<string, unknown>>) {
    const running = programs.get(netns);
    this.#program = running?.isRunning === true ? running : netns.start([process.execPath, SCRIPT]);
    programs.set(netns, this.#program);
    this.#from = this.#program.mark();
    this.#write({ command, args });
  }

  /**
   * Waits until it says something with that key, and gives all it says then.
   *
   * @throws Error with what went wrong at this end, or when the time is up.
   */
  async answer<Key extends keyof Answers>(key: Key, limitMs?: number): Promise<Answers[Key]> {
    const pattern = new RegExp(`^\\{"id":${this.#id},(?=.*"(?:${key}|error)":).*\\}$`);
    const [line] = await this.#program.waitForLine(pattern, limitMs, this.#from);
    const said = JSON.parse(line) as Answers[Key] & { readonly error?: string };
    if (said.error !== undefined) throw new Error(`${this.#program.argv.join(' ')}: ${said.error}`);
    return said;
  }

  /** Ends what goes on until it is told to end. */
  end(): void {
    this.#write({ end: true });
  }

  /** After a failure: ends it and whatever else this process does, at once. */
  async kill(): Promise<void> {
    await this.#program.kill();
  }

  #write(words: object): void {
    this.#program.write(`${JSON.stringify({ id: this.#id, ...words })}\n`);
  }
}
