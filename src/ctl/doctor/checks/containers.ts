import type { Check, DoctorFacts, Found, PeerProbe } from '../facts.js';
import { someOf } from '../text.js';
import { UNDERLYING, hostsText, subnetsOf } from './peers.js';

/** Whether packets get from a peer's device to its containers. */
export const CONTAINER_CHECKS: readonly Check[] = [
  {
    id: 'far-bridge',
    title: 'behind each peer there are its containers',
    follows: [...UNDERLYING, 'peers', 'overlay-blocked', 'checksum'],
    run: silentBridges,
  },
  {
    id: 'far-forward',
    title: 'each peer lets packets through to its containers',
    follows: [...UNDERLYING, 'peers', 'overlay-blocked', 'checksum', 'far-bridge'],
    run: closedForwarding,
  },
];

function silentBridges({ probes }: DoctorFacts): readonly Found[] {
  const silent = probes.filter(({ underlay, overlay, bridge }) => underlay && overlay !== false && bridge === false);
  return oneFinding(silent, (evidence) => ({
    severity: 'warning',
    message: `${hostsText(silent)} can be reached, but not the bridge of the containers there: Docker there does not use the leased subnet, or does not run`,
    evidence: `no echo from ${evidence}`,
  }));
}

function closedForwarding({ probes }: DoctorFacts): readonly Found[] {
  const closed = probes.filter(({ forward }) => forward === 'silence' || forward === 'refused');
  return oneFinding(closed, (evidence) => ({
    severity: 'error',
    message: `${hostsText(closed)} ${closed.length === 1 ? 'does' : 'do'} not let packets through to the containers there: a rule in FORWARD, or forwarding is off`,
    evidence: `for an address without a container, nobody says that there is none: ${evidence}`,
  }));
}

/** The cause is on the other hosts: the doctor there names it. */
function oneFinding(
  probes: readonly PeerProbe[],
  describe: (evidence: string) => Omit<Found, 'command'>,
): readonly Found[] {
  const [first] = probes;
  if (first === undefined) return [];
  const evidence = someOf(probes.map(({ lease }) => `${lease.subnet} at ${lease.publicIp}`));
  return [
    { ...describe(evidence), command: `tsflannelctl doctor # on ${first.lease.publicIp}`, subnets: subnetsOf(probes) },
  ];
}
