import type { Clock } from '../clock.js';

/**
 * How long the devices of a backend stay after the last lease that named it: longer than any peer needs to see the
 * change, so that what it still sends the old way arrives.
 */
const LINGER_MS = 30_000;

/** Backends that nothing asks for any more, but that peers may still send through. */
export class LingeringBackends {
  private readonly lastUsedMs = new Map<string, number>();
  private cancelTimer: (() => void) | undefined;

  /** @param onExpired - called when {@link types} has become shorter. */
  constructor(
    private readonly clock: Clock,
    private readonly onExpired: () => void,
  ) {}

  /** Those that were in use a moment ago. */
  get types(): readonly string[] {
    const now = this.clock.monotonicMs();
    return [...this.lastUsedMs].filter(([, lastMs]) => now - lastMs < LINGER_MS).map(([type]) => type);
  }

  /** Says which backends are in use now. */
  use(types: readonly string[]): void {
    const now = this.clock.monotonicMs();
    for (const type of types) this.lastUsedMs.set(type, now);
    for (const [type, lastMs] of this.lastUsedMs) if (now - lastMs >= LINGER_MS) this.lastUsedMs.delete(type);
    this.cancelTimer?.();
    const oldest = Math.min(...[...this.lastUsedMs].filter(([type]) => !types.includes(type)).map(([, ms]) => ms));
    if (Number.isFinite(oldest)) this.cancelTimer = this.clock.after(oldest + LINGER_MS - now + 1, this.onExpired);
  }

  close(): void {
    this.cancelTimer?.();
  }
}
