/** One assignment in a unit file or drop-in of systemd. */
export interface UnitSetting {
  /** Where it stands. */
  readonly file: string;
  readonly key: string;
  readonly value: string;
}

/**
 * The assignments below `[Service]`, in their order.
 *
 * @see systemd.syntax(7): `\` at the end joins lines, comments in between are left out.
 */
export function serviceSettings(file: string, text: string): readonly UnitSetting[] {
  const lines = text
    .split('\n')
    .filter((line) => !/^\s*[#;]/.test(line))
    .join('\n')
    .replaceAll('\\\n', ' ')
    .split('\n');
  const settings: UnitSetting[] = [];
  let section = '';
  for (const line of lines) {
    section = /^\s*\[([^\]]*)\]\s*$/.exec(line)?.[1] ?? section;
    const [, key, value] = /^\s*(\w+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (section === 'Service' && key !== undefined && value !== undefined) settings.push({ file, key, value });
  }
  return settings;
}

/** What counts of a setting that can be given several times: everything since the last empty one. */
export function inForce(settings: readonly UnitSetting[], key: string): readonly UnitSetting[] {
  const given = settings.filter((setting) => setting.key === key);
  return given.slice(given.findLastIndex(({ value }) => value === '') + 1);
}
