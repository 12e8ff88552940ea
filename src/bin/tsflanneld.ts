#!/usr/bin/env node
import { systemClock } from '../clock.js';
import { describeOptions, logLevelOf, parseCommandLine } from '../config/flags.js';
import { formatHelp } from '../config/help.js';
import { versionText } from '../config/version.js';
import { Daemon } from '../daemon.js';
import { requirePrivileges } from '../daemon/privileges.js';
import { systemParts } from '../daemon/system-parts.js';
import { describeError } from '../errors.js';
import { createLogger } from '../log.js';
import { oneLine } from '../printable.js';

const USAGE_ERROR = 2;

/** Columns of the help in a pipe or file. */
const PLAIN_WIDTH = 80;

async function main(): Promise<number> {
  const commandLine = readCommandLine();
  if (typeof commandLine === 'number') return commandLine;
  const { options, warnings } = commandLine;
  const log = createLogger({ format: options.logFormat, level: logLevelOf(options) });
  log.info('tsflanneld starts', { detail: versionText() });
  log.debug('options', { detail: JSON.stringify(describeOptions(options)) });
  for (const detail of warnings) log.warn('option without effect', { detail });

  const stopRequested = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  try {
    requirePrivileges();
    const { env: environment, pid } = process;
    const parts = await systemParts(options, { log, clock: systemClock, environment, pid });
    const daemon = new Daemon(options, parts);
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
    process.stderr.write(`${oneLine(`tsflanneld: ${describeError(error)}`)}\n`);
    return USAGE_ERROR;
  }
}

process.exitCode = await main();
