import { OverlayError } from '../../errors.js';
import type { LinkInfo } from '../../netlink/link.js';
import type { NetlinkLinks } from '../../netlink/netlink.js';
import { readSysctl, writeSysctl } from '../../netlink/sysctl.js';
import { SYSCTL } from '../../netlink/sysctl-paths.js';
import * as libc from '../../sys/libc.js';
import { SYS } from '../../sys/libc.js';
import type { AnnouncementPort } from './announcer.js';

/** Of a packet socket: it receives nothing (packet(7)). */
const SENDS_ONLY = 0;

/** Of `arp_ignore` (ip-sysctl.rst): no reply for any address. */
const NO_REPLY = '8';

/** The {@link AnnouncementPort} of this host. */
export function openAnnouncementPort(links: Pick<NetlinkLinks, 'set'>): AnnouncementPort {
  return {
    sendBriefly(link, frames) {
      keepSilent(link);
      links.set(link, { isUp: true });
      try {
        sendFrames(link, frames);
      } finally {
        links.set(link, { isUp: false });
      }
    },
    send: sendFrames,
  };
}

/**
 * The host must not be heard with the MAC address of a container: it answers ARP for its addresses on whatever interface
 * is up, forwards or refuses what comes for the container so early, and IPv6 has much to say on a new one. The container
 * gets none of this: parameters of a device stay in the namespace.
 */
function keepSilent({ name }: LinkInfo): void {
  writeSysctl(SYSCTL.arpIgnore(name), NO_REPLY);
  writeSysctl(SYSCTL.deviceForwarding(name), '0');
  const disableIpv6 = SYSCTL.disableIpv6(name);
  if (readSysctl(disableIpv6) !== undefined) writeSysctl(disableIpv6, '1'); // there is none without IPv6
}

function sendFrames({ name, index }: LinkInfo, frames: readonly Uint8Array[]): void {
  const fd = must(name, libc.socket(SYS.AF_PACKET, SYS.SOCK_RAW, SENDS_ONLY));
  const address = libc.sockaddrLl(index, 0);
  try {
    for (const frame of frames) must(name, libc.sendTo(fd, frame, SYS.MSG_DONTWAIT, address));
  } finally {
    libc.close(fd);
  }
}

function must(dev: string, result: number): number {
  if (result >= 0) return result;
  const errno = libc.errnoName(result);
  throw new OverlayError('ERR_ANNOUNCEMENT', `cannot send on ${dev}: ${errno}`, {
    context: { dev, errno },
    hint: 'bring the interface up, and give the daemon CAP_NET_RAW',
  });
}
