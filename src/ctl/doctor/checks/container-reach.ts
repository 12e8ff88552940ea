import type { Check, DoctorFacts, Found } from '../facts.js';
import { someOf } from '../text.js';

/** Containers of routed networks on other hosts, by the daemon's account. */
export const CONTAINER_REACH_CHECKS: readonly Check[] = [
  { id: 'container-reach', title: 'containers of routed networks on other hosts are reached', run: notReached },
  { id: 'container-facts', title: 'what other hosts tell of their containers can be believed', run: notBelieved },
];

function notReached({ daemon }: DoctorFacts): readonly Found[] {
  const { skipped = [], unplaced = [] } = daemon?.containerReach ?? {};
  const [first] = skipped;
  const found: Found[] = [];
  if (first !== undefined) {
    const isOffLink = skipped.some(({ cause }) => cause === 'off-link');
    found.push({
      severity: skipped.every(({ cause }) => cause === 'off-link') ? 'note' : 'warning',
      message: isOffLink
        ? 'packets to containers of hosts behind a router are left to that router, which needs routes to them'
        : 'containers of other hosts cannot be reached',
      evidence: someOf(
        skipped.map(({ prefixes, publicIp, reason }) => `${someOf(prefixes)} at ${publicIp}: ${reason}`),
      ),
      command: isOffLink
        ? 'tsflannelctl docker-networks routes # for the router'
        : `tsflannelctl status # ${first.hint}`,
    });
  }
  if (unplaced.length > 0) {
    found.push({
      severity: 'warning',
      message: 'hosts have containers, and nobody knows where the hosts are',
      evidence: someOf(unplaced.map(({ host, detail }) => `${host}: ${detail}`)),
      command: 'systemctl restart tsflanneld # on those hosts, after an upgrade to this version',
    });
  }
  return found;
}

function notBelieved({ daemon }: DoctorFacts): readonly Found[] {
  const { refused = [] } = daemon?.containerReach ?? {};
  if (refused.length === 0) return [];
  return [
    {
      severity: 'warning',
      message: 'what other hosts tell of their containers is not believed, and no packets are sent there',
      evidence: someOf(refused.map(({ what, detail }) => `${what}: ${detail}`)),
      command:
        'tsflannelctl docker-networks # which network it is; create it again with a subnet that nothing else uses',
    },
  ];
}
