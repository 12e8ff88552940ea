import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Bounds the connections of a server so that those who hold them open cannot keep others out: where there is one too
 * many, the one that has gone longest without finishing a request is ended, not the new one refused.
 */
export class ConnectionLimit {
  /** Longest without a finished request first. */
  private readonly sockets = new Set<Socket>();

  constructor(
    server: Server,
    private readonly max: number,
    private readonly onEnded: () => unknown,
  ) {
    server.on('connection', (socket) => this.take(socket));
  }

  /** A request on it was answered in full: others wait longer now. */
  noteFinished(socket: Socket): void {
    if (this.sockets.delete(socket)) this.sockets.add(socket);
  }

  private take(socket: Socket): void {
    this.sockets.add(socket);
    socket.once('close', () => this.sockets.delete(socket));
    const [oldest] = this.sockets;
    if (this.sockets.size <= this.max || oldest === undefined) return;
    this.sockets.delete(oldest);
    oldest.destroy();
    this.onEnded();
  }
}
