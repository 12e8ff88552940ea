import { readBackendOptions } from '../config/backend-options.js';
import { OverlayError } from '../errors.js';
import type { Backend, BackendOptions } from './backend.js';

/** Outer IPv4 header. */
const ENCAP_OVERHEAD = 20;

/** Name of the device, as flannel names it. */
const DEVICE = 'flannel.ipip';

function usesDirectRouting(options: BackendOptions): boolean {
  return readBackendOptions('ipip', options, {
    directRouting: { key: 'DirectRouting', kind: 'bool', default: false },
  }).directRouting;
}

/**
 * IPv4 in IPv4 (RFC 2003) through one device without a fixed remote: the gateway of each route is the outer destination.
 *
 * @see flannel `pkg/backend/ipip/ipip.go`
 */
export const ipipBackend: Backend = {
  type: 'ipip',

  check(network, options, underlay) {
    usesDirectRouting(options);
    if (network.ipv4 === undefined || underlay.address === undefined) {
      throw new OverlayError('ERR_BACKEND_HOST', 'cannot run backend ipip: it carries IPv4 over IPv4 only', {
        hint: 'enable IPv4 or choose vxlan',
      });
    }
  },

  mtu: (_network, _options, underlay) => underlay.mtu - ENCAP_OVERHEAD,
  asksOnLink: usesDirectRouting,
  leaseData: () => ({ backendType: 'ipip', backendData: undefined, backendV6Data: undefined }),

  base({ host, own }) {
    const { address, mtu } = host.underlay;
    if (address === undefined) return {};
    return {
      links: [{ kind: 'ipip', name: DEVICE, mtu: mtu - ENCAP_OVERHEAD, local: address }],
      addresses: [{ device: DEVICE, address: own.subnet.address, length: 32 }],
    };
  },

  peer(context, lease) {
    const gateway = lease.attributes.publicIp;
    const isDirect = usesDirectRouting(context.options) && context.host.isOnLink(gateway);
    return {
      state: {
        routes: [
          {
            destination: lease.subnet,
            type: 'unicast',
            device: isDirect ? context.host.underlay.device : DEVICE,
            gateway,
            isOnlink: true,
            scope: 'global',
          },
        ],
      },
    };
  },
};
