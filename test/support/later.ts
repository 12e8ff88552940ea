/** Callbacks that wait for a later turn of the event loop, first come first served. */
const waiting: (() => void)[] = [];

/** Calls back in a later turn, never within this one, as what comes from a kernel or from the network does. */
export function later(callback: () => void): void {
  waiting.push(callback);
  setImmediate(runLater);
}

/** Runs the next one that waits. @returns whether there was one. */
export function runLater(): boolean {
  const callback = waiting.shift();
  callback?.();
  return callback !== undefined;
}
