import { SYS, close, errnoName, open, setns } from '../../src/sys/libc.js';

/**
 * Runs something with this thread in a network namespace; sockets made there stay there.
 *
 * @param namespaceFile - such as `/run/netns/NAME`.
 * @throws Error with the errno as `code` if it cannot be entered: EINVAL if that is not a namespace any more.
 */
export function inNamespace<T>(namespaceFile: string, action: () => T): T {
  const home = check(open('/proc/thread-self/ns/net', SYS.O_RDONLY), 'own namespace');
  try {
    const target = check(open(namespaceFile, SYS.O_RDONLY), namespaceFile);
    try {
      check(setns(target, SYS.CLONE_NEWNET), `enter ${namespaceFile}`);
    } finally {
      close(target);
    }
    try {
      return action();
    } finally {
      check(setns(home, SYS.CLONE_NEWNET), 'return to own namespace');
    }
  } finally {
    close(home);
  }
}

function check(result: number, what: string): number {
  if (result < 0) throw Object.assign(new Error(`${what}: ${errnoName(result)}`), { code: errnoName(result) });
  return result;
}
