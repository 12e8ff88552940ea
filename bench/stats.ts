/**
 * The value below which the given part of the values lies, interpolated between neighbours.
 *
 * @param part - 0 for the least, 0.5 for the median, 1 for the greatest.
 * @returns NaN for no values.
 */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const position = part * (sorted.length - 1);
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

/** Median and range of some values. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** Median, least and greatest of the values; `undefined` for none. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return { median: quantile(values, 0.5), min: quantile(values, 0), max: quantile(values, 1), count: values.length };
}

/**
 * The highest value that still passes, found by halving a range on a logarithmic scale: after n steps it is known to
 * `(high / low) ** (1 / 2 ** n)`.
 *
 * @param low - known or assumed to pass; the result if nothing higher does.
 * @param passes - tries a value; expected to turn from true to false once as the value rises.
 */
export async function bisect(
  range: { readonly low: number; readonly high: number; readonly steps: number },
  passes: (value: number) => Promise<boolean>,
): Promise<number> {
  let { low, high } = range;
  for (let step = 0; step < range.steps; step++) {
    const middle = Math.sqrt(low * high);
    if (await passes(middle)) low = middle;
    else high = middle;
  }
  return low;
}
