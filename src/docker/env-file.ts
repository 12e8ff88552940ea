/**
 * Reads lines `NAME=value` as the libraries called "dotenv" do: comments, blank lines, `export `, quotes and
 * `NAME: value` are understood; other lines are skipped. Of several lines for one name the last one counts.
 */
export function parseEnvFile(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split(/\r\n|[\r\n]/)) {
    const { name, rest } = /^\s*(?:export\s+)?(?<name>[A-Za-z_]\w*)\s*[=:](?<rest>.*)$/s.exec(line)?.groups ?? {};
    if (name !== undefined && rest !== undefined) values.set(name, unquote(rest.trim()));
  }
  return values;
}

function unquote(text: string): string {
  const quoted = /^"((?:[^"\\]|\\.)*)"|^'([^']*)'/.exec(text);
  if (quoted !== null) return quoted[1]?.replaceAll(/\\(.)/g, '$1') ?? quoted[2] ?? '';
  return text.replace(/(?:^|\s+)#.*$/, '');
}
