import type { ObjectKind } from './desired.js';

/**
 * Identity of one object, equal for the desired and the actual one: its kind and what distinguishes it among its kind,
 * separated by a blank. The modules in `kinds/` make them.
 */
export type ObjectKey = `${ObjectKind} ${string}`;

/** The kind that a key begins with. */
export function kindOf(key: ObjectKey): ObjectKind {
  return key.slice(0, key.indexOf(' ')) as ObjectKind;
}

/** The key without its kind. */
export function nameOf(key: ObjectKey): string {
  return key.slice(key.indexOf(' ') + 1);
}
