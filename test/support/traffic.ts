import assert from 'node:assert/strict';
import { Endpoint, type TcpEnd } from './endpoint.js';
import type { Netns } from './netns.js';
import type { Program } from './program.js';
import type { Container } from './rig.js';
import { waitFor } from './wait.js';

const PING_INTERVAL_MS = 10;

/** Outcome of a run of pings. */
export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** Round-trip times in the order of arrival. */
  readonly timesMs: readonly number[];
  /** Everything ping wrote, with ICMP errors it was told. */
  readonly output: string;
}

/** What {@link ping} sends. */
export interface PingOptions {
  /** Default 3. */
  readonly count?: number;
  /** Default 10; below 2 ms only root may. */
  readonly intervalMs?: number;
  /** ICMP payload in bytes. */
  readonly size?: number;
  readonly ttl?: number;
  readonly source?: string;
  /** Sets DF. `do` and not `probe`, which iputils before 2021 do not know. */
  readonly dontFragment?: boolean;
  /** How long to wait for the last answers. Default 2. */
  readonly waitSeconds?: number;
}

/** Sends pings and waits for the answers; loss is a result, not an error. */
export async function ping(from: Netns, address: string, options: PingOptions = {}): Promise<PingResult> {
  const { output } = await runPing(from, address, options).finished;
  return parsePing(output);
}

/** Checks that two containers reach each other, as soon as each host has learned the other's lease at its own time. */
export async function assertTalking(near: Container, far: Container): Promise<void> {
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    await waitFor(async () => (await ping(from.netns, to.address, { count: 1, waitSeconds: 1 })).received === 1, {
      what: `a first answer of ${to.address}`,
    });
  }
  assert.equal((await ping(near.netns, far.address, { count: 3 })).received, 3);
}

/**
 * Pings until told to stop, so that a test can see whether anything was lost meanwhile.
 *
 * @returns `sent` leaves out the requests of the last moment, see {@link withoutPending}.
 */
export function startPing(from: Netns, address: string, options: PingOptions = {}): { stop(): Promise<PingResult> } {
  const { program } = runPing(from, address, { ...options, count: 0 });
  return {
    async stop() {
      // SIGINT makes ping print its summary.
      await program.stop('SIGINT');
      return withoutPending(parsePing(program.output), options.intervalMs ?? PING_INTERVAL_MS);
    },
  };
}

function runPing(from: Netns, address: string, options: PingOptions): { program: Program; finished: Promise<Program> } {
  const { count = 3, intervalMs = PING_INTERVAL_MS, size, ttl, source, dontFragment, waitSeconds = 2 } = options;
  const program = from.start(
    [
      ...['ping', '-n', '-i', String(intervalMs / 1000), '-W', String(waitSeconds)],
      ...(count === 0 ? [] : ['-c', String(count)]),
      ...(size === undefined ? [] : ['-s', String(size)]),
      ...(ttl === undefined ? [] : ['-t', String(ttl)]),
      ...(source === undefined ? [] : ['-I', source]),
      ...(dontFragment === true ? ['-M', 'do'] : []),
      address,
    ],
    { env: { LC_ALL: 'C' } },
  );
  return { program, finished: program.exited.then(() => program) };
}

/**
 * Reads what ping of iputils wrote.
 *
 * @internal
 */
export function parsePing(output: string): PingResult {
  const summary = /(\d+) packets transmitted, (\d+) received/.exec(output);
  if (summary === null) throw new Error(`ping gave no summary:\n${output}`);
  const timesMs = [...output.matchAll(/^\d+ bytes from .* time=([\d.]+) ms/gm)].map((match) => Number(match[1]));
  return { sent: Number(summary[1]), received: Number(summary[2]), timesMs, output };
}

/**
 * Leaves out the requests at the end whose answers ping did not wait for: an interrupted ping ends at once, and on a
 * busy machine an answer takes longer than the pause to the next request.
 *
 * @internal
 */
export function withoutPending(result: PingResult, intervalMs: number): PingResult {
  const PENDING_MS = 200;
  const SEQUENCES = 65_536;
  const lastAnswered = [...result.output.matchAll(/^\d+ bytes from .* icmp_seq=(\d+) /gm)].at(-1)?.[1];
  const pending = (result.sent - Number(lastAnswered ?? 0)) % SEQUENCES;
  return pending * intervalMs <= PENDING_MS ? { ...result, sent: result.sent - pending } : result;
}

/** What arrived of a {@link tcpTransfer}. */
export interface TransferResult {
  readonly bytes: number;
  readonly seconds: number;
  readonly sha256: string;
}

/**
 * Sends random data in odd write sizes over TCP and compares digests at both ends.
 *
 * @param address - an address of `to` as `from` reaches it.
 * @throws Error if a byte is missing, additional or different.
 */
export async function tcpTransfer(
  from: Netns,
  to: Netns,
  address: string,
  options: { readonly bytes: number; readonly seed?: number; readonly timeoutMs?: number },
): Promise<TransferResult> {
  const { bytes, seed = 1, timeoutMs = 60_000 } = options;
  const receiver = new Endpoint(to, 'tcp-receive', { address });
  return killIfFailing([receiver], async (ends) => {
    const { port } = await receiver.answer('port');
    const sender = new Endpoint(from, 'tcp-send', { address, port, bytes, seed });
    ends.push(sender);
    return compareEnds(await sender.answer('ms', timeoutMs), await receiver.answer('sha256', timeoutMs));
  });
}

/** Runs a transfer. If it fails, what its ends still do ends with their processes. */
async function killIfFailing<T>(ends: Endpoint[], transfer: (ends: Endpoint[]) => Promise<T>): Promise<T> {
  try {
    return await transfer(ends);
  } catch (error) {
    await Promise.all(ends.map((end) => end.kill()));
    throw error;
  }
}

/** A TCP connection that sends random data at a steady rate until it is told to stop. */
export interface Stream {
  /**
   * Ends the connection in order and compares the digests of both ends.
   *
   * @throws Error if a byte is missing, additional or different, or the end does not come within the time.
   */
  stop(timeoutMs?: number): Promise<TransferResult>;
}

/** Starts a {@link Stream}. @param options.bytesPerSecond - default 1 MB. */
export async function startStream(
  from: Netns,
  to: Netns,
  address: string,
  options: { readonly bytesPerSecond?: number; readonly seed?: number } = {},
): Promise<Stream> {
  const { bytesPerSecond = 1_000_000, seed = 1 } = options;
  const receiver = new Endpoint(to, 'tcp-receive', { address });
  const ends = [receiver];
  const sender = await killIfFailing(ends, async () => {
    const { port } = await receiver.answer('port');
    const made = new Endpoint(from, 'tcp-stream', { address, port, bytesPerSecond, seed });
    ends.push(made);
    await made.answer('connected');
    return made;
  });
  return {
    stop: (timeoutMs = 60_000) =>
      killIfFailing(ends, async () => {
        sender.end();
        return compareEnds(await sender.answer('ms', timeoutMs), await receiver.answer('sha256', timeoutMs));
      }),
  };
}

function compareEnds(sent: TcpEnd & { readonly ms: number }, got: TcpEnd): TransferResult {
  if (got.bytes !== sent.bytes || got.sha256 !== sent.sha256) {
    throw new Error(`TCP data differ: sent ${sent.bytes} bytes ${sent.sha256}, got ${got.bytes} bytes ${got.sha256}`);
  }
  return { bytes: got.bytes, sha256: got.sha256, seconds: sent.ms / 1000 };
}

/** Which of the datagrams of a {@link udpExchange} did not come back as they were sent. */
export interface ExchangeResult {
  readonly lost: readonly number[];
  readonly altered: readonly number[];
}

/** Sends a datagram of each size to an echo at the other end, one after the other, and compares the answers. */
export async function udpExchange(
  from: Netns,
  to: Netns,
  address: string,
  sizes: readonly number[],
  options: { readonly seed?: number; readonly timeoutMs?: number } = {},
): Promise<ExchangeResult> {
  const { seed = 1, timeoutMs = 2000 } = options;
  const echo = new Endpoint(to, 'udp-echo', { address });
  return killIfFailing([echo], async (ends) => {
    const { port } = await echo.answer('port');
    const exchange = new Endpoint(from, 'udp-exchange', { address, port, seed, timeoutMs, sizes });
    ends.push(exchange);
    const { lost, altered } = await exchange.answer('lost', 10_000 + sizes.length * timeoutMs);
    echo.end();
    return { lost, altered };
  });
}

/** What arrived of one flow of {@link numberedFlows}. */
export interface FlowResult {
  readonly received: number;
  /** Datagrams that came after a later one of the same flow, or twice. */
  readonly late: number;
}

/** Sends numbered datagrams in several flows at once and says how each of them arrived. Loss is a result, not an error. */
export async function numberedFlows(
  from: Netns,
  to: Netns,
  address: string,
  options: { readonly flows: number; readonly datagrams: number },
): Promise<readonly FlowResult[]> {
  const receiver = new Endpoint(to, 'udp-flows-receive', { address });
  return killIfFailing([receiver], async (ends) => {
    const { port } = await receiver.answer('port');
    const sender = new Endpoint(from, 'udp-flows-send', { address, port, ...options });
    ends.push(sender);
    await sender.answer('sent', 60_000);
    // The receiver takes what is in its queue before it hears of the end.
    receiver.end();
    return (await receiver.answer('flows')).flows;
  });
}

/** What an iperf3 run measured. */
export interface IperfResult {
  /** As the receiver counted. */
  readonly bitsPerSecond: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly retransmits: number;
}

/** How {@link iperf} runs. */
export interface IperfOptions {
  /** Default 2. */
  readonly seconds?: number;
  /** Default 1. */
  readonly streams?: number;
  /** Data flow from the server to the client. */
  readonly isReverse?: boolean;
}

/** A TCP throughput run with congestion control cubic, from client to server unless reversed. */
export async function iperf(
  client: Netns,
  server: Netns,
  address: string,
  options: IperfOptions = {},
): Promise<IperfResult> {
  const { seconds = 2, streams = 1, isReverse = false } = options;
  const listener = server.start(['iperf3', '-s', '-1', '-B', address, '--forceflush']);
  try {
    await listener.waitForLine(/Server listening/);
    const { stdout } = await client.run(
      [
        ...['iperf3', '-c', address, '-C', 'cubic', '-J', '-t', String(seconds), '-P', String(streams)],
        ...['--connect-timeout', '3000', ...(isReverse ? ['-R'] : [])],
      ],
      { timeoutMs: (seconds + 15) * 1000, mayFail: true },
    );
    return parseIperf(stdout);
  } finally {
    await listener.kill();
  }
}

/**
 * Reads the JSON of iperf3.
 *
 * @internal
 * @throws Error with iperf3's own words when the run failed.
 */
export function parseIperf(json: string): IperfResult {
  type Sum = { readonly bytes: number; readonly seconds: number; readonly bits_per_second: number };
  type Sent = Sum & { readonly retransmits?: number };
  const report = JSON.parse(json) as { error?: string; end?: { sum_sent?: Sent; sum_received?: Sum } };
  const { sum_received: received, sum_sent: sent } = report.end ?? {};
  if (report.error !== undefined || received === undefined || sent === undefined) {
    throw new Error(`iperf3: ${report.error ?? 'no result'}`);
  }
  return {
    bitsPerSecond: received.bits_per_second,
    bytes: received.bytes,
    seconds: received.seconds,
    retransmits: sent.retransmits ?? 0,
  };
}
