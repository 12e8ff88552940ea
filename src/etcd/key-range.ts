/** Keys from `key` up to, but not including, `rangeEnd`; just `key` without it. */
export interface KeyRange {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
}

/** All keys that begin with these bytes. */
export function prefixRange(prefix: string): Required<KeyRange> {
  const key = Buffer.from(prefix);
  const rangeEnd = Buffer.from(key);
  // No prefix used here ends in 0xff, which would carry.
  rangeEnd[rangeEnd.length - 1] = (rangeEnd.at(-1) ?? 0) + 1;
  return { key, rangeEnd };
}

/** One key. */
export function singleKey(key: string): KeyRange {
  return { key: Buffer.from(key) };
}
