import os from 'node:os';
import koffi from 'koffi';

/**
 * Thin wrappers over the C library for what Node does not offer: sockets of any family, device control, namespaces.
 *
 * API: every function returns what the call returned, or **minus errno**; nothing throws, so that the caller can say
 * what failed on which object. Turn a negative result into text with {@link errnoName}.
 * Threads: calls run on the thread of the caller and block it as the system call does; use non-blocking descriptors.
 * Limits: byte arrays are handed to the kernel in place, both ways, and only for the duration of the call. Numbers
 * inside structures are in the machine's byte order.
 */

const lib = koffi.load(null);

// `long` is as wide as ssize_t in every Linux ABI.
const native = {
  bind: lib.func('int bind(int fd, void *address, uint32_t length)') as (...a: unknown[]) => number,
  close: lib.func('int close(int fd)') as (...a: unknown[]) => number,
  capset: lib.func('int capset(void *header, void *data)') as (...a: unknown[]) => number,
  connect: lib.func('int connect(int fd, void *address, uint32_t length)') as (...a: unknown[]) => number,
  epollCreate1: lib.func('int epoll_create1(int flags)') as (...a: unknown[]) => number,
  epollCtl: lib.func('int epoll_ctl(int epoll, int operation, int fd, void *event)') as (...a: unknown[]) => number,
  eventfd: lib.func('int eventfd(uint32_t value, int flags)') as (...a: unknown[]) => number,
  execve: lib.func('int execve(const char *path, const char **argv, const char **environment)') as (
    ...a: unknown[]
  ) => number,
  fcntl: lib.func('int fcntl(int fd, int command, long argument)') as (...a: unknown[]) => number,
  flock: lib.func('int flock(int fd, int operation)') as (...a: unknown[]) => number,
  getsockname: lib.func('int getsockname(int fd, void *address, void *length)') as (...a: unknown[]) => number,
  getsockopt: lib.func('int getsockopt(int fd, int level, int name, void *value, void *length)') as (
    ...a: unknown[]
  ) => number,
  ifNameToIndex: lib.func('uint32_t if_nametoindex(const char *name)') as (...a: unknown[]) => number,
  ioctl: lib.func('int ioctl(int fd, ulong request, void *argument)') as (...a: unknown[]) => number,
  listen: lib.func('int listen(int fd, int backlog)') as (...a: unknown[]) => number,
  open: lib.func('int open(const char *path, int flags, uint32_t mode)') as (...a: unknown[]) => number,
  prctl: lib.func('int prctl(int option, ulong a, ulong b, ulong c, ulong d)') as (...a: unknown[]) => number,
  read: lib.func('long read(int fd, void *buffer, size_t length)') as (...a: unknown[]) => number,
  recv: lib.func('long recv(int fd, void *buffer, size_t length, int flags)') as (...a: unknown[]) => number,
  recvfrom: lib.func('long recvfrom(int fd, void *buffer, size_t length, int flags, void *address, void *alen)') as (
    ...a: unknown[]
  ) => number,
  send: lib.func('long send(int fd, void *buffer, size_t length, int flags)') as (...a: unknown[]) => number,
  sendmsg: lib.func('long sendmsg(int fd, void *message, int flags)') as (...a: unknown[]) => number,
  sendto: lib.func('long sendto(int fd, void *buffer, size_t length, int flags, void *address, uint32_t alen)') as (
    ...a: unknown[]
  ) => number,
  setns: lib.func('int setns(int fd, int type)') as (...a: unknown[]) => number,
  setsockopt: lib.func('int setsockopt(int fd, int level, int name, void *value, uint32_t length)') as (
    ...a: unknown[]
  ) => number,
  shutdown: lib.func('int shutdown(int fd, int how)') as (...a: unknown[]) => number,
  socket: lib.func('int socket(int domain, int type, int protocol)') as (...a: unknown[]) => number,
  write: lib.func('long write(int fd, void *buffer, size_t length)') as (...a: unknown[]) => number,
};

/** Numbers of the kernel interface (uapi of Linux; equal on all architectures Node supports), under their kernel names. */
export const SYS = {
  AF_UNIX: 1,
  AF_INET: 2,
  AF_INET6: 10,
  AF_NETLINK: 16,
  AF_PACKET: 17,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_NONBLOCK: 0o4000,
  SOCK_CLOEXEC: 0o2000000,
  IPPROTO_IP: 0,
  IPPROTO_ICMP: 1,
  IPPROTO_TCP: 6,
  IPPROTO_UDP: 17,
  IPPROTO_IPV6: 41,
  IPPROTO_ICMPV6: 58,
  IPPROTO_SCTP: 132,
  IPPROTO_RAW: 255,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  IPV6_V6ONLY: 26,
  SHUT_RDWR: 2,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_ERROR: 4,
  SO_BINDTODEVICE: 25,
  SO_ATTACH_FILTER: 26,
  SO_SNDBUFFORCE: 32,
  SO_RCVBUFFORCE: 33,
  SO_MARK: 36,
  SOL_NETLINK: 270,
  NETLINK_ADD_MEMBERSHIP: 1,
  NETLINK_DROP_MEMBERSHIP: 2,
  NETLINK_CAP_ACK: 10,
  NETLINK_EXT_ACK: 11,
  NETLINK_GET_STRICT_CHK: 12,
  IP_HDRINCL: 3,
  IP_MTU_DISCOVER: 10,
  IP_MTU: 14,
  IP_PMTUDISC_DONT: 0,
  IP_PMTUDISC_WANT: 1,
  IP_PMTUDISC_DO: 2,
  MSG_PEEK: 0x2,
  MSG_TRUNC: 0x20,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_RDWR: 2,
  O_CREAT: 0o100,
  O_NONBLOCK: 0o4000,
  O_CLOEXEC: 0o2000000,
  F_GETFD: 1,
  F_SETFD: 2,
  F_GETFL: 3,
  F_SETFL: 4,
  FD_CLOEXEC: 1,
  LOCK_SH: 1,
  LOCK_EX: 2,
  LOCK_NB: 4,
  LOCK_UN: 8,
  CLONE_NEWNET: 0x40000000,
  EFD_CLOEXEC: 0o2000000,
  EFD_NONBLOCK: 0o4000,
  PR_CAPBSET_DROP: 24,
  PR_SET_NO_NEW_PRIVS: 38,
} as const;

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  [
    ...Object.entries(os.constants.errno),
    // What Node's table does not have (uapi asm-generic/errno.h), and which of two names for one number is meant.
    ...Object.entries({ EAGAIN: 11, ENONET: 64, ECOMM: 70, ENOTUNIQ: 76, EBADFD: 77, EOPNOTSUPP: 95 }),
    ...Object.entries({ ESHUTDOWN: 108, EHOSTDOWN: 112 }),
  ].map(([name, number]) => [number, name]),
);

/**
 * Symbolic name of an error number.
 *
 * @param errno - positive, or negative as the functions of this module return it.
 * @returns for example `EADDRINUSE`, or `errno 524` for numbers without a name.
 */
export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`;
}

/** `result` unless the call failed, then minus errno. */
function orErrno(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

/** @returns descriptor, or minus errno. It is closed on exec. */
export function socket(domain: number, type: number, protocol: number): number {
  return orErrno(native.socket(domain, type | SYS.SOCK_CLOEXEC, protocol));
}

/** @param address - a `struct sockaddr_*`, see {@link sockaddrIn}, {@link sockaddrNl} and {@link sockaddrUn}. */
export function bind(fd: number, address: Uint8Array): number {
  return orErrno(native.bind(fd, address, address.length));
}

/** Makes a stream socket one that connections are waited for on. @param backlog - how many may wait. */
export function listen(fd: number, backlog: number): number {
  return orErrno(native.listen(fd, backlog));
}

/** Ends a direction of a connection, or that a socket listens. @param how - such as `SYS.SHUT_RDWR`. */
export function shutdown(fd: number, how: number): number {
  return orErrno(native.shutdown(fd, how));
}

/** @param address - a `struct sockaddr_*`. */
export function connect(fd: number, address: Uint8Array): number {
  return orErrno(native.connect(fd, address, address.length));
}

/** @returns length of the bound address that was stored, or minus errno. */
export function getsockname(fd: number, address: Uint8Array): number {
  const length = Uint32Array.of(address.length);
  const result = orErrno(native.getsockname(fd, address, length));
  return result < 0 ? result : (length[0] ?? 0);
}

/** @returns bytes sent, or minus errno. */
export function send(fd: number, data: Uint8Array, flags = 0): number {
  return orErrno(native.send(fd, data, data.length, flags));
}

/** @returns bytes sent, or minus errno. */
export function sendTo(fd: number, data: Uint8Array, flags: number, address: Uint8Array): number {
  return orErrno(native.sendto(fd, data, data.length, flags, address, address.length));
}

/**
 * Receives one message.
 *
 * @param flags - with `SYS.MSG_TRUNC` the result is the real length of the datagram, also on netlink sockets: larger
 * than `buffer.length` means the rest was cut off.
 * @returns bytes received, or minus errno.
 */
export function recv(fd: number, buffer: Uint8Array, flags = 0): number {
  return orErrno(native.recv(fd, buffer, buffer.length, flags));
}

/**
 * Like {@link recv}, and stores the sender's `struct sockaddr_*`.
 *
 * @param address - overwritten; as long as the structure that is expected, or longer.
 */
export function recvFrom(fd: number, buffer: Uint8Array, flags: number, address: Uint8Array): number {
  return orErrno(native.recvfrom(fd, buffer, buffer.length, flags, address, Uint32Array.of(address.length)));
}

/** @param value - the option's structure. */
export function setsockopt(fd: number, level: number, name: number, value: Uint8Array): number {
  return orErrno(native.setsockopt(fd, level, name, value, value.length));
}

/** Sets an option that is a C `int`. */
export function setsockoptInt(fd: number, level: number, name: number, value: number): number {
  return orErrno(native.setsockopt(fd, level, name, Int32Array.of(value), 4));
}

/** @returns bytes stored in `value`, or minus errno. */
export function getsockopt(fd: number, level: number, name: number, value: Uint8Array): number {
  const length = Uint32Array.of(value.length);
  const result = orErrno(native.getsockopt(fd, level, name, value, length));
  return result < 0 ? result : (length[0] ?? 0);
}

/** @returns the value of an option that is a C `int` and never negative, or minus errno. */
export function getsockoptInt(fd: number, level: number, name: number): number {
  const value = Int32Array.of(0);
  const result = orErrno(native.getsockopt(fd, level, name, value, Uint32Array.of(4)));
  return result < 0 ? result : (value[0] ?? 0);
}

/** One instruction of classic BPF: code, jump if true, jump if false, constant (linux/filter.h). */
export type BpfInstruction = readonly [code: number, jt: number, jf: number, k: number];

/**
 * Has the kernel ask a classic BPF program which datagrams the socket gets (socket(7), `SO_ATTACH_FILTER`).
 */
export function attachFilter(fd: number, program: readonly BpfInstruction[]): number {
  if (koffi.sizeof('size_t') !== 8) return -os.constants.errno.ENOSYS; // the structures below are those of 64-bit Linux

  // struct sock_filter { uint16 code; uint8 jt; uint8 jf; uint32 k; }
  const code = new Uint8Array(8 * program.length);
  for (const [index, [operation, jt, jf, k]] of program.entries()) {
    new Uint16Array(code.buffer, 8 * index, 1)[0] = operation;
    code.set([jt, jf], 8 * index + 2);
    new Uint32Array(code.buffer, 8 * index + 4, 1)[0] = k;
  }
  // struct sock_fprog { uint16 length; struct sock_filter *filter; }, the pointer aligned
  const header = new BigUint64Array([0n, koffi.address(code)]);
  new Uint16Array(header.buffer, 0, 1)[0] = program.length;
  return setsockopt(fd, SYS.SOL_SOCKET, SYS.SO_ATTACH_FILTER, new Uint8Array(header.buffer));
}

/** @returns descriptor, or minus errno. It is closed on exec. */
export function open(path: string, flags: number, mode = 0): number {
  return orErrno(native.open(path, flags | SYS.O_CLOEXEC, mode));
}

/** Closes a descriptor. EINTR counts as closed, as Linux frees the number before it can be interrupted (close(2)). */
export function close(fd: number): number {
  return orErrno(native.close(fd));
}

/** @returns bytes read, 0 at the end, or minus errno. */
export function read(fd: number, buffer: Uint8Array): number {
  return orErrno(native.read(fd, buffer, buffer.length));
}

/** @returns bytes written, or minus errno. */
export function write(fd: number, data: Uint8Array): number {
  return orErrno(native.write(fd, data, data.length));
}

/** Device control with a structure, which the kernel reads, fills or both. */
export function ioctl(fd: number, request: number, argument: Uint8Array): number {
  return orErrno(native.ioctl(fd, request, argument));
}

/** `fcntl` with an integer argument. */
export function fcntl(fd: number, command: number, argument = 0): number {
  return orErrno(native.fcntl(fd, command, argument));
}

/** Makes reads and writes return -EAGAIN instead of waiting. */
export function setNonBlocking(fd: number): number {
  const flags = fcntl(fd, SYS.F_GETFL);
  return flags < 0 ? flags : fcntl(fd, SYS.F_SETFL, flags | SYS.O_NONBLOCK);
}

/** A second descriptor for the same open file, closed on exec; {@link close} it as well. */
export function duplicate(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030;
  return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/** Advisory lock on an open file; freed when the last descriptor of that opening is closed. */
export function flock(fd: number, operation: number): number {
  return orErrno(native.flock(fd, operation));
}

/** Process control; unused arguments are 0. */
export function prctl(option: number, a = 0, b = 0, c = 0, d = 0): number {
  return orErrno(native.prctl(option, a, b, c, d));
}

/**
 * Sets the capabilities of the *calling thread*; see capset(2).
 *
 * @returns 0, or minus errno.
 */
export function capset(sets: {
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
}): number {
  const LINUX_CAPABILITY_VERSION_3 = 0x20080522;
  // struct __user_cap_data_struct { effective, permitted, inheritable }, first for bits 0…31, then for 32…63
  const words = [0n, 32n].flatMap((shift) =>
    [sets.effective, sets.permitted, sets.inheritable].map((set) => Number((set >> shift) & 0xffffffffn)),
  );
  return orErrno(native.capset(Uint32Array.of(LINUX_CAPABILITY_VERSION_3, 0), Uint32Array.from(words)));
}

/**
 * Replaces the program of this process; its other threads end. Descriptors without close-on-exec stay open.
 *
 * @returns only if that fails: minus errno.
 */
export function execve(
  file: string,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): number {
  const pairs = Object.entries(environment).flatMap(([name, value]) => (value === undefined ? [] : `${name}=${value}`));
  return orErrno(native.execve(file, [...argv, null], [...pairs, null]));
}

/**
 * Moves the *calling thread* into a namespace. Sockets and threads it makes from then on belong there; threads that
 * exist already, such as those of libuv, do not move.
 *
 * @param fd - an open `/proc/<pid>/ns/<kind>` or `/run/netns/<name>`.
 * @param type - such as `SYS.CLONE_NEWNET`.
 */
export function setns(fd: number, type: number): number {
  return orErrno(native.setns(fd, type));
}

/** @returns descriptor of a counter to wait on, non-blocking and closed on exec, or minus errno. */
export function eventfd(initialValue = 0): number {
  return orErrno(native.eventfd(initialValue, SYS.EFD_NONBLOCK | SYS.EFD_CLOEXEC));
}

/**
 * Whether epoll can wait on the descriptor.
 *
 * @returns 0, or minus errno: -EPERM for regular files, -EBADF for a closed one.
 */
export function checkPollable(fd: number): number {
  const EPOLL_CTL_ADD = 1;
  const epoll = orErrno(native.epollCreate1(SYS.O_CLOEXEC));
  if (epoll < 0) return epoll;
  const result = orErrno(native.epollCtl(epoll, EPOLL_CTL_ADD, fd, new Uint8Array(16)));
  close(epoll);
  return result;
}

/** @returns index of a network device, or minus errno (-ENODEV if there is none with that name). */
export function ifNameToIndex(name: string): number {
  const index = native.ifNameToIndex(name);
  return index === 0 ? -koffi.errno() : index;
}

/**
 * Sends one datagram with descriptors attached (`SCM_RIGHTS`, unix(7)); the receiver gets duplicates.
 *
 * @param address - `struct sockaddr_un` of the receiver, undefined on a connected socket.
 * @returns bytes sent, or minus errno.
 */
export function sendDescriptors(
  fd: number,
  data: Uint8Array,
  descriptors: readonly number[],
  address?: Uint8Array,
): number {
  const WORD = 8;
  const SCM_RIGHTS = 1;
  if (koffi.sizeof('size_t') !== WORD) return -os.constants.errno.ENOSYS; // the structures below are those of 64-bit Linux

  // struct iovec { void *base; size_t length; }
  const vector = new BigUint64Array([koffi.address(data), BigInt(data.length)]);
  // struct cmsghdr { size_t length; int level; int type; } followed by the ints, padded to a word
  const controlLength = 2 * WORD + 4 * descriptors.length;
  const control = new ArrayBuffer(Math.ceil(controlLength / WORD) * WORD);
  new BigUint64Array(control, 0, 1)[0] = BigInt(controlLength);
  new Int32Array(control).set([SYS.SOL_SOCKET, SCM_RIGHTS, ...descriptors], 2);
  const controlBytes = new Uint8Array(control);
  // struct msghdr { void *name; socklen_t; struct iovec *; size_t; void *control; size_t; int flags; }, padded to words
  const message = new BigUint64Array([
    address === undefined ? 0n : koffi.address(address),
    BigInt(address?.length ?? 0),
    koffi.address(vector),
    1n,
    koffi.address(controlBytes),
    BigInt(controlBytes.length),
    0n,
  ]);
  return orErrno(native.sendmsg(fd, message, SYS.MSG_NOSIGNAL));
}

/**
 * `struct sockaddr_in` or `struct sockaddr_in6`, the latter without flow label and scope.
 *
 * @param address - 4 or 16 bytes, which choose the family.
 */
export function sockaddrIn(address: Uint8Array, port: number): Uint8Array {
  const isV4 = address.length === 4;
  const bytes = new Uint8Array(isV4 ? 16 : 28);
  new Uint16Array(bytes.buffer, 0, 1)[0] = isV4 ? SYS.AF_INET : SYS.AF_INET6;
  bytes[2] = port >> 8;
  bytes[3] = port;
  bytes.set(address, isV4 ? 4 : 8);
  return bytes;
}

/** `struct sockaddr_nl`; all zero lets the kernel choose the port. */
export function sockaddrNl(port = 0, groups = 0): Uint8Array {
  const bytes = new Uint8Array(12);
  new Uint16Array(bytes.buffer, 0, 1)[0] = SYS.AF_NETLINK;
  new Uint32Array(bytes.buffer, 4, 2).set([port, groups]);
  return bytes;
}

/** `struct sockaddr_un` of a path, or of an abstract name if it starts with `@`. */
export function sockaddrUn(path: string): Uint8Array {
  const name = new TextEncoder().encode(path);
  const isAbstract = path.startsWith('@');
  const bytes = new Uint8Array(2 + name.length + (isAbstract ? 0 : 1));
  new Uint16Array(bytes.buffer, 0, 1)[0] = SYS.AF_UNIX;
  bytes.set(name, 2);
  if (isAbstract) bytes[2] = 0;
  return bytes;
}

/** What a packet socket can have its device receive besides (`linux/if_packet.h`). */
export const PACKET_MR = { multicast: 0, allMulticast: 2, unicast: 3 } as const;

const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;

/**
 * Has the device of a packet socket receive more than its own frames, as long as the socket is open.
 *
 * @param mac - six bytes; none for `allMulticast`.
 */
export function joinPackets(
  fd: number,
  ifindex: number,
  type: (typeof PACKET_MR)[keyof typeof PACKET_MR],
  mac: Uint8Array = new Uint8Array(0),
): number {
  // struct packet_mreq { int ifindex; uint16 type; uint16 length; uint8 address[8]; }
  const membership = new Uint8Array(16);
  new Int32Array(membership.buffer, 0, 1)[0] = ifindex;
  new Uint16Array(membership.buffer, 4, 2).set([type, mac.length]);
  membership.set(mac, 8);
  return setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership);
}

/** `struct sockaddr_ll` for sending on, or binding to, one device. */
export function sockaddrLl(ifindex: number, etherType: number): Uint8Array {
  const bytes = new Uint8Array(20);
  new Uint16Array(bytes.buffer, 0, 1)[0] = SYS.AF_PACKET;
  bytes[2] = etherType >> 8;
  bytes[3] = etherType;
  new Int32Array(bytes.buffer, 4, 1)[0] = ifindex;
  return bytes;
}
