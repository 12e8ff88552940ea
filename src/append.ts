/**
 * A list with one more item; for the thousands of lists that hold one as a rule.
 *
 * @remarks A list that grows, as one that is spread into another does, is given room for sixteen more by V8.
 */
export function append<T>(list: readonly T[] | undefined, item: T): readonly T[] {
  return list === undefined || list.length === 0 ? [item] : [...list, item];
}
