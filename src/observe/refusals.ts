/**
 * Why a request was not answered: addressed to a foreign name, another method than GET and HEAD, no HTTP or too long
 * headers, too slow, or its connection was ended since there were too many.
 * The `reason` label of the metric.
 */
export type RefusalReason = 'host' | 'method' | 'malformed' | 'timeout' | 'connections';

/** How many requests were refused, by reason. */
export type Refusals = Readonly<Record<RefusalReason, number>>;

/** None of any reason. */
export function noRefusals(): Record<RefusalReason, number> {
  return { host: 0, method: 0, malformed: 0, timeout: 0, connections: 0 };
}
