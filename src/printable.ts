/**
 * What a terminal obeys (C0, DEL and C1 controls), what breaks a line (U+2028, U+2029), what reorders or hides the text
 * around it (bidirectional controls, a byte order mark), and halves of surrogate pairs.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}\ufeff]/gu;

/** {@link UNPRINTABLE} without line feed and tab. */
const UNPRINTABLE_IN_BLOCK = /(?![\n\t])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}\ufeff]/gu;

/** Far more than any name, address or sentence of ours, far less than what a hostile value can have. */
const VALUE_CHARACTERS = 1000;

/** Room for a line of several such values. */
const LINE_CHARACTERS = 4000;

/** The text, or its beginning with a note of its full length. */
export function cut(text: string, maxCharacters: number = VALUE_CHARACTERS): string {
  return text.length <= maxCharacters ? text : `${text.slice(0, maxCharacters)}… (${text.length} characters)`;
}

/**
 * Makes every character visible that a terminal would obey instead of show, line feeds included.
 *
 * @returns the text with `\uXXXX` in place of them: the escape of JSON, so that a JSON document stays the same document.
 */
export function escapeControls(text: string): string {
  return text.replaceAll(UNPRINTABLE, escaped);
}

/** Like {@link escapeControls} for a text of several lines: line feeds and tabs stay, carriage returns before them go. */
export function escapeBlock(text: string): string {
  return text.replaceAll('\r\n', '\n').replaceAll(UNPRINTABLE_IN_BLOCK, escaped);
}

/** What can stand in one line, whatever the text was: escaped and of bounded length. */
export function oneLine(text: string, maxCharacters: number = LINE_CHARACTERS): string {
  return escapeControls(cut(text, maxCharacters));
}

/**
 * Hides what may be a user and a password in an address or a list of addresses, however malformed it is.
 *
 * @returns the text with `***` for everything between a scheme and the last `@`, and for what stands where a port
 * belongs but is none: a password may hold any character, a comma and a slash among them.
 */
export function maskCredentials(text: string): string {
  return text
    .replace(/^((?:[a-z]+:)?\/+)?.*@/is, '$1***@')
    .replaceAll(/((?:^|\/|,\s*)[^/:@,\s[]+):(?!\/|\d*(?:[/,\s]|$))[^@]*/g, '$1:***');
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
