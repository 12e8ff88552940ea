import type { ConfiguredBackend } from '../backend/backend.js';
import { type CarriedNetwork, readNetwork } from '../backend/network.js';
import { findBackend } from '../backend/registry.js';
import type { NetworkConfig } from '../config/network-config.js';
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';

/**
 * The network configuration in use: the last valid one. An invalid or missing one is reported once and changes nothing.
 */
export class NetworkSource {
  /** By type, with the options that were configured last or, for one that never was, with its defaults. */
  private readonly backends = new Map<string, ConfiguredBackend>();
  private current: CarriedNetwork | undefined;
  private currentText = '';
  /** What lay in the store last, in use or not; null before anything was heard. */
  private latest: string | undefined | null = null;
  private rejection: string | undefined;

  /** @param key - of the configuration in the store, for messages. */
  constructor(
    private readonly key: string,
    private readonly log: Logger,
  ) {}

  get network(): NetworkConfig | undefined {
    return this.current?.network;
  }

  /** {@link network} with its backend. */
  get carried(): CarriedNetwork | undefined {
    return this.current;
  }

  /** The text that {@link network} was read from. */
  get text(): string {
    return this.currentText;
  }

  /** Why the latest text is not in use, undefined if it is. */
  get rejected(): string | undefined {
    return this.rejection;
  }

  /**
   * The backend of that type as it was configured last: peers may still use it after the network has gone on to another
   * one. Undefined if there is none.
   */
  backendFor(type: string): ConfiguredBackend | undefined {
    const backend = this.backends.get(type) ?? findBackend(type)?.parse({});
    if (backend !== undefined) this.backends.set(type, backend);
    return backend;
  }

  /**
   * Takes what lies in the store now.
   *
   * @param check - throws what speaks against a network that is valid by itself.
   * @returns whether {@link network} is another one than before.
   */
  take(text: string | undefined, check: (carried: CarriedNetwork) => void): boolean {
    if (text === this.latest) return false;
    this.latest = text;
    const goingOn = this.current === undefined ? {} : { kind: 'going on with the last one' };
    if (text === undefined) {
      this.rejection = 'there is none';
      const hint = `etcdctl put ${this.key} '{"Network": "10.5.0.0/16"}'`;
      this.log.error('network configuration missing', { key: this.key, hint, ...goingOn });
      return false;
    }
    if (text === this.currentText) {
      if (this.rejection !== undefined)
        this.log.info('network configuration is the one in use again', { key: this.key });
      this.rejection = undefined;
      return false;
    }
    try {
      const carried = readNetwork(text);
      const { network, backend, unknownKeys } = carried;
      check(carried);
      for (const key of unknownKeys) this.log.warn('key of the network configuration is not used', { key });
      this.tell(network);
      this.current = carried;
      this.currentText = text;
      this.rejection = undefined;
      this.backends.set(backend.type, backend);
      return true;
    } catch (error) {
      this.rejection = describeError(error);
      this.log.error('network configuration not valid', { key: this.key, error, ...goingOn });
      return false;
    }
  }

  private tell(network: NetworkConfig): void {
    const before = this.current?.network;
    this.log.info(before === undefined ? 'network configuration read' : 'network configuration changed', {
      subnet: network.ipv4?.network.toString(),
      ipv6Subnet: network.ipv6?.network.toString(),
      backend: network.backendType,
      ...(before === undefined ? {} : { from: before.backendType }),
    });
  }
}
