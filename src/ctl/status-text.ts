import type { CommandsStatus } from '../extension/status.js';
import type { Offload } from '../dataplane/tunnel.js';
import type { DaemonStatus, PathStatus, PeerStatus, TrafficStatus, TunnelStatus } from '../observe/status.js';
import type { KernelPathStatus, PeerCarrier, TunnelledBecause } from '../observe/kernel-path-status.js';
import type { NdpProxyStatus } from '../observe/ndp-status.js';
import type { ContainerReachStatus } from '../observe/container-reach-status.js';
import { type WireguardPathStatus, isSilent } from '../observe/wireguard-status.js';
import {
  formatBytes,
  formatDuration,
  formatFields,
  formatLine,
  formatMilliseconds,
  formatTable,
} from './text-table.js';

/** Of the log's latest warnings, as many as fit below everything else. */
const PROBLEMS_SHOWN = 5;

/**
 * A daemon's status for people.
 *
 * @param previous - an earlier look at the same daemon; then traffic is shown with its rates since.
 */
export function formatStatus(status: DaemonStatus, previous?: DaemonStatus): string {
  const seconds = previous?.pid === status.pid ? status.uptimeSeconds - previous.uptimeSeconds : 0;
  const sections = [
    head(status),
    devices(status, seconds > 0 ? previous : undefined, seconds),
    ...status.tunnels.map(tunnel),
    peers(status),
    commands(status.commands),
    repairs(status),
    problems(status),
  ];
  return sections.filter((section) => section !== '').join('\n');
}

function head(status: DaemonStatus): string {
  const { network, lease, underlay, store } = status;
  const lines: (readonly [string, string])[] = [
    [
      'daemon',
      `${status.version} on ${status.hostName}, pid ${status.pid}, up ${formatDuration(status.uptimeSeconds)}, ${
        status.isReady ? 'ready' : `not ready: ${status.notReadyBecause.join('; ')}`
      }`,
    ],
  ];
  if (network !== null) {
    lines.push(['network', `${[network.ipv4, network.ipv6].filter(isText).join(' and ')}, backend ${network.backend}`]);
    if (network.rejected !== null) lines.push(['', `the configuration in etcd is not used: ${network.rejected}`]);
  }
  if (status.savedState) {
    const { subnet, savedAt, isolatedBecause } = status.savedState;
    const since = savedAt === null ? 'saved' : `saved at ${savedAt}`;
    lines.push(['lease', `${subnet}, ${since} and not yet confirmed: etcd does not answer`]);
    if (isolatedBecause !== null) lines.push(['', `nothing is sent to other hosts: ${isolatedBecause}`]);
  } else if (lease === null) {
    lines.push(['lease', 'none yet']);
  } else {
    const end = lease.expiresInSeconds === null ? 'reserved' : `ends in ${formatDuration(lease.expiresInSeconds)}`;
    const subnets = [lease.subnet, lease.ipv6Subnet].filter(isText).join(' and ');
    const addresses = [lease.publicIp, lease.publicIpv6].filter(isText).join(' and ');
    lines.push([
      'lease',
      `${subnets} at ${addresses}, ${lease.state}, ${end}, held for ${formatDuration(lease.ageSeconds)}`,
    ]);
  }
  if (underlay !== null)
    lines.push(['underlay', `${underlay.device}, MTU ${underlay.mtu}; containers ${status.mtu ?? '-'}`]);
  if (status.backends.length > 0) lines.push(['backends', status.backends.join(', ')]);
  if (status.wireguard !== null) {
    const { devices: all, keyFile, publicKey } = status.wireguard;
    const ports = all.map(({ name, listenPort }) => `${name} on UDP port ${listenPort}`).join(', ');
    lines.push(['wireguard', [`public key ${publicKey} of ${keyFile}`, ...(ports === '' ? [] : [ports])].join('; ')]);
  }
  lines.push(...ndpProxyLines(status.ndpProxy));
  if (status.containerReach !== null) lines.push(...reachLines(status.containerReach));
  const requests = `${store.counters.roundTrips} requests, ${sum(Object.values(store.counters.errors))} errors`;
  lines.push([
    'etcd',
    store.isConnected
      ? `connected to ${store.endpoint ?? '-'}, ${requests}`
      : `not connected: ${store.error ?? 'no answer yet'}; ${requests}`,
  ]);
  lines.push(['subnet file', status.subnetFile.error ?? status.subnetFile.path]);
  if (status.dockerHint !== null) lines.push(['docker', status.dockerHint]);
  return formatFields(lines);
}

function devices(status: DaemonStatus, previous: DaemonStatus | undefined, seconds: number): string {
  if (status.devices.length === 0) return '';
  const rows = status.devices.map((device) => {
    const before = previous?.devices.find(({ name }) => name === device.name);
    const rate = (key: keyof TrafficStatus): string =>
      before === undefined ? '' : ` (${formatBytes(Math.max(0, device[key] - before[key]) / seconds)}/s)`;
    const dropped = device.txDropped + device.rxDropped;
    return [
      device.name,
      device.isUp ? 'up' : 'DOWN',
      String(device.mtu),
      `${formatBytes(device.txBytes)}${rate('txBytes')}`,
      `${formatBytes(device.rxBytes)}${rate('rxBytes')}`,
      String(dropped),
      String(device.txErrors + device.rxErrors),
    ];
  });
  return formatTable(['DEVICE', 'STATE', 'MTU', 'SENT', 'RECEIVED', 'DROPPED', 'ERRORS'], rows);
}

function tunnel({ kind, device, workers, offloads, disabledOffloads, counters, kernelPath }: TunnelStatus): string {
  const names = Object.entries(offloads);
  const active = names.filter(([, isOn]) => isOn).map(([name]) => name);
  const missing = names
    .filter(([, isOn]) => !isOn)
    .map(([name]) => {
      if (disabledOffloads.some((each) => each === name)) return `${name} (switched off)`;
      return counters.downgrades[name as Offload] > 0 ? `${name} (refused by the kernel, tried again later)` : name;
    });
  const drops = Object.entries(counters.drops).filter(([, count]) => count > 0);
  const lines: readonly (readonly [string, string])[] = [
    ['tunnel', `${device}, ${kind}, ${workers === 1 ? '1 worker' : `${workers} workers`}`],
    ['offloads', active.join(', ') || 'none'],
    ...(missing.length > 0 ? [['not in use', missing.join(', ')] as const] : []),
    ['drops', drops.map(([reason, count]) => `${reason} ${count}`).join(', ') || 'none'],
    ...kernelPathLines(kernelPath),
  ];
  return formatFields(lines);
}

function peers(status: DaemonStatus): string {
  const { peers: all, peerSet, reachability } = status;
  const silent = reachability?.peers.unreachable ?? 0;
  const answering = silent === 0 ? '' : `, ${silent} of them ${silent === 1 ? 'does' : 'do'} not answer`;
  const title = `${all.length === 1 ? '1 peer' : `${all.length} peers`}${answering}${peerSet.isSynced ? '' : ', as known before the start: etcd has not told yet'}\n`;
  const more = peerSet.badKeyCount - peerSet.badKeys.length;
  const bad = [
    ...peerSet.badKeys.map((key) => `unreadable lease ${key}`),
    ...(more > 0 ? [`and ${more} more that are unreadable`] : []),
    ...peerSet.quarantined.map(({ key, detail }) => `not routed   ${key}: ${detail}`),
    ...(reachability === null || reachability.error === null ? [] : [`peers are not probed: ${reachability.error}`]),
    ...(peerSet.keptCount > 0 ? [`${peerSet.keptCount} of them kept although etcd has forgotten them`] : []),
  ]
    .map(formatLine)
    .join('');
  if (all.length === 0) return title + bad;
  const nowMs = Date.parse(status.startedAt) + status.uptimeSeconds * 1000;
  const rows = all.map((peer) => [
    peer.subnet,
    peer.publicIp,
    peer.backend,
    peer.reachability.map((path, _, paths) => answer(path, paths.length > 1, nowMs)).join('; '),
    bytesOf(peer, 'txBytes'),
    bytesOf(peer, 'rxBytes'),
    peerNote(peer, nowMs),
  ]);
  return title + formatTable(['PEER', 'PUBLIC IP', 'BACKEND', 'ANSWERS', 'SENT', 'RECEIVED', 'NOTE'], rows) + bad;
}

/** Inner bytes where a tunnel counts them, those of WireGuard's datagrams where it does. */
function bytesOf({ traffic, wireguard }: PeerStatus, key: 'txBytes' | 'rxBytes'): string {
  if (traffic !== null) return formatBytes(traffic[key]);
  return wireguard.length === 0 ? '' : formatBytes(sum(wireguard.map((path) => path[key])));
}

/** What probes of one path found, in a few words. */
function answer(path: PathStatus, isOneOfSeveral: boolean, nowMs: number): string {
  const { state, since, roundTripSeconds, loss, answeredBy, errno } = path;
  const family = isOneOfSeveral ? `IPv${path.family} ` : '';
  if (state === 'unknown') return `${family}not known yet`;
  const host = answeredBy === 'underlay' ? ', its host alone does' : '';
  if (state === 'unreachable') {
    const time = since === null ? '' : ` for ${formatDuration((nowMs - Date.parse(since)) / 1000)}`;
    return `${family}NO${time}${host}${errno === null ? '' : ` (${errno})`}`;
  }
  const lost = loss === null || loss === 0 ? '' : `, ${Math.ceil(loss * 100)} % lost`;
  const only = answeredBy === 'underlay' ? ', the host itself' : '';
  return `${family}${formatMilliseconds(roundTripSeconds ?? 0)}${lost}${only}`;
}

function peerNote({ carrier, skipped, isReservation, wireguard }: PeerStatus, nowMs: number): string {
  if (skipped !== null) return `not reached: ${skipped.reason}; ${skipped.hint}`;
  const handshakes = wireguard.map((path) => handshake(path, wireguard.length > 1, nowMs));
  return [...(isReservation ? ['reserved'] : []), ...carrierNote(carrier), ...handshakes].join('; ');
}

const TUNNELLED: Readonly<Record<TunnelledBecause, string>> = {
  refused: 'this host has no kernel path',
  'not-announced': 'the peer announces no kernel path',
  'off-link': 'the peer is not on the link of the uplink, or its route has a smaller MTU',
};

/** @param carrier - undefined from a daemon of an earlier release. */
function carrierNote(carrier: PeerCarrier | null | undefined): readonly string[] {
  if (!carrier) return [];
  return [carrier.carrier === 'kernel' ? 'by the kernel path' : `by the tunnel: ${TUNNELLED[carrier.because]}`];
}

/** @param status - undefined from a daemon of an earlier release. */
function kernelPathLines(status: KernelPathStatus | null | undefined): (readonly [string, string])[] {
  if (!status) return [];
  const { counters, isActive, receiver, refused } = status;
  if (refused === null && !isActive) return [['kernel path', 'not attached yet']];
  if (refused !== null) return [['kernel path', `NO (${refused.reason}): ${refused.detail}; ${refused.hint}`]];
  const { sent, received } = counters ?? {};
  return [
    [
      'kernel path',
      `${receiver ?? ''}, ${formatBytes(sent?.bytes ?? 0)} sent, ${formatBytes(received?.bytes ?? 0)} received`,
    ],
  ];
}

/** Whether the peer has proved to be the one that its lease names, and when. */
function handshake(path: WireguardPathStatus, isOneOfSeveral: boolean, nowMs: number): string {
  const device = isOneOfSeveral ? `${path.device} ` : '';
  if (isSilent(path)) return `${device}NO handshake`;
  if (path.lastHandshakeAt === null) return `${device}no handshake yet`;
  const age = Math.max(0, nowMs - Date.parse(path.lastHandshakeAt)) / 1000;
  return `${device}handshake ${formatDuration(age)} ago`;
}

/** @param status - absent from a daemon of an earlier version. */
/** @param status - undefined from a daemon of an earlier release. */
function ndpProxyLines(status: NdpProxyStatus | null | undefined): (readonly [string, string])[] {
  if (status === null || status === undefined) return [];
  const { addresses, uplinks, problem } = status;
  const where = uplinks.map(({ device, subnets }) => `${device} (${subnets.join(', ')})`).join(', ');
  const what = where === '' ? 'no bridge has a part of an on-link prefix' : `${addresses} addresses on ${where}`;
  return [['ndp proxy', problem === null ? what : `${what}; ${problem}`]];
}

function commands(status: CommandsStatus | null | undefined): string {
  if (!status) return '';
  const { failing, failingCount, peersDone, peersWaiting, state } = status;
  const lines: (readonly [string, string])[] = [
    ['commands', `${state}, done for ${peersDone} peers, ${peersWaiting} waiting, ${failingCount} failing`],
    ...failing.map(
      ({ command, peer, failure, lastLine, attempts }) =>
        [
          'failing',
          `${command}${peer === null ? '' : ` for ${peer}`}: ${[failure, lastLine].filter((text) => text !== '').join(': ')} (${attempts} times)`,
        ] as const,
    ),
  ];
  return formatFields(lines);
}

function repairs({ reconcile, firewall }: DaemonStatus): string {
  const drift = Object.entries(reconcile.drift).filter(([, count]) => count > 0);
  const rules = Object.entries(firewall?.repaired ?? {}).filter(([, count]) => count > 0);
  const list = [...drift, ...rules].map(([kind, count]) => `${kind} ${count}`).join(', ');
  const lines: (readonly [string, string])[] = [
    ['kernel', reconcile.isConverged ? 'as desired' : `not as desired, ${reconcile.blocked} objects wait`],
    ['repaired', list || 'nothing'],
  ];
  if (firewall !== null) {
    const state = firewall.isInPlace ? 'in place' : 'NOT in place';
    lines.push([
      'rules',
      `${firewall.mode ?? 'none'}, ${state}${firewall.lastError === null ? '' : `: ${firewall.lastError}`}`,
    ]);
  }
  for (const conflict of reconcile.conflicts) lines.push(['in the way', conflict]);
  for (const { object, error, attempt } of reconcile.failures)
    lines.push(['failing', `${object}: ${error} (${attempt} times)`]);
  return formatFields(lines);
}

function problems({ problems: all }: DaemonStatus): string {
  return all
    .slice(-PROBLEMS_SHOWN)
    .map(({ at, level, message, detail, hint }) => {
      const tail = [detail, hint ?? ''].filter((text) => text !== '').join('; ');
      return formatLine(`${at} ${level} ${message}${tail === '' ? '' : `: ${tail}`}`);
    })
    .join('');
}

function isText(text: string | null): text is string {
  return text !== null;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Nothing where no host has containers in a routed network. */
function reachLines({
  routed,
  skippedByCause,
  unplacedPrefixes,
  refusedByReason,
}: ContainerReachStatus): [string, string][] {
  const notReached = sum(Object.values(skippedByCause)) + unplacedPrefixes;
  const refused = sum(Object.values(refusedByReason));
  if (routed.direct + routed.overlay + notReached + refused === 0) return [];
  const parts = [
    `${routed.overlay} prefixes through the overlay, ${routed.direct} directly`,
    ...(notReached === 0 ? [] : [`${notReached} NOT reached`]),
    ...(refused === 0 ? [] : [`${refused} not believed`]),
  ];
  return [['elsewhere', `containers of other hosts: ${parts.join(', ')}`]];
}
