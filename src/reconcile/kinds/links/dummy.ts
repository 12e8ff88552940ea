import { mtuAttribute } from './attributes.js';
import type { LinkKind } from './link-kind.js';

/** Dummy devices: what others lie on that is not to lead anywhere. */
export const dummyKind: LinkKind<'dummy'> = {
  isFlannels: false,
  fields: { mtu: mtuAttribute },
};
