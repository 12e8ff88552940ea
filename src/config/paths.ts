/** Where things lie on a host unless an operator says otherwise; the first two as flannel and its units have them. */
export const DEFAULT_PATHS = {
  subnetFile: '/run/flannel/subnet.env',
  dockerOptions: '/run/docker_opts.env',
  statusSocket: '/run/flannel/tsflanneld.sock',
  /** Where flannel keeps it, unless `WIREGUARD_KEY_FILE` names another place. */
  privateKey: '/run/flannel/wgkey',
  /** On a disk, so that a reboot finds the state. */
  stateDirectory: '/var/lib/tsflannel',
  /** Where version 0.1 kept the state. */
  formerStateDirectory: '/run/flannel/tsflanneld',
} as const;

/** Names of the files in a state directory. */
export const STATE_FILES = {
  config: 'config.json',
  own: 'own-lease.json',
  peers: 'peers.json',
  /** Missing where an earlier version wrote the state: then nothing is known of the history. */
  mark: 'history.json',
  /** Where containers of other hosts are; on hosts with networks of containers alone. */
  containerReach: 'container-reach.json',
} as const;
