import http from 'node:http';
import { OverlayError, describeError } from '../errors.js';
import { type DaemonStatus, STATUS_VERSION } from '../observe/status.js';

/** Collecting the status takes a daemon with 5000 peers some milliseconds; one that hangs is as good as none. */
const DEADLINE_MS = 3000;

/** Far above the status of the largest cluster; a limit against something else that listens there. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;

/**
 * What the daemon on this host tells about itself.
 *
 * @param socketPath - of its status socket.
 * @throws {@link OverlayError} `ERR_DAEMON_UNREACHABLE`; `context.isListening` tells whether something answered at all.
 */
export async function readDaemonStatus(socketPath: string, signal?: AbortSignal): Promise<DaemonStatus> {
  const body = await get(socketPath, '/status', signal);
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (cause) {
    throw unreachable(socketPath, 'its answer is not JSON', { cause, isListening: true });
  }
  const version =
    typeof value === 'object' && value !== null && 'statusVersion' in value ? value.statusVersion : undefined;
  if (version !== STATUS_VERSION) {
    throw unreachable(socketPath, `its status has version ${String(version)}, not ${STATUS_VERSION}`, {
      isListening: true,
      hint: 'use the tsflannelctl of the same release, and restart the daemon after an upgrade',
    });
  }
  // The version vouches for the rest: both sides come from the same declaration.
  return value as DaemonStatus;
}

/** Whether a process listens on the status socket, healthy or not. */
export async function isDaemonListening(socketPath: string): Promise<boolean> {
  try {
    await get(socketPath, '/status');
    return true;
  } catch (error) {
    return error instanceof OverlayError && error.context['isListening'] === true;
  }
}

function get(socketPath: string, path: string, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let isListening = false;
    const fail = (cause: unknown): void => reject(unreachable(socketPath, reasonOf(cause), { cause, isListening }));
    const options = { socketPath, path, agent: false, ...(signal === undefined ? {} : { signal }) };
    const request = http.get(options, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
        if (body.length > BODY_BYTES_MAX) request.destroy(new Error('its answer has no end'));
      });
      response.on('error', fail);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(body);
        else fail(new Error(`it answers ${path} with ${String(response.statusCode)}`));
      });
    });
    request.on('socket', (socket) => socket.on('connect', () => (isListening = true)));
    request.setTimeout(DEADLINE_MS, () => request.destroy(new Error(`no answer within ${DEADLINE_MS / 1000} s`)));
    request.on('error', fail);
  });
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'the process that made the socket is gone',
  EACCES: 'access is denied',
};

function reasonOf(cause: unknown): string {
  return REASONS[(cause as NodeJS.ErrnoException).code ?? ''] ?? describeError(cause);
}

function unreachable(
  socketPath: string,
  reason: string,
  details: { readonly cause?: unknown; readonly isListening: boolean; readonly hint?: string },
): OverlayError {
  return new OverlayError('ERR_DAEMON_UNREACHABLE', `cannot ask the daemon at ${socketPath}: ${reason}`, {
    cause: details.cause,
    context: { isListening: details.isListening },
    hint: details.hint ?? 'start it with systemctl start tsflanneld, or give its --status-socket',
  });
}
