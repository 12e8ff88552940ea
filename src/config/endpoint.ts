/** Whether an endpoint, or a list of them, holds a user or a password; the path of a Unix socket may have any character. */
export function hasCredentials(endpoints: string): boolean {
  return endpoints.split(',').some((endpoint) => endpoint.includes('@') && !/^\s*unixs?:\/\//i.test(endpoint));
}

/** Where a user and a password belong instead. */
export const CREDENTIALS_HINT =
  'take them out of the address: the user goes to --etcd-username, the password to --etcd-password-file, or FLANNELD_ETCD_PASSWORD in the environment';
