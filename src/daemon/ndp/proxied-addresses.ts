import type { IpAddress } from '../../ip/address.js';
import type { MacAddress } from '../../ip/mac.js';
import type { Prefix } from '../../ip/prefix.js';
import type { NeighInfo } from '../../netlink/neighbour.js';

/** A bridge with containers whose subnet is a part of the on-link prefix of another device. */
export interface ProxiedBridge {
  readonly index: number;
  readonly subnet: Prefix;
  /** Name of that device, where the addresses are asked for. */
  readonly uplink: string;
}

/** An address that somebody behind a bridge has. */
export interface ProxiedAddress {
  readonly address: IpAddress;
  readonly bridge: ProxiedBridge;
  /** Undefined where it is only known that it was there before this process. */
  readonly mac: MacAddress | undefined;
}

/** The most addresses that are answered for: each is a proxy entry and, of its own, a multicast group. */
export const MAX_PROXIED = 10_000;

/**
 * Which addresses behind bridges are alive, by what the kernel tells of its neighbours there. Pure.
 *
 * @remarks An entry that is gone from the neighbour table says nothing: the kernel drops what was not used for a minute.
 * So it stays until whoever was asked has not answered ({@link NeighInfo.isFailed}).
 */
export class ProxiedAddresses {
  private readonly byText = new Map<string, ProxiedAddress>();
  private bridges: readonly ProxiedBridge[] = [];

  get all(): Iterable<ProxiedAddress> {
    return this.byText.values();
  }

  get size(): number {
    return this.byText.size;
  }

  get isFull(): boolean {
    return this.byText.size >= MAX_PROXIED;
  }

  has(address: IpAddress): boolean {
    return this.byText.has(address.toString());
  }

  /** The bridge that the address would be behind. */
  bridgeOf(address: IpAddress): ProxiedBridge | undefined {
    return this.bridges.find(({ subnet }) => subnet.contains(address));
  }

  /** Takes the bridges as they are now; what lay behind others is forgotten. */
  setBridges(bridges: readonly ProxiedBridge[]): void {
    this.bridges = bridges;
    for (const [text, known] of this.byText) {
      const bridge = this.bridgeOf(known.address);
      if (bridge?.index === known.bridge.index && bridge.uplink === known.bridge.uplink) continue;
      this.byText.delete(text);
    }
  }

  /** One that was answered for when this process began. */
  inherit(address: IpAddress): void {
    const bridge = this.bridgeOf(address);
    if (bridge === undefined || this.isFull || this.has(address)) return;
    this.byText.set(address.toString(), { address, bridge, mac: undefined });
  }

  /**
   * Takes over what the kernel says of a neighbour.
   *
   * @returns `added` and `removed`; `doubtful`: it is not known any more whether it is there, so somebody has to ask;
   * `refused`: it is there, and there are too many.
   */
  take({ index, address, mac, isFailed }: NeighInfo, isDeleted: boolean): ProxyChange {
    const bridge = this.bridgeOf(address);
    if (bridge?.index !== index) return 'nothing';
    const text = address.toString();
    const known = this.byText.get(text);
    if (isFailed) return this.byText.delete(text) ? 'removed' : 'nothing';
    if (isDeleted) return known === undefined ? 'nothing' : 'doubtful';
    if (mac === undefined) return 'nothing'; // asked for, and not answered yet
    if (known === undefined && this.isFull) return 'refused';
    this.byText.set(text, { address, bridge, mac });
    return known === undefined ? 'added' : 'nothing';
  }

  /** Those with a MAC address behind a bridge. */
  behind(bridgeIndex: number, mac: MacAddress): readonly ProxiedAddress[] {
    return [...this.byText.values()].filter((each) => each.bridge.index === bridgeIndex && each.mac === mac);
  }

  remove(address: IpAddress): void {
    this.byText.delete(address.toString());
  }
}

/** What became of an address. */
export type ProxyChange = 'added' | 'removed' | 'doubtful' | 'refused' | 'nothing';
