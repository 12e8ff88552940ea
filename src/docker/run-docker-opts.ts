import { readFileSync, writeFileSync } from 'node:fs';
import { describeError } from '../errors.js';
import { dockerOptsUsage, formatDockerOpts, isRoutedVia, parseDockerOptsArguments } from './docker-opts.js';
import { parseEnvFile } from './env-file.js';

/**
 * Does what `mk-docker-opts` does.
 *
 * @param program - name for the usage text.
 * @returns the exit code: 1 for the usage, for what cannot be read or written, and for a subnet that is routed through
 * a gateway, after the file has been written, as flannel's script does.
 */
export function runDockerOpts(
  argv: readonly string[],
  options: {
    readonly program: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
    readonly stderr: (text: string) => void;
  },
): 0 | 1 {
  const { program, environment, stderr } = options;
  const request = parseDockerOptsArguments(argv);
  if (request === undefined) {
    stderr(dockerOptsUsage(program));
    return 1;
  }
  try {
    const flannelEnv = readIfThere(request.flannelEnvFile);
    // Written in place, as the script does: Docker's unit may have the file mounted or linked.
    writeFileSync(request.dockerEnvFile, formatDockerOpts(request, flannelEnv, environment));
    const subnet = parseEnvFile(flannelEnv).get('FLANNEL_SUBNET') ?? environment['FLANNEL_SUBNET'] ?? '';
    if (!isRoutedVia(subnet, readIfThere('/proc/net/route'))) return 0;
    stderr(
      `mk-docker-opts: ${subnet} is routed through a gateway, so Docker's bridge would get no packets; ` +
        'remove that route, then run this again\n',
    );
  } catch (error) {
    stderr(`mk-docker-opts: ${describeError(error)}\n`);
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
