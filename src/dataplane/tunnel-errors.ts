import { OverlayError } from '../errors.js';
import { isDenied } from '../sys/errno.js';

/** What the kernel said while a tunnel was opened. */
export interface TunnelFailure {
  /**
   * The step that failed. These mean something of their own; any other is the name of a system call or request, such as
   * `TUNSETOFFLOAD`.
   *
   * - `open-tun`: opening `/dev/net/tun`
   * - `create-device`: `TUNSETIFF`
   * - `bind-socket`: binding the UDP socket
   * - `open-icmp`: opening the raw socket that ICMP errors leave through
   */
  readonly operation: string;
  /** Name of the error, such as `EADDRINUSE`. */
  readonly errno: string;
  readonly device: string;
  readonly bindAddress: string;
  readonly port: number;
  readonly cause?: unknown;
}

const DEVICE_NODE = '/dev/net/tun';

/**
 * Turns a refusal of the kernel into the error an operator can act on; both tunnels use it, so that the same trouble
 * reads the same.
 *
 * @returns `ERR_NOT_PRIVILEGED`, `ERR_NO_TUN_DEVICE`, `ERR_PORT_IN_USE`, `ERR_DEVICE_TAKEN`, or `ERR_TUNNEL` for everything else.
 */
export function tunnelError(failure: TunnelFailure): OverlayError {
  switch (failure.operation) {
    case 'open-tun':
      return openTunError(failure);
    case 'create-device':
      return createDeviceError(failure);
    case 'bind-socket':
      return bindError(failure);
    case 'open-icmp':
      return openIcmpError(failure);
    default:
      return tunnelFailure(failure, `${failure.operation}: ${failure.errno}`);
  }
}

function openTunError(failure: TunnelFailure): OverlayError {
  const { errno } = failure;
  if (isDenied(errno)) {
    return build(failure, 'ERR_NOT_PRIVILEGED', `cannot open ${DEVICE_NODE}: ${errno}`, {
      hint: 'run the daemon as root or with CAP_NET_ADMIN and read-write access to that device',
    });
  }
  if (errno === 'ENOENT' || errno === 'ENXIO' || errno === 'ENODEV') {
    return build(failure, 'ERR_NO_TUN_DEVICE', `cannot open ${DEVICE_NODE}: ${errno} (the kernel offers no TUN here)`, {
      hint: `load the module with "modprobe tun"; in a container also pass the device in (--device ${DEVICE_NODE})`,
    });
  }
  return tunnelFailure(failure, `cannot open ${DEVICE_NODE}: ${errno}`, true);
}

function createDeviceError(failure: TunnelFailure): OverlayError {
  const { errno, device } = failure;
  if (isDenied(errno)) {
    return build(failure, 'ERR_NOT_PRIVILEGED', `cannot create TUN device ${device}: ${errno}`, {
      hint: 'run the daemon as root or with CAP_NET_ADMIN',
    });
  }
  if (errno === 'EBUSY') {
    return build(
      failure,
      'ERR_DEVICE_TAKEN',
      `cannot create TUN device ${device}: EBUSY (another process holds a device of that name)`,
      { hint: 'stop flanneld or whatever other program serves that device', isRetryable: true },
    );
  }
  if (errno === 'EINVAL' || errno === 'EEXIST') {
    return build(
      failure,
      'ERR_DEVICE_TAKEN',
      `cannot create TUN device ${device}: ${errno} (the name belongs to another kind of device or cannot be one)`,
      {
        hint: `look at it with "ip -d link show ${device}" and remove it with "ip link del ${device}" if it is a leftover`,
      },
    );
  }
  return tunnelFailure(failure, `cannot create TUN device ${device}: ${errno}`, true);
}

function bindError(failure: TunnelFailure): OverlayError {
  const { errno, bindAddress, port } = failure;
  const what = `cannot bind UDP ${bindAddress}:${port}: ${errno}`;
  if (errno === 'EADDRINUSE') {
    return build(failure, 'ERR_PORT_IN_USE', `${what} (another socket owns the port)`, {
      hint: 'stop flanneld or set Backend.Port',
      isRetryable: true,
    });
  }
  if (isDenied(errno)) {
    return build(failure, 'ERR_NOT_PRIVILEGED', what, {
      hint: 'run the daemon as root or with CAP_NET_BIND_SERVICE, or set Backend.Port to 1024 or higher',
    });
  }
  if (errno === 'EADDRNOTAVAIL') {
    return build(failure, 'ERR_TUNNEL', `${what} (no interface of this host has the address)`, {
      hint: 'check --iface and the address of the underlay interface',
      isRetryable: true,
    });
  }
  return tunnelFailure(failure, what, true);
}

function openIcmpError(failure: TunnelFailure): OverlayError {
  const { errno } = failure;
  const what = `cannot open a raw socket for ICMP errors: ${errno}`;
  if (isDenied(errno)) {
    return build(failure, 'ERR_NOT_PRIVILEGED', what, { hint: 'run the daemon as root or with CAP_NET_RAW' });
  }
  return tunnelFailure(failure, what, true);
}

function tunnelFailure(failure: TunnelFailure, message: string, isComplete = false): OverlayError {
  const text = isComplete ? message : `cannot open the tunnel on ${failure.device}: ${message}`;
  const isRetryable = ['ENOMEM', 'ENFILE', 'EMFILE', 'ENOBUFS', 'EAGAIN', 'EINTR'].includes(failure.errno);
  return build(failure, 'ERR_TUNNEL', text, { isRetryable });
}

function build(
  failure: TunnelFailure,
  code: OverlayError['code'],
  message: string,
  options: { readonly hint?: string; readonly isRetryable?: boolean },
): OverlayError {
  return new OverlayError(code, message, {
    ...options,
    cause: failure.cause,
    context: { dev: failure.device, errno: failure.errno },
  });
}
