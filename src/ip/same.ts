/** Whether two addresses, or two prefixes, are the same or both absent. */
export function isSame<T extends { equals(other: T | undefined): boolean }>(
  a: T | undefined,
  b: T | undefined,
): boolean {
  return a === b || (a?.equals(b) ?? false);
}
