import { fileURLToPath } from 'node:url';
import type { Netns } from './netns.js';
import type { Program } from './program.js';

/**
 * TCP relays in front of a server, inside its namespace: one port for each client that a test wants to disturb by
 * itself.
 */
export class Relay {
  #serial = 0;

  private constructor(private readonly program: Program) {}

  /** @param routes - listening port → port of the server at `address`. */
  static async start(netns: Netns, address: string, routes: ReadonlyMap<number, number>): Promise<Relay> {
    const words = [...routes].map(([from, to]) => `${from}=${to}`);
    const file = fileURLToPath(new URL('relay.mjs', import.meta.url));
    const program = netns.start([process.execPath, file, address, ...words]);
    await program.waitForLine(/"ready":true/);
    return new Relay(program);
  }

  /** Resets every connection of a port and every new one. */
  async cut(port: number): Promise<void> {
    await this.#ask(port, 'cut');
  }

  /** Accepts connections and swallows what comes, in both directions, as a firewall that drops does. */
  async hang(port: number): Promise<void> {
    await this.#ask(port, 'hang');
  }

  /** Ends {@link cut}, {@link hang} and {@link delay}; what was swallowed by a hanging connection arrives late. */
  async heal(port: number): Promise<void> {
    await this.#ask(port, 'heal');
  }

  /** Has every byte arrive that much later, in both directions. */
  async delay(port: number, ms: number): Promise<void> {
    await this.#ask(port, 'delay', { ms });
  }

  /** How many gRPC messages the clients of a port have sent so far. Not for TLS. */
  async messages(port: number): Promise<number> {
    return Number(/"messages":(\d+)/.exec(await this.#ask(port, 'count'))?.[1]);
  }

  /** Ends the process. */
  async close(): Promise<void> {
    await this.program.kill();
  }

  async #ask(port: number, action: string, more: object = {}): Promise<string> {
    const id = ++this.#serial;
    const mark = this.program.mark();
    this.program.write(`${JSON.stringify({ id, port, do: action, ...more })}\n`);
    return (await this.program.waitForLine(new RegExp(`^.*"id":${id}\\b.*$`), 20_000, mark))[0];
  }
}
