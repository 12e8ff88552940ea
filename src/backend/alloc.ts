import { NO_LEASE_DATA, defineBackend } from './backend.js';

/**
 * A lease and nothing else: packets are carried by something outside.
 *
 * @see flannel `pkg/backend/alloc/alloc.go`
 */
export const allocBackend = defineBackend({
  type: 'alloc',
  publishedType: '',
  families: [],
  deviceKind: undefined,
  deviceNames: undefined,
  rules: {},
  configure: () => ({
    carrier: undefined,
    asksOnLink: false,
    check: () => {},
    mtu: (_network, underlay) => underlay.mtu,
    leaseData: () => NO_LEASE_DATA,
    desired: () => ({ base: {}, peer: () => ({ state: {} }) }),
  }),
});
