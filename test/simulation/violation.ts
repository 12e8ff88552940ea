/** A broken invariant. */
export class Violation extends Error {
  constructor(
    readonly invariant: string,
    readonly atMs: number,
    readonly detail: string,
  ) {
    super(`${invariant}: ${detail}`);
  }
}
