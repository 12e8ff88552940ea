import type { LinkInfo, NewLink } from '../../netlink/link.js';
import type { ContainerNetwork, Endpoint, NetworkSet } from './network.js';

/** How a device stands on this host. */
export interface ParentDevice {
  /** Of a sub-interface that is not there yet, its trunk: what is above that is not above it. */
  readonly link: LinkInfo;
  /** The device that it is a port of. */
  readonly master: LinkInfo | undefined;
  /** What lies on it in the host's own namespace, those of others included. */
  readonly upper: readonly LinkInfo[];
}

/** One way to connect containers. */
export interface NetworkType {
  /** Values of `-o mode=`, the default first. */
  readonly modes: readonly [string, ...string[]];
  /**
   * Refuses a network that the kernel would not carry.
   *
   * @param others - networks and endpoints on the same parent.
   * @throws {@link OverlayError} `ERR_CONTAINER_NETWORK`
   */
  checkNetwork(network: ContainerNetwork, parent: ParentDevice, others: NetworkSet): void;
  /** Likewise for one more interface. */
  checkEndpoint(network: ContainerNetwork, others: NetworkSet): void;
  /** The interface that is moved into a container. */
  newLink(network: ContainerNetwork, endpoint: Endpoint, parent: LinkInfo): NewLink;
}
