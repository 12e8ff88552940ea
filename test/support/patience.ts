/** How many times as long as on a usual machine everything takes: set where processors are emulated (`test/vm`). */
const SLOWNESS = Number(process.env.TSFLANNEL_TEST_SLOWNESS ?? 1);

/** A limit or an interval that is right on a usual machine, as it is right on this one. */
export function patient(timeMs: number): number {
  return timeMs * SLOWNESS;
}
