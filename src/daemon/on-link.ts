import type { IpAddress } from '../ip/address.js';

/** How the kernel would send to an address: the route look-up of `ip route get`. */
export interface RouteAnswer {
  readonly ifindex: number;
  readonly gateway: IpAddress | undefined;
}

/** Asks the kernel; undefined when it has no route. */
export type RouteLookup = (address: IpAddress) => Promise<RouteAnswer | undefined>;

/**
 * Remembers which addresses are on the link of the underlay device, so that the backends can ask without I/O.
 *
 * @remarks An answer stays until {@link OnLinkCache.forget}, which belongs to every change of a route that is not ours.
 */
export class OnLinkCache {
  private answers = new Map<string, boolean>();
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
    const answers = new Map<string, boolean>();
    for (const address of addresses) {
      const key = address.toString();
      const known = isFresh ? former.get(key) : undefined;
      answers.set(key, known ?? (await this.ask(address)));
    }
    this.answers = answers;
    return [...answers].some(([key, isOnLink]) => former.get(key) !== isOnLink);
  }

  /** Whether the kernel reaches the address over the underlay device without a gateway. */
  isOnLink(address: IpAddress): boolean {
    return this.answers.get(address.toString()) ?? false;
  }

  /** Makes the next {@link refresh} ask again for every address. */
  forget(): void {
    this.isStale = true;
  }

  private async ask(address: IpAddress): Promise<boolean> {
    const answer = await this.lookUp(address);
    return answer !== undefined && answer.gateway === undefined && answer.ifindex === this.ifindex;
  }
}
