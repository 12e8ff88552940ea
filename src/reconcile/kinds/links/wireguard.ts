import { mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** WireGuard devices. rtnetlink knows nothing of their keys, port and peers: those are objects of their own. */
export const wireguardLinkKind: LinkKind<'wireguard'> = {
  isFlannels: true,
  fields: { mtu: mtuAttribute },
};
