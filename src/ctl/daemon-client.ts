import http from 'node:http';
import { systemClock } from '../clock.js';
import { type DaemonSettings, SETTINGS_PATH, parseSettings } from '../config/daemon-settings.js';
import { Deadline } from '../deadline.js';
import { OverlayError, describeError, isOverlayError } from '../errors.js';
import { type LogLevel, parseLogLevel } from '../log-level.js';
import { type DaemonStatus, type PeerStatus, STATUS_VERSION } from '../observe/status.js';
import { errnoOf } from '../sys/errno.js';
import { AS_ROOT_HINT, isRefused } from './rights.js';

/** Collecting the status takes a daemon with 5000 peers some milliseconds; one that hangs is as good as none. */
const DEADLINE_MS = 3000;

/** Far above the status of the largest cluster; a limit against something else that listens there. */
const BODY_BYTES_MAX = 64 * 1024 * 1024;

/**
 * What the daemon on this host tells about itself.
 *
 * @param socketPath - of its status socket.
 * @throws {@link OverlayError} `ERR_DAEMON_UNREACHABLE`; `context.isListening` tells whether something answered at all.
 * `ERR_NOT_PRIVILEGED` if this user may not ask.
 */
export async function readDaemonStatus(socketPath: string, signal?: AbortSignal): Promise<DaemonStatus> {
  const body = await askSocket(socketPath, { path: '/status' }, signal);
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
  const status = value as DaemonStatus;
  return { ...LATER_FIELDS, ...status, peers: status.peers.map((peer) => ({ ...LATER_PEER_FIELDS, ...peer })) };
}

/** What a daemon of an earlier release does not tell; it runs on after an upgrade until it is restarted. */
const LATER_FIELDS: Pick<DaemonStatus, 'reachability' | 'containerNetworks' | 'containerReach' | 'wireguard'> = {
  reachability: null,
  wireguard: null,
  containerNetworks: null,
  containerReach: null,
};
const LATER_PEER_FIELDS: Pick<PeerStatus, 'reachability' | 'wireguard'> = { reachability: [], wireguard: [] };

/**
 * How the daemon on this host was started.
 *
 * @param socketPath - of its status socket.
 * @throws {@link OverlayError} `ERR_DAEMON_UNREACHABLE`, also where it does not tell; `ERR_NOT_PRIVILEGED`
 */
export async function readDaemonSettings(socketPath: string, signal?: AbortSignal): Promise<DaemonSettings> {
  const settings = parseSettings(await askSocket(socketPath, { path: SETTINGS_PATH }, signal));
  if (settings === undefined) throw unreachable(socketPath, 'its answer is not understood', { isListening: true });
  return settings;
}

/**
 * The level of the daemon's log, after it was set to `level` if that is given.
 *
 * @throws {@link OverlayError} `ERR_DAEMON_UNREACHABLE`
 */
export async function daemonLogLevel(
  socketPath: string,
  level: LogLevel | undefined,
  signal?: AbortSignal,
): Promise<LogLevel> {
  const body = await (level === undefined
    ? askSocket(socketPath, { path: '/log-level' }, signal)
    : askSocket(socketPath, { method: 'PUT', path: `/log-level/${level}` }, signal));
  const answer = parseLogLevel(/^\{"level":"(\w+)"\}\s*$/.exec(body)?.[1] ?? '');
  if (answer !== undefined) return answer;
  throw unreachable(socketPath, 'its answer is not a level', { isListening: true });
}

/**
 * Whether a process listens on the status socket, healthy or not.
 *
 * @throws {@link OverlayError} `ERR_NOT_PRIVILEGED` if this user may not know.
 */
export async function isDaemonListening(socketPath: string, signal?: AbortSignal): Promise<boolean> {
  try {
    await askSocket(socketPath, { path: '/status' }, signal);
    return true;
  } catch (error) {
    if (!isOverlayError(error, 'ERR_DAEMON_UNREACHABLE')) throw error;
    return error.context['isListening'] === true;
  }
}

/**
 * The body of an answer with status 200.
 *
 * @throws {@link OverlayError} as {@link readDaemonStatus}.
 */
export async function askSocket(
  socketPath: string,
  what: {
    readonly method?: 'PUT' | 'POST';
    readonly path: string;
    readonly body?: string;
    readonly deadlineMs?: number;
  },
  signal?: AbortSignal,
): Promise<string> {
  const { method, path, body: sent, deadlineMs = DEADLINE_MS } = what;
  // For all of the answer: one that drips never lets a socket's own time pass.
  const deadline = new Deadline(systemClock, deadlineMs, signal);
  let isListening = false;
  try {
    return await new Promise<string>((resolve, reject) => {
      const options = { socketPath, ...(method && { method }), path, agent: false, signal: deadline.signal };
      const request = http.request(options, (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (text: string) => {
          body += text;
          if (body.length > BODY_BYTES_MAX) request.destroy(new Error('its answer has no end'));
        });
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode === 200) resolve(body);
          else reject(new Error(`it answers ${path} with ${String(response.statusCode)}`));
        });
      });
      request.on('socket', (socket) => socket.on('connect', () => (isListening = true)));
      request.on('error', reject);
      request.end(sent);
    });
  } catch (cause) {
    signal?.throwIfAborted();
    if (isRefused(cause)) {
      throw new OverlayError('ERR_NOT_PRIVILEGED', `cannot ask the daemon at ${socketPath}: only root may`, {
        cause,
        hint: AS_ROOT_HINT,
      });
    }
    const isLate = deadline.signal.aborted;
    const reason = isLate ? `no answer within ${deadlineMs / 1000} s` : reasonOf(cause);
    throw unreachable(socketPath, reason, { cause, isListening, ...(isLate ? { hint: MUTE_HINT } : {}) });
  } finally {
    deadline.clear();
  }
}

/** It runs, so that starting it would not help. */
const MUTE_HINT = 'look at its log with journalctl -u tsflanneld; if it hangs, systemctl restart tsflanneld';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'the process that made the socket is gone',
};

function reasonOf(cause: unknown): string {
  return REASONS[errnoOf(cause) ?? ''] ?? describeError(cause);
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
