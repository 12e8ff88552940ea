import type { BackendOptions } from '../backend/backend.js';
import { backendFor } from '../backend/registry.js';
import { type NetworkConfig, parseNetworkConfig, unknownConfigKeys } from '../config/network-config.js';
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';

/**
 * The network configuration in use: the last valid one. An invalid or missing one is reported once and changes nothing.
 */
export class NetworkSource {
  private readonly options = new Map<string, BackendOptions>();
  private current: NetworkConfig | undefined;
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

  /** Options last configured for a backend; peers may still use it after the network has gone on to another one. */
  optionsFor(type: string): BackendOptions {
    return this.options.get(type) ?? {};
  }

  /**
   * Takes what lies in the store now.
   *
   * @param check - throws what speaks against a network that is valid by itself.
   * @returns whether {@link network} is another one than before.
   */
  take(text: string | undefined, check: (network: NetworkConfig) => void): boolean {
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
      const network = parseNetworkConfig(text);
      check(network);
      backendFor(network.backendType);
      for (const key of unknownConfigKeys(text)) this.log.warn('key of the network configuration is not used', { key });
      this.tell(network);
      this.current = network;
      this.currentText = text;
      this.rejection = undefined;
      this.options.set(network.backendType, network.backendOptions);
      return true;
    } catch (error) {
      this.rejection = describeError(error);
      this.log.error('network configuration not valid', { key: this.key, error, ...goingOn });
      return false;
    }
  }

  private tell(network: NetworkConfig): void {
    const before = this.current;
    this.log.info(before === undefined ? 'network configuration read' : 'network configuration changed', {
      subnet: network.ipv4?.network.toString(),
      ipv6Subnet: network.ipv6?.network.toString(),
      backend: network.backendType,
      ...(before === undefined ? {} : { from: before.backendType }),
    });
  }
}
