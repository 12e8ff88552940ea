import { mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** Ends of pairs that stay on the host. */
export const vethKind: LinkKind<'veth'> = {
  isFlannels: false,
  fields: { mtu: mtuAttribute },
};
