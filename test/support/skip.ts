import type { Context } from 'mocha';

/**
 * Skips the running test, or every test of the suite when called from a `before` hook, for a stated reason.
 *
 * @remarks The reason is listed at the end of the run. A skip without one counts as a failure where all tests are
 * expected to run, so tests call this and not `this.skip()`.
 * @param context - `this` of the test or hook.
 * @param reason - what is missing, such as `no IPIP module in this kernel`.
 */
export function skipBecause(context: Context, reason: string): never {
  const running = context.test as { type?: string; parent?: object } | undefined;
  const target = running?.type === 'hook' ? running.parent : running;
  if (target !== undefined) Object.assign(target, { skipReason: reason });
  return context.skip();
}
