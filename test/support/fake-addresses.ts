import type {
  AddressRequest,
  AddressStatus,
  ContainerAddresses,
  GivenPool,
  NetworkProperties,
  PoolRequest,
} from '../../src/container/addresses.js';
import { type PoolId, formatPoolId, parsePoolId } from '../../src/container/pool-id.js';
import { OverlayError } from '../../src/errors.js';
import type { IpAddress } from '../../src/ip/address.js';
import { Prefix } from '../../src/ip/prefix.js';
import type { Subscription } from '../../src/lease/store.js';

/** Addresses of container networks in memory, for one host or for several that share an object of these. */
export class FakeAddresses implements ContainerAddresses {
  readonly pools = new Set<PoolId>();
  /** Address and what it is for, by pool. */
  readonly given = new Map<PoolId, Map<string, AddressRequest['kind']>>();
  readonly agreed = new Map<PoolId, NetworkProperties>();
  readonly requests: AddressRequest[] = [];
  /** Addresses that are somebody else's by now. */
  readonly takenBack = new Set<string>();
  readonly #byOwner = new Map<string, IpAddress>();
  reviews = 0;
  /** Awaited by every request. */
  gate: Promise<void> = Promise.resolve();

  async requestPool({ pool, range, name }: PoolRequest): Promise<GivenPool> {
    await this.gate;
    const subnet = pool ?? Prefix.parse('10.99.0.0/24');
    const id = formatPoolId({ name, subnet, range: range ?? subnet });
    this.pools.add(id);
    return { id, subnet, gateway: { address: subnet.address.add(1n), length: subnet.length } };
  }

  releasePool(id: PoolId): Promise<void> {
    this.pools.delete(id);
    return Promise.resolve();
  }

  async requestAddress(id: PoolId, request: AddressRequest, asker?: AbortSignal): Promise<IpAddress> {
    await this.gate;
    asker?.throwIfAborted();
    this.requests.push(request);
    const { subnet, range } = parsePoolId(id);
    const given = this.given.get(id) ?? new Map<string, AddressRequest['kind']>();
    this.given.set(id, given);
    const { owner } = request;
    const known = owner === undefined || request.mac !== undefined ? undefined : this.#byOwner.get(owner);
    if (known !== undefined && given.has(known.toString())) return known;
    const isShared = request.kind !== 'container';
    let address = request.address ?? (request.kind === 'gateway' ? subnet.address.add(1n) : range.address.add(1n));
    while (request.address === undefined && !isShared && given.has(address.toString())) address = address.add(1n);
    if (given.has(address.toString()) && !isShared) {
      throw new OverlayError('ERR_ADDRESS_TAKEN', `cannot give ${address.toString()}: it is taken`);
    }
    given.set(address.toString(), request.kind);
    if (owner !== undefined) this.#byOwner.set(owner, address);
    return address;
  }

  releaseAddress(id: PoolId, address: IpAddress): Promise<void> {
    this.given.get(id)?.delete(address.toString());
    return Promise.resolve();
  }

  freeAddress(id: PoolId, address: IpAddress): Promise<string | undefined> {
    const isGiven = this.given.get(id)?.delete(address.toString()) === true;
    return Promise.resolve(isGiven ? undefined : 'nobody has it');
  }

  isGiven(address: IpAddress): boolean {
    return !this.takenBack.has(address.toString());
  }

  review(): void {
    this.reviews++;
  }

  agree(id: PoolId, properties: NetworkProperties): Promise<void> {
    const before = this.agreed.get(id) ?? properties;
    if (JSON.stringify(before) !== JSON.stringify(properties)) {
      const [here, there] = [properties, before].map((each) => JSON.stringify(each));
      return Promise.reject(
        new OverlayError('ERR_NETWORK_DIFFERS', `cannot use ${here ?? ''}: others have ${there ?? ''}`),
      );
    }
    this.agreed.set(id, before);
    return Promise.resolve();
  }

  status(): AddressStatus {
    throw new TypeError('nobody asks for the status of these');
  }

  onChange(): Subscription {
    return { close: () => {} };
  }
}
