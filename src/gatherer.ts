import type { Clock } from './clock.js';

/** How a {@link Gatherer} tells. */
export interface GathererOptions<Topic, News> {
  readonly clock: Clock;
  /** How often it may tell of a topic at once. */
  readonly burst: number;
  /** Once that is used up, it tells of the topic once in that time. */
  readonly everyMs: number;
  /** One piece of news that says what both say. */
  readonly merge: (before: News, next: News) => News;
  readonly tell: (topic: Topic, news: News) => void;
}

interface Pace<News> {
  held: { readonly news: News } | undefined;
  cancelTimer: (() => void) | undefined;
  /** By when what was told so far would have been told at the rate of one in `everyMs`. */
  paidUntilMs: number;
}

/**
 * Tells news at once as long as they are few; what comes thick is put together and told as one, so that the log stays
 * short whatever happens and leaves nothing out. Each topic has a pace of its own; topics are few.
 */
export class Gatherer<Topic, News> {
  private readonly paces = new Map<Topic, Pace<News>>();

  constructor(private readonly options: GathererOptions<Topic, News>) {}

  add(topic: Topic, news: News): void {
    const { clock, burst, everyMs, merge } = this.options;
    const pace = this.paces.get(topic) ?? {
      held: undefined,
      cancelTimer: undefined,
      paidUntilMs: Number.NEGATIVE_INFINITY,
    };
    this.paces.set(topic, pace);
    pace.held = { news: pace.held === undefined ? news : merge(pace.held.news, news) };
    if (pace.cancelTimer !== undefined) return;
    const waitMs = pace.paidUntilMs - (burst - 1) * everyMs - clock.monotonicMs();
    if (waitMs <= 0) this.tell(topic, pace);
    else pace.cancelTimer = clock.after(waitMs, () => this.tell(topic, pace));
  }

  /** Tells what waits and ends every timer. */
  flush(): void {
    for (const [topic, pace] of this.paces) this.tell(topic, pace);
  }

  private tell(topic: Topic, pace: Pace<News>): void {
    const { clock, everyMs, tell } = this.options;
    const { held } = pace;
    pace.cancelTimer?.();
    pace.cancelTimer = undefined;
    pace.held = undefined;
    if (held === undefined) return;
    pace.paidUntilMs = Math.max(clock.monotonicMs(), pace.paidUntilMs) + everyMs;
    tell(topic, held.news);
  }
}

/** For lines about single peers and objects: a cluster that starts is a few lines, a host that restarts is told at once. */
export const LINE_PACE = { burst: 10, everyMs: 10_000 } as const;

/** How many things there are, and the first of them. */
export interface Some<Thing> {
  readonly count: number;
  readonly first: readonly Thing[];
}

/** As many as a line has room for. */
const FIRST = 3;

/** Things as far as they are told: all of up to `max`. */
export function some<Thing>(things: readonly Thing[], max: number = FIRST): Some<Thing> {
  return { count: things.length, first: things.slice(0, max) };
}

/** Some things and some more. */
export function mergeSome<Thing>(before: Some<Thing>, next: Some<Thing>, max: number = FIRST): Some<Thing> {
  return { count: before.count + next.count, first: [...before.first, ...next.first].slice(0, max) };
}

/** `a, b, c and 997 more` */
export function listed({ count, first }: Some<string>): string {
  const rest = count - first.length;
  return first.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
