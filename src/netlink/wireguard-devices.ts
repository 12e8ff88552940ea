import type { Clock } from '../clock.js';
import { WG_CMD } from './constants.js';
import { type GenericFamily, GENERIC_HEADER_BYTES, GenericNetlink } from './generic.js';
import type { MessageWriter } from './message.js';
import { netlinkErrno } from './socket.js';
import {
  type NewWireguardPeer,
  WireguardAssembly,
  type WireguardInfo,
  type WireguardSettings,
  writeWireguardPeer,
  writeWireguardPeerRemoval,
  writeWireguardQuery,
  writeWireguardSettings,
} from './wireguard.js';

/** `WG_GENL_NAME`, `WG_GENL_VERSION` (uapi/linux/wireguard.h; in the kernel since 5.6). */
const FAMILY: GenericFamily = { name: 'wireguard', version: 1 };

/**
 * What WireGuard devices are set to; the devices themselves are links. The sockets are opened with the first use, as most
 * who talk to the kernel never need them.
 */
export class NetlinkWireguard {
  private generic: GenericNetlink | undefined;

  /** @param options.isElsewhere - the devices are in a namespace that no generic socket is in. */
  constructor(
    private readonly options: {
      readonly clock: Clock;
      readonly deadlineMs: number;
      readonly isElsewhere: boolean;
    },
  ) {}

  /** The device with that index; undefined if there is none. */
  async get(index: number): Promise<WireguardInfo | undefined> {
    try {
      const assembly = await this.open().dump(
        FAMILY,
        {
          command: WG_CMD.GET_DEVICE,
          what: () => `list the peers of device ${index}`,
          fill: (writer) => {
            writeWireguardQuery(writer, index);
          },
        },
        {
          start: () => new WireguardAssembly(index),
          onMessage: (reader, into) => {
            into.add(reader, GENERIC_HEADER_BYTES);
          },
        },
      );
      return assembly.device;
    } catch (error) {
      if (netlinkErrno(error) === 'ENODEV') return undefined;
      throw error;
    }
  }

  /** Sets private key and port; EADDRINUSE if the device is up and another socket has the port. */
  set(settings: WireguardSettings): void {
    this.change(
      () => `set the key and port ${settings.listenPort} of device ${settings.index}`,
      (writer) => {
        writeWireguardSettings(writer, settings);
      },
    );
  }

  /** Makes a peer, or changes it without ending its session. What it is allowed, no other peer of the device is any more. */
  replacePeer(peer: NewWireguardPeer): void {
    this.change(
      () => `replace peer ${peer.publicKey} of device ${peer.index}`,
      (writer) => {
        writeWireguardPeer(writer, peer);
      },
    );
  }

  /** Succeeds also if there is no such peer. */
  delPeer(peer: Pick<NewWireguardPeer, 'index' | 'publicKey'>): void {
    this.change(
      () => `delete peer ${peer.publicKey} of device ${peer.index}`,
      (writer) => {
        writeWireguardPeerRemoval(writer, peer);
      },
    );
  }

  /** Idempotent. */
  close(): void {
    this.generic?.close();
    this.generic = undefined;
  }

  private change(what: () => string, fill: (writer: MessageWriter) => void): void {
    this.open().change(FAMILY, { command: WG_CMD.SET_DEVICE, what, fill });
  }

  private open(): GenericNetlink {
    if (this.options.isElsewhere) throw new TypeError('WireGuard devices are only looked at in the own namespace');
    this.generic ??= new GenericNetlink(this.options);
    return this.generic;
  }
}
