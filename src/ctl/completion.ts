import { COMMON_FLAGS, type Command, defineCommand, EXIT, printJson } from './command.js';

/** Shells that completion can be made for. */
export const SHELLS = ['bash', 'zsh'] as const;

/** `completion bash|zsh`; takes the table that it is itself part of. */
export function completionCommand(commands: () => readonly Command[]): Command {
  return defineCommand({
    name: 'completion',
    summary: 'Print a completion script for a shell',
    description: 'Bash: source <(tsflannelctl completion bash). Zsh: source it behind compinit.',
    operands: [{ name: 'SHELL', isOptional: false, help: SHELLS.join(' or '), values: SHELLS }],
    flags: {},
    exits: [],
    run(context, { operands, options }) {
      const script = operands[0] === 'zsh' ? zshCompletion(commands()) : bashCompletion(commands());
      if (options.json) printJson(context, { shell: operands[0], script });
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
