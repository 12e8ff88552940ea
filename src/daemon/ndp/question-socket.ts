import { OverlayError } from '../../errors.js';
import type { IpAddress } from '../../ip/address.js';
import type { Prefix } from '../../ip/prefix.js';
import type { LinkInfo } from '../../netlink/link.js';
import { pollFd } from '../../sys/fd-poller.js';
import * as libc from '../../sys/libc.js';
import { PACKET_MR, SYS } from '../../sys/libc.js';
import { questionFilter, questionOf } from './question-filter.js';

/** linux/if_ether.h */
const ETH_P_IPV6 = 0x86dd;

/** Frames that are looked at before others get a turn. */
const BATCH = 64;

/** As much of a frame as is looked at. */
const FRAME_BYTES = 128;

/** Room for what waits: a flood beyond it is dropped by the kernel. */
const RECEIVE_BYTES = 256 * 1024;

/**
 * Hears neighbour solicitations for addresses of some subnets on a device, also for those whose multicast group nobody has
 * joined, as far as the switch passes them on.
 */
export type OpenQuestions = (
  link: LinkInfo,
  subnets: readonly Prefix[],
  onQuestion: (address: IpAddress) => void,
) => { close(): void };

/** @throws {@link OverlayError} `ERR_NDP_PROXY` without the right to listen, or where the device is gone. */
export const openQuestionSocket: OpenQuestions = ({ name, index }, subnets, onQuestion) => {
  const must = (result: number): number => {
    if (result >= 0) return result;
    const errno = libc.errnoName(result);
    throw new OverlayError('ERR_NDP_PROXY', `cannot listen on ${name} for who asks for containers: ${errno}`, {
      context: { dev: name, errno },
      hint: 'give the daemon CAP_NET_RAW; containers that have spoken are answered for meanwhile',
      isRetryable: true,
    });
  };
  const fd = must(libc.socket(SYS.AF_PACKET, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, 0)); // of no protocol yet: it gets nothing
  try {
    must(libc.attachFilter(fd, questionFilter(subnets)));
    must(libc.setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_RCVBUF, RECEIVE_BYTES));
    must(libc.joinPackets(fd, index, PACKET_MR.allMulticast));
    must(libc.bind(fd, libc.sockaddrLl(index, ETH_P_IPV6)));
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  const buffer = new Uint8Array(FRAME_BYTES);
  const poller = pollFd(fd, () => {
    for (let count = 0; count < BATCH; count++) {
      const length = libc.recv(fd, buffer, SYS.MSG_DONTWAIT);
      if (length < 0) return; // EAGAIN: drained; ENETDOWN: told once, and the device is followed elsewhere
      const address = questionOf(buffer.subarray(0, length));
      if (address !== undefined) onQuestion(address);
    }
  });
  return {
    close() {
      poller.close();
      libc.close(fd);
    },
  };
};
