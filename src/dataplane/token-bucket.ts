/** Lets events through at a steady rate with bursts; for what strangers can trigger. */
export class TokenBucket {
  private tokens: number;
  private filledAtMs: number;

  /** @param nowMs - a clock that never jumps. */
  constructor(
    private readonly perSecond: number,
    private readonly burst: number,
    private readonly nowMs: () => number,
  ) {
    this.tokens = burst;
    this.filledAtMs = nowMs();
  }

  /** Whether one more may pass now; if so, it is counted. */
  take(): boolean {
    const now = this.nowMs();
    this.tokens = Math.min(this.burst, this.tokens + ((now - this.filledAtMs) * this.perSecond) / 1000);
    this.filledAtMs = now;
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }
}
