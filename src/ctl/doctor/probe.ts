import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { runCommand } from '../../firewall/run.js';
import { Prefix } from '../../ip/prefix.js';
import type { LeaseRow } from '../lease-rows.js';
import type { PeerProbe } from './facts.js';

/** Across a continent and back takes 0.2 s. */
const ANSWER_MS = 1000;

/** IPv4 header (20) and ICMP header (8). */
const ECHO_OVERHEAD = 28;

/** The smallest MTU that is worth looking for: below it, IPv6 does not work either (RFC 8200 5). */
const SMALLEST_MTU = 1280;

/** tcpmux (RFC 1078): nobody serves it, so that a kernel that gets the packet refuses it. */
const UNUSED_PORT = 1;

/** Peers that are probed at once. */
const PARALLEL_PROBES = 16;

/** Backends whose devices have the peer's subnet address, and so answer for the host itself. */
const ANSWERING_BACKENDS: ReadonlySet<string> = new Set(['udp', 'vxlan', 'ipip']);

/** Sends echoes; undefined where there is no `ping`. */
export type Ping = (address: string, packetBytes?: number) => Promise<boolean | undefined>;

/**
 * {@link Ping} with the program of iputils: two echoes, since the first may get lost while a neighbour is looked up.
 *
 * @param packetBytes - size of the whole packet, which then must not be fragmented. Default a small one that may.
 */
export const systemPing: Ping = async (address, packetBytes) => {
  const size = packetBytes === undefined ? [] : ['-M', 'do', '-s', String(packetBytes - ECHO_OVERHEAD)];
  const args = ['-n', '-q', '-c', '2', '-i', '0.2', '-W', String(ANSWER_MS / 1000), ...size, address];
  const result = await runCommand('ping', args);
  return result === undefined ? undefined : result.exitCode === 0;
};

/** Asks each peer from here: whether it answers on the underlay, with how large packets, and through the overlay. */
export async function probePeers(
  leases: readonly LeaseRow[],
  options: { readonly underlayMtu: number; readonly ping: Ping },
): Promise<readonly PeerProbe[]> {
  const waiting = [...leases];
  const probes: PeerProbe[] = [];
  const worker = async (): Promise<void> => {
    for (let lease = waiting.shift(); lease !== undefined; lease = waiting.shift()) {
      probes.push(await probePeer(lease, options));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_PROBES }, worker));
  return probes.sort((a, b) => leases.indexOf(a.lease) - leases.indexOf(b.lease));
}

async function probePeer(
  lease: LeaseRow,
  { underlayMtu, ping }: { readonly underlayMtu: number; readonly ping: Ping },
): Promise<PeerProbe> {
  const inner = ANSWERING_BACKENDS.has(lease.backend) ? Prefix.parse(lease.subnet).address.toString() : undefined;
  const [underlay, full, overlay] = await Promise.all([
    ping(lease.publicIp),
    ping(lease.publicIp, underlayMtu),
    inner === undefined ? undefined : ping(inner),
  ]);
  const isCut = underlay === true && full === false;
  const [pathMtu, tcp, udp] = await Promise.all([
    isCut ? findPathMtu((bytes) => ping(lease.publicIp, bytes), underlayMtu) : undefined,
    inner !== undefined && overlay === true ? answersTcp(inner) : undefined,
    inner !== undefined && overlay === true ? answersUdp(inner) : undefined,
  ]);
  return { lease, underlay: underlay === true, underlayFull: full === true, pathMtu, overlay, tcp, udp };
}

/**
 * The largest size that passes, by halving between the smallest useful one and one that does not.
 *
 * @returns undefined if not even the smallest useful one passes.
 * @internal
 */
export async function findPathMtu(
  passes: (bytes: number) => Promise<boolean | undefined>,
  tooLarge: number,
): Promise<number | undefined> {
  if ((await passes(SMALLEST_MTU)) !== true) return undefined;
  let [low, high] = [SMALLEST_MTU, tooLarge];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if ((await passes(middle)) === true) low = middle;
    else high = middle;
  }
  return low;
}

/** Whether the peer's kernel gets a TCP segment whole: it then accepts or refuses the connection. */
function answersTcp(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port: UNUSED_PORT, timeout: ANSWER_MS });
    const end = (isAnswered: boolean): void => {
      socket.destroy();
      resolve(isAnswered);
    };
    socket.on('connect', () => end(true));
    socket.on('timeout', () => end(false));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'));
  });
}

/** Whether the peer's kernel gets a UDP datagram whole: it then says that nobody listens, or somebody answers. */
function answersUdp(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    const end = (isAnswered: boolean): void => {
      clearTimeout(timer);
      socket.close();
      resolve(isAnswered);
    };
    const timer = setTimeout(() => end(false), ANSWER_MS);
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'));
    socket.once('message', () => end(true));
    socket.connect(UNUSED_PORT, address, () => socket.send('tsflannel'));
  });
}
