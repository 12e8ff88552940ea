import type { Clock } from './clock.js';

/** One timer: of several times it is set to, the earliest counts. */
export class Alarm {
  private timer: { readonly atMs: number; readonly cancel: () => void } | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly onTime: () => void,
  ) {}

  /** Goes off after that time, unless it does so before anyway. */
  set(delayMs: number): void {
    const atMs = this.clock.monotonicMs() + delayMs;
    if (this.timer !== undefined && this.timer.atMs <= atMs) return;
    this.timer?.cancel();
    const cancel = this.clock.after(delayMs, () => {
      this.timer = undefined;
      this.onTime();
    });
    this.timer = { atMs, cancel };
  }

  cancel(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }
}
