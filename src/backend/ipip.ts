import { OverlayError } from '../errors.js';
import { NO_LEASE_DATA, defineBackend } from './backend.js';
import { destinationsOf } from './families.js';

/** Outer IPv4 header. */
const ENCAP_OVERHEAD = 20;

/** Name of the device, as flannel names it. */
const DEVICE = 'flannel.ipip';

/**
 * IPv4 in IPv4 (RFC 2003) through one device without a fixed remote: the gateway of each route is the outer destination.
 *
 * @see flannel `pkg/backend/ipip/ipip.go`
 */
export const ipipBackend = defineBackend({
  type: 'ipip',
  publishedType: 'ipip',
  families: [4],
  deviceKind: 'ipip',
  deviceNames: /^flannel\.ipip$/,
  rules: { directRouting: { key: 'DirectRouting', kind: 'bool', default: false } },
  configure: ({ directRouting }) => ({
    carrier: { protocol: 'ipip' },
    asksOnLink: directRouting,

    check(network, underlay) {
      if (network.ipv4 === undefined || underlay.address === undefined) {
        throw new OverlayError('ERR_BACKEND_HOST', 'cannot run backend ipip: it carries IPv4 over IPv4 only', {
          hint: 'enable IPv4 or choose vxlan',
        });
      }
    },

    mtu: (_network, underlay) => underlay.mtu - ENCAP_OVERHEAD,
    leaseData: () => NO_LEASE_DATA,

    desired(context) {
      const { host, own } = context;
      const { address, device, mtu } = host.underlay;
      return {
        base:
          address === undefined
            ? {}
            : {
                links: [{ kind: 'ipip', name: DEVICE, mtu: mtu - ENCAP_OVERHEAD, local: address }],
                addresses: [{ device: DEVICE, address: own.subnet.address, length: 32 }],
              },

        peer(lease) {
          const { publicIp } = lease.attributes;
          const isDirect = directRouting && host.isOnLink(publicIp);
          return {
            state: {
              routes: destinationsOf(lease, 4, context).map((to) => ({
                ...to,
                type: 'unicast',
                device: isDirect ? device : DEVICE,
                gateway: publicIp,
                isOnlink: true,
              })),
            },
          };
        },
      };
    },
  }),
});
