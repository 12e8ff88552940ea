/** Lets those who change the same thing do so one after the other, in the order in which they asked. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /**
   * Runs what is to be done as soon as all who asked before have ended, well or not.
   *
   * @param signal - gives the place up while it waits; what runs ends by itself.
   * @returns what the action does; rejects with the signal's reason if it never began.
   */
  take<T>(action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(signal?.reason as Error);
      signal?.addEventListener('abort', giveUp, { once: true });
      this.#last = this.#last.then(async () => {
        signal?.removeEventListener('abort', giveUp);
        if (signal?.aborted === true) giveUp();
        else await new Promise<T>((done) => done(action())).then(resolve, reject);
      });
    });
  }
}
