import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Daemon } from '../test/support/daemon.js';
import { waitFor } from '../test/support/wait.js';
import { UNIT_NODE_OPTIONS } from './unit.js';

/** Tells how long the event loop of a daemon was held at most, from one question to the next. */
export class LoopProbe {
  readonly #file: string;

  /** @param directory - gets its file. */
  constructor(directory: string) {
    this.#file = `${directory}/loop-probe`;
  }

  /** What the daemon is to be started with. */
  get env(): Readonly<Record<string, string>> {
    const script = fileURLToPath(new URL('loop-probe.mjs', import.meta.url));
    return { NODE_OPTIONS: `${UNIT_NODE_OPTIONS} --import=${script}`, LOOP_PROBE_FILE: this.#file };
  }

  /** Milliseconds since the last question, or since the start. */
  async longestMs(daemon: Daemon): Promise<number> {
    rmSync(this.#file, { force: true });
    daemon.program.signal('SIGUSR2');
    const read = (): number | undefined => {
      try {
        return Number(readFileSync(this.#file, 'utf8'));
      } catch {
        return undefined; // not yet
      }
    };
    let longestMs: number | undefined;
    await waitFor(() => (longestMs = read()) !== undefined, { what: 'the answer of the probe', intervalMs: 5 });
    return longestMs ?? Number.NaN;
  }
}
