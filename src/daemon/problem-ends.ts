/** Problems, by their messages, that a later line with this message says to be over. */
export const ENDED_BY: Readonly<Record<string, readonly string[]>> = {
  'etcd connected': ['etcd lost', 'etcd still away', 'etcd does not answer, going on with the saved state'],
  'etcd is back': ['etcd lost', 'etcd still away', 'etcd does not answer, going on with the saved state'],
  'lease acquired': [
    'own lease ends soon and cannot be renewed',
    'own lease may have expired, etcd could not be asked in time',
    'own lease is not in what was restored in etcd',
    'cannot acquire a lease, still trying',
    'cannot renew the own lease, still trying',
  ],
  'own lease is renewed again': [
    'own lease ends soon and cannot be renewed',
    'cannot renew the own lease, still trying',
  ],
  'own lease was published': ['cannot publish the own lease, still trying'],
  'every lease in the store is believed again': ['leases are not believed and not routed'],
  'network configuration read': ['network configuration missing', 'network configuration not valid'],
  'network configuration changed': ['network configuration missing', 'network configuration not valid'],
  'network configuration is the one in use again': ['network configuration missing', 'network configuration not valid'],
  'works again after an earlier problem': ['cannot carry the overlay as configured'],
  'interface is usable again': ['interface cannot be used, keeping its last state'],
  'interface changed': ['interface cannot be used, keeping its last state', 'interfaces cannot be read'],
  'peer can be reached again, or is gone': ['peer cannot be reached'],
  'peers can be reached again, or are gone': ['peer cannot be reached', 'peers cannot be reached'],
  'all peers answer again': ['peers do not answer'],
  'command of the backend works again, or is no longer needed': ['command of the backend failed, trying again'],
  'commands of the backend work again, or are no longer needed': [
    'command of the backend failed, trying again',
    'commands of the backend failed, trying again',
  ],
  'objects of others are no longer in the way': [
    'object of somebody else is in the way',
    'more objects of others are in the way',
  ],
  'kernel state changed after earlier failures': ['kernel state could not be changed, trying again'],
  'kernel state can be read again': ['kernel state could not be read, trying again'],
  'firewall rules are in place again': [
    'traffic rules not in place, trying again',
    'cannot look after the firewall rules',
  ],
  'offload of the tunnel tried again': ['offload of the tunnel switched off'],
  'containers follow subnet file': ['containers need a restart of Docker'],
  'status server listens': ['status server cannot listen, trying again'],
};

/** Warnings about what was repaired before they were written. */
export const REPAIRED: readonly string[] = [
  'reverted a change made by somebody else',
  'repaired firewall rules that somebody else changed',
  'etcd was restored or wiped, or is another one: everything is read and the own lease asserted again',
];

/** Fields that tell two problems with the same message apart. */
export const TOLD_APART_BY = ['peer', 'dev', 'kind', 'address'] as const;
