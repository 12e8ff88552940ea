import type { DaemonOptions } from '../config/flags.js';
import { readPasswordFile } from './password-file.js';
import type { EtcdStoreOptions } from './store.js';

/** The flags that say how to reach etcd. */
export type StoreFlags = Pick<
  DaemonOptions,
  | 'etcdEndpoints'
  | 'etcdPrefix'
  | 'etcdCafile'
  | 'etcdCertfile'
  | 'etcdKeyfile'
  | 'etcdUsername'
  | 'etcdPassword'
  | 'etcdPasswordFile'
>;

/**
 * What the flags mean to the store; a password on the command line or in the environment goes before one in a file.
 *
 * @throws {@link OverlayError} `ERR_PASSWORD_FILE`
 */
export function storeOptionsOf(flags: StoreFlags): Omit<EtcdStoreOptions, 'log' | 'clock'> {
  const { etcdPassword, etcdPasswordFile } = flags;
  return {
    endpoints: flags.etcdEndpoints.join(','),
    prefix: flags.etcdPrefix,
    caFile: flags.etcdCafile,
    certFile: flags.etcdCertfile,
    keyFile: flags.etcdKeyfile,
    username: flags.etcdUsername,
    password: etcdPassword ?? (etcdPasswordFile === undefined ? undefined : readPasswordFile(etcdPasswordFile)),
  };
}
