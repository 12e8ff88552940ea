import { OverlayError } from '../errors.js';
import * as libc from './libc.js';
import { SYS } from './libc.js';

/**
 * A network namespace of others, held open by a descriptor.
 *
 * API: {@link open}, {@link run}, {@link fd}, {@link close}.
 * Threads: {@link run} moves the calling thread alone, and back before it returns; nothing else of the process moves.
 * Errors: {@link OverlayError} `ERR_NETNS`.
 */
export class NetworkNamespace {
  private constructor(
    readonly path: string,
    /** For the kernel, as a place to move devices to. */
    readonly fd: number,
  ) {}

  /** @returns undefined if there is nothing at that path. */
  static open(path: string): NetworkNamespace | undefined {
    const fd = libc.open(path, SYS.O_RDONLY);
    if (fd >= 0) return new NetworkNamespace(path, fd);
    const errno = libc.errnoName(fd);
    if (errno === 'ENOENT') return undefined;
    throw refused(path, errno);
  }

  /** Runs something inside, such as opening a socket, which then belongs there; it must not wait for anything. */
  run<T>(action: () => T): T {
    const home = libc.open('/proc/thread-self/ns/net', SYS.O_RDONLY);
    if (home < 0) throw refused('/proc/thread-self/ns/net', libc.errnoName(home));
    try {
      const entered = libc.setns(this.fd, SYS.CLONE_NEWNET);
      if (entered < 0) throw refused(this.path, libc.errnoName(entered));
      try {
        return action();
      } finally {
        const back = libc.setns(home, SYS.CLONE_NEWNET);
        if (back < 0) throw refused('the namespace of this process', libc.errnoName(back));
      }
    } finally {
      libc.close(home);
    }
  }

  close(): void {
    libc.close(this.fd);
  }
}

function refused(path: string, errno: string): OverlayError {
  // EINVAL: something else lies there, such as the file that a namespace was mounted on before it was removed.
  const why = errno === 'EINVAL' ? 'it is no network namespace (EINVAL)' : errno;
  return new OverlayError('ERR_NETNS', `cannot enter the network namespace ${path}: ${why}`, {
    context: { errno },
    hint: 'give the path of one, such as /run/netns/NAME or /proc/PID/ns/net, as root',
  });
}
