import { OverlayError } from '../../../errors.js';
import type { PortProtocol } from '../../../firewall/containers/container-rules.js';
import { IpAddress } from '../../../ip/address.js';
import type { Request } from '../request.js';

/** That a port of a container is to be reached through one of the host, as Docker says it. */
export interface PortBinding {
  readonly protocol: PortProtocol;
  /** Of the container. */
  readonly port: number;
  /** Undefined: every address of the host; `0.0.0.0` or `::`: all of that family. */
  readonly hostAddress: IpAddress | undefined;
  /** First and last of the ports that it may be; both 0: any. */
  readonly hostPort: number;
  readonly hostPortEnd: number;
}

/** Key of libnetwork (`netlabel/labels.go`). */
const PORT_MAP = 'com.docker.network.portmap';

const PORT_MAX = 65_535;

/** By its number (IANA protocol numbers). */
const PROTOCOLS: ReadonlyMap<number, PortProtocol> = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);

/**
 * The ports to publish among the options of an endpoint: one entry for each port of the container, which a range of the
 * command line comes apart into (seen with Docker 20.10.24, 26.1.5 and 28.5.2).
 *
 * @throws {@link OverlayError} `ERR_PLUGIN_REQUEST`
 */
export function readBindings(options: Request): readonly PortBinding[] {
  return options.list(PORT_MAP).map((each) => {
    const protocol = PROTOCOLS.get(each.number('Proto'));
    const [port, hostPort, hostPortEnd] = [each.number('Port'), each.number('HostPort'), each.number('HostPortEnd')];
    const isSound = port > 0 && [port, hostPort, hostPortEnd].every((value) => value >= 0 && value <= PORT_MAX);
    if (protocol === undefined || !isSound) {
      throw new OverlayError('ERR_PLUGIN_REQUEST', 'cannot publish a port: it has to be one of TCP, UDP or SCTP', {
        hint: 'name ports from 1 to 65535',
      });
    }
    const hostAddress = each.address('HostIP');
    return { protocol, port, hostAddress, hostPort, hostPortEnd: Math.max(hostPort, hostPortEnd) };
  });
}
