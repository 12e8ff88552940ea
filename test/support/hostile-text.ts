/** What must not reach a terminal or a log; of line feeds, only those that the program itself writes. */
export const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

/** Clears a screen, renames a window, reverses what follows, and begins a line that looks like ours. */
export const HOSTILE = '\u001b[2J\u001b]0;owned\u0007\u009b31m\u202e\u2028\u0085\u007f\r\nforged line';

/** The same document with {@link HOSTILE} behind every text in it. */
export function withHostileTexts<T>(document: T): T {
  return JSON.parse(
    JSON.stringify(document, (_, value: unknown) => (typeof value === 'string' ? value + HOSTILE : value)),
  ) as T;
}
