import { OverlayError } from '../errors.js';
import { SYS } from '../sys/libc.js';
import * as libc from '../sys/libc.js';
import { Turns } from '../turns.js';
import { CTRL_ATTR, CTRL_CMD_GETFAMILY, GENL_ID_CTRL } from './constants.js';
import { AttributeTable, type MessageReader, type MessageWriter } from './message.js';
import { NetlinkSocket, type NetlinkSocketOptions, netlinkErrno, socketError } from './socket.js';

/** `NETLINK_GENERIC`, the protocol number. */
const NETLINK_GENERIC = 16;

/** `sizeof(struct genlmsghdr)`: command, version, 16 bits that are reserved. */
export const GENERIC_HEADER_BYTES = 4;

/** A family of generic netlink, as its kernel header names it. */
export interface GenericFamily {
  readonly name: string;
  readonly version: number;
}

/** A command of a family, with what it is for in words that follow *cannot*, and its attributes. */
export interface GenericRequest {
  readonly command: number;
  readonly what: () => string;
  readonly fill: (writer: MessageWriter) => void;
}

/**
 * Generic netlink: interfaces of the kernel that have names instead of numbers.
 *
 * API: {@link change} for commands that are acknowledged, {@link dump} for lists.
 * Threads: none. Changes may be made while a list is read; lists queue behind one another.
 * Limits: as for {@link NetlinkSocket}. A family's number is asked for once and again when the kernel no longer knows it:
 * its module may have been loaded anew.
 * Errors: `ERR_NETLINK`.
 */
export class GenericNetlink {
  private readonly changes: NetlinkSocket;
  private readonly lists: NetlinkSocket;
  private readonly turns = new Turns();
  private readonly ids = new Map<string, number>();

  /** @throws {@link OverlayError} `ERR_NETLINK` */
  constructor(options: Omit<NetlinkSocketOptions, 'openSocket'>) {
    this.changes = NetlinkSocket.open({ ...options, openSocket: openGeneric });
    this.lists = NetlinkSocket.open({ ...options, openSocket: openGeneric });
  }

  change(family: GenericFamily, { command, what, fill }: GenericRequest): void {
    const send = (): void => {
      this.changes.request(this.idOf(family), 0, what, (writer) => {
        writeGenericHeader(writer, command, family.version);
        fill(writer);
      });
    };
    try {
      send();
    } catch (error) {
      if (!this.forgets(family, error)) throw error;
      send();
    }
  }

  /** @param onMessage - gets every message of the list; its attributes follow {@link GENERIC_HEADER_BYTES}. */
  async dump<T>(
    family: GenericFamily,
    { command, what, fill }: GenericRequest,
    collect: { readonly start: () => T; readonly onMessage: (reader: MessageReader, result: T) => void },
  ): Promise<T> {
    const send = async (): Promise<T> => {
      const id = this.idOf(family);
      const request = (writer: MessageWriter): void => {
        writeGenericHeader(writer, command, family.version);
        fill(writer);
      };
      return this.lists.dump(id, what, request, {
        start: collect.start,
        onMessage: (reader, result) => {
          if (reader.type === id) collect.onMessage(reader, result);
        },
      });
    };
    return this.turns.take(async () => {
      try {
        return await send();
      } catch (error) {
        if (!this.forgets(family, error)) throw error;
        return await send();
      }
    });
  }

  /** Idempotent. */
  close(): void {
    this.changes.close();
    this.lists.close();
  }

  /** Asking makes the kernel load the module, where it may (`ctrl_getfamily()` in net/netlink/genetlink.c). */
  private idOf({ name }: GenericFamily): number {
    const known = this.ids.get(name);
    if (known !== undefined) return known;
    let id: number | undefined;
    try {
      this.changes.request(
        GENL_ID_CTRL,
        0,
        () => `find the kernel interface ${name}`,
        (writer) => {
          writeGenericHeader(writer, CTRL_CMD_GETFAMILY, 1);
          writer.attributeText(CTRL_ATTR.FAMILY_NAME, name);
        },
        (reader) => {
          id ??= readFamilyId(reader);
        },
      );
    } catch (error) {
      if (netlinkErrno(error) !== 'ENOENT' || !(error instanceof OverlayError)) throw error;
      throw missing(name, error);
    }
    if (id === undefined) throw missing(name);
    this.ids.set(name, id);
    return id;
  }

  /** Whether the error may come of a number that is out of date. */
  private forgets({ name }: GenericFamily, error: unknown): boolean {
    return netlinkErrno(error) === 'ENOENT' && this.ids.delete(name);
  }
}

function openGeneric(): number {
  const fd = libc.socket(SYS.AF_NETLINK, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, NETLINK_GENERIC);
  if (fd < 0) throw socketError('open a generic netlink socket', fd);
  return fd;
}

/** `struct genlmsghdr` */
export function writeGenericHeader(writer: MessageWriter, command: number, version: number): void {
  writer.u8(command).u8(version).u16(0);
}

const controlTable = new AttributeTable(CTRL_ATTR.MAX);

/** Reads a `CTRL_CMD_NEWFAMILY` message. */
export function readFamilyId(reader: MessageReader): number | undefined {
  return controlTable.parse(reader, reader.start + GENERIC_HEADER_BYTES, reader.end).u16(CTRL_ATTR.FAMILY_ID);
}

function missing(name: string, cause?: unknown): OverlayError {
  return new OverlayError('ERR_NETLINK', `cannot find the kernel interface ${name}: ENOENT`, {
    cause,
    context: { errno: 'ENOENT' },
    isRetryable: true,
    hint: `load the kernel module ("modprobe ${name}"), or choose a backend that does without it`,
  });
}
