#!/usr/bin/env node
import path from 'node:path';
import { runDockerOpts } from '../docker/run-docker-opts.js';
import { escapeBlock, oneLine } from '../printable.js';
import { DEFECT_HINT, guardProcess, withStack } from '../process-guard.js';

guardProcess((error) => process.stderr.write(`${oneLine(`mk-docker-opts: ${withStack(error)}; ${DEFECT_HINT}`)}\n`));

process.exitCode = runDockerOpts(process.argv.slice(2), {
  program: path.basename(process.argv[1] ?? 'mk-docker-opts', '.js'),
  environment: process.env,
  stderr: (text) => process.stderr.write(escapeBlock(text)),
});
