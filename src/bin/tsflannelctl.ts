#!/usr/bin/env node
import { createInterface } from 'node:readline/promises';
import { text } from 'node:stream/consumers';
import { systemClock } from '../clock.js';
import { EXIT } from '../ctl/command.js';
import { COMMANDS } from '../ctl/commands.js';
import { runCtl } from '../ctl/main.js';
import { storeOptionsOf } from '../etcd/store-options.js';
import { EtcdStore } from '../etcd/store.js';
import { silentLogger } from '../log.js';
import { oneLine } from '../printable.js';
import { DEFECT_HINT, guardProcess, withStack } from '../process-guard.js';

guardProcess((error) => process.stderr.write(`${oneLine(`tsflannelctl: ${withStack(error)}; ${DEFECT_HINT}`)}\n`));

/** Clears the screen and goes to its upper left corner (ECMA-48: CUP, ED 2). */
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** Goes back to the beginning of the line and clears it (ECMA-48: EL). */
const CLEAR_LINE = '\r\u001b[K';

/** For a command that heeds the signal to say what it has left; whatever else goes on is cut off. */
const LAST_WORDS_MS = 250;

const interruption = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => {
    interruption.abort(new Error(`ended by ${name}`));
    setTimeout(() => process.exit(EXIT.failed), LAST_WORDS_MS);
  });
}
// A reader such as `head` that has seen enough is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

void runCtl(COMMANDS, process.argv.slice(2), {
  stdout: (line) => process.stdout.write(line),
  stderr: (line) => process.stderr.write(line),
  environment: process.env,
  environmentFile: '/etc/default/tsflanneld',
  clock: systemClock,
  signal: interruption.signal,
  clearScreen: process.stdout.isTTY ? () => process.stdout.write(CLEAR_SCREEN) : undefined,
  showProgress: process.stderr.isTTY ? (line) => process.stderr.write(CLEAR_LINE + oneLine(line)) : undefined,
  readInput: () => text(process.stdin),
  confirm: async (question) => {
    if (!process.stdin.isTTY) return undefined;
    const dialogue = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return /^y(?:es)?$/i.test(
        (await dialogue.question(`${question} [y/N] `, { signal: interruption.signal })).trim(),
      );
    } finally {
      dialogue.close();
    }
  },
  openStore: (options) => new EtcdStore({ ...storeOptionsOf(options), log: silentLogger }),
}).then((code) => {
  // Connections that still look for a peer that does not answer (134 s for a TCP handshake) would keep the process.
  process.stdout.write('', () => process.exit(code));
});
