/** Variables that commands can be told; what is not known, such as IPv6 in an IPv4 network, is empty. */
export const COMMAND_VARIABLES = ['NETWORK', 'SUBNET', 'IPV6SUBNET', 'PUBLIC_IP', 'PUBLIC_IPV6'] as const;

/** One of {@link COMMAND_VARIABLES}. */
export type CommandVariable = (typeof COMMAND_VARIABLES)[number];

/**
 * What stands in each variable.
 *
 * @remarks Always text that this program has made of an address or a prefix: nothing in it means anything to a shell,
 * so that not even a command that puts one into the text of a shell can be made to do something else by another host.
 */
export type CommandValues = Readonly<Partial<Record<CommandVariable, string>>>;

/** A piece of a word: text as it is, or a variable that is put in its place. */
type WordPart = { readonly text: string } | { readonly variable: CommandVariable };

interface CommandWord {
  readonly parts: readonly WordPart[];
  /** Whether it is a word even if there is nothing in it. */
  readonly isQuoted: boolean;
}

/** A command that has been read, without what its variables stand for. */
export type CommandWords = readonly CommandWord[];

/** Why a text is no command that can be run, for {@link readCommand}. */
export interface CommandFault {
  /** As the end of a sentence: *it has …*. */
  readonly fault: string;
  readonly hint: string;
}

/** What separates commands, redirects, starts others, or stands for names of files; all of it only in a shell. */
const SHELL_CHARACTERS = new Set('|&;<>()`*?[\n');

/** What the shell does itself: there are no programs of that name. */
const SHELL_WORDS = new Set(
  ['.', ':', '!', '{', 'case', 'cd', 'eval', 'exec', 'export', 'for', 'if', 'read', 'set', 'source'].concat(
    ...['trap', 'ulimit', 'umask', 'unset', 'until', 'wait', 'while'],
  ),
);

/** The text as one word of a shell, whatever is in it (POSIX XCU 2.2.2). */
export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/**
 * Takes a command apart into words by the rules that a shell has for blanks, quotes, backslashes and variables, and
 * refuses everything else that a shell would act on.
 *
 * @remarks A program is run with these words as they are, so that whatever a variable stands for stays one word.
 * flannel ran the text through `sh -c` up to 0.28.1; since 0.28.2 it cuts it at blanks, quotes or not, and puts in
 * variables. A text that is read here without quotes and backslashes means the same to all of them.
 */
export function readCommand(text: string, variables: readonly CommandVariable[]): CommandWords | CommandFault {
  const reader = new CommandReader(text.trim(), variables);
  try {
    const words = reader.read();
    const name = words[0]?.parts.map((part) => ('text' in part ? part.text : '')).join('') ?? '';
    if (SHELL_WORDS.has(name)) return needsShell(text, `"${name}", which only a shell knows`);
    if (/^\w+=/.test(name)) return needsShell(text, `an assignment, which only a shell knows`);
    return words;
  } catch (error) {
    if (error instanceof Unreadable) return error.fault;
    throw error;
  }
}

/** The words of a command with its variables put in: the program and its arguments. */
export function fillIn(words: CommandWords, values: CommandValues): readonly string[] {
  return words.flatMap(({ parts, isQuoted }) => {
    const word = parts.map((part) => ('text' in part ? part.text : (values[part.variable] ?? ''))).join('');
    return word === '' && !isQuoted ? [] : [word];
  });
}

/** Whether {@link readCommand} has refused the text. */
export function isFault(read: CommandWords | CommandFault): read is CommandFault {
  return 'fault' in read;
}

class Unreadable extends Error {
  constructor(readonly fault: CommandFault) {
    super(fault.fault);
  }
}

function needsShell(text: string, what: string): CommandFault {
  return {
    fault: `it has ${what}, and commands are run without a shell`,
    hint: `write ${JSON.stringify(`sh -c ${shellQuoted(text.trim())}`)}`,
  };
}

/** Reads one text from its beginning to its end. */
class CommandReader {
  private at = 0;
  private words: CommandWord[] = [];
  private parts: WordPart[] = [];
  private isQuoted = false;

  constructor(
    private readonly text: string,
    private readonly variables: readonly CommandVariable[],
  ) {}

  read(): CommandWords {
    while (this.at < this.text.length) {
      const character = this.text[this.at] ?? '';
      if (character === ' ' || character === '\t') this.endWord();
      else if (character === "'") this.addSingleQuoted();
      else if (character === '"') this.addDoubleQuoted();
      else if (character === '\\') this.addEscaped();
      else if (character === '$') this.addVariable();
      else this.addPlain(character);
      this.at++;
    }
    this.endWord();
    return this.words;
  }

  private addPlain(character: string): void {
    if (SHELL_CHARACTERS.has(character)) throw this.shellOnly(character);
    const isFirst = this.parts.length === 0 && !this.isQuoted;
    if (isFirst && (character === '~' || character === '#')) throw this.shellOnly(character);
    this.add(character);
  }

  private addEscaped(): void {
    this.at++;
    this.add(this.text[this.at] ?? '\\');
    this.isQuoted = true;
  }

  private addSingleQuoted(): void {
    const end = this.text.indexOf("'", this.at + 1);
    if (end === -1) throw unclosed("'");
    this.add(this.text.slice(this.at + 1, end));
    this.isQuoted = true;
    this.at = end;
  }

  private addDoubleQuoted(): void {
    this.isQuoted = true;
    for (this.at++; this.text[this.at] !== '"'; this.at++) {
      const character = this.text[this.at];
      const next = this.text[this.at + 1] ?? '';
      if (character === undefined) throw unclosed('"');
      if (character === '`') throw this.shellOnly(character);
      if (character === '$') this.addVariable();
      else if (character === '\\' && '$`"\\'.includes(next)) this.add(this.text[++this.at] ?? '');
      else this.add(character);
    }
  }

  /** `$NAME` or `${NAME}`; a dollar before anything else that is no name stands for itself, as in a shell. */
  private addVariable(): void {
    const rest = this.text.slice(this.at + 1);
    if (/^(?:[ \t"]|$)/.test(rest)) {
      this.add('$');
      return;
    }
    const [whole, braced, plain] = /^(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/.exec(rest) ?? [];
    const name = braced ?? plain;
    if (whole === undefined || name === undefined) throw this.shellOnly(`$${rest.slice(0, 1)}`);
    const variable = this.variables.find((each) => each === name);
    if (variable === undefined) {
      const known = this.variables.map((each) => `$${each}`).join(', ') || 'none';
      const quoted = JSON.stringify(`sh -c ${shellQuoted(this.text)}`);
      throw new Unreadable({
        fault: `it names $${name}, which it is not told`,
        hint: `it is told ${known}; for other variables of the daemon write ${quoted}`,
      });
    }
    this.parts.push({ variable });
    this.at += whole.length;
  }

  private add(text: string): void {
    this.parts.push({ text });
  }

  private endWord(): void {
    if (this.parts.length > 0 || this.isQuoted) this.words.push({ parts: this.parts, isQuoted: this.isQuoted });
    this.parts = [];
    this.isQuoted = false;
  }

  private shellOnly(what: string): Unreadable {
    return new Unreadable(needsShell(this.text, JSON.stringify(what)));
  }
}

function unclosed(quote: string): Unreadable {
  return new Unreadable({ fault: `a quote ${quote} in it is not closed`, hint: 'close it' });
}
