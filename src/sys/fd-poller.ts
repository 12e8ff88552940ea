import koffi from 'koffi';
import { checkPollable, errnoName } from './libc.js';

/** What a descriptor is ready for. `error` is minus errno when waiting itself failed (closed or invalid descriptor). */
export interface Readiness {
  readonly readable: boolean;
  readonly writable: boolean;
  readonly error: number | undefined;
}

/** What {@link pollFd} returns. */
export interface FdPoller {
  /** Changes what is waited for; nothing at all pauses the callbacks. */
  setInterest(interest: { readonly readable: boolean; readonly writable: boolean }): void;
  /** Stops the callbacks, at once and for good. Idempotent; the descriptor stays open and belongs to the caller. */
  close(): void;
}

/** The arguments that koffi 3 really passes; its types promise only the second. */
type PollCallback = (status: number, events: { readonly readable: boolean; readonly writable: boolean }) => void;

interface PollHandle {
  start(options: { readable: boolean; writable: boolean }, callback: PollCallback): void;
  stop(): void;
  close(): void;
}

const startPolling = koffi.node.poll as unknown as (
  fd: number,
  options: { readable: boolean; writable: boolean },
  callback: PollCallback,
) => PollHandle | null;

/** koffi closes a handle that is collected as garbage; this keeps them until {@link FdPoller.close}. */
const open = new Map<number, PollHandle>();

/**
 * Calls back on the event loop whenever a descriptor is ready. Level-triggered: it calls again until the descriptor is
 * drained.
 *
 * @param fd - non-blocking, of a kind that epoll takes: socket, TUN, eventfd, pipe; not a regular file. Close the
 * poller before the descriptor. One poller per descriptor.
 * @throws `Error` with the errno as `code` if the descriptor cannot be waited on, or is already.
 */
export function pollFd(
  fd: number,
  onReady: (readiness: Readiness) => void,
  interest: { readonly readable: boolean; readonly writable: boolean } = { readable: true, writable: false },
): FdPoller {
  // koffi 3.3 aborts the process when libuv refuses a descriptor, so every reason to refuse is excluded before.
  const refusal = open.has(fd) ? 'EEXIST' : checkPollable(fd) < 0 ? errnoName(checkPollable(fd)) : undefined;
  if (refusal !== undefined) {
    throw Object.assign(new Error(`cannot wait on descriptor ${fd}: ${refusal}`), { code: refusal });
  }
  let isClosed = false;
  // koffi calls from libuv outside any callback scope of Node: promises and ticks would wait for the next unrelated
  // event, and an exception would be lost. An immediate runs in the same turn of the loop and has a proper scope.
  const callback: PollCallback = (status, { readable, writable }) => {
    setImmediate(() => {
      if (!isClosed) onReady({ readable, writable, error: status < 0 ? status : undefined });
    });
  };
  const handle = startPolling(fd, { ...interest }, callback);
  if (handle === null) throw new Error(`cannot wait on descriptor ${fd}`);
  open.set(fd, handle);
  return {
    setInterest({ readable, writable }) {
      if (isClosed) return;
      if (readable || writable) handle.start({ readable, writable }, callback);
      else handle.stop();
    },
    close() {
      if (isClosed) return;
      isClosed = true;
      open.delete(fd);
      handle.close();
    },
  };
}
