import { OverlayError } from '../../../errors.js';
import type { PublishedPort } from '../../../firewall/containers/container-rules.js';
import { type Family, IpAddress } from '../../../ip/address.js';
import type { Logger } from '../../../log.js';
import type { Endpoint } from '../network.js';
import type { PortBinding } from './port-bindings.js';
import { type HoldPort, type HostPort, PortRefusal, type ReleasePort } from './port-holder.js';

/** First and last of the ports that a host gives to whoever asks for any. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** What {@link PublishedPorts} works with. */
export interface PublishedPortsOptions {
  readonly log: Logger;
  readonly hold: HoldPort;
  /** `net.ipv4.ip_local_port_range`, as Docker takes them from. */
  readonly range: () => Promise<PortRange>;
}

const ANY: Readonly<Record<Family, IpAddress>> = { 4: IpAddress.parse('0.0.0.0'), 6: IpAddress.parse('::') };

/** Of one try, before it is known whether the next port of a range has to be tried. */
interface Taken {
  readonly key: string;
  readonly release: ReleasePort | undefined;
}

/**
 * The ports of this host that lead to containers: chosen, held, and given back.
 *
 * API: {@link publish} takes ports for an endpoint that has none, {@link keep} follows what is saved of all endpoints.
 * Limits: one descriptor for each port, protocol and family.
 * Errors: `ERR_CONTAINER_NETWORK` with the one who has the port.
 */
export class PublishedPorts {
  private readonly held = new Map<string, ReleasePort | undefined>();
  /** Of those, what {@link publish} has not saved yet. */
  private readonly unsaved = new Set<string>();
  /** Ports that others have, of which has been told. */
  private readonly lost = new Set<string>();
  private cursor = 0;

  constructor(private readonly options: PublishedPortsOptions) {}

  /**
   * Chooses, holds and saves the ports of an endpoint; all, or none. What it had before is given back.
   *
   * @param endpoints - all there are, whose ports are not given a second time.
   * @param save - writes down what was chosen.
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`, and what `save` throws
   */
  async publish(
    endpoint: Endpoint,
    bindings: readonly PortBinding[],
    endpoints: readonly Endpoint[],
    save: (ports: readonly PublishedPort[]) => Promise<void>,
  ): Promise<void> {
    const published: PublishedPort[] = [];
    const taken: Taken[] = [];
    const known = endpoints.filter(({ id }) => id !== endpoint.id);
    this.keep(known);
    // Those with fewer choices first, so that a chosen one is not in their way.
    const order = [...bindings].sort((a, b) => choices(a) - choices(b));
    try {
      const range = await this.options.range();
      for (const binding of order) {
        published.push(...this.take(endpoint, binding, [...known, { ...endpoint, ports: published }], range, taken));
      }
      await save(published);
    } catch (error) {
      this.giveBack(taken);
      throw error;
    } finally {
      for (const { key } of taken) this.unsaved.delete(key);
    }
  }

  /** Holds what is saved of endpoints, as far as it can, and gives back the rest. */
  keep(endpoints: readonly Endpoint[]): void {
    const wanted = new Map(publishedBy(endpoints).map((each) => [keyOf(placeOf(each)), placeOf(each)]));
    for (const [key, release] of this.held) {
      if (wanted.has(key) || this.unsaved.has(key)) continue;
      this.held.delete(key);
      release?.();
    }
    for (const key of this.lost) if (!wanted.has(key)) this.lost.delete(key);
    for (const [key, place] of wanted) if (!this.held.has(key)) this.holdAgain(key, place);
  }

  /** Gives back everything; what leads to containers stays. */
  close(): void {
    this.keep([]);
  }

  /** A container keeps its port, whoever has taken it while this daemon was away: what comes in is translated first. */
  private holdAgain(key: string, place: HostPort): void {
    try {
      this.held.set(key, this.options.hold(place));
      this.lost.delete(key);
    } catch (error) {
      if (!(error instanceof PortRefusal)) throw error;
      if (this.lost.has(key)) return;
      this.lost.add(key);
      this.options.log.warn('a published port is also a port of a program of this host', {
        detail: key,
        hint: 'the container gets what comes in; end the program, or publish another port',
      });
    }
  }

  private giveBack(taken: readonly Taken[]): void {
    for (const { key, release } of taken) {
      this.held.delete(key);
      this.unsaved.delete(key);
      release?.();
    }
  }

  private take(
    endpoint: Endpoint,
    binding: PortBinding,
    endpoints: readonly Endpoint[],
    range: PortRange,
    taken: Taken[],
  ): readonly PublishedPort[] {
    const targets = targetsOf(endpoint, binding);
    const isFixed = choices(binding) === 0;
    let refusal: unknown;
    for (const hostPort of this.candidates(binding, range)) {
      const ports = targets.map(({ hostAddress, address }) => {
        return { protocol: binding.protocol, hostAddress, hostPort, address, port: binding.port };
      });
      const mark = taken.length;
      try {
        for (const port of ports) this.takeOne(port, endpoints, taken);
        if (binding.hostPort === 0) this.cursor = hostPort + 1;
        return ports;
      } catch (error) {
        refusal = error;
        this.giveBack(taken.splice(mark));
        if (isFixed) throw error;
      }
    }
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot publish port ${binding.port}/${binding.protocol}: all ports are already allocated`,
      { cause: refusal, hint: 'widen the range, or net.ipv4.ip_local_port_range' },
    );
  }

  /** The port asked for, those of its range, or any, each once. */
  private *candidates({ hostPort, hostPortEnd }: PortBinding, range: PortRange): Generator<number> {
    if (hostPort !== 0) {
      for (let port = hostPort; port <= hostPortEnd; port++) yield port;
      return;
    }
    const { first, last } = range;
    const count = last - first + 1;
    const start = this.cursor >= first && this.cursor <= last ? this.cursor - first : 0;
    for (let step = 0; step < count; step++) yield first + ((start + step) % count);
  }

  private takeOne(port: PublishedPort, endpoints: readonly Endpoint[], taken: Taken[]): void {
    const place = placeOf(port);
    const owner = endpoints.find(({ ports = [] }) => ports.some((each) => isInTheWay(each, port)));
    if (owner !== undefined) {
      throw refused(place, `port is already allocated to endpoint ${owner.id.slice(0, 12)} of this driver`, {
        hint: 'publish another port, or remove the container that has it',
      });
    }
    const key = keyOf(place);
    try {
      const release = this.options.hold(place);
      this.held.set(key, release);
      this.unsaved.add(key);
      taken.push({ key, release });
    } catch (error) {
      if (!(error instanceof PortRefusal)) throw error;
      throw explain(error, place);
    }
  }
}

/** What the rules of this host publish: ports of endpoints that are in a container. */
export function publishedBy(endpoints: readonly Endpoint[]): readonly PublishedPort[] {
  return endpoints.flatMap(({ ports = [], sandbox }) => (sandbox === undefined ? [] : ports));
}

/** Each family has its own address of the container; one that it does not have is published under none of the host. */
function targetsOf(
  { addresses }: Endpoint,
  { hostAddress, port, protocol }: PortBinding,
): readonly { readonly hostAddress: IpAddress | undefined; readonly address: IpAddress }[] {
  if (hostAddress?.isLoopback === true && hostAddress.family === 6) {
    throw new OverlayError('ERR_CONTAINER_NETWORK', `cannot publish port ${port}/${protocol} under ::1`, {
      hint: 'publish it under 127.0.0.1: the kernel lets nothing out of the IPv6 loopback',
    });
  }
  const own = addresses.filter(({ address }) => hostAddress === undefined || address.family === hostAddress.family);
  const targets = ([4, 6] as const).flatMap((family) => own.find(({ address }) => address.family === family) ?? []);
  if (targets.length === 0) {
    throw new OverlayError(
      'ERR_CONTAINER_NETWORK',
      `cannot publish port ${port}/${protocol} under ${hostAddress?.toString() ?? 'this host'}: the container has no address of that family`,
      { hint: 'give the network a subnet of that family, or publish the port under an address of the other one' },
    );
  }
  const named = hostAddress?.isUnspecified === true ? undefined : hostAddress;
  return targets.map(({ address }) => ({ hostAddress: named, address }));
}

const choices = ({ hostPort, hostPortEnd }: PortBinding): number =>
  hostPort === 0 ? Number.MAX_SAFE_INTEGER : hostPortEnd - hostPort;

const placeOf = ({ protocol, hostAddress, hostPort, address }: PublishedPort): HostPort => ({
  protocol,
  address: hostAddress ?? ANY[address.family],
  port: hostPort,
});

function keyOf({ protocol, address, port }: HostPort): string {
  const host = address.family === 6 ? `[${address.toString()}]` : address.toString();
  return `${host}:${port}/${protocol}`;
}

function isInTheWay(one: PublishedPort, other: PublishedPort): boolean {
  const isSame = one.protocol === other.protocol && one.hostPort === other.hostPort;
  const isSameFamily = one.address.family === other.address.family;
  const meet =
    one.hostAddress === undefined || other.hostAddress === undefined || one.hostAddress.equals(other.hostAddress);
  return isSame && isSameFamily && meet;
}

function explain({ errno }: PortRefusal, place: HostPort): OverlayError {
  if (errno === 'EADDRINUSE') {
    return refused(place, 'port is already allocated', {
      hint: `a program of this host has it: see "ss -lnp", and end it or publish another port`,
    });
  }
  if (errno === 'EADDRNOTAVAIL') {
    return refused(place, 'this host has no such address', { hint: 'name one of those in "ip address", or none' });
  }
  return refused(place, errno, { hint: 'publish another port' });
}

function refused(place: HostPort, why: string, options: { readonly hint: string }): OverlayError {
  return new OverlayError('ERR_CONTAINER_NETWORK', `cannot publish ${keyOf(place)}: ${why}`, options);
}
