import { type Backend, NO_LEASE_DATA } from './backend.js';

/**
 * A lease and nothing else: packets are carried by something outside.
 *
 * @see flannel `pkg/backend/alloc/alloc.go`
 */
export const allocBackend: Backend = {
  type: 'alloc',
  check: () => {},
  mtu: (_network, _options, underlay) => underlay.mtu,
  asksOnLink: () => false,
  leaseData: () => NO_LEASE_DATA,
  base: () => ({}),
  peer: () => ({ state: {} }),
};
