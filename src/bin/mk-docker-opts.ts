#!/usr/bin/env node
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { dockerOptsUsage, formatDockerOpts, isRoutedVia, parseDockerOptsArguments } from '../docker/docker-opts.js';
import { parseEnvFile } from '../docker/env-file.js';
import { describeError } from '../errors.js';

process.exitCode = main(process.argv.slice(2));

function main(argv: readonly string[]): number {
  const request = parseDockerOptsArguments(argv);
  if (request === undefined) {
    process.stderr.write(dockerOptsUsage(path.basename(process.argv[1] ?? 'mk-docker-opts', '.js')));
    return 1;
  }
  try {
    const flannelEnv = readIfThere(request.flannelEnvFile);
    // Written in place, as the script does: Docker's unit may have the file mounted or linked.
    writeFileSync(request.dockerEnvFile, formatDockerOpts(request, flannelEnv, process.env));
    const subnet = parseEnvFile(flannelEnv).get('FLANNEL_SUBNET') ?? process.env['FLANNEL_SUBNET'] ?? '';
    if (!isRoutedVia(subnet, readIfThere('/proc/net/route'))) return 0;
    process.stderr.write(
      `mk-docker-opts: ${subnet} is routed through a gateway, so Docker's bridge would get no packets; ` +
        'remove that route, then run this again\n',
    );
  } catch (error) {
    process.stderr.write(`mk-docker-opts: ${describeError(error)}\n`);
  }
  return 1;
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
