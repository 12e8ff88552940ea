/**
 * How soon after the last fault everything has to be well again: a second for the pause between two attempts to reach
 * etcd (at most 1.9 s with its spread), listing, writing, and the peers' reports (50 ms), the grace for a peer that
 * vanishes (1 s), and a pass of the reconciler's retries.
 */
export const CONVERGE_MS = 5000;

/**
 * A request whose answer is lost is given up after this time (`callTimeoutMs` of the store): what was asked during a
 * fault may be waited for that long after it.
 */
export const CALL_TIMEOUT_MS = 5000;

/** Looked at this often, and after each fault. */
export const CHECK_EVERY_MS = 250;

/** Window in which requests and lines are counted. */
export const WINDOW_MS = 10_000;

/**
 * One host's requests to etcd in a window. Without a leader each of the few requests that wait is sent to every member up
 * to eight times in five seconds; a loop would send thousands.
 */
export const MAX_REQUESTS = 300;

/** One host's log lines, debug included, in a window. */
export const MAX_LINES = 150;
