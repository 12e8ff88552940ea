import { Prefix } from '../ip/prefix.js';
import type { AddressInfo } from '../netlink/address.js';
import type { LinkInfo } from '../netlink/link.js';

/**
 * The device behind which a router takes the addresses of a subnet to be: one whose own prefix the subnet is a part of. It
 * asks there who has them, instead of sending to a host.
 *
 * @param isCandidate - what else a device has to be.
 * @returns of several the one with the longest prefix; undefined if there is none: then addresses of the subnet are routed.
 */
export function onLinkDevice(
  subnet: Prefix,
  { links, addresses }: { readonly links: readonly LinkInfo[]; readonly addresses: readonly AddressInfo[] },
  isCandidate: (link: LinkInfo) => boolean = () => true,
): LinkInfo | undefined {
  const wider = addresses
    .filter(({ address, length }) => address.isGlobalUnicast && length <= subnet.length)
    .filter(({ address, length }) => Prefix.of(address, length).covers(subnet))
    .sort((a, b) => b.length - a.length);
  for (const { index, length } of wider) {
    const link = links.find((each) => each.index === index);
    if (link === undefined || link.isLoopback || !isCandidate(link)) continue;
    // A bridge with just this subnet is where it is, not where it is asked for.
    if (length < subnet.length || link.kind !== 'bridge') return link;
  }
  return undefined;
}
