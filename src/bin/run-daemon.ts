import { hostname } from 'node:os';
import { systemClock } from '../clock.js';
import { describeOptions, logLevelOf, parseCommandLine } from '../config/flags.js';
import { formatHelp } from '../config/help.js';
import { versionText } from '../config/version.js';
import { Daemon } from '../daemon.js';
import { lockStateDirectory } from '../daemon/state-lock.js';
import { systemParts } from '../daemon/system-parts.js';
import { describeError } from '../errors.js';
import { createLogger } from '../log.js';
import { DEFECT_HINT, guardProcess, withStack } from '../process-guard.js';
import { requirePrivileges } from '../sys/privileges.js';
import { errorLine, isJournal } from '../systemd/journal.js';

const USAGE_ERROR = 2;

/** Columns of the help in a pipe or file. */
const PLAIN_WIDTH = 80;

/**
 * Runs the daemon until a signal ends it.
 *
 * @param capabilityProblem - why the process has more rights than it needs, if that could not be helped.
 * @returns the exit code; every error has been told on standard error.
 */
export async function runDaemon(capabilityProblem: string | undefined): Promise<number> {
  const commandLine = readCommandLine();
  if (typeof commandLine === 'number') return commandLine;
  const { options, warnings } = commandLine;
  const log = createLogger({
    format: options.logFormat,
    level: logLevelOf(options),
    isJournal: isJournal(process.env),
    host: hostname(),
    pid: process.pid,
  });
  guardProcess((error) =>
    log.error('ended by an error that nothing expected', { detail: withStack(error), hint: DEFECT_HINT }),
  );
  log.info('tsflanneld starts', { detail: versionText() });
  log.debug('options', { detail: JSON.stringify(describeOptions(options)) });
  for (const detail of warnings) log.warn('option without effect', { detail });
  if (capabilityProblem !== undefined) {
    log.warn('more capabilities than needed', {
      detail: capabilityProblem,
      hint: 'start it by its systemd unit, or with CAP_SETPCAP',
    });
  }

  const stopRequested = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  try {
    requirePrivileges();
    const { env: environment, pid } = process;
    await lockStateDirectory(options.stateDir, log); // until the process ends
    const daemon = new Daemon(options, await systemParts(options, { log, clock: systemClock, environment, pid }));
    const failed = daemon.start().then(
      () => new Promise<never>(() => {}),
      async (error: unknown) => {
        await daemon.stop();
        throw error;
      },
    );
    const signal = await Promise.race([stopRequested, failed]);
    log.info('stopping, the lease and kernel state stay', { detail: signal });
    await daemon.stop();
    log.info('stopped');
    return 0;
  } catch (error) {
    log.error('cannot start', { error });
    return 1;
  }
}

/** Options to run with, or the exit code. */
function readCommandLine(): Extract<ReturnType<typeof parseCommandLine>, { kind: 'run' }> | number {
  try {
    const commandLine = parseCommandLine(process.argv.slice(2), process.env);
    switch (commandLine.kind) {
      case 'help':
        process.stderr.write(
          formatHelp({ program: 'tsflanneld', width: process.stderr.isTTY ? process.stderr.columns : PLAIN_WIDTH }),
        );
        return 0;
      case 'version':
        process.stderr.write(`${versionText()}\n`);
        return 0;
      case 'run':
        return commandLine;
    }
  } catch (error) {
    process.stderr.write(errorLine(describeError(error)));
    return USAGE_ERROR;
  }
}
