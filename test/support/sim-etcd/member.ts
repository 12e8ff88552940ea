import type { Clock } from '../../../src/clock.js';
import type { WatchStream } from './watch.js';

/** What a member is told of each entry of the raft log. */
export interface Commit {
  readonly index: number;
  readonly revision: number;
}

/** One server of a {@link SimEtcdCluster}; changed through the cluster. */
export class SimMember {
  readonly watches = new Set<WatchStream>();
  isRunning = true;
  /** Frozen: nothing arrives and nothing is answered. */
  isPaused = false;
  /** Cut off from the other members. */
  isIsolated = false;
  /** Number of times that it was started; connections do not outlive one. */
  epoch = 1;
  lagMs = 0;
  #applied: Commit;
  readonly #waiting: { readonly index: number; readonly proceed: () => void }[] = [];

  constructor(
    readonly target: string,
    readonly id: string,
    private readonly clock: Clock,
    applied: Commit,
    private readonly onApplied: (member: SimMember, before: number, now: number) => void,
  ) {
    this.#applied = applied;
  }

  /** The revision that it has reached. */
  get revision(): number {
    return this.#applied.revision;
  }

  /** Whether it can take part in a majority. */
  get isVoting(): boolean {
    return this.isRunning && !this.isPaused && !this.isIsolated;
  }

  /** Applies a commit, now or as late as it lags. */
  learn(commit: Commit): void {
    if (!this.isVoting) return;
    if (this.lagMs === 0) this.catchUp(commit);
    else if (Number.isFinite(this.lagMs)) this.clock.after(this.lagMs, () => this.isVoting && this.catchUp(commit));
  }

  /** Applies everything up to a commit. */
  catchUp(commit: Commit): void {
    if (commit.index <= this.#applied.index) return;
    const before = this.#applied.revision;
    this.#applied = commit;
    if (commit.revision > before) this.onApplied(this, before, commit.revision);
    for (const waiting of [...this.#waiting]) {
      if (waiting.index > commit.index) continue;
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      waiting.proceed();
    }
  }

  /** Begins anew at a commit, as after a start: nobody waits, nobody watches. */
  reset(commit: Commit): void {
    this.epoch++;
    this.#applied = commit;
    this.#waiting.length = 0;
    this.watches.clear();
  }

  /** Calls back once it has applied up to that index. */
  whenApplied(index: number, proceed: () => void): void {
    if (this.#applied.index >= index) proceed();
    else this.#waiting.push({ index, proceed });
  }
}
