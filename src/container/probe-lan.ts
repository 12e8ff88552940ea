import os from 'node:os';
import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import { type MacAddress, macFromBytes, macToBytes, parseMac } from '../ip/mac.js';
import { pollFd } from '../sys/fd-poller.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';
import { PROBE_FRAMES, type ProbeFrames } from './probe-frames.js';

/**
 * Questions, and the time after each in which an answer is waited for; 450 ms in all. RFC 5227 asks three times as well,
 * but takes seconds, which somebody who starts a container would notice; a machine on a LAN answers within milliseconds.
 */
const PROBES = 3;
const PROBE_INTERVAL_MS = 150;

/** The largest frame without jumbo frames; no answer is longer. */
const FRAME_BYTES = 1514;

/** Frames that are looked at before others get a turn. */
const RECEIVE_BATCH = 64;

/** linux/if_packet.h, linux/sockios.h, linux/if_arp.h */
const [SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST] = [263, 1, 0];
const SIOCGIFHWADDR = 0x8927;
const ARPHRD_ETHER = 1;

/**
 * Asks the network of a device whether a machine has an address: an ARP probe for IPv4 (RFC 5227), a neighbour
 * solicitation as for duplicate address detection for IPv6 (RFC 4862). No cache on the network changes by it.
 *
 * @returns its MAC address at once, also where it is this host, and where another machine asks for the address itself;
 * undefined if nobody answers within 0.45 s, or the device is down: then nobody can.
 * @throws {@link OverlayError} `ERR_LAN_PROBE` if there is no such Ethernet device, or no right to ask.
 */
export async function probeLan(device: string, address: IpAddress, clock: Clock): Promise<MacAddress | undefined> {
  const own = ownMac(address);
  if (own !== undefined) return own;
  const frames = PROBE_FRAMES[address.family];
  const { fd, ifindex, mac } = openSocket(device, address, frames);
  const question = frames.encode(address, mac);
  const to = libc.sockaddrLl(ifindex, frames.etherType);
  try {
    return await new Promise((resolve, reject) => {
      let cancel = (): void => {};
      const end = (): void => {
        cancel();
        poller.close();
      };
      const poller = pollFd(fd, () => {
        const answer = receive(fd, address, mac, frames);
        if (answer === undefined) return;
        end();
        resolve(answer);
      });
      const ask = (left: number): void => {
        const sent = left === 0 ? 0 : libc.sendTo(fd, question, SYS.MSG_DONTWAIT, to);
        const errno = sent < 0 ? libc.errnoName(sent) : undefined;
        if (left === 0 || errno === 'ENETDOWN') {
          end();
          resolve(undefined);
        } else if (errno !== undefined && errno !== 'EAGAIN' && errno !== 'ENOBUFS') {
          end();
          reject(failure(device, address, errno));
        } else cancel = clock.after(PROBE_INTERVAL_MS, () => ask(left - 1));
      };
      ask(PROBES);
    });
  } finally {
    libc.close(fd);
  }
}

/** The kernel does not answer its own questions. */
function ownMac(address: IpAddress): MacAddress | undefined {
  const own = Object.values(os.networkInterfaces())
    .flat()
    .find((each) => each?.address === address.toString());
  return own && parseMac(own.mac);
}

/** A packet socket that gets frames about the address alone, from the first one on. */
function openSocket(
  device: string,
  address: IpAddress,
  frames: ProbeFrames,
): { readonly fd: number; readonly ifindex: number; readonly mac: MacAddress } {
  const ifindex = libc.ifNameToIndex(device);
  if (ifindex < 0) throw failure(device, address, libc.errnoName(ifindex));
  const fd = libc.socket(SYS.AF_PACKET, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, 0); // of no protocol yet: it gets nothing
  if (fd < 0) throw failure(device, address, libc.errnoName(fd));
  try {
    const must = (result: number): void => {
      if (result < 0) throw failure(device, address, libc.errnoName(result));
    };
    // struct ifreq { char name[16]; struct sockaddr { uint16 family; uint8 data[14] }; }
    const request = new Uint8Array(40);
    request.set(new TextEncoder().encode(device).subarray(0, 15));
    must(libc.ioctl(fd, SIOCGIFHWADDR, request));
    if (new Uint16Array(request.buffer, 16, 1)[0] !== ARPHRD_ETHER) throw failure(device, address, 'it is no Ethernet');
    must(libc.attachFilter(fd, frames.filter(address)));
    for (const group of frames.groups(address)) {
      // struct packet_mreq { int ifindex; uint16 type; uint16 length; uint8 address[8]; }
      const membership = new Uint8Array(16);
      new Int32Array(membership.buffer, 0, 1)[0] = ifindex;
      new Uint16Array(membership.buffer, 4, 2).set([PACKET_MR_MULTICAST, 6]);
      membership.set(macToBytes(group), 8);
      must(libc.setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership));
    }
    must(libc.bind(fd, libc.sockaddrLl(ifindex, frames.etherType)));
    return { fd, ifindex, mac: macFromBytes(request.subarray(18, 24)) };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** The first answer among the frames that have arrived; our own, which a switch may reflect, is none. */
function receive(fd: number, address: IpAddress, own: MacAddress, frames: ProbeFrames): MacAddress | undefined {
  const buffer = new Uint8Array(FRAME_BYTES);
  for (let count = 0; count < RECEIVE_BATCH; count++) {
    const length = libc.recv(fd, buffer, SYS.MSG_DONTWAIT);
    if (length < 0) return undefined; // EAGAIN: drained; ENETDOWN: told once, the next question finds it
    const answer = frames.read(address, buffer.subarray(0, length));
    if (answer !== undefined && answer !== own) return answer;
  }
  return undefined;
}

function failure(device: string, address: IpAddress, reason: string): OverlayError {
  return new OverlayError('ERR_LAN_PROBE', `cannot ask on ${device} who has ${address.toString()}: ${reason}`, {
    context: { dev: device },
    hint: 'check the parent interface, give the daemon CAP_NET_RAW, or switch this off with -o probe=off',
  });
}
