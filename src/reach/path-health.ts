/** Whether a peer answers through the overlay. `unknown`: too few probes so far. */
export type ReachState = 'reachable' | 'unreachable' | 'unknown';

/** Lost probes in a row after which a peer counts as unreachable: a single one is lost by a busy link or a full queue. */
const LOST_IN_A_ROW = 3;

/** Answers in a row after which an unreachable peer is reachable again, so that one lucky packet ends no outage. */
const ANSWERED_IN_A_ROW = 2;

/** Probes that the loss is counted over: eight minutes at one every 30 s. */
export const LOSS_WINDOW = 16;

/** Weight of a new round trip in the smoothed one (RFC 6298 2). */
const SMOOTHING = 1 / 8;

/** What is known of the way to one peer after some probes. */
export interface PathHealth {
  readonly state: ReachState;
  /** On the clock that the outcomes are given in: when the first of the probes was sent that led to the state. */
  readonly sinceMs: number | undefined;
  /** Smoothed over some ten answers; undefined before the first. */
  readonly roundTripMs: number | undefined;
  /** How the last {@link LOSS_WINDOW} probes ended, the latest first; true for an answer. */
  readonly history: readonly boolean[];
  /** When the first of the latest probes was sent that all ended in the same way. */
  readonly runSinceMs: number | undefined;
}

/** How one probe ended. */
export interface ProbeOutcome {
  readonly sentAtMs: number;
  readonly isAnswered: boolean;
  /** Undefined without an answer, and where this host was not there to see when it came. */
  readonly roundTripMs?: number | undefined;
}

/** Before any probe. */
export const UNKNOWN_HEALTH: PathHealth = {
  state: 'unknown',
  sinceMs: undefined,
  roundTripMs: undefined,
  history: [],
  runSinceMs: undefined,
};

/**
 * The health after one more probe.
 *
 * ```
 *              1 answer
 *   unknown ─────────────▶ reachable
 *      │                    │     ▲
 *      │ 3 lost in a row    │3 lost│ 2 answers in a row
 *      └──────────────▶ unreachable
 * ```
 */
export function afterProbe(health: PathHealth, outcome: ProbeOutcome): PathHealth {
  const { isAnswered, roundTripMs, sentAtMs } = outcome;
  const history = [isAnswered, ...health.history].slice(0, LOSS_WINDOW);
  const runSinceMs = isAnswered === health.history[0] ? health.runSinceMs : sentAtMs;
  const state = nextState(health.state, history);
  return {
    state,
    sinceMs: state === health.state ? health.sinceMs : runSinceMs,
    roundTripMs: smooth(health.roundTripMs, roundTripMs),
    history,
    runSinceMs,
  };
}

/** Share of the last probes that had no answer, 0 … 1; undefined before the first. */
export function lossOf({ history }: PathHealth): number | undefined {
  if (history.length === 0) return undefined;
  return history.filter((isAnswered) => !isAnswered).length / history.length;
}

/** How many of the latest probes ended in the same way. */
function runLength(history: readonly boolean[]): number {
  const end = history.findIndex((isAnswered) => isAnswered !== history[0]);
  return end < 0 ? history.length : end;
}

function nextState(state: ReachState, history: readonly boolean[]): ReachState {
  const run = runLength(history);
  if (history[0] === true) return state === 'unreachable' && run < ANSWERED_IN_A_ROW ? state : 'reachable';
  return run < LOST_IN_A_ROW ? state : 'unreachable';
}

function smooth(previous: number | undefined, sample: number | undefined): number | undefined {
  if (sample === undefined || previous === undefined) return sample ?? previous;
  return previous + SMOOTHING * (sample - previous);
}
