import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type FdPoller, pollFd } from '../../../src/sys/fd-poller.js';
import {
  SYS,
  bind,
  close,
  eventfd,
  read,
  recv,
  send,
  setNonBlocking,
  sockaddrNl,
  socket,
  write,
} from '../../../src/sys/libc.js';

const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);

describe('pollFd', () => {
  let fd = -1;
  let poller: FdPoller | undefined;
  beforeEach(() => (fd = eventfd()));
  afterEach(() => {
    poller?.close();
    close(fd);
  });
  const turns = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('calls back when the descriptor becomes readable, and again until it is drained', async () => {
    let calls = 0;
    await new Promise<void>((resolve) => {
      poller = pollFd(fd, ({ readable, error }) => {
        assert.deepEqual({ readable, error }, { readable: true, error: undefined });
        calls++;
        if (calls === 3) {
          read(fd, new Uint8Array(8));
          resolve();
        }
      });
      write(fd, ONE);
    });
    await turns(5);
    assert.equal(calls, 3);
  });

  it('runs what the callback scheduled without waiting for another event', async () => {
    await new Promise<void>((resolve) => {
      poller = pollFd(fd, () => {
        read(fd, new Uint8Array(8));
        void Promise.resolve().then(() => process.nextTick(resolve));
      });
      write(fd, ONE);
    });
  });

  it('is silent while nothing is of interest and after it was closed', async () => {
    const events: unknown[] = [];
    const count = (): number => events.length;
    poller = pollFd(fd, (event) => events.push(event));
    poller.setInterest({ readable: false, writable: false });
    write(fd, ONE);
    await turns(5);
    assert.equal(count(), 0);
    poller.setInterest({ readable: true, writable: false });
    await turns(5);
    assert.ok(count() > 0);
    poller.close();
    const seen = count();
    await turns(5);
    assert.equal(count(), seen);
    poller.close();
    poller.setInterest({ readable: true, writable: true });
  });

  it('tells when the descriptor takes data', async () => {
    const writable = await new Promise<boolean>((resolve) => {
      poller = pollFd(fd, (ready) => resolve(ready.writable), { readable: true, writable: true });
    });
    assert.equal(writable, true);
  });

  it('refuses what cannot be waited on', () => {
    const regular = fs.openSync(import.meta.filename, 'r');
    assert.throws(() => pollFd(regular, () => {}), { code: 'EPERM' });
    fs.closeSync(regular);
    poller = pollFd(fd, () => {});
    assert.throws(() => pollFd(fd, () => {}), { code: 'EEXIST' });
    assert.throws(() => pollFd(1 << 20, () => {}), { code: 'EBADF' });
  });

  it('serves netlink sockets', async () => {
    const netlink = socket(SYS.AF_NETLINK, SYS.SOCK_RAW, 0);
    assert.equal(setNonBlocking(netlink), 0);
    bind(netlink, sockaddrNl());
    const request = new Uint8Array(32);
    new Uint32Array(request.buffer)[0] = 32;
    new Uint16Array(request.buffer).set([18, 0x301], 2);
    const received = await new Promise<number>((resolve) => {
      poller = pollFd(netlink, () => resolve(recv(netlink, new Uint8Array(65536))));
      send(netlink, request);
    });
    assert.ok(received > 32);
    poller?.close();
    close(netlink);
  });

  it('survives garbage collection and throws into the process', () => {
    const root = path.resolve(import.meta.dirname, '../../..');
    const run = (code: string): string =>
      execFileSync(process.execPath, ['--expose-gc', '--import', 'tsx', '--input-type=module', '-e', code], {
        cwd: root,
        encoding: 'utf8',
        timeout: 8000,
      });
    const prelude = `
      import { pollFd } from './src/sys/fd-poller.ts';
      import { eventfd, write } from './src/sys/libc.ts';
      const fd = eventfd();
      const one = new Uint8Array(BigUint64Array.of(1n).buffer);
    `;
    const collected = `(function () { pollFd(fd, () => { console.log('ready'); process.exit(0); }); })();
      globalThis.gc(); setTimeout(() => { globalThis.gc(); write(fd, one); }, 10);`;
    assert.equal(run(prelude + collected), 'ready\n');
    const throwing = `process.on('uncaughtException', (error) => { console.log(error.message); process.exit(0); });
      pollFd(fd, () => { throw new Error('from callback'); }); write(fd, one);`;
    assert.equal(run(prelude + throwing), 'from callback\n');
  });

  it('leaves nothing behind after many openings', async () => {
    const descriptors = (): number => fs.readdirSync('/proc/self/fd').length;
    await turns(2);
    const before = descriptors();
    for (let i = 0; i < 2000; i++) {
      const each = eventfd();
      pollFd(each, () => {}).close();
      close(each);
    }
    await turns(2);
    assert.equal(descriptors(), before);
  });
});
