import type { InterfaceRegister } from '../../container/addresses.js';
import { type PoolId, parsePoolId } from '../../container/pool-id.js';
import type { IpAddress } from '../../ip/address.js';
import type { MacAddress } from '../../ip/mac.js';
import type { Logger } from '../../log.js';
import { isAttachmentOwner } from './attachment-owner.js';
import type { Endpoint } from './network.js';
import { networkType } from './network-types.js';
import type { PluginState } from './state.js';

/**
 * The endpoints of this host's networks, as those see them who give out addresses.
 *
 * @remarks *Order of an engine* (libnetwork `network.go`, `endpoint.go`): it asks for addresses, then for the endpoint,
 * then writes it down, then joins; it leaves, strikes it out, then deletes the endpoint, then gives the addresses back.
 * Killed in between, it knows nothing of what it had asked for, or struck out. So an address without an endpoint may be
 * nobody's; and so may an endpoint that is in no container, once the engine has started again: at its start it deletes
 * those that it knows of ({@link noteStart}).
 */
export class EndpointRegister implements InterfaceRegister {
  constructor(
    private readonly state: PluginState,
    private readonly log: Logger,
  ) {}

  get id(): string {
    return this.state.id;
  }

  /**
   * The id for an address whose endpoint will come here; undefined where it goes to another network driver, or to a
   * namespace that an operator looks after.
   */
  idFor(pool: PoolId, owner: string | undefined): string | undefined {
    const isOurs = this.state.contents.networks.some(({ subnets }) => subnets.some((each) => each.pool === pool));
    return isOurs && !isAttachmentOwner(owner) ? this.id : undefined;
  }

  /** Prefix length of the addresses that containers get out of the pool, as the type of its networks has it. */
  addressLength(pool: PoolId): number {
    const { subnet } = parsePoolId(pool);
    const network = this.state.contents.networks.find(({ subnets }) => subnets.some((each) => each.pool === pool));
    return network === undefined ? subnet.length : networkType(network.type).addressLength(network, subnet);
  }

  interfaceOf(address: IpAddress, mac: MacAddress | undefined): 'joined' | 'made' | undefined {
    const found = this.state.contents.endpoints.filter((each) => isOf(each, address, mac));
    if (found.some(({ sandbox }) => sandbox !== undefined)) return 'joined';
    return found.some(({ isStale }) => !isStale) ? 'made' : undefined;
  }

  async forget(address: IpAddress, mac: MacAddress | undefined): Promise<void> {
    try {
      await this.state.change((before) => {
        const endpoints = before.endpoints.filter((each) => each.sandbox !== undefined || !isOf(each, address, mac));
        return endpoints.length === before.endpoints.length ? before : { ...before, endpoints };
      });
    } catch (error) {
      this.log.warn('an interface that no container has is not forgotten yet', { address: address.toString(), error });
    }
  }

  /** An engine has started: what is in no container now, and still is later, it knows nothing of. */
  async noteStart(): Promise<void> {
    try {
      await this.state.change((before) => {
        const isLeft = ({ sandbox, isStale }: Endpoint): boolean => sandbox === undefined && !isStale;
        if (!before.endpoints.some(isLeft)) return before;
        return {
          ...before,
          endpoints: before.endpoints.map((each) => ({ ...each, isStale: each.sandbox === undefined })),
        };
      });
    } catch (error) {
      this.log.warn('interfaces that no container has cannot be told from others yet', { error });
    }
  }
}

function isOf(endpoint: Endpoint, address: IpAddress, mac: MacAddress | undefined): boolean {
  const hasAddress = endpoint.addresses.some((each) => each.address.equals(address));
  return hasAddress && (mac === undefined || endpoint.mac === mac);
}
