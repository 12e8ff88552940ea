import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { Prefix } from '../../ip/prefix.js';
import { PROBE_MARK } from '../../reach/echo-socket.js';
import { bridgeAddress, deviceAddress } from '../../reach/targets.js';
import { runCommand } from '../../sys/command.js';
import type { LeaseRow } from '../lease-rows.js';
import type { Echo, PeerProbe } from './facts.js';

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

/** How long a host looks for a neighbour before it says that there is none: three questions in as many seconds, and the way. */
const ABSENCE_MS = 5000;

/** How an echo is sent. */
export interface EchoOptions {
  /** Size of the whole packet, which then must not be fragmented. Default a small one that may. */
  readonly packetBytes?: number;
  /** Asks the tunnel where the kernel path would answer for it. Default false. */
  readonly asksTunnel?: boolean;
  /** Waits long enough for a router to say that there is nobody. Default false. */
  readonly isForAbsence?: boolean;
}

/** Sends echoes; undefined where there is no `ping`. */
export type Ping = (address: string, options?: EchoOptions) => Promise<Echo | undefined>;

/** {@link Ping} with the program of iputils: two echoes, since the first may get lost while a neighbour is looked up. */
export const systemPing: Ping = async (address, { packetBytes, asksTunnel = false, isForAbsence = false } = {}) => {
  const size = packetBytes === undefined ? [] : ['-M', 'do', '-s', String(packetBytes - ECHO_OVERHEAD)];
  const [count, waitMs] = isForAbsence ? [1, ABSENCE_MS] : [2, ANSWER_MS];
  const mark = asksTunnel ? ['-m', String(PROBE_MARK)] : [];
  const args = ['-n', '-c', String(count), '-i', '0.2', '-W', String(waitMs / 1000), ...size, ...mark, address];
  const result = await runCommand('ping', args);
  if (result === undefined) return undefined;
  if (result.exitCode === 0) return 'answer';
  if (/Destination Host Unreachable/.test(result.stdout)) return 'absent';
  return /Unreachable|Prohibited|filtered/i.test(result.stdout) ? 'refused' : 'silence';
};

/** What {@link probePeers} works with. */
export interface ProbeOptions {
  readonly underlayMtu: number;
  readonly ping: Ping;
  /** Told after each peer how many are done. */
  readonly onProgress?: (done: number, all: number) => void;
}

/** Asks each peer from here: whether it answers on the underlay, with how large packets, through the overlay, and for its containers. */
export async function probePeers(leases: readonly LeaseRow[], options: ProbeOptions): Promise<readonly PeerProbe[]> {
  const waiting = [...leases];
  const probes: PeerProbe[] = [];
  options.onProgress?.(0, leases.length);
  const worker = async (): Promise<void> => {
    for (let lease = waiting.shift(); lease !== undefined; lease = waiting.shift()) {
      probes.push(await probePeer(lease, options));
      options.onProgress?.(probes.length, leases.length);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_PROBES }, worker));
  return probes.sort((a, b) => leases.indexOf(a.lease) - leases.indexOf(b.lease));
}

async function probePeer(lease: LeaseRow, { underlayMtu, ping }: ProbeOptions): Promise<PeerProbe> {
  const subnet = Prefix.parse(lease.subnet);
  const inner = deviceAddress(lease.backend, subnet)?.toString();
  const answers = async (address: string, options: EchoOptions = {}): Promise<boolean> =>
    (await ping(address, options)) === 'answer';
  // Docker and CNI give addresses from the first one on: the last host address is the one that has no container.
  const unused = subnet.last.add(-1n).toString();
  const [underlay, underlayFull, overlay] = await Promise.all([
    answers(lease.publicIp),
    answers(lease.publicIp, { packetBytes: underlayMtu }),
    inner === undefined ? undefined : answers(inner, { asksTunnel: true }),
  ]);
  // A host that answers nobody may let packets through to its containers all the same.
  const passed =
    underlay && overlay === false ? await ping(unused, { asksTunnel: true, isForAbsence: true }) : undefined;
  if (passed === 'absent' || passed === 'answer') {
    const none = { pathMtu: undefined, bridge: undefined, tcp: undefined, udp: undefined };
    return { lease, underlay, underlayFull, overlay: true, forward: passed, ...none };
  }
  const isReached = overlay ?? underlay;
  const [pathMtu, bridge, tcp, udp] = await Promise.all([
    underlay && !underlayFull
      ? findPathMtu((packetBytes) => answers(lease.publicIp, { packetBytes }), underlayMtu)
      : undefined,
    isReached ? answers(bridgeAddress(subnet).toString()) : undefined,
    inner !== undefined && overlay === true ? answersTcp(inner) : undefined,
    inner !== undefined && overlay === true ? answersUdp(inner) : undefined,
  ]);
  const forward = bridge === true ? await ping(unused, { isForAbsence: true }) : undefined;
  return { lease, underlay, underlayFull, pathMtu, overlay, bridge, forward, tcp, udp };
}

/**
 * The largest size that passes, by halving between the smallest useful one and one that does not.
 *
 * @returns undefined if not even the smallest useful one passes.
 * @internal
 */
export async function findPathMtu(
  passes: (bytes: number) => Promise<boolean>,
  tooLarge: number,
): Promise<number | undefined> {
  if (!(await passes(SMALLEST_MTU))) return undefined;
  let [low, high] = [SMALLEST_MTU, tooLarge];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await passes(middle)) low = middle;
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
