import { Prefix } from '../../../ip/prefix.js';
import { formatDuration } from '../../text-table.js';
import { type Check, type DoctorFacts, type Found, ownSubnet } from '../facts.js';
import { shellWord, someOf } from '../text.js';

/** flannel renews an hour before the end; less than that is left only where nobody renews. */
export const NEAR_EXPIRY_SECONDS = 3600;

/** While two hosts undo each other's writing, they do so within this time of each other at first. */
const RECENT_SECONDS = 30;

/** Comes before the daemon's own account: of two hosts that overwrite one lease, neither is ready for long. */
export const publicIpCheck: Check = {
  id: 'duplicate-public-ip',
  title: 'each public address is one host with one lease',
  run: duplicateAddresses,
};

/** The keys under `subnets/`: the own one, and those of others. */
export const LEASE_CHECKS: readonly Check[] = [
  {
    id: 'own-lease',
    title: 'this host holds a lease and renews it',
    follows: ['etcd', 'config', 'duplicate-public-ip', 'wireguard-module', 'daemon'],
    run: ownLease,
  },
  {
    id: 'leases-believed',
    title: 'every key among the leases is a lease that can be believed',
    follows: ['duplicate-public-ip'],
    run: doubtfulLeases,
  },
  { id: 'lease-overlap', title: 'no lease of others lies inside the own subnet', run: overlappingLeases },
  { id: 'vtep-mac', title: 'each VXLAN device has a MAC address of its own', run: sharedVtepMacs },
];

function ownLease({ own, storeError, network }: DoctorFacts): readonly Found[] {
  if (storeError !== undefined || network === undefined) return [];
  if (own === undefined) {
    return [
      {
        severity: 'error',
        message: 'this host holds no lease',
        evidence: 'no lease has its subnet or public address',
        command: 'systemctl restart tsflanneld',
      },
    ];
  }
  const seconds = own.expiresInSeconds;
  if (seconds === null || seconds >= NEAR_EXPIRY_SECONDS) return [];
  return [
    {
      severity: 'warning',
      message: `the lease of this host, ${own.subnet}, is not being renewed`,
      evidence: `it ends in ${formatDuration(seconds)}`,
      command: 'systemctl restart tsflanneld',
    },
  ];
}

/** The daemon's own judgement: it does not route to these, so that they harm nobody but their hosts. */
function doubtfulLeases(facts: DoctorFacts): readonly Found[] {
  const { daemon } = facts;
  if (daemon === undefined) return [];
  const { quarantined, quarantinedCounts, badKeys, badKeyCount } = daemon.peerSet;
  const inside = new Set(keysInside(facts));
  const others = quarantined.filter(({ key }) => !inside.has(key));
  const total = Object.values(quarantinedCounts).reduce((sum, count) => sum + count, 0);
  const found: Found[] = [];
  const [firstQuarantined] = others;
  if (firstQuarantined !== undefined) {
    const count = total - (quarantined.length - others.length);
    found.push({
      severity: 'warning',
      message: `${count === 1 ? 'a lease is' : `${count} leases are`} not believed and not routed to`,
      evidence: someOf(others.map(({ key, detail }) => `${key}: ${detail}`)),
      command: releaseCommand(others.map(({ key }) => key)),
    });
  }
  if (badKeys.length > 0) {
    found.push({
      severity: 'warning',
      message: `${badKeyCount === 1 ? 'a key' : `${badKeyCount} keys`} among the leases cannot be read`,
      evidence: someOf(badKeys),
      command: releaseCommand(badKeys),
    });
  }
  return found;
}

function overlappingLeases(facts: DoctorFacts): readonly Found[] {
  const keys = keysInside(facts);
  if (keys.length === 0) return [];
  const subnet = ownSubnet(facts) ?? facts.daemon?.lease?.subnet;
  return [
    {
      severity: 'error',
      message: `${keys.length === 1 ? 'another key names' : `${keys.length} other keys name`} addresses of the own subnet ${String(subnet)}; hosts that believe them send its packets elsewhere`,
      evidence: someOf(keys),
      command: releaseCommand(keys),
    },
  ];
}

/** Keys of others over the own subnet: those that the daemon knows as rivals, and those that anybody can see. */
function keysInside({ daemon, own, leases }: DoctorFacts): readonly string[] {
  const subnet = own === undefined ? undefined : Prefix.parse(own.subnet);
  const seen = leases.filter(
    (lease) => lease.key !== own?.key && subnet?.overlaps(Prefix.parse(lease.subnet)) === true,
  );
  return [...new Set([...(daemon?.lease?.rivals ?? []), ...seen.map(({ key }) => key)])];
}

/** At most so many keys are released by one command; the next look names the rest. */
const MAX_RELEASED = 16;

/** Deletes these keys, after a question for each. */
export function releaseCommand(keys: readonly string[]): string {
  return keys
    .slice(0, MAX_RELEASED)
    .map((key) => `tsflannelctl leases release ${shellWord(key)}`)
    .join(' && ');
}

function duplicateAddresses(facts: DoctorFacts): readonly Found[] {
  const { leases, network } = facts;
  // What an earlier network left behind goes by itself.
  const isCurrent = ({ subnet }: { readonly subnet: string }): boolean =>
    network?.ipv4 === undefined || network.ipv4.network.covers(Prefix.parse(subnet));
  const held = leases.filter((lease) => !lease.isReservation && isCurrent(lease));
  const groups = [...new Set(held.map(({ publicIp }) => publicIp))].flatMap((publicIp): Found[] => {
    const group = held.filter((lease) => lease.publicIp === publicIp);
    const [oldest] = [...group].sort((a, b) => (BigInt(a.revision) < BigInt(b.revision) ? -1 : 1));
    if (group.length < 2 || oldest === undefined) return [];
    return [
      {
        severity: 'error',
        message: `${publicIp} holds ${group.length} leases: two hosts have the same public address, or one has lost a lease`,
        evidence: group.map(({ subnet, revision }) => `${subnet} (revision ${revision})`).join(', '),
        command: releaseCommand([oldest.subnet]),
        subnets: group.map(({ subnet }) => subnet),
      },
    ];
  });
  return [...sharedOwnAddress(facts), ...groups];
}

/** Another host has, or claims to have, the public address of this one. */
function sharedOwnAddress({ daemon, nowMs, publicIpNeighbour }: DoctorFacts): readonly Found[] {
  const lease = daemon?.lease ?? undefined;
  const address = daemon?.underlay?.address ?? undefined;
  if (lease === undefined) return [];
  if (publicIpNeighbour !== undefined && address !== undefined) {
    return [
      {
        severity: 'error',
        message: `this host claims the public address ${lease.publicIp}, which another host has; they take each other's lease and packets`,
        evidence: `${lease.publicIp} answers behind ${publicIpNeighbour}; the address of this host is ${address}`,
        command: `echo FLANNELD_PUBLIC_IP=${address} >>/etc/default/tsflanneld && systemctl restart tsflanneld`,
      },
    ];
  }
  if (lease.overwrittenAt === null) return [];
  const agoSeconds = (nowMs - Date.parse(lease.overwrittenAt)) / 1000;
  if (lease.isPublished && agoSeconds > RECENT_SECONDS) return [];
  return [
    {
      severity: 'error',
      message: `another host claims the public address ${lease.publicIp} of this one; they take each other's lease and packets`,
      evidence: `the lease of this host was overwritten ${lease.counters.overwrites} times, last ${formatDuration(agoSeconds)} ago`,
      command: `tsflannelctl doctor # on the host that has the other FLANNELD_PUBLIC_IP=${lease.publicIp}`,
    },
  ];
}

function sharedVtepMacs({ daemon }: DoctorFacts): readonly Found[] {
  const devices = (daemon?.devices ?? []).map(({ name }) => name).filter((name) => /^flannel(-v6)?\.\d+$/.test(name));
  const deletion = devices.map((name) => `ip link del ${name} && `).join('');
  return (daemon?.peers ?? []).flatMap(({ subnet, publicIp, skipped }): Found[] => {
    if (skipped?.cause !== 'vtep-mac') return [];
    return [
      {
        severity: 'error',
        message: `no packets go to ${subnet}: another host has the same VTEP MAC`,
        evidence: skipped.reason,
        command: `${deletion}systemctl restart tsflanneld # on ${publicIp}, or flanneld where that runs; on a copy of another host first: rm /etc/machine-id && systemd-machine-id-setup`,
        subnets: [subnet],
      },
    ];
  });
}
