import { OverlayError } from '../errors.js';
import type { CommandResult, RunCommand } from '../sys/command.js';

/** A program that has to succeed. */
export interface CommandRequest {
  readonly program: string;
  readonly args: readonly string[];
  readonly stdin?: string;
  /** What it is to do, as in `list the rules of iptables`. */
  readonly task: string;
  /** What to install if it is missing. */
  readonly packageName: string;
}

/**
 * Runs a program that has to succeed.
 *
 * @throws {@link OverlayError} `ERR_FIREWALL` with what the program said, or with the package it comes in.
 */
export async function runChecked(run: RunCommand, request: CommandRequest): Promise<CommandResult> {
  return checkResult(await run(request.program, request.args, request.stdin), request);
}

/**
 * The result of a program, if it succeeded.
 *
 * @throws {@link OverlayError} `ERR_FIREWALL`, as {@link runChecked}.
 */
export function checkResult(result: CommandResult | undefined, request: CommandRequest): CommandResult {
  const { program, task, packageName } = request;
  if (result === undefined) {
    throw new OverlayError('ERR_FIREWALL', `cannot ${task}: there is no program ${program}`, {
      hint: `install the package ${packageName}`,
    });
  }
  if (result.exitCode !== 0) {
    const said = result.stderr.trim().replaceAll(/\s*\n\s*/g, ' | ') || 'no message';
    throw new OverlayError('ERR_FIREWALL', `cannot ${task}: ${program} ended with ${result.exitCode}: ${said}`, {
      isRetryable: true,
    });
  }
  return result;
}
