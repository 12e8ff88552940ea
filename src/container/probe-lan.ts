import os from 'node:os';
import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import type { IpAddress } from '../ip/address.js';
import { type MacAddress, macFromBytes, macToBytes, parseMac } from '../ip/mac.js';
import { pollFd } from '../sys/fd-poller.js';
import * as libc from '../sys/libc.js';
import { PACKET_MR, SYS } from '../sys/libc.js';
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

/** linux/sockios.h, linux/if_arp.h, linux/if_ether.h */
const SIOCGIFHWADDR = 0x8927;
const ARPHRD_ETHER = 1;
const ETH_P_ALL = 0x0003;

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
  const socket = openSocket(device, address, undefined);
  return ask(socket, address, clock, (frame) => {
    const answer = socket.frames.read(address, frame);
    return answer === socket.sender ? undefined : answer; // our own question, which a switch may reflect, is none
  });
}

/**
 * Whether a machine answers an ARP probe to the MAC address that asks, as it does for a container with that address: the
 * question got out, and the answer back to where it was asked.
 *
 * @param address - IPv4, of another machine: a solicitation for IPv6 that changes no cache is answered to all nodes.
 * @param sender - the device's own, or another one, which the device receives as long as this takes.
 * @throws {@link OverlayError} as {@link probeLan}.
 */
export async function isAnsweredTo(
  sender: MacAddress,
  device: string,
  address: IpAddress,
  clock: Clock,
): Promise<boolean> {
  const socket = openSocket(device, address, sender);
  const to = [...macToBytes(sender)];
  const answer = await ask(socket, address, clock, (frame) =>
    to.every((byte, index) => byte === frame[index]) ? socket.frames.read(address, frame) : undefined,
  );
  return answer !== undefined;
}

/** A socket that asks and hears. */
interface ProbeSocket {
  readonly fd: number;
  readonly device: string;
  readonly ifindex: number;
  readonly sender: MacAddress;
  readonly frames: ProbeFrames;
}

/** Asks until a frame is an answer, and closes the socket. */
async function ask(
  { fd, device, ifindex, sender, frames }: ProbeSocket,
  address: IpAddress,
  clock: Clock,
  read: (frame: Uint8Array) => MacAddress | undefined,
): Promise<MacAddress | undefined> {
  const question = frames.encode(address, sender);
  const to = libc.sockaddrLl(ifindex, frames.etherType);
  try {
    return await new Promise((resolve, reject) => {
      let cancel = (): void => {};
      const end = (): void => {
        cancel();
        poller.close();
      };
      const poller = pollFd(fd, () => {
        const answer = receive(fd, read);
        if (answer === undefined) return;
        end();
        resolve(answer);
      });
      const send = (left: number): void => {
        const sent = left === 0 ? 0 : libc.sendTo(fd, question, SYS.MSG_DONTWAIT, to);
        const errno = sent < 0 ? libc.errnoName(sent) : undefined;
        if (left === 0 || errno === 'ENETDOWN') {
          end();
          resolve(undefined);
        } else if (errno !== undefined && errno !== 'EAGAIN' && errno !== 'ENOBUFS') {
          end();
          reject(failure(device, address, errno));
        } else cancel = clock.after(PROBE_INTERVAL_MS, () => send(left - 1));
      };
      send(PROBES);
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

/**
 * A packet socket that gets frames about the address alone, from the first one on.
 *
 * @param sender - a MAC address to receive as well; undefined for the device's own alone.
 */
function openSocket(device: string, address: IpAddress, sender: MacAddress | undefined): ProbeSocket {
  const frames = PROBE_FRAMES[address.family];
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
      must(libc.joinPackets(fd, ifindex, PACKET_MR.multicast, macToBytes(group)));
    }
    // As macvlan does it (`dev_uc_add()`): the device's filter lets it in, and nothing else changes.
    if (sender !== undefined) must(libc.joinPackets(fd, ifindex, PACKET_MR.unicast, macToBytes(sender)));
    // What macvlan takes for a container does not get as far as to sockets of one protocol.
    must(libc.bind(fd, libc.sockaddrLl(ifindex, sender === undefined ? frames.etherType : ETH_P_ALL)));
    return { fd, device, ifindex, sender: sender ?? macFromBytes(request.subarray(18, 24)), frames };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** The first answer among the frames that have arrived. */
function receive(fd: number, read: (frame: Uint8Array) => MacAddress | undefined): MacAddress | undefined {
  const buffer = new Uint8Array(FRAME_BYTES);
  for (let count = 0; count < RECEIVE_BATCH; count++) {
    const length = libc.recv(fd, buffer, SYS.MSG_DONTWAIT);
    if (length < 0) return undefined; // EAGAIN: drained; ENETDOWN: told once, the next question finds it
    const answer = read(buffer.subarray(0, length));
    if (answer !== undefined) return answer;
  }
  return undefined;
}

function failure(device: string, address: IpAddress, reason: string): OverlayError {
  return new OverlayError('ERR_LAN_PROBE', `cannot ask on ${device} who has ${address.toString()}: ${reason}`, {
    context: { dev: device },
    hint: 'check the parent interface, give the daemon CAP_NET_RAW, or switch this off with -o probe=off',
  });
}
