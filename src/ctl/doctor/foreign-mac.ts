import type { Clock } from '../../clock.js';
import { isAnsweredTo } from '../../container/probe-lan.js';
import type { IpAddress } from '../../ip/address.js';
import type { MacAddress } from '../../ip/mac.js';
import type { ForeignMac } from './container-facts.js';

/** Neighbours that are asked until one answers. */
const MAX_NEIGHBOURS = 4;

/** Rounds of three questions each, before silence counts. */
const ROUNDS = 2;

/** What {@link probeForeignMac} works with. */
export interface ForeignMacProbe {
  readonly device: string;
  /** Of the device. */
  readonly own: MacAddress;
  /** One that is not the device's. */
  readonly foreign: MacAddress;
  /** IPv4 addresses of machines on the network of the device, likely ones first. */
  readonly neighbours: readonly IpAddress[];
  readonly clock: Clock;
  /** Default {@link isAnsweredTo}. */
  readonly isAnswered?: typeof isAnsweredTo;
}

/**
 * Asks a neighbour under two MAC addresses: what hypervisors, clouds and port security do to containers is told from a
 * network that is silent anyway.
 *
 * @returns undefined if no neighbour answers the device itself, or it cannot ask.
 */
export async function probeForeignMac(options: ForeignMacProbe): Promise<ForeignMac | undefined> {
  const { device, own, foreign, neighbours, clock, isAnswered = isAnsweredTo } = options;
  try {
    for (const address of neighbours.slice(0, MAX_NEIGHBOURS)) {
      if (!(await isAnswered(own, device, address, clock))) continue;
      for (let round = 0; round < ROUNDS; round++) {
        if (await isAnswered(foreign, device, address, clock))
          return { address: address.toString(), mac: foreign, isAnswered: true };
      }
      return { address: address.toString(), mac: foreign, isAnswered: false };
    }
  } catch {
    // ERR_LAN_PROBE: it is gone, or no Ethernet; the check of the interface itself says so.
  }
  return undefined;
}
