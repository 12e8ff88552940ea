import { versionText } from '../config/version.js';
import { type ErrorCode, OverlayError, describeError } from '../errors.js';
import { escapeBlock, oneLine } from '../printable.js';
import { type Invocation, parseInvocation } from './arguments.js';
import { type Command, type CtlContext, type CtlHost, EXIT, type ExitCode, type TextSink } from './command.js';
import { explain, overview } from './help.js';

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
      context.out.block(invocation.command === undefined ? overview(commands) : explain(invocation.command));
      return EXIT.ok;
    case 'raw':
      return invocation.command.run(context, { operands: invocation.argv, options: { json: false } });
    case 'run':
      return invocation.command.run(context, invocation.request);
  }
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
