import { textFlag } from '../config/flag-values.js';
import { PLUGIN_SOCKET } from '../docker/plugin/server.js';
import { OverlayError, isOverlayError } from '../errors.js';
import type { FlagTable } from './command.js';
import { askSocket } from './daemon-client.js';

/** Where the plugin is asked. */
export const PLUGIN_FLAGS = {
  'plugin-socket': textFlag(PLUGIN_SOCKET, {
    group: 'containers',
    placeholder: 'FILE',
    help: 'Unix socket on which the daemon serves networks of containers.',
  }),
} as const satisfies FlagTable;

/** The plugin itself answers within 9 s. */
const DEADLINE_MS = 12_000;

/** Asks the daemon's plugin for what Docker would ask it for. */
export class PluginClient {
  constructor(
    private readonly socket: string,
    private readonly signal: AbortSignal,
  ) {}

  /**
   * Carries out a method, such as `IpamDriver.RequestPool`.
   *
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK` with the plugin's own words, `ERR_DAEMON_UNREACHABLE`
   */
  async call(method: string, body: object): Promise<Readonly<Record<string, unknown>>> {
    const answer = await this.ask(method, JSON.stringify(body));
    const failure = answer['Err'] ?? answer['Error'];
    if (typeof failure === 'string' && failure !== '') throw new OverlayError('ERR_CONTAINER_NETWORK', failure);
    return answer;
  }

  /** Likewise, with one field of the answer, which has to be a text. */
  async callFor(method: string, body: object, field: string): Promise<string> {
    const value = (await this.call(method, body))[field];
    if (typeof value === 'string') return value;
    throw this.unreachable(`its answer to ${method} has no ${field}`);
  }

  private async ask(method: string, body: string): Promise<Readonly<Record<string, unknown>>> {
    const request = { method: 'POST', path: `/${method}`, body, deadlineMs: DEADLINE_MS } as const;
    try {
      const value: unknown = JSON.parse(await askSocket(this.socket, request, this.signal));
      if (typeof value === 'object' && value !== null) return value as Readonly<Record<string, unknown>>;
    } catch (cause) {
      if (isOverlayError(cause, 'ERR_DAEMON_UNREACHABLE')) throw this.unreachable(cause.message, cause);
      if (!(cause instanceof SyntaxError)) throw cause;
    }
    throw this.unreachable('its answer is not understood');
  }

  private unreachable(why: string, cause?: unknown): OverlayError {
    return new OverlayError('ERR_DAEMON_UNREACHABLE', `cannot ask the plugin at ${this.socket}: ${why}`, {
      cause,
      hint: 'start tsflanneld with --docker-plugin or its socket unit, or give its --plugin-socket',
    });
  }
}
