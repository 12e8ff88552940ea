import { isSame } from '../../ip/same.js';
import type { TunnelPeer, TunnelSpec } from '../../dataplane/tunnel-spec.js';
import { fieldsBy, isIdentical, listsBy } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { Kind } from './kind.js';

/** Key of the tunnel on a device. */
export function tunnelKey(device: string): ObjectKey {
  return `tunnel ${device}`;
}

/** Userspace tunnels: not in the kernel but in this process, which keeps them open. */
export const tunnelKind: Kind<'tunnel'> = {
  keyOf: ({ device }) => tunnelKey(device),
  isSame: fieldsBy<TunnelSpec>({
    device: isIdentical,
    bindAddress: isSame,
    port: isIdentical,
    mtu: isIdentical,
    verifySource: isIdentical,
    icmpSource: isSame,
    ownPrefixes: listsBy(isSame),
    peers: listsBy(fieldsBy<TunnelPeer>({ subnet: isSame, publicIp: isSame, isKernelPeer: isIdentical })),
    uplink: (a, b) => a?.device === b?.device && a?.index === b?.index,
  }),
};
