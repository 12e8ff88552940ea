import type { IpAddress } from '../ip/address.js';

/** How the kernel would send to an address: the route look-up of `ip route get`. */
export interface RouteAnswer {
  readonly ifindex: number;
  readonly gateway: IpAddress | undefined;
  /** Absent if the route has none of its own. */
  readonly mtu?: number | undefined;
}

interface Answer {
  readonly isOnLink: boolean;
  readonly mtu: number | undefined;
}

/** Asks the kernel; undefined when it has no route. */
export type RouteLookup = (address: IpAddress) => Promise<RouteAnswer | undefined>;

/**
 * Remembers which addresses are on the link of the underlay device, so that the backends can ask without I/O.
 *
 * @remarks An answer stays until {@link OnLinkCache.forget}, which belongs to every change of a route that is not ours.
 */
export class OnLinkCache {
  private answers = new Map<string, Answer>();
  private ifindex = 0;
  private isStale = false;

  constructor(private readonly lookUp: RouteLookup) {}

  /**
   * Asks for those addresses that are not known yet.
   *
   * @returns whether any answer is new or differs from the one before.
   */
  async refresh(addresses: readonly IpAddress[], ifindex: number): Promise<boolean> {
    const isFresh = !this.isStale && ifindex === this.ifindex;
    const former = this.answers;
    this.isStale = false;
    this.ifindex = ifindex;
    const answers = new Map<string, Answer>();
    for (const address of addresses) {
      const key = address.toString();
      const known = isFresh ? former.get(key) : undefined;
      answers.set(key, known ?? (await this.ask(address)));
    }
    this.answers = answers;
    return [...answers].some(([key, { isOnLink, mtu }]) => {
      const before = former.get(key);
      return before?.isOnLink !== isOnLink || before.mtu !== mtu;
    });
  }

  /** Whether the kernel reaches the address over the underlay device without a gateway. */
  isOnLink(address: IpAddress): boolean {
    return this.answers.get(address.toString())?.isOnLink ?? false;
  }

  /** MTU of the route to the address, where that has one of its own. */
  routeMtu(address: IpAddress): number | undefined {
    return this.answers.get(address.toString())?.mtu;
  }

  /** Makes the next {@link refresh} ask again for every address. */
  forget(): void {
    this.isStale = true;
  }

  private async ask(address: IpAddress): Promise<Answer> {
    const answer = await this.lookUp(address);
    const isOnLink = answer !== undefined && answer.gateway === undefined && answer.ifindex === this.ifindex;
    return { isOnLink, mtu: answer?.mtu };
  }
}
