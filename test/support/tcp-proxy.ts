import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net';
import { waitFor } from './wait.js';

/** A TCP proxy on loopback that can misbehave as networks do. */
export class TcpProxy {
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #isCut = false;
  #isHanging = false;

  private constructor(
    private readonly server: Server,
    private readonly targetPort: number,
  ) {
    server.on('connection', (client) => this.#accept(client));
  }

  /** @param target - `http://127.0.0.1:port` */
  static async to(target: string): Promise<TcpProxy> {
    const server = createServer().listen(0, '127.0.0.1');
    await waitFor(() => server.listening, { what: 'the proxy' });
    return new TcpProxy(server, Number(new URL(target).port));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Resets every connection and every new one. */
  cut(): void {
    this.#isCut = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  /** Accepts connections and swallows what comes, in both directions, as a firewall that drops does. */
  hang(): void {
    this.#isHanging = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  /** Works again; what was swallowed by a hanging connection arrives late. */
  heal(): void {
    this.#isCut = false;
    this.#isHanging = false;
    for (const pair of this.#pairs) for (const socket of pair) socket.resume();
  }

  close(): void {
    this.cut();
    this.server.close();
  }

  #accept(client: Socket): void {
    if (this.#isCut) {
      client.destroy();
      return;
    }
    const upstream = connect(this.targetPort, '127.0.0.1');
    const pair = [client, upstream] as const;
    this.#pairs.add(pair);
    for (const [from, to] of [pair, [upstream, client]] as const) {
      from.on('data', (chunk) => to.write(chunk));
      from.on('error', () => undefined);
      from.on('close', () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
      if (this.#isHanging) from.pause();
    }
  }
}
