import { ALIAS_PREFIX } from '../../../reconcile/ownership.js';
import { formatDuration } from '../../text-table.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { savedStateCheck } from './saved-state.js';

/** A device or two altered by hand is nothing; a program that does not stop comes to this within a minute. */
const DRIFT_TOLERANCE = 10;

/** More than one datagram in a thousand lost before it was read: TCP feels that, and bursts alone do not do it. */
const OVERFLOW_TOLERANCE = 0.001;

/** The daemon of this host, by its own account. */
export const DAEMON_CHECKS: readonly Check[] = [
  {
    id: 'daemon',
    title: 'the daemon runs and is ready',
    follows: ['etcd', 'config', 'duplicate-public-ip', 'wireguard-module'],
    run: ({ daemon, daemonError, statusSocket }) => {
      if (daemon === undefined) {
        const evidence = daemonError ?? `nobody listens on ${statusSocket}`;
        const command = 'systemctl start tsflanneld';
        return [{ severity: 'error', message: 'no daemon runs on this host', evidence, command }];
      }
      if (daemon.isReady) return [];
      return [
        {
          severity: 'error',
          message: 'the daemon is not ready',
          evidence: daemon.notReadyBecause.join('; '),
          command: 'journalctl -u tsflanneld -p warning -e',
        },
      ];
    },
  },
  savedStateCheck,
  { id: 'altered', title: 'no other program alters the devices and routes of the overlay', run: alteredObjects },
  { id: 'rewritten-rules', title: 'no other program rewrites the firewall rules of the overlay', run: rewrittenRules },
  { id: 'receive-overflow', title: 'the tunnel reads all datagrams that arrive', run: receiveOverflow },
];

function alteredObjects({ daemon, links }: DoctorFacts): readonly Found[] {
  if (daemon === undefined) return [];
  const conflicts = daemon.reconcile.conflicts.map((conflict): Found => ({
    severity: 'error',
    message: 'an object of somebody else is in the way of the overlay',
    evidence: conflict,
    command: 'ip -details address show && ip route show',
  }));
  const evidence = repairs(daemon.reconcile.drift);
  if (evidence === undefined) return conflicts;
  const names = links.filter(({ alias }) => alias.startsWith(ALIAS_PREFIX)).map(({ name }) => name);
  const watched = 'ip -timestamp monitor link address route';
  return [
    ...conflicts,
    {
      severity: 'warning',
      message: `another program keeps altering ${names.join(', ') || 'objects of the overlay'}, such as a network manager or a second daemon`,
      evidence: `repaired in ${formatDuration(daemon.uptimeSeconds)}: ${evidence}`,
      command:
        names[0] === undefined ? watched : `nmcli device set ${names[0]} managed no # or watch who it is: ${watched}`,
    },
  ];
}

function rewrittenRules({ daemon }: DoctorFacts): readonly Found[] {
  const evidence = repairs(daemon?.firewall?.repaired ?? {});
  if (daemon === undefined || evidence === undefined) return [];
  return [
    {
      severity: 'warning',
      message:
        'another program keeps rewriting the firewall rules of the overlay, such as a firewall manager or a second flanneld',
      evidence: `repaired in ${formatDuration(daemon.uptimeSeconds)}: ${evidence}`,
      command: 'nft monitor # shows each change as it is made',
    },
  ];
}

/** What was repaired, if that is more than accidents. */
function repairs(counts: Readonly<Record<string, number>>): string | undefined {
  const repaired = Object.entries(counts).filter(([, count]) => count > 0);
  const total = repaired.reduce((sum, [, count]) => sum + count, 0);
  return total < DRIFT_TOLERANCE ? undefined : repaired.map(([kind, count]) => `${kind} ${count}`).join(', ');
}

function receiveOverflow({ daemon, underlay }: DoctorFacts): readonly Found[] {
  return (daemon?.tunnels ?? []).flatMap(({ device, kind, workers, counters }) => {
    const { drops } = counters;
    const lost = drops['receive-overflow'];
    const read = ['source-unknown', 'source-spoofed', 'length-mismatch'] as const;
    const all = read.reduce((sum, reason) => sum + drops[reason], counters.rxPackets + lost);
    if (!(lost > all * OVERFLOW_TOLERANCE)) return [];
    const look = `tcpdump -n -c 1000 -i ${underlay?.device ?? 'any'} udp # who sends so much`;
    const remedy = kind === 'native' ? `--udp-workers=${workers + 1}` : '--datapath=native';
    return [
      {
        severity: 'warning',
        message: `datagrams for ${device} are lost before the daemon reads them: more arrive than ${kind === 'native' ? 'its threads take' : 'the portable tunnel takes'}`,
        evidence: `the kernel discarded ${lost} of ${all}, since the queue of the socket was full`,
        command: `${look}; if it is wanted, start the daemon with ${remedy}`,
      },
    ];
  });
}
