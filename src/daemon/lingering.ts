import type { Clock } from '../clock.js';

/**
 * How long the devices of a backend stay after the last lease that named it: longer than any peer needs to see the
 * change, so that what it still sends the old way arrives.
 */
export const BACKEND_LINGER_MS = 30_000;

/** Things, by their names, that are no longer in use here but that others may still count on for a while. */
export class Lingering {
  private used: readonly string[] = [];
  /** Of what is no longer in use, when nobody counts on it any more. */
  private readonly untilMs = new Map<string, number>();
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
    return [...this.used, ...[...this.untilMs].filter(([, untilMs]) => now < untilMs).map(([name]) => name)];
  }

  /** Says which are in use from now on, until it is said again. */
  use(names: readonly string[]): void {
    const now = this.clock.monotonicMs();
    for (const name of this.used) this.untilMs.set(name, now + this.lingerMs);
    for (const name of names) this.untilMs.delete(name);
    for (const [name, untilMs] of this.untilMs) if (untilMs <= now) this.untilMs.delete(name);
    this.used = [...names];
    this.cancelTimer?.();
    const nextMs = Math.min(...this.untilMs.values());
    this.cancelTimer = Number.isFinite(nextMs) ? this.clock.after(nextMs - now, this.onExpired) : undefined;
  }

  close(): void {
    this.cancelTimer?.();
  }
}
