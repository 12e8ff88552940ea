import { versionText } from '../config/version.js';
import { type ErrorCode, OverlayError, describeError } from '../errors.js';
import { escapeBlock, oneLine } from '../printable.js';
import { type GivenRequest, type Invocation, completeRequest, parseInvocation } from './arguments.js';
import {
  type Command,
  type CtlContext,
  type CtlHost,
  EXIT,
  type ExitCode,
  HOST_FLAGS,
  STORE_FLAGS,
  type TextSink,
} from './command.js';
import { explain, explainGroup, overview } from './help.js';
import { type FoundSettings, findSettings } from './settings.js';

/** Errors that end with something else than `failed`. */
const EXIT_BY_ERROR: Readonly<Partial<Record<ErrorCode, ExitCode>>> = {
  ERR_FLAG: EXIT.usage,
  ERR_ETCD_ENDPOINT: EXIT.usage,
  ERR_IP_SYNTAX: EXIT.usage,
  ERR_ETCD_UNAVAILABLE: EXIT.unreachable,
  ERR_DAEMON_UNREACHABLE: EXIT.unreachable,
  ERR_DAEMON_RUNNING: EXIT.refused,
};

/**
 * Runs `tsflannelctl`.
 *
 * @param argv - without the program's name.
 * @returns the exit code; every error has been told on standard error.
 */
export async function runCtl(commands: readonly Command[], argv: readonly string[], host: CtlHost): Promise<ExitCode> {
  const context = contextOf(host);
  try {
    return await carryOut(parseInvocation(commands, argv, context.environment), commands, context);
  } catch (error) {
    if (context.signal.aborted) return EXIT.failed;
    tellError(error, argv, context);
    return (error instanceof OverlayError ? EXIT_BY_ERROR[error.code] : undefined) ?? EXIT.failed;
  }
}

/** Everything that is printed goes through here, so no command has to think of what a value may hold. */
function contextOf(host: CtlHost): CtlContext {
  const { stdout, stderr, ...rest } = host;
  const sink = (write: (text: string) => void): TextSink => ({
    line: (text) => write(`${oneLine(text)}\n`),
    block: (text) => write(escapeBlock(text)),
  });
  return {
    ...rest,
    settings: undefined,
    confirm: (question) => host.confirm(oneLine(question)),
    out: sink(stdout),
    err: sink(stderr),
  };
}

async function carryOut(invocation: Invocation, commands: readonly Command[], context: CtlContext): Promise<ExitCode> {
  switch (invocation.kind) {
    case 'version':
      context.out.line(versionText());
      return EXIT.ok;
    case 'help':
      context.out.block(helpText(invocation.commands, commands));
      return EXIT.ok;
    case 'raw':
      return invocation.command.run(context, {
        operands: invocation.argv,
        options: { json: false, verbose: false },
      });
    case 'run':
      return runCommand(invocation, context);
  }
}

async function runCommand(given: GivenRequest, context: CtlContext): Promise<ExitCode> {
  const { command } = given;
  const wanted = new Set(Object.keys(command.flags).filter((name) => SHARED_FLAGS.has(name)));
  if (wanted.size === 0) return command.run(context, completeRequest(given));
  const { environmentFile, signal } = context;
  const settings = await findSettings({ wanted, given: given.given, environmentFile, signal });
  const request = completeRequest(given, settings.flags, settings.origin);
  if (!request.options.json) for (const note of settings.notes) context.err.line(`tsflannelctl: ${note}`);
  if (request.options.verbose) context.err.line(`tsflannelctl: ${describeSettings(settings, command)}`);
  return command.run({ ...context, settings }, request);
}

/** Flags that the daemon has too: it knows better than their defaults. */
const SHARED_FLAGS: ReadonlySet<string> = new Set(Object.keys({ ...STORE_FLAGS, ...HOST_FLAGS, 'state-dir': true }));

function describeSettings({ flags, origin }: FoundSettings, { flags: known }: Command): string {
  const texts = [...flags].map(([name, text]) => ` --${name}=${known[name]?.show(text) ?? ''}`);
  return texts.length === 0 ? origin : `${origin}:${texts.join('')}`;
}

function helpText(about: readonly Command[], all: readonly Command[]): string {
  const [command] = about;
  if (about.length === all.length || command === undefined) return overview(all);
  return about.length === 1 ? explain(command) : explainGroup(about);
}

function tellError(error: unknown, argv: readonly string[], context: CtlContext): void {
  if (!argv.some((word) => /^--?json(?:=|$)/.test(word))) {
    context.err.line(`tsflannelctl: ${describeError(error)}`);
    return;
  }
  const known = error instanceof OverlayError ? error : undefined;
  const document = {
    code: known?.code ?? null,
    message: known?.message ?? describeError(error),
    hint: known?.hint ?? null,
  };
  context.err.block(`${JSON.stringify({ error: document })}\n`);
}
