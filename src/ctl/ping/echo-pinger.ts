import type { Clock } from '../../clock.js';
import type { Family, IpAddress } from '../../ip/address.js';
import type { EchoPort, OpenEchoPort } from '../../reach/echo-socket.js';

/** Echoes to one address: the first may get lost while a neighbour is looked up, and a second one on a busy link. */
const ECHOES = 3;

const PAUSE_MS = 200;

/** Across a continent and back takes 0.2 s. */
const ANSWER_MS = 1000;

/** What echoes to one address gave. */
export interface EchoResult {
  readonly sent: number;
  readonly received: number;
  /** The shortest; undefined without an answer. */
  readonly roundTripMs: number | undefined;
}

/** Measures addresses with a few echoes each, any number of them at a time. */
export class EchoPinger {
  private readonly ports = new Map<Family, EchoPort>();
  private readonly waiting = new Map<number, { readonly address: IpAddress; readonly onAnswer: () => void }>();
  private sequence = 0;

  constructor(
    private readonly clock: Clock,
    private readonly openPort: OpenEchoPort,
  ) {}

  /**
   * Sends some echoes and waits for the answers, a second at the longest for each.
   *
   * @throws {@link OverlayError} `ERR_ECHO_SOCKET`, or the signal's reason
   */
  async measure(address: IpAddress, signal: AbortSignal): Promise<EchoResult> {
    const port = this.port(address.family);
    const results: (number | undefined)[] = [];
    for (let count = 0; count < ECHOES; count++) {
      if (count > 0) await this.clock.sleep(PAUSE_MS, signal);
      results.push(undefined);
      this.send(port, address, (ms) => (results[count] = ms));
    }
    const untilMs = this.clock.monotonicMs() + ANSWER_MS;
    const isComplete = (): boolean => !results.includes(undefined);
    while (!isComplete() && this.clock.monotonicMs() < untilMs) await this.clock.sleep(PAUSE_MS / 10, signal);
    const times = results.filter((ms) => ms !== undefined);
    return {
      sent: ECHOES,
      received: times.length,
      roundTripMs: times.length === 0 ? undefined : Math.min(...times),
    };
  }

  close(): void {
    for (const port of this.ports.values()) port.close();
  }

  private send(port: EchoPort, address: IpAddress, onAnswer: (ms: number) => void): void {
    this.sequence = (this.sequence + 1) & 0xffff;
    const { sequence } = this;
    const sentAtMs = this.clock.monotonicMs();
    this.waiting.set(sequence, { address, onAnswer: () => onAnswer(this.clock.monotonicMs() - sentAtMs) });
    // What the kernel does not send is not answered; which of the layers that is tells where to look.
    port.send(address, sequence);
  }

  private port(family: Family): EchoPort {
    const open = this.ports.get(family);
    if (open !== undefined) return open;
    const port = this.openPort(family, ({ address, sequence }) => {
      const request = this.waiting.get(sequence);
      if (request?.address.equals(address) !== true) return;
      this.waiting.delete(sequence);
      request.onAnswer();
    });
    this.ports.set(family, port);
    return port;
  }
}
