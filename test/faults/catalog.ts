/** A fault that is tried. */
export interface Fault {
  /** What is done to the cluster. */
  readonly what: string;
  /** What this daemon promises: the title of the test. */
  readonly here: string;
  /** What flannel does as far as its source or an experiment tells; empty where neither does. */
  readonly stock: string;
}

/** Every fault, in the order of the page. */
export const FAULTS = {
  'etcd-wiped': {
    what: 'etcd wiped and started empty, configuration put back',
    here: 'every lease is written again within 2 s of the reconnect, peers are kept',
    stock: 'packets go on',
  },
  'restored-without-key': {
    what: 'etcd restored from a backup that lacks the key of a host',
    here: 'the lease is written again within 2 s of the reconnect',
    stock: '',
  },
  'restored-subnet-taken': {
    what: 'the same, and another host gets the subnet before the first one has its connection back',
    here: 'noticed at the reconnect: the lease that was created later yields, loudly, and one host holds the subnet',
    stock: 'the renewal, up to 23 h later, overwrites the key of the other host',
  },
  'restored-old-address': {
    what: 'etcd restored from a backup older than the public address of a host',
    here: 'the new address is written again within 2 s of the reconnect',
    stock: 'the address of an interface is not followed, a restart is needed anyway',
  },
  'restored-read-only': {
    what: 'the same into an etcd whose disk quota is used up, so that nothing can be written',
    here: 'the host is not ready as long as the store names its old address, and is ready once it is corrected',
    stock: 'ready is told once, at the start',
  },
  'restored-then-configured': {
    what: 'etcd restored to before a change of public address, then another configuration written',
    here: 'less than 100 requests of each host in 10 s',
    stock: 'the configuration is not watched',
  },
  'restored-while-stopped': {
    what: 'daemon stopped while etcd is restored and moves past the revision the daemon had seen',
    here: 'the other history is recognised: stale peers go, missing ones come, the own lease is written again',
    stock: '',
  },
  'hostile-values': {
    what: 'lease values with 5 000 nested arrays, 1 MB of BackendType, control characters',
    here: 'skipped and told, the daemon lives and starts with them in place',
    stock: 'a value that cannot be parsed withdraws all peers until each renews, up to 24 h',
  },
  'hostile-subnets': {
    what: 'leases over an address of etcd, the underlay, containers, inside and around the own subnet, outside the network',
    here: 'not admitted, the way to etcd stays, everything is as before once they are deleted',
    stock: '',
  },
  'hostile-addresses': {
    what: 'leases with public addresses nobody can have: 0.0.0.0, multicast, loopback, broadcast, inside the overlay, of another host',
    here: 'not admitted, and a host keeps its subnet over a restart',
    stock: '',
  },
  'hostile-flood': {
    what: '50 000 junk keys',
    here: 'counted, with a bounded number of log lines, and leases are still followed',
    stock: 'each withdraws all peers',
  },
  'wrong-network': {
    what: 'wrong Network for 2 s, then corrected',
    here: 'every host has its former subnet again',
    stock: 'the configuration is not watched; a restart in between renumbers',
  },
  'refused-network': {
    what: 'Network of loopback, of multicast, or around the addresses of the hosts',
    here: 'refused with the reason, by the daemons and by tsflannelctl; the last good one stays',
    stock: 'not checked',
  },
  'leader-killed': {
    what: 'three members: leader killed',
    here: 'the other members serve, leases are followed',
    stock: 'packets go on, watches reconnect',
  },
  'member-replaced': {
    what: 'three members: one lost with its data and replaced',
    here: 'the replaced member serves, leases are followed',
    stock: 'packets go on, watches reconnect',
  },
  'member-slow': {
    what: 'three members: network of the leader 300 ms slower',
    here: 'leases are followed',
    stock: '',
  },
  'member-half-open': {
    what: 'three members: packets of the member in use dropped without an answer',
    here: 'another member is used, leases are followed',
    stock: '',
  },
  'leader-changes': {
    what: 'three members: another leader every second for 20 s',
    here: 'no lease is lost, leases are followed',
    stock: '',
  },
  'disk-slow': {
    what: 'three members: each in turn stands still for a second, for 20 s',
    here: 'no lease is lost, leases are followed',
    stock: '',
  },
  'rights-revoked': {
    what: 'rights of the etcd user revoked for 10 s while the own key is gone, and granted again',
    here: 'told, less than 100 requests of each host meanwhile, leases are followed afterwards',
    stock: 'wrong credentials at the start end the process',
  },
  'rights-read-only': {
    what: 'etcd user may only read while the own key is gone',
    here: 'no etcd lease is left behind, and the lease is written as soon as that is allowed',
    stock: '',
  },
  'keys-deleted': {
    what: 'own and peer keys deleted 50 times',
    here: 'written again each time, no etcd lease is left behind',
    stock: 'the daemon ends with exit code 0 when its key is deleted',
  },
  'tls-rotated': {
    what: 'CA and certificates of etcd and of the hosts exchanged on disk',
    here: 'used without a restart',
    stock: '',
  },
  'tls-expired': {
    what: 'certificate of etcd expired, then renewed',
    here: 'the log says expired, and all is well once it is renewed',
    stock: '',
  },
  'tls-wrong-name': {
    what: 'certificate of etcd for another name, then corrected',
    here: 'the log names the certificate, and all is well once it is corrected',
    stock: '',
  },
  'daemon-killed': {
    what: 'daemon killed 100 times (kill -9)',
    here: 'the same subnet each time, no second lease, no etcd lease left behind',
    stock: 'vxlan: packets go on; udp: the device vanishes with the process; an etcd lease is left at every restart',
  },
  'daemon-stopped': {
    what: 'daemon stopped until its lease is over and another host has its subnet',
    here: 'noticed as soon as it runs again, one host holds the subnet',
    stock: 'the daemon ends with exit code 0',
  },
  'underlay-flapping': {
    what: 'underlay: link down and up, address away and back, 20 times',
    here: 'the overlay comes back by itself each time, with the same subnet',
    stock: 'changes of address and link are not followed',
  },
  'disk-full': {
    what: 'disk of subnet.env and state full while MTU changes',
    here: 'told, not ready while subnet.env is wrong, written once there is room',
    stock: 'a warning at the start, never written again',
  },
  'few-descriptors': {
    what: 'no file descriptor left while etcd restarts',
    here: 'told, connected again once there are some',
    stock: '',
  },
  'lease-overlap': {
    what: 'the key of this host overlaps the key of another one, created earlier',
    here: 'told, the key that was created later is given up',
    stock: '',
  },
} as const satisfies Readonly<Record<string, Fault>>;

/** Name of a fault, as `--only` takes it. */
export type FaultId = keyof typeof FAULTS;
