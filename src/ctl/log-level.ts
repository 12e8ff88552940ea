import { LOG_LEVELS, parseLogLevel } from '../log-level.js';
import { defineCommand, EXIT, HOST_FLAGS, printJson } from './command.js';
import { daemonLogLevel } from './daemon-client.js';

/** `log-level [LEVEL]` */
export const logLevel = defineCommand({
  name: 'log-level',
  summary: 'Show or change how much the daemon on this host logs',
  description: 'Holds until the daemon ends; --log-level of the daemon holds for longer.',
  operands: [{ name: 'LEVEL', isOptional: true, help: `One of ${LOG_LEVELS.join(', ')}.`, values: LOG_LEVELS }],
  flags: { 'status-socket': HOST_FLAGS['status-socket'] },
  exits: ['unreachable'],
  async run(context, { operands: [word], options }) {
    // The parser lets only these words through.
    const wanted = word === undefined ? undefined : parseLogLevel(word);
    const level = await daemonLogLevel(options.statusSocket, wanted, context.signal);
    if (options.json) printJson(context, { level });
    else context.out.line(level);
    return EXIT.ok;
  },
});
