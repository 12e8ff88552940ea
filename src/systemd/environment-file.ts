/**
 * One setting, or one line that is none: white space, then a comment, or a name and perhaps a value. A value is any
 * number of quoted texts, then an unquoted one up to the end of the line; a backslash takes the next character as it is.
 */
const LINE =
  /\s*(?:[#;].*|(?<name>[^=\n\r]*)(?:=(?<quoted>(?:[ \t]*(?:'[^']*(?:'|$)|"(?:\\[^]|[^"\\])*(?:"|$)))*)[ \t]*(?<plain>(?:\\[^]|[^\\\n\r])*))?)/y;

/**
 * The variables of an environment file, as the service manager reads it: no shell, no expansion.
 *
 * @returns by name; of several lines for one name the last one counts, and lines that set nothing are passed over.
 * @see systemd.exec(5) `EnvironmentFile=`; systemd 254, `src/basic/env-file.c`
 */
export function parseEnvironmentFile(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  LINE.lastIndex = 0;
  while (LINE.lastIndex < text.length) {
    const before = LINE.lastIndex;
    const { name, quoted, plain } = LINE.exec(text)?.groups ?? {};
    if (plain !== undefined && /^[A-Za-z_]\w*$/.test(name?.trimEnd() ?? '')) {
      values.set(name?.trimEnd() ?? '', unquote(quoted ?? '') + withoutEscapes(plain));
    }
    if (LINE.lastIndex <= before) break; // nothing but the end is left
  }
  return values;
}

function unquote(quoted: string): string {
  return [...quoted.matchAll(/'([^']*)'?|"((?:\\[^]|[^"\\])*)"?/g)]
    .map(([, single, double = '']) => {
      // Inside of double quotes a backslash is one unless it stands before something that a shell would heed.
      return single ?? double.replaceAll(/\\(["\\`$])|\\\n/g, (_, kept: string | undefined) => kept ?? '');
    })
    .join('');
}

function withoutEscapes(plain: string): string {
  return [...plain.matchAll(/\\([^]?)|([ \t]+$)|[^\\]/g)]
    .map(([character, escaped, trailing]) => {
      if (trailing !== undefined) return '';
      return escaped === undefined ? character : escaped.replace(/[\n\r]/, '');
    })
    .join('');
}

/**
 * The arguments that a variable becomes where a unit has it as a word of its own (`ExecStart=program $OPTS`).
 *
 * @see systemd.service(5) "Command lines"
 */
export function splitWords(text: string): readonly string[] {
  const words = text.match(/(?:\\[^]|'(?:\\[^]|[^'\\])*(?:'|$)|"(?:\\[^]|[^"\\])*(?:"|$)|[^\s'"\\])+/g) ?? [];
  return words.map((word) =>
    [...word.matchAll(/\\([^])|'((?:\\[^]|[^'\\])*)'?|"((?:\\[^]|[^"\\])*)"?|[^\\]/g)]
      .map(([whole, escaped, single, double]) => escaped ?? (single ?? double)?.replaceAll(/\\([^])/g, '$1') ?? whole)
      .join(''),
  );
}
