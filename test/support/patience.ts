/** How many times as long as on a usual machine everything takes: set where processors are emulated (`test/vm`). */
export const SLOWNESS = Number(process.env.TSFLANNEL_TEST_SLOWNESS ?? 1);

/** A limit for something that takes no longer than so on a usual machine, as a limit for this one. */
export function patient(limitMs: number): number {
  return limitMs * SLOWNESS;
}
