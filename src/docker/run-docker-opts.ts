import { closeSync, existsSync, fchmodSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { OverlayError, describeError } from '../errors.js';
import { errnoOf } from '../sys/errno.js';
import { refuseForeignLinks } from '../sys/safe-path.js';
import {
  type DockerOptsRequest,
  dockerOptsUsage,
  formatDockerOpts,
  isRoutedVia,
  parseDockerOptsArguments,
} from './docker-opts.js';
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
    /** Docker's own file; default where it is. */
    readonly daemonJson?: string;
  },
): 0 | 1 {
  const { program, environment, stderr } = options;
  const request = parseDockerOptsArguments(argv);
  if (request === undefined) {
    stderr(dockerOptsUsage(program));
    return 1;
  }
  try {
    const flannelEnv = readFlannelEnv(request);
    const taken = keysOf(readIfThere(options.daemonJson ?? '/etc/docker/daemon.json'));
    writeInPlace(request.dockerEnvFile, formatDockerOpts(request, flannelEnv, environment, taken));
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

/**
 * The script takes a missing file for an empty one, and makes Docker lose its subnet without a word. Here only the usual
 * file may be missing.
 *
 * @throws {@link OverlayError} `ERR_SUBNET_FILE`
 */
function readFlannelEnv({ flannelEnvFile: file, isFileNamed }: DockerOptsRequest): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const isMissing = errnoOf(cause) === 'ENOENT';
    if (isMissing && !isFileNamed) return '';
    const reason = isMissing ? 'there is no such file' : describeError(cause);
    throw new OverlayError('ERR_SUBNET_FILE', `cannot read ${file}: ${reason}`, {
      cause,
      hint: 'start tsflanneld, which writes it, or give -f the name of the file that it writes',
    });
  }
}

/** In place, as the script does: Docker's unit may have the file mounted or linked. */
function writeInPlace(file: string, text: string): void {
  refuseForeignLinks(file);
  try {
    const isNew = !existsSync(file);
    const descriptor = openSync(file, 'w', 0o644);
    try {
      // Whatever the umask says, root reads this file at the next start of Docker: nobody else may write to it.
      fchmodSync(descriptor, isNew ? 0o644 : fstatSync(descriptor).mode & 0o7755);
      writeFileSync(descriptor, text);
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    throw new OverlayError('ERR_SUBNET_FILE', `cannot write ${file}: ${describeError(cause)}`, {
      cause,
      hint: 'run this as root, or name another file with -d',
    });
  }
}

/** What Docker is configured with in daemon.json; one that cannot be read as such is Docker's to complain about. */
function keysOf(json: string): ReadonlySet<string> {
  try {
    const value: unknown = JSON.parse(json);
    return new Set(typeof value === 'object' && value !== null ? Object.keys(value) : []);
  } catch {
    return new Set();
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}
