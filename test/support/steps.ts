import type { Steps } from '../../src/pace.js';

/** Does it all at once. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Work that is done at once, where some with rests is expected. */
export function* inOneStep<T>(result: T): Steps<T> {
  yield;
  return result;
}
