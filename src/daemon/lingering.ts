import type { Clock } from '../clock.js';

/**
 * How long the devices of a backend stay after the last lease that named it: longer than any peer needs to see the
 * change, so that what it still sends the old way arrives.
 */
export const BACKEND_LINGER_MS = 30_000;

/** Things, by their names, that are no longer in use here but that others may still count on for a while. */
export class Lingering {
  private readonly lastUsedMs = new Map<string, number>();
  private cancelTimer: (() => void) | undefined;

  /** @param onExpired - called when {@link names} has become shorter. */
  constructor(
    private readonly clock: Clock,
    private readonly lingerMs: number,
    private readonly onExpired: () => void,
  ) {}

  /** Those that are in use, or were a moment ago. */
  get names(): readonly string[] {
    const now = this.clock.monotonicMs();
    return [...this.lastUsedMs].filter(([, lastMs]) => now - lastMs < this.lingerMs).map(([name]) => name);
  }

  /** Says which are in use now. */
  use(names: readonly string[]): void {
    const now = this.clock.monotonicMs();
    for (const name of names) this.lastUsedMs.set(name, now);
    for (const [name, lastMs] of this.lastUsedMs) if (now - lastMs >= this.lingerMs) this.lastUsedMs.delete(name);
    this.cancelTimer?.();
    const oldest = Math.min(...[...this.lastUsedMs].filter(([name]) => !names.includes(name)).map(([, ms]) => ms));
    if (Number.isFinite(oldest)) this.cancelTimer = this.clock.after(oldest + this.lingerMs - now + 1, this.onExpired);
  }

  close(): void {
    this.cancelTimer?.();
  }
}
