import type { IpAddress } from '../ip/address.js';
import { EchoSocket } from '../reach/echo-socket.js';
import { defineCommand, EXIT, HOST_FLAGS, printJson, STORE_FLAGS } from './command.js';
import { EchoPinger } from './ping/echo-pinger.js';
import { type LayerResult, type PingPath, type PingPeer, type Verdict, judge, pingPaths } from './ping/layers.js';
import { choosePeer, readPeers } from './ping/peers.js';
import { formatFields, formatMilliseconds, formatTable } from './text-table.js';

/** Peers that are asked at once: a few thousand echoes a second at the most. */
const PARALLEL_PEERS = 64;

const LAYERS = ['underlay', 'overlay', 'bridge'] as const;

/** What was found of one peer in one family. */
interface Finding {
  readonly peer: PingPeer;
  readonly path: PingPath;
  readonly layers: readonly LayerResult[];
  readonly verdict: Verdict;
}

/** `ping [HOST]` */
export const ping = defineCommand({
  name: 'ping',
  summary: 'Measure the way to one peer or to all, layer by layer, and say where packets stop',
  description:
    'Sends three echoes each to the host on the real network, to its end of the overlay, to its containers’ bridge and, where HOST is one, to the container.',
  operands: [
    {
      name: 'HOST',
      isOptional: true,
      help: 'a peer’s subnet, public address or host name, or the address of a container; without it every peer is asked',
      values: 'none',
    },
  ],
  flags: { ...HOST_FLAGS, ...STORE_FLAGS },
  exits: ['differences', 'unreachable'],
  async run(context, { operands: [host], options }) {
    const peers = await readPeers(context, options);
    const chosen = host === undefined ? undefined : await choosePeer(context, options, peers, host);
    const pinger = new EchoPinger(context.clock, EchoSocket.open);
    try {
      const asked = chosen === undefined ? peers : [chosen.peer];
      const findings = await pingAll(pinger, asked, chosen?.container, context.signal);
      const stopped = findings.filter(({ verdict }) => verdict.stopsAt !== undefined);
      if (options.json) printJson(context, { peers: findings.map(asDocument) });
      else
        context.out.block(chosen === undefined ? describeAll(findings, stopped) : findings.map(describeOne).join('\n'));
      return stopped.length === 0 ? EXIT.ok : EXIT.differences;
    } finally {
      pinger.close();
    }
  },
});

async function pingAll(
  pinger: EchoPinger,
  peers: readonly PingPeer[],
  container: IpAddress | undefined,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const ways = peers.flatMap((peer) => pingPaths(peer, container).map((path) => ({ peer, path })));
  const findings: Finding[] = [];
  const waiting = [...ways.entries()];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, { peer, path }] = next;
      const layers = await Promise.all(
        path.targets.map(async (target) => ({ ...target, ...(await pinger.measure(target.address, signal)) })),
      );
      findings[index] = { peer, path, layers, verdict: judge(peer, layers) };
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_PEERS }, worker));
  return findings;
}

function describeOne({ peer, layers, verdict }: Finding): string {
  const rows = layers.map((layer) => [
    layer.layer,
    layer.address.toString(),
    timeOf(layer),
    `${layer.received} of ${layer.sent}`,
  ]);
  const { message, hint, stopsAt } = verdict;
  return [
    formatFields([['peer', nameOf(peer)]]),
    formatTable(['LAYER', 'ADDRESS', 'ROUND TRIP', 'ANSWERED'], rows),
    formatFields([
      ['result', stopsAt === undefined ? message : `stops at the ${stopsAt}: ${message}`],
      ...(hint === undefined ? [] : [['look at', hint] as const]),
    ]),
  ].join('');
}

function describeAll(findings: readonly Finding[], stopped: readonly Finding[]): string {
  if (findings.length === 0) return 'there are no peers to ask\n';
  const rows = findings.map(({ peer, path, layers, verdict }) => [
    (path.family === 4 ? peer.subnet : (peer.ipv6Subnet ?? peer.subnet)).toString(),
    layers[0]?.address.toString() ?? '',
    ...LAYERS.map((name) => timeOf(layers.find(({ layer }) => layer === name))),
    verdict.stopsAt === undefined ? verdict.message : `stops at the ${verdict.stopsAt}`,
  ]);
  const total = findings.length === 1 ? '1 way' : `${findings.length} ways`;
  const summary =
    stopped.length === 0 ? `${total} to peers, all of them open` : `${stopped.length} of ${total} to peers end early`;
  const advice = firstOfEach(stopped).map(
    ({ peer, verdict }) =>
      [verdict.stopsAt ?? '', `${verdict.message}, such as ${nameOf(peer)}; ${verdict.hint ?? ''}`] as const,
  );
  return [
    formatTable(['PEER', 'PUBLIC IP', 'UNDERLAY', 'OVERLAY', 'BRIDGE', 'RESULT'], rows),
    `${summary}\n`,
    formatFields(advice),
  ].join('');
}

/** One finding for each kind of end: what is wrong with a hundred peers in the same way is told once. */
function firstOfEach(stopped: readonly Finding[]): readonly Finding[] {
  const kinds = new Map<string, Finding>();
  for (const finding of stopped) {
    const { stopsAt = '', message } = finding.verdict;
    const kind = `${stopsAt} ${finding.peer.backend} ${finding.peer.skipped === undefined ? '' : message}`;
    if (!kinds.has(kind)) kinds.set(kind, finding);
  }
  return [...kinds.values()];
}

function nameOf({ subnet, publicIp, publicIpv6, hostName, backend }: PingPeer): string {
  const address = (publicIp ?? publicIpv6)?.toString() ?? '';
  return `${subnet.toString()} at ${address}${hostName === undefined ? '' : ` (${hostName})`}, ${backend}`;
}

function timeOf(layer: LayerResult | undefined): string {
  if (layer === undefined) return '';
  return layer.roundTripMs === undefined ? 'none' : formatMilliseconds(layer.roundTripMs / 1000);
}

function asDocument({ peer, path, layers, verdict }: Finding): object {
  return {
    subnet: (path.family === 4 ? peer.subnet : (peer.ipv6Subnet ?? peer.subnet)).toString(),
    publicIp: layers[0]?.address.toString() ?? null,
    backend: peer.backend,
    hostName: peer.hostName ?? null,
    layers: layers.map(({ layer, address, sent, received, roundTripMs }) => ({
      layer,
      address: address.toString(),
      sent,
      received,
      roundTripSeconds: roundTripMs === undefined ? null : roundTripMs / 1000,
    })),
    stopsAt: verdict.stopsAt ?? null,
    message: verdict.message,
    hint: verdict.hint ?? null,
  };
}
