import type { PeerStatus } from '../../../observe/status.js';
import { isSilent } from '../../../observe/wireguard-status.js';
import type { Check, DoctorFacts, Found } from '../facts.js';
import { someOf } from '../text.js';
import { UNDERLYING } from './peers.js';

/** The kernel makes a new session every two minutes of traffic, and uses none for longer than three. */
const STALE_SECONDS = 300;

/** By itself, since the daemon is not ready without. */
export const wireguardModuleCheck: Check = {
  id: 'wireguard-module',
  title: 'the kernel has WireGuard where the network needs it',
  run: missingModule,
};

/** WireGuard, by what the kernel tells of its devices. */
export const WIREGUARD_CHECKS: readonly Check[] = [
  { id: 'wireguard-key', title: 'nobody but root can read the private key', run: openKeyFile },
  { id: 'wireguard', title: 'each peer answers handshakes', follows: UNDERLYING, run: silentPeers },
];

function missingModule({ daemon }: DoctorFacts): readonly Found[] {
  const failure = daemon?.reconcile.failures.find(
    ({ object, error }) => /^link flannel-wg/.test(object) && error.includes('EOPNOTSUPP'),
  );
  if (failure === undefined) return [];
  return [
    {
      severity: 'error',
      message: 'this kernel has no WireGuard, so that no packet gets to the other hosts',
      evidence: failure.error,
      command: 'modprobe wireguard # in kernels since 5.6; else choose another backend: tsflannelctl config set',
    },
  ];
}

function openKeyFile({ daemon }: DoctorFacts): readonly Found[] {
  const { wireguard } = daemon ?? {};
  if (wireguard?.isKeyFileOpen !== true) return [];
  return [
    {
      severity: 'error',
      message: 'others than root can read the private key of this host, and with it pass for this host',
      evidence: `the mode of ${wireguard.keyFile}`,
      command: `chmod 600 ${wireguard.keyFile} # then, if others were on this host: umask 077; wg genkey >${wireguard.keyFile}`,
    },
  ];
}

function silentPeers({ daemon }: DoctorFacts): readonly Found[] {
  if (daemon?.wireguard == null) return [];
  const nowMs = Date.parse(daemon.startedAt) + daemon.uptimeSeconds * 1000;
  const silent = daemon.peers.filter((peer) => peer.skipped === null && hasNoSession(peer, nowMs));
  const [first] = silent;
  if (first === undefined) return [];
  const ports = daemon.wireguard.devices.map(({ listenPort }) => listenPort).join(' and ');
  const isOne = silent.length === 1;
  return [
    {
      severity: 'error',
      message: `${isOne ? first.publicIp : `${silent.length} hosts`} ${isOne ? 'answers' : 'answer'} no handshake: UDP port ${ports} is blocked there or on the way, the host has another key or PSK, or no daemon runs there`,
      evidence: someOf(silent.map(({ subnet, wireguard }) => `${subnet} (${wireguard.map(pathText).join('; ')})`)),
      command: `tcpdump -ni any udp port ${daemon.wireguard.devices[0]?.listenPort ?? 51820} # here and on ${first.publicIp}: what leaves there has to arrive here, and the other way round; wg show there must name ${daemon.wireguard.publicKey}`,
      subnets: silent.map(({ subnet }) => subnet),
    },
  ];
}

/** Packets were sent and no handshake came of it, or the last one is too old for the packets that are lost now. */
function hasNoSession({ wireguard, reachability }: PeerStatus, nowMs: number): boolean {
  const isLost = reachability.some(({ state }) => state === 'unreachable');
  return wireguard.some(
    (path) =>
      isSilent(path) ||
      (isLost && path.lastHandshakeAt !== null && nowMs - Date.parse(path.lastHandshakeAt) > STALE_SECONDS * 1000),
  );
}

function pathText({ device, endpoint, lastHandshakeAt, rxBytes, txBytes }: PeerStatus['wireguard'][number]): string {
  const handshake = lastHandshakeAt === null ? 'no handshake' : `last handshake ${lastHandshakeAt}`;
  return `${device} to ${endpoint ?? 'nowhere'}: ${handshake}, ${txBytes} bytes sent, ${rxBytes} received`;
}
