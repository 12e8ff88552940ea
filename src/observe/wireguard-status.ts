/** This host's own side of the WireGuard devices, read some seconds ago at most. */
export interface WireguardStatus {
  /** Where the private key lies. */
  readonly keyFile: string;
  /** Whether users besides its owner can read that file. */
  readonly isKeyFileOpen: boolean;
  /** As the lease tells it to others. */
  readonly publicKey: string;
  readonly devices: readonly WireguardDeviceStatus[];
}

/** A WireGuard device. */
export interface WireguardDeviceStatus {
  readonly name: string;
  /** UDP. */
  readonly listenPort: number;
  /** How many the kernel knows. */
  readonly peers: number;
}

/** A peer on one of the devices, read some seconds ago at most. */
export interface WireguardPathStatus {
  readonly device: string;
  readonly publicKey: string;
  /** Where the peer was heard last, or else where it is looked for; null if nothing is known. */
  readonly endpoint: string | null;
  /** ISO 8601; null if there was none since the peer is known to the kernel. */
  readonly lastHandshakeAt: string | null;
  /** Bytes of datagrams, with handshakes and keep-alives, since then. */
  readonly rxBytes: number;
  readonly txBytes: number;
}

/** Whether packets were sent to the peer and it never answered a handshake: it is not there, or does not know this host. */
export function isSilent({ lastHandshakeAt, txBytes }: WireguardPathStatus): boolean {
  return lastHandshakeAt === null && txBytes > 0;
}
