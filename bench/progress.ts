/** Tells on standard error how far a run is: one line that is written over on a terminal, else a line per step. */
export class Progress {
  readonly #startedMs = performance.now();
  #done = 0;

  constructor(private readonly total: number) {}

  /** A step of the whole has begun. */
  begin(title: string): void {
    this.#show(title, '\n');
  }

  /** What is being done within the step; shown on a terminal only. */
  detail(title: string): void {
    if (process.stderr.isTTY) this.#show(title, '');
  }

  /** The step is over. */
  finish(): void {
    this.#done += 1;
  }

  /** Leaves the terminal's line to others. */
  close(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }

  #show(title: string, end: string): void {
    const elapsed = (performance.now() - this.#startedMs) / 1000;
    const left = this.#done === 0 ? '' : `, ${clock((elapsed / this.#done) * (this.total - this.#done))} left`;
    const line = `[${this.#done + 1}/${this.total}, ${clock(elapsed)}${left}] ${title}`;
    process.stderr.write(
      process.stderr.isTTY ? `\r\x1b[K${line.slice(0, (process.stderr.columns || 120) - 1)}` : line + end,
    );
  }
}

function clock(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
}
