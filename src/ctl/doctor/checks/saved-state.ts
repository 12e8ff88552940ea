import type { DaemonStatus } from '../../../observe/status.js';
import type { Check } from '../facts.js';

type Saved = NonNullable<DaemonStatus['savedState']>;

function evidenceOf({ subnet, savedAt, leaseEndsAt, isolatedBecause }: Saved): string {
  const lease = `the lease of ${subnet}${savedAt === null ? '' : `, saved at ${savedAt}`}`;
  if (isolatedBecause !== null) return `${lease}: ${isolatedBecause}`;
  return leaseEndsAt === null ? lease : `${lease}, which ends at ${leaseEndsAt}`;
}

/** Whether the host works with what an earlier process has saved, since etcd has been away since the start. */
export const savedStateCheck: Check = {
  id: 'saved-state',
  title: 'etcd has confirmed the lease that the daemon works with',
  follows: ['etcd'],
  run: ({ daemon, etcdEndpoints }) => {
    const saved = daemon?.savedState ?? null;
    if (saved === null) return [];
    const isIsolated = saved.isolatedBecause !== null;
    return [
      {
        severity: isIsolated ? 'error' : 'warning',
        message: isIsolated
          ? 'the saved lease may be of another host by now: its subnet is there for Docker, but nothing is sent to other hosts until etcd answers'
          : 'the daemon works with its saved state, since etcd has not answered since its start: new hosts are not known, and nobody renews the lease',
        evidence: evidenceOf(saved),
        command: `etcdctl --endpoints=${etcdEndpoints.join(',')} endpoint health # and bring etcd back`,
      },
    ];
  },
};
