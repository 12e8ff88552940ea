import { Alarm } from '../alarm.js';
import type { Clock } from '../clock.js';
import { guarded } from '../guard.js';
import type { Logger } from '../log.js';

/** How long is waited for others after the first peer that changed: whatever cut one off cut them all off. */
const GATHER_MS = 30_000;

/** Between two lines, however often peers come and go. */
const GAP_MS = 60_000;

/** Peers that a line names. */
const EXAMPLES = 3;

/** Which peers do not answer, and how many peers there are. */
export interface UnreachablePeers {
  readonly names: readonly string[];
  readonly count: number;
}

/** Tells about peers that do not answer: one line for all that changed together, and at most one a minute. */
export class ReachLog {
  private told: ReadonlySet<string> = new Set();
  private lastLineMs = Number.NEGATIVE_INFINITY;
  private readonly alarm: Alarm;

  /** @param look - asked when a line is due. */
  constructor(
    private readonly clock: Clock,
    private readonly log: Logger,
    private readonly look: () => UnreachablePeers,
  ) {
    this.alarm = new Alarm(
      clock,
      guarded({ clock, logger: log, what: 'peers that do not answer' }, () => this.tell()),
    );
  }

  /** Says that some peer has become unreachable, or no longer is. */
  changed(): void {
    this.alarm.set(Math.max(GATHER_MS, this.lastLineMs + GAP_MS - this.clock.monotonicMs()));
  }

  close(): void {
    this.alarm.cancel();
  }

  private tell(): void {
    const { names, count } = this.look();
    const former = this.told;
    const fresh = names.filter((name) => !former.has(name));
    this.told = new Set(names);
    if (fresh.length === 0 && names.length === former.size) return;
    this.lastLineMs = this.clock.monotonicMs();
    if (names.length === 0) {
      this.log.info('all peers answer again', { count });
      return;
    }
    const examples = [...fresh, ...names.filter((name) => former.has(name))].slice(0, EXAMPLES);
    const more = names.length > examples.length ? ' and others' : '';
    const detail = `${names.length} of ${count} peers: ${examples.join(', ')}${more}`;
    if (fresh.length === 0) this.log.info('fewer peers do not answer', { count: names.length, detail });
    else this.log.warn('peers do not answer', { count: names.length, detail, hint: HINT });
  }
}

const HINT = 'tsflannelctl ping says for each of them how far packets come';
