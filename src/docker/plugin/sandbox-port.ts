import { openNetnsSocket } from '../../dataplane/native.js';
import { OverlayError } from '../../errors.js';
import { Netlink } from '../../netlink/netlink.js';
import * as libc from '../../sys/libc.js';
import { SYS } from '../../sys/libc.js';
import type { OpenSandboxPort, SandboxPort } from './announcer.js';

/** Of a packet socket: it receives nothing (packet(7)). */
const SENDS_ONLY = 0;

const NETLINK_ROUTE = 0;

/** {@link OpenSandboxPort} of this host: sockets that the addon opens in the namespace. */
export const openSandboxPort: OpenSandboxPort = async ({ mac, sandbox }) => {
  const netlink = Netlink.open({
    openSocket: () => openNetnsSocket(sandbox, SYS.AF_NETLINK, SYS.SOCK_RAW, NETLINK_ROUTE),
  });
  try {
    const link = (await netlink.links.list()).find((each) => each.mac === mac && each.isUp && !each.isLoopback);
    return link === undefined ? undefined : packetPort(sandbox, link.index);
  } finally {
    netlink.close();
  }
};

function packetPort(sandbox: string, index: number): SandboxPort {
  const fd = openNetnsSocket(sandbox, SYS.AF_PACKET, SYS.SOCK_RAW, SENDS_ONLY);
  const address = libc.sockaddrLl(index, 0);
  return {
    send(frames) {
      for (const frame of frames) {
        const sent = libc.sendTo(fd, frame, SYS.MSG_NOSIGNAL, address);
        if (sent >= 0) continue;
        const errno = libc.errnoName(sent);
        throw new OverlayError('ERR_NETNS', `cannot send from ${sandbox}: ${errno}`, { context: { errno } });
      }
    },
    close() {
      libc.close(fd);
    },
  };
}
