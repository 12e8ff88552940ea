/** Whether two values are the same. */
export type Comparison<T> = (a: T, b: T) => boolean;

/** For text, numbers and flags. */
export function isIdentical(a: unknown, b: unknown): boolean {
  return a === b;
}

/** For fields that do not count. */
export function isAlike(): boolean {
  return true;
}

/** For lists whose order counts. */
export function listsBy<T>(isSameItem: Comparison<T>): Comparison<readonly T[]> {
  return (a, b) => a === b || (a.length === b.length && a.every((item, index) => isSameItem(item, b[index] as T)));
}

/** Field by field. Every field of the type has to be there, so that one that is added later cannot be forgotten. */
export function fieldsBy<T extends object>(fields: { readonly [F in keyof T]-?: Comparison<T[F]> }): Comparison<T> {
  const names = Object.keys(fields) as (keyof T)[];
  return (a, b) => a === b || names.every((name) => fields[name](a[name], b[name]));
}
