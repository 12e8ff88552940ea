import koffi from 'koffi';
import * as libc from '../../src/sys/libc.js';
import { SYS } from '../../src/sys/libc.js';

const recvmsg = koffi.load(null).func('long recvmsg(int fd, void *message, int flags)') as (
  fd: number,
  message: BigUint64Array,
  flags: number,
) => number;

/** One datagram of a service to its manager. */
export interface Notification {
  readonly text: string;
  /** Duplicates of what the service attached; they belong to the receiver. */
  readonly descriptors: readonly number[];
}

/** Stands in for the socket of a service manager. */
export class NotifySocket {
  private readonly fd: number;

  /** @param name - path, or abstract name with a leading `@`; the value for `NOTIFY_SOCKET`. */
  constructor(readonly name: string) {
    this.fd = libc.socket(SYS.AF_UNIX, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0);
    const result = libc.bind(this.fd, libc.sockaddrUn(name));
    if (this.fd < 0 || result < 0) throw new Error(`cannot listen on ${name}: ${libc.errnoName(result)}`);
  }

  /** The next datagram that waits, undefined if none does. */
  receive(): Notification | undefined {
    const data = new Uint8Array(8192);
    const vector = new BigUint64Array([koffi.address(data), BigInt(data.length)]);
    // Room for 253 descriptors behind a struct cmsghdr of two words.
    const control = new ArrayBuffer(16 + 4 * 254);
    const controlBytes = new Uint8Array(control);
    const message = new BigUint64Array([
      ...[0n, 0n, koffi.address(vector), 1n],
      ...[koffi.address(controlBytes), BigInt(control.byteLength), 0n],
    ]);
    const length = recvmsg(this.fd, message, 0);
    if (length < 0) return undefined;
    const controlLength = Number(message[5]) < 16 ? 0 : Number(new BigUint64Array(control, 0, 1)[0]);
    const count = controlLength === 0 ? 0 : (controlLength - 16) / 4;
    return {
      text: Buffer.from(data.subarray(0, length)).toString(),
      descriptors: [...new Int32Array(control, 16, count)],
    };
  }

  /** Everything that waits. */
  receiveAll(): Notification[] {
    const all: Notification[] = [];
    for (let next = this.receive(); next !== undefined; next = this.receive()) all.push(next);
    return all;
  }

  close(): void {
    libc.close(this.fd);
  }
}
