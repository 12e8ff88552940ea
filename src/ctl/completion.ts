import { COMMON_FLAGS, type Command, type FlagTable, defineCommand, EXIT, printJson } from './command.js';

/** Shells that completion can be made for. */
const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** `completion bash|zsh|fish`; takes the table that it is itself part of. */
export function completionCommand(commands: () => readonly Command[]): Command {
  return defineCommand({
    name: 'completion',
    summary: 'Print a completion script for a shell',
    description:
      'Bash: source <(tsflannelctl completion bash). Zsh: source it behind compinit. Fish: tsflannelctl completion fish | source.',
    operands: [{ name: 'SHELL', isOptional: false, help: SHELLS.join(', '), values: SHELLS }],
    flags: {},
    exits: [],
    run(context, { operands, options }) {
      const shell = SHELLS.find((each) => each === operands[0]) ?? 'bash';
      const script = COMPLETIONS[shell](commands());
      if (options.json) printJson(context, { shell, script });
      else context.out.block(script);
      return Promise.resolve(EXIT.ok);
    },
  });
}

/** One case of the script for each command. */
interface Case {
  readonly name: string;
  readonly flags: readonly string[];
  readonly words: readonly string[];
  readonly hasFile: boolean;
}

function casesOf(commands: readonly Command[]): readonly Case[] {
  return commands.map(({ name, flags, operands, isRaw }) => ({
    name,
    flags: isRaw === true ? [] : Object.keys({ ...flags, ...COMMON_FLAGS }).map((flag) => `--${flag}`),
    words: operands.flatMap(({ values }) => (typeof values === 'object' ? values : [])),
    hasFile: isRaw === true || operands.some(({ values }) => values === 'file'),
  }));
}

/** Flags whose value is a file. */
function fileFlags(commands: readonly Command[]): readonly string[] {
  const all = commands.flatMap(({ flags }) => Object.entries(flags));
  const names = all.filter(([, { placeholder }]) => placeholder === 'FILE' || placeholder === 'DIRECTORY');
  return [...new Set(names.map(([name]) => `--${name}`))];
}

function valueFlags(commands: readonly Command[]): readonly string[] {
  const all = commands.flatMap(({ flags }) => Object.entries(flags));
  return [...new Set(all.filter(([, { placeholder }]) => placeholder !== undefined).map(([name]) => `--${name}`))];
}

function groupsOf(commands: readonly Command[]): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  for (const { name } of commands) {
    const [first = '', second] = name.split(' ');
    groups.set(first, [...(groups.get(first) ?? []), ...(second === undefined ? [] : [second])]);
  }
  return groups;
}

/** The script for bash. */
export function bashCompletion(commands: readonly Command[]): string {
  const groups = groupsOf(commands);
  const first = [...groups.keys(), 'help', 'version'];
  return `# Completion of tsflannelctl for bash.
_tsflannelctl() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} word words=() isValue=
  COMPREPLY=()
  case $previous in
    ${fileFlags(commands).join('|')}) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [ -n "$isValue" ]; then isValue=; continue; fi
    case $word in
      ${valueFlags(commands).join('|')}) isValue=yes ;;
      -*) ;;
      *) words+=("$word") ;;
    esac
  done
  if [ "\${words[0]}" = help ]; then words=("\${words[@]:1}"); fi
  case "\${words[*]}" in
    '') COMPREPLY=($(compgen -W '${first.join(' ')}' -- "$current")) ;;
${[...groups]
  .filter(([, seconds]) => seconds.length > 0)
  .map(([group, seconds]) => `    ${group}) COMPREPLY=($(compgen -W '${seconds.join(' ')}' -- "$current")) ;;`)
  .join('\n')}
${casesOf(commands)
  .map(({ name, flags, words, hasFile }) => {
    const plain = hasFile ? 'compgen -f' : `compgen -W '${words.join(' ')}'`;
    const offer = `if [[ $current == -* ]]; then COMPREPLY=($(compgen -W '${flags.join(' ')}' -- "$current")); else COMPREPLY=($(${plain} -- "$current")); fi`;
    return `    '${name}'*) ${offer} ;;`;
  })
  .join('\n')}
  esac
}
complete -F _tsflannelctl tsflannelctl
`;
}

/** The script for zsh. */
export function zshCompletion(commands: readonly Command[]): string {
  const groups = groupsOf(commands);
  const first = [...groups.keys(), 'help', 'version'];
  return `#compdef tsflannelctl
# Completion of tsflannelctl for zsh.
_tsflannelctl() {
  local word isValue=
  local -a found
  case \${words[CURRENT-1]} in
    ${fileFlags(commands).join('|')}) _files; return ;;
  esac
  for word in "\${(@)words[2,CURRENT-1]}"; do
    if [[ -n $isValue ]]; then isValue=; continue; fi
    case $word in
      ${valueFlags(commands).join('|')}) isValue=yes ;;
      -*) ;;
      *) found+=("$word") ;;
    esac
  done
  if [[ \${found[1]} == help ]]; then shift found; fi
  case "\${found[*]}" in
    '') compadd -- ${first.join(' ')} ;;
${[...groups]
  .filter(([, seconds]) => seconds.length > 0)
  .map(([group, seconds]) => `    ${group}) compadd -- ${seconds.join(' ')} ;;`)
  .join('\n')}
${casesOf(commands)
  .map(({ name, flags, words, hasFile }) => {
    const plain = hasFile ? '_files' : words.length > 0 ? `compadd -- ${words.join(' ')}` : ':';
    const flagged = flags.length > 0 ? `compadd -- ${flags.join(' ')}` : ':';
    return `    '${name}'*) if [[ \${words[CURRENT]} == -* ]]; then ${flagged}; else ${plain}; fi ;;`;
  })
  .join('\n')}
  esac
}
if [[ $funcstack[1] == _tsflannelctl ]]; then _tsflannelctl "$@"; else compdef _tsflannelctl tsflannelctl; fi
`;
}

/** The script for fish. */
export function fishCompletion(commands: readonly Command[]): string {
  const offer = (places: readonly string[], what: string): string =>
    `complete -c tsflannelctl -n ${quoted(`__tsflannelctl_at ${places.map(quoted).join(' ')}`)} ${what}`;
  const first = [...groupsOf(commands).keys(), 'help', 'version'];
  const seconds = commands.flatMap(({ name, summary }) => {
    const [group = '', second] = name.split(' ');
    return second === undefined ? [] : [offer([group], `-a ${second} -d ${quoted(summary)}`)];
  });
  return `# Completion of tsflannelctl for fish.
function __tsflannelctl_at
  set -l words
  set -l is_value
  for word in (commandline -opc)[2..-1]
    if test -n "$is_value"
      set is_value
      continue
    end
    switch $word
      case ${valueFlags(commands).join(' ')}
        set is_value yes
      case '-*'
      case '*'
        set -a words $word
    end
  end
  if test "$words[1]" = help
    set -e words[1]
  end
  for place in $argv
    string match -q -- $place "$words"; and return 0
  end
  return 1
end
complete -c tsflannelctl -f
${offer([''], `-a ${quoted(first.join(' '))}`)}
${seconds.join('\n')}
${commands.flatMap((command) => fishLines(command, offer)).join('\n')}
`;
}

function fishLines(
  { name, flags, operands, isRaw }: Command,
  offer: (places: readonly string[], what: string) => string,
): readonly string[] {
  const places = [name, `${name} *`];
  const all: FlagTable = isRaw === true ? {} : { ...flags, ...COMMON_FLAGS };
  const words = operands.flatMap(({ values }) => (typeof values === 'object' ? values : []));
  const hasFile = isRaw === true || operands.some(({ values }) => values === 'file');
  return [
    ...(words.length > 0 ? [offer(places, `-a ${quoted(words.join(' '))}`)] : []),
    ...(hasFile ? [offer(places, '-F')] : []),
    ...Object.entries(all).map(([flag, { placeholder, help }]) => {
      const value =
        placeholder === undefined ? '' : placeholder === 'FILE' || placeholder === 'DIRECTORY' ? ' -r -F' : ' -x';
      return offer(places, `-l ${flag}${value} -d ${quoted(help)}`);
    }),
  ];
}

function quoted(text: string): string {
  return `'${text.replaceAll(/['\\]/g, '\\$&')}'`;
}

const COMPLETIONS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;
