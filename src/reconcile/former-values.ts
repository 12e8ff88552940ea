/** What a kernel parameter was before we set it. */
export interface FormerValue {
  /** Before. */
  readonly former: string;
  /** What we have set it to; another one is somebody else's, and stays. */
  readonly value: string;
  /** It is not put back as long as this parameter has this value. */
  readonly keptWhile?: { readonly path: string; readonly value: string };
}

/** Remembers, by path, what parameters were that get their value back. */
export interface FormerValues {
  /** All of them, as they are now. */
  readonly entries: ReadonlyMap<string, FormerValue>;
  /**
   * Returns when it will be known to a later process.
   *
   * @throws {@link OverlayError} `ERR_SYSCTL`: then the parameter must not be changed.
   */
  remember(path: string, value: FormerValue): void;
  /** Nothing is to be put back there any more; what fails then is tried with the next change. */
  forget(path: string): void;
}

/** Lasts as long as the process. */
export class FormerValuesInMemory implements FormerValues {
  readonly entries = new Map<string, FormerValue>();

  remember(path: string, value: FormerValue): void {
    this.entries.set(path, value);
  }

  forget(path: string): void {
    this.entries.delete(path);
  }
}
