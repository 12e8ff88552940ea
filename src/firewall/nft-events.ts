import { OverlayError } from '../errors.js';
import { pollFd } from '../sys/fd-poller.js';
import { SYS, bind, close, errnoName, recv, setsockoptInt, sockaddrNl, socket } from '../sys/libc.js';

/** uapi/linux/netlink.h and uapi/linux/netfilter/nfnetlink.h. */
const NETLINK_NETFILTER = 12;
const NFNLGRP_NFTABLES = 7;
const NFNL_SUBSYS_NFTABLES = 10;
/** `struct nlmsghdr` and `struct nfgenmsg`. */
const HEADERS_BYTES = 16 + 4;
/** Names the table in messages about tables, chains, rules, sets and elements alike (`NFTA_*_TABLE`). */
const NFTA_TABLE = 1;
/** The kernel collects notifications in buffers of `NLMSG_GOODSIZE`, at most 8 KiB; only a larger single one is longer. */
const RECEIVE_BYTES = 65_536;

/** Stops the notifications; idempotent. */
export type StopWatching = () => void;

/**
 * Calls back when anybody changes nftables.
 *
 * @param onChange - gets the names of the tables concerned, or undefined if notifications were lost and anything may
 * have changed. One call for each wake-up, on the event loop.
 * @throws {@link OverlayError} `ERR_FIREWALL` if the kernel refuses the subscription.
 */
export type WatchNftables = (onChange: (tables: ReadonlySet<string> | undefined) => void) => StopWatching;

/** {@link WatchNftables} in the network namespace of the calling thread. */
export const watchNftables: WatchNftables = (onChange) => {
  const fd = socket(SYS.AF_NETLINK, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, NETLINK_NETFILTER);
  if (fd < 0) throw watchError(fd);
  const isBound = bind(fd, sockaddrNl());
  const result =
    isBound < 0 ? isBound : setsockoptInt(fd, SYS.SOL_NETLINK, SYS.NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES);
  if (result < 0) {
    close(fd);
    throw watchError(result);
  }
  const buffer = new Uint8Array(RECEIVE_BYTES);
  const drain = (): void => {
    const tables = new Set<string>();
    let isComplete = true;
    let received = recv(fd, buffer, SYS.MSG_TRUNC);
    for (; received > 0; received = recv(fd, buffer, SYS.MSG_TRUNC)) {
      if (received > buffer.length) isComplete = false;
      for (const table of changedTables(buffer.subarray(0, received))) tables.add(table);
    }
    // ENOBUFS: the socket's queue was full and messages are gone; any other error leaves as little to rely on.
    if (errnoName(received) !== 'EAGAIN') isComplete = false;
    onChange(isComplete ? tables : undefined);
  };
  const poller = pollFd(fd, drain);
  let isOpen = true;
  return () => {
    if (!isOpen) return;
    isOpen = false;
    poller.close();
    close(fd);
  };
};

function watchError(result: number): OverlayError {
  return new OverlayError('ERR_FIREWALL', `cannot watch changes of nftables: ${errnoName(result)}`);
}

/**
 * The tables that a datagram of notifications is about.
 *
 * @internal Exported for tests.
 */
export function changedTables(datagram: Uint8Array): readonly string[] {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  const tables: string[] = [];
  for (let at = 0; at + HEADERS_BYTES <= datagram.length;) {
    const length = view.getUint32(at, isLittleEndian);
    if (length < HEADERS_BYTES || at + length > datagram.length) break;
    const subsystem = view.getUint16(at + 4, isLittleEndian) >> 8;
    const table = subsystem === NFNL_SUBSYS_NFTABLES ? tableName(datagram, at + HEADERS_BYTES, at + length) : undefined;
    if (table !== undefined) tables.push(table);
    at += align(length);
  }
  return tables;
}

function tableName(datagram: Uint8Array, from: number, end: number): string | undefined {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  for (let at = from; at + 4 <= end;) {
    const length = view.getUint16(at, isLittleEndian);
    if (length < 4 || at + length > end) return undefined;
    if (view.getUint16(at + 2, isLittleEndian) === NFTA_TABLE) {
      return new TextDecoder().decode(datagram.subarray(at + 4, at + length)).replace(/\0.*$/s, '');
    }
    at += align(length);
  }
  return undefined;
}

/** Netlink messages and attributes start at multiples of four bytes. */
const align = (length: number): number => (length + 3) & ~3;

/** Netlink headers are in the order of the machine. */
const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
