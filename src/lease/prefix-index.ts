import { append } from '../append.js';
import type { Prefix } from '../ip/prefix.js';

/** Items by networks of one family, found by what a network has addresses in common with; several may have the same one. */
export class PrefixIndex<Item> {
  /** By length, then by first address. */
  readonly #byLength = new Map<number, Map<number | bigint, readonly Item[]>>();

  add(prefix: Prefix, item: Item): void {
    const { start } = prefix.bounds;
    const items = this.#byLength.get(prefix.length) ?? new Map<number | bigint, readonly Item[]>();
    this.#byLength.set(prefix.length, items);
    items.set(start, append(items.get(start), item));
  }

  remove(prefix: Prefix, item: Item): void {
    const { start } = prefix.bounds;
    const items = this.#byLength.get(prefix.length);
    const rest = items?.get(start)?.filter((each) => each !== item) ?? [];
    if (rest.length > 0) items?.set(start, rest);
    else items?.delete(start);
    if (items?.size === 0) this.#byLength.delete(prefix.length);
  }

  /**
   * Items of networks that overlap this one.
   *
   * @remarks One look-up for each length in use up to its own; those of longer ones are gone through.
   */
  overlapping(prefix: Prefix): readonly Item[] {
    const { start, end } = prefix.bounds;
    const found: Item[] = [];
    for (const [length, items] of this.#byLength) {
      if (length <= prefix.length) found.push(...(items.get(prefix.shortenedTo(length).bounds.start) ?? []));
      else for (const [at, inside] of items) if (start <= at && at <= end) found.push(...inside);
    }
    return found;
  }
}
