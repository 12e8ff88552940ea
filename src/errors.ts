/**
 * Every code an {@link OverlayError} can carry, with the sentence the manual prints for it.
 *
 * @remarks `docs/errors.md` lists the same codes; a test compares the two in both directions.
 */
export const ERROR_CODES = {
  ERR_IP_SYNTAX: 'A text is not an IP address, prefix or MAC address.',
  ERR_FLAG: 'A command line flag is unknown or has a value it cannot take.',
  ERR_NETWORK_CONFIG: 'The network configuration under <prefix>/config is not valid.',
  ERR_BACKEND_UNKNOWN: 'Backend.Type names a backend that does not exist.',
  ERR_BACKEND_HOST:
    "The backend cannot run on this host: it lacks an address, a kernel feature or its operator's leave.",
  ERR_BACKEND_OPTION: 'A key inside Backend has a value that its backend cannot take.',
  ERR_NOT_PRIVILEGED: 'The kernel refuses this user an operation that needs root or CAP_NET_ADMIN.',
  ERR_ADDON_MISSING: 'The native packet path is not built for this host, or cannot be loaded.',
  ERR_NO_TUN_DEVICE: 'The kernel offers no /dev/net/tun.',
  ERR_PORT_IN_USE: 'Another socket owns the UDP port of the overlay.',
  ERR_DEVICE_TAKEN:
    'The name of a device that the overlay needs is in use by another program or another kind of device.',
  ERR_NETLINK: 'The kernel refused a change to, or a question about, devices, addresses, routes or neighbours.',
  ERR_ROUTE_CONFLICT: 'A route of somebody else has the destination that the overlay needs.',
  ERR_SYSCTL: 'A kernel parameter under /proc/sys cannot be read or set.',
  ERR_TUNNEL: 'The tunnel between TUN device and UDP socket could not be opened or used.',
  ERR_LEASE_KEY: 'A key under <prefix>/subnets does not name a subnet.',
  ERR_LEASE_VALUE: 'The value of a lease key is not what a host publishes about itself.',
  ERR_OUT_OF_SUBNETS: 'Every subnet of the configured range belongs to some host.',
  ERR_UNSAFE_PATH: 'On the way to a file that is to be written is a symbolic link that another user can change.',
  ERR_SUBNET_FILE: 'The file with subnet and MTU for Docker and CNI cannot be written or read.',
  ERR_PRIVATE_KEY: 'The file with the private key that peers know this host by cannot be used.',
  ERR_UNDERLAY: 'No network interface fits what the flags ask for.',
  ERR_PEER_CACHE: 'The file with the last known peers cannot be used.',
  ERR_STATE_LOCKED: 'Another daemon runs on the same state directory.',
  ERR_STORE_CLOSED: 'The store was closed while or before it was asked.',
  ERR_ETCD_ENDPOINT: 'The list of etcd endpoints has an entry that is not an address.',
  ERR_ETCD_UNAVAILABLE: 'No etcd endpoint answered in time.',
  ERR_ETCD_AUTH: 'etcd does not accept the user, the password or what the user wants to do.',
  ERR_ETCD_REQUEST: 'etcd answered a request with an error of its own.',
  ERR_TLS_FILE: 'A certificate or key file for etcd cannot be used.',
  ERR_PASSWORD_FILE: 'The file with the password for etcd cannot be used, or everybody may read it.',
  ERR_CONFLICT: 'Somebody else has changed, or holds, what was to be written.',
  ERR_NOT_FOUND: 'There is no lease of the kind that the command is about.',
  ERR_FILE: 'A file named on the command line, or one with settings, cannot be used.',
  ERR_DAEMON_UNREACHABLE: 'No daemon answers on the status socket of this host.',
  ERR_DAEMON_RUNNING: 'The command would undo what a running daemon does.',
  ERR_CLEANUP: 'Some objects of the overlay could not be removed from this host.',
  ERR_OBSERVE_LISTEN: 'The server for health, metrics and status cannot listen on its address or socket.',
  ERR_ECHO_SOCKET: 'The kernel gave no socket for ICMP echoes, so that nobody can be probed.',
  ERR_PROGRAM: 'A program of the host could not be started, or did not end in time.',
  ERR_SYSTEMD: 'systemctl is missing, or could not do what it was asked to.',
  ERR_DOCKER_UNIT: 'The unit of Docker is missing, or settings of somebody else stand in the way.',
  ERR_ADDRESS_POOL: 'A container network, or an address in it, cannot be as it was asked for.',
  ERR_ADDRESS_TAKEN: 'A container, another host or a machine on the network has the address that was asked for.',
  ERR_OUT_OF_ADDRESSES: 'A container network has no free address, or the configuration no free container network.',
  ERR_NETWORK_DIFFERS: 'A container network was asked for with other options than other hosts have it.',
  ERR_HOST_ID_TAKEN: 'Two hosts give out addresses of containers under the same id.',
  ERR_ADDRESSES_UNCONFIRMED: 'The lease of the addresses of this host has run out while etcd was away.',
  ERR_ADDRESS_BOOK: 'The file with the addresses of containers cannot be written or used.',
  ERR_LAN_PROBE: 'The network could not be asked whether a machine has an address already.',
  ERR_ANNOUNCEMENT: 'The addresses of a container cannot be announced.',
  ERR_NETNS: 'The network namespace of a container cannot be entered.',
  ERR_PLUGIN_REQUEST: 'What Docker asked the plugin for cannot be understood, or not be answered in time.',
  ERR_PLUGIN_SOCKET: 'The socket on which Docker asks its plugin cannot be listened on.',
  ERR_PLUGIN_STATE: 'The file with the container networks of this host cannot be written or used.',
  ERR_CONTAINER_NETWORK: 'A container network, or an interface in it, cannot be made as it was asked for.',
  ERR_NDP_PROXY: 'Who asks on an interface for containers behind this host cannot be heard.',
  ERR_FIREWALL: 'The rules of the packet filter could not be read, written or removed.',
} as const satisfies Record<string, string>;

/** One of the codes in {@link ERROR_CODES}; callers match on it, never on the message. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** What an {@link OverlayError} carries besides its message. */
export interface OverlayErrorOptions {
  /** The error below this one; its text is already part of the message where that helps. */
  readonly cause?: unknown;
  /** Values for the log line, under the fixed keys of {@link LogFields}. */
  readonly context?: Readonly<Record<string, unknown>>;
  /** What the operator can do about it, as an imperative sentence without a full stop. */
  readonly hint?: string;
  /** Whether the same call can succeed later without anybody changing anything. Default false. */
  readonly isRetryable?: boolean;
}

/**
 * The one error class of the project.
 *
 * @remarks The message reads *cannot do what to which object: cause*; the hint says what to do about it and is
 * appended, after a semicolon, wherever the error is shown.
 */
export class OverlayError extends Error {
  readonly code: ErrorCode;
  readonly context: Readonly<Record<string, unknown>>;
  readonly hint: string | undefined;
  readonly isRetryable: boolean;

  constructor(code: ErrorCode, message: string, options: OverlayErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'OverlayError';
    this.code = code;
    this.context = options.context ?? {};
    this.hint = options.hint;
    this.isRetryable = options.isRetryable ?? false;
  }

  /** The message followed by the hint: what a person is shown. */
  override toString(): string {
    return describeError(this);
  }
}

/**
 * The text that explains any thrown value to a person.
 *
 * @returns message and, where there is one, the hint, without a stack.
 */
export function describeError(error: unknown): string {
  if (error instanceof OverlayError) {
    return error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
  }
  return error instanceof Error ? error.message : String(error);
}

/** True when the value is an {@link OverlayError}, with that code if one is given. */
export function isOverlayError(error: unknown, code?: ErrorCode): error is OverlayError {
  return error instanceof OverlayError && (code === undefined || error.code === code);
}
