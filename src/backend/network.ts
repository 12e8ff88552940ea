import { type NetworkConfig, parseNetworkConfig, unknownConfigKeys } from '../config/network-config.js';
import type { ConfiguredBackend } from './backend.js';
import { backendFor } from './registry.js';

/** A network configuration with the backend that it asks for. */
export interface CarriedNetwork {
  readonly network: NetworkConfig;
  readonly backend: ConfiguredBackend;
  /** Keys that nobody reads, see {@link unknownConfigKeys}. */
  readonly unknownKeys: readonly string[];
}

/**
 * Reads the cluster's configuration with what the backend reads of it.
 *
 * @throws {@link OverlayError} `ERR_NETWORK_CONFIG`, `ERR_BACKEND_UNKNOWN`, `ERR_BACKEND_OPTION`
 */
export function readNetwork(text: string): CarriedNetwork {
  const network = parseNetworkConfig(text);
  const backend = backendFor(network.backendType);
  return {
    network,
    backend: backend.parse(network.backendOptions),
    unknownKeys: unknownConfigKeys(text, backend.optionKeys),
  };
}
