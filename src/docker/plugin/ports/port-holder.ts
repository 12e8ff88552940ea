import type { PortProtocol } from '../../../firewall/containers/container-rules.js';
import type { IpAddress } from '../../../ip/address.js';
import { SYS, bind, close, errnoName, listen, setsockoptInt, shutdown, sockaddrIn, socket } from '../../../sys/libc.js';

/** An address and port of this host. */
export interface HostPort {
  readonly protocol: PortProtocol;
  /** `0.0.0.0` or `::` for all addresses of the family. */
  readonly address: IpAddress;
  readonly port: number;
}

/** Gives a port back. */
export type ReleasePort = () => void;

/**
 * Keeps a port of this host from every other program.
 *
 * @returns undefined where this host has no such protocol or family, so that nobody can have it.
 * @throws {@link PortRefusal}
 */
export type HoldPort = (place: HostPort) => ReleasePort | undefined;

/** Why a port cannot be held. */
export class PortRefusal extends Error {
  /** @param errno - such as `EADDRINUSE`, where another program has it. */
  constructor(readonly errno: string) {
    super(errno);
  }
}

const SOCKETS: Readonly<Record<PortProtocol, readonly [type: number, protocol: number]>> = {
  tcp: [SYS.SOCK_STREAM, SYS.IPPROTO_TCP],
  udp: [SYS.SOCK_DGRAM, SYS.IPPROTO_UDP],
  sctp: [SYS.SOCK_STREAM, SYS.IPPROTO_SCTP],
};

/** A kernel without the family or protocol. */
const UNKNOWN: ReadonlySet<string> = new Set(['EAFNOSUPPORT', 'EPROTONOSUPPORT', 'ESOCKTNOSUPPORT']);

/**
 * {@link HoldPort} by a socket, as Docker's proxy does: what a container has published no program of the host can take,
 * and the kernel gives it to nobody who asks for any port. Traffic never gets there, since it is translated before.
 *
 * @remarks The socket does not listen: who calls where nothing is translated, such as under `::1`, is refused at once
 * and tries the next address. For TCP it has listened, which a socket may where others are in TIME_WAIT and none
 * listens, and was shut down; it keeps its port (`tcp_disconnect()` with `SOCK_BINDPORT_LOCK`), and without
 * `SO_REUSEADDR` nobody else gets it.
 */
export const holdPort: HoldPort = ({ protocol, address, port }) => {
  const [type, number] = SOCKETS[protocol];
  const isV6 = address.family === 6;
  const fd = socket(isV6 ? SYS.AF_INET6 : SYS.AF_INET, type, number);
  if (fd < 0) {
    if (UNKNOWN.has(errnoName(fd))) return undefined;
    throw new PortRefusal(errnoName(fd));
  }
  const steps = [
    () => (isV6 ? setsockoptInt(fd, SYS.IPPROTO_IPV6, SYS.IPV6_V6ONLY, 1) : 0),
    () => (protocol === 'tcp' ? setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_REUSEADDR, 1) : 0),
    () => bind(fd, sockaddrIn(address.toBytes(), port)),
    () => (protocol === 'tcp' ? listen(fd, 0) : 0),
    () => (protocol === 'tcp' ? shutdown(fd, SYS.SHUT_RDWR) : 0),
    () => (protocol === 'tcp' ? setsockoptInt(fd, SYS.SOL_SOCKET, SYS.SO_REUSEADDR, 0) : 0),
  ];
  for (const step of steps) {
    const result = step();
    if (result >= 0) continue;
    close(fd);
    throw new PortRefusal(errnoName(result));
  }
  return () => void close(fd);
};
