/**
 * Why a request was not answered: addressed to a foreign name, another method than GET and HEAD, no HTTP or too long
 * headers, too slow, or its connection was ended since there were too many.
 */
const REFUSAL_REASONS = ['host', 'method', 'malformed', 'timeout', 'connections'] as const;

/** One of {@link REFUSAL_REASONS}; the `reason` label of the metric. */
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

/** How many requests were refused, by reason. */
export type Refusals = Readonly<Record<RefusalReason, number>>;

/** None of any reason. */
export function noRefusals(): Record<RefusalReason, number> {
  return { host: 0, method: 0, malformed: 0, timeout: 0, connections: 0 };
}
