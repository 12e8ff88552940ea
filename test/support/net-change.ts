import type { NetState } from './net-state.js';

/** What differs between two states of a namespace, as text in a fixed order. */
export interface NetChange {
  readonly added: NetLines;
  readonly removed: NetLines;
}

/** Each list of a {@link NetState}; empty ones are left out. */
export type NetLines = Readonly<Partial<Record<keyof NetState, readonly unknown[]>>>;

/** Compares two states. Lines of iptables that only say which tables and built-in chains exist are no difference. */
export function netChange(before: NetState, after: NetState): NetChange {
  return { added: missingFrom(before, after), removed: missingFrom(after, before) };
}

function missingFrom(state: NetState, other: NetState): NetLines {
  const lists = (Object.keys(other) as (keyof NetState)[]).map((kind) => {
    const known = new Set(state[kind].map((entry) => JSON.stringify(entry)));
    const more = other[kind].filter((entry) => !known.has(JSON.stringify(entry)) && !isFrame(entry));
    return [kind, more] as const;
  });
  return Object.fromEntries(lists.filter(([, entries]) => entries.length > 0));
}

/** `*nat`, `:POSTROUTING ACCEPT`, `COMMIT`: there as soon as anybody has looked at a table. */
function isFrame(entry: unknown): boolean {
  return typeof entry === 'string' && /^(\*\w+|:[A-Z]+ (ACCEPT|DROP)|COMMIT)$/.test(entry);
}
