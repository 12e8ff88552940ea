import { lstat, unlink } from 'node:fs/promises';
import { type Server, connect } from 'node:net';
import { errnoOf } from './errno.js';

/** A living server accepts at once, even when its event loop is busy: the kernel does it. */
const PROBE_TIMEOUT_MS = 1000;

/** Why a path cannot be listened on although the directory takes files. */
export type SocketObstacle = 'no socket' | 'answered';

/** There is something at the path that must not be removed. */
export class SocketPathTaken extends Error {
  constructor(
    readonly file: string,
    readonly obstacle: SocketObstacle,
  ) {
    super(obstacle === 'no socket' ? `${file} is no socket` : `somebody listens on ${file}`);
  }
}

/**
 * Listens on a path; a socket that nobody listens on any more makes room.
 *
 * @param umask - applies to the socket's file from its first instant on.
 * @throws {@link SocketPathTaken}, or the error of the system
 */
export async function listenOnPath(server: Server, file: string, umask: number): Promise<void> {
  try {
    await bindTo(server, file, umask);
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') throw error;
    if (!(await lstat(file)).isSocket()) throw new SocketPathTaken(file, 'no socket');
    if (await isAnswered(file)) throw new SocketPathTaken(file, 'answered');
    await unlink(file);
    await bindTo(server, file, umask);
  }
}

/** Resolves when the server listens; rejects with its error. */
export async function listening(server: Server, listen: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      server.off('error', reject);
      resolve();
    };
    server.once('error', reject);
    server.once('listening', settle);
    listen();
  }).catch((error: unknown) => {
    server.removeAllListeners('listening');
    throw error;
  });
}

/** `listen` binds before it returns, so nobody else's file gets the mask. */
function bindTo(server: Server, file: string, umask: number): Promise<void> {
  return listening(server, () => {
    const before = process.umask(umask);
    try {
      server.listen({ path: file });
    } finally {
      process.umask(before);
    }
  });
}

async function isAnswered(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path: file, timeout: PROBE_TIMEOUT_MS });
    const settle = (isAlive: boolean): void => {
      socket.destroy();
      resolve(isAlive);
    };
    socket.once('connect', () => settle(true));
    // A full backlog is the mark of a server that lives.
    socket.once('timeout', () => settle(true));
    socket.once('error', (error) => settle(errnoOf(error) !== 'ECONNREFUSED' && errnoOf(error) !== 'ENOENT'));
  });
}
