import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Logger } from '../../../src/log.js';
import * as libc from '../../../src/sys/libc.js';
import { ServiceManager, takeInheritedDescriptors } from '../../../src/systemd/notify.js';
import { FakeClock } from '../../support/fake-clock.js';
import { NotifySocket } from '../../support/notify-socket.js';

/** Not counting what the loader and the event loop open for themselves. */
function openSocketsAndFiles(): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    return existsSync(`/proc/self/fd/${fd}`) ? readlinkSync(`/proc/self/fd/${fd}`) : '';
  });
  return links.filter((link) => /^socket:|notify-|^\/dev\/null/.test(link)).length;
}

const NOTIFY = path.resolve(import.meta.dirname, '../../../src/systemd/notify.ts');

describe('ServiceManager', () => {
  let directory: string;
  let socket: NotifySocket;
  let clock: FakeClock;
  let warnings: string[];
  let openBefore: number;

  beforeEach(() => {
    openBefore = openSocketsAndFiles();
    directory = mkdtempSync(path.join(tmpdir(), 'notify-'));
    socket = new NotifySocket(path.join(directory, 'notify'));
    clock = new FakeClock();
    warnings = [];
  });

  afterEach(() => {
    socket.close();
    rmSync(directory, { recursive: true });
    assert.equal(openSocketsAndFiles(), openBefore, 'descriptors are left open');
  });

  function manager(environment: Readonly<Record<string, string>> = {}): ServiceManager {
    const warn = (message: string, fields = {}): void => void warnings.push(`${message} ${JSON.stringify(fields)}`);
    const logger: Logger = { error() {}, warn, info() {}, debug() {} };
    return new ServiceManager({ environment: { NOTIFY_SOCKET: socket.name, ...environment }, pid: 77, clock, logger });
  }

  const texts = (): string[] => socket.receiveAll().map(({ text }) => text);

  it('tells that the daemon is ready, how it is doing, and that it stops', () => {
    const service = manager();
    assert.equal(service.isPresent, true);
    service.ready('10.5.34.0/24,\n3 peers');
    service.status('waiting for etcd');
    service.stopping();
    assert.deepEqual(texts(), ['READY=1\nSTATUS=10.5.34.0/24, 3 peers', 'STATUS=waiting for etcd', 'STOPPING=1']);
  });

  it('sends a message of any length once', () => {
    // The number of bytes sent was once taken for an error number: 11 bytes for EAGAIN, which repeated them for ever.
    const service = manager();
    for (let length = 0; length < 200; length++) {
      service.status('x'.repeat(length));
      assert.deepEqual(texts(), [`STATUS=${'x'.repeat(length)}`]);
    }
    assert.deepEqual([clock.pending, warnings], [0, []]);
  });

  it('finds an abstract socket', () => {
    const abstract = new NotifySocket(`@tsflannel-test-${process.pid}`);
    try {
      manager({ NOTIFY_SOCKET: abstract.name }).stopping();
      assert.deepEqual(abstract.receive(), { text: 'STOPPING=1', descriptors: [] });
    } finally {
      abstract.close();
    }
  });

  it('does nothing without a service manager', () => {
    const service = manager({ NOTIFY_SOCKET: '' });
    assert.equal(service.isPresent, false);
    service.ready('x');
    service.storeDescriptors('tun', [0]);
    service.startWatchdog(() => true);
    assert.deepEqual([texts(), clock.pending, warnings], [[], 0, []]);
  });

  it('says once that the socket cannot be used', () => {
    for (const name of ['relative/path', path.join(directory, 'none')]) {
      warnings = [];
      const service = manager({ NOTIFY_SOCKET: name });
      service.status('a');
      service.status('b');
      assert.equal(warnings.length, 1, name);
    }
    assert.match(warnings[0] ?? '', /the service manager cannot be told .*ENOENT/);
  });

  it('sends later, in order, what does not fit now', async () => {
    const service = manager();
    // The kernel queues net.unix.max_dgram_qlen datagrams per receiver, and no more.
    let filled = 0;
    while (clock.pending === 0 && filled < 10_000) service.status(`${filled++}`);
    const file = openSync(path.join(directory, 'file'), 'w');
    service.storeDescriptors('late', [file]);
    closeSync(file);
    service.status('last');
    assert.equal(texts().length, filled - 1);
    await clock.advance(1000);
    const [first, second, third] = socket.receiveAll();
    assert.deepEqual([first?.text, third?.text], [`STATUS=${filled - 1}`, 'STATUS=last']);
    assert.equal(second?.text, 'FDSTORE=1\nFDNAME=late\nFDPOLL=0');
    assert.equal(second.descriptors.length, 1);
    second.descriptors.forEach(libc.close);
    assert.equal(clock.pending, 0);
  });

  it('forgets the oldest when the service manager is stuck, and everything when closed', () => {
    const service = manager();
    while (clock.pending === 0) service.status('fill');
    const file = openSync(path.join(directory, 'file'), 'w');
    for (let i = 0; i < 100; i++) service.storeDescriptors('x', [file]);
    closeSync(file);
    service.close();
    service.close();
    assert.equal(clock.pending, 0);
    socket.receiveAll();
  });

  describe('watchdog', () => {
    it('is fed twice per period while the daemon is healthy', async () => {
      const service = manager({ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '77' });
      let isHealthy = true;
      service.startWatchdog(() => isHealthy);
      await clock.advance(20_000);
      assert.deepEqual(texts(), Array<string>(5).fill('WATCHDOG=1'));
      isHealthy = false;
      await clock.advance(20_000);
      assert.deepEqual(texts(), []);
      service.close();
      assert.equal(clock.pending, 0);
    });

    for (const [what, environment] of [
      ['there is none', {}],
      ['it is for another process', { WATCHDOG_USEC: '10000000', WATCHDOG_PID: '78' }],
      ['its period makes no sense', { WATCHDOG_USEC: 'soon' }],
      ['its period is 0', { WATCHDOG_USEC: '0' }],
    ] as const) {
      it(`is not fed when ${what}`, async () => {
        manager(environment).startWatchdog(() => true);
        await clock.advance(60_000);
        assert.deepEqual(texts(), []);
      });
    }
  });

  describe('descriptor store', () => {
    it('takes duplicates with a name', () => {
      const file = path.join(directory, 'file');
      writeFileSync(file, 'x');
      const fds = [openSync(file, 'r'), openSync('/dev/null', 'r')];
      manager().storeDescriptors('flannel0', fds);
      const inodes = fds.map((fd) => fstatSync(fd).ino);
      fds.forEach((fd) => closeSync(fd));
      const stored = socket.receive();
      assert.equal(stored?.text, 'FDSTORE=1\nFDNAME=flannel0\nFDPOLL=0');
      assert.deepEqual(
        stored.descriptors.map((fd) => fstatSync(fd).ino),
        inodes,
      );
      stored.descriptors.forEach((fd) => closeSync(fd));
    });

    it('splits what is more than a message can carry', () => {
      const fd = openSync('/dev/null', 'r');
      manager().storeDescriptors('many', Array<number>(300).fill(fd));
      closeSync(fd);
      const stored = socket.receiveAll();
      assert.deepEqual(
        stored.map(({ descriptors }) => descriptors.length),
        [253, 47],
      );
      for (const { descriptors } of stored) descriptors.forEach(libc.close);
    });

    it('drops them by name', () => {
      manager().removeDescriptors('flannel0');
      assert.deepEqual(texts(), ['FDSTOREREMOVE=1\nFDNAME=flannel0']);
    });
  });
});

describe('takeInheritedDescriptors', () => {
  it('finds in a new process what was handed over, by name, and hides it from its children', () => {
    const program = `
      import { readFileSync, existsSync } from 'node:fs';
      import { spawnSync } from 'node:child_process';
      const { takeInheritedDescriptors } = await import(process.argv[1]);
      process.env.LISTEN_PID = String(process.pid);
      const taken = takeInheritedDescriptors(process.env, process.pid);
      const child = spawnSync('sh', ['-c', 'ls /proc/self/fd; echo "$LISTEN_FDS"'], { encoding: 'utf8' });
      console.log(JSON.stringify({
        taken: [...taken],
        files: [3, 4, 5].map((fd) => readFileSync(fd, 'utf8')),
        child: child.stdout.split('\\n').filter((line) => ['3', '4', '5', '9'].includes(line)),
      }));
    `;
    const directory = mkdtempSync(path.join(tmpdir(), 'inherit-'));
    try {
      const fds = ['a', 'b', 'c'].map((text) => {
        writeFileSync(path.join(directory, text), text);
        return openSync(path.join(directory, text), 'r');
      });
      const { stdout, stderr } = spawnSync(
        process.execPath,
        ['--import', 'tsx', '--input-type=module', '-e', program, NOTIFY],
        {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'pipe', ...fds],
          env: { PATH: process.env['PATH'], LISTEN_FDS: '9', LISTEN_FDNAMES: 'tun:socket:tun' },
        },
      );
      fds.forEach((fd) => closeSync(fd));
      const { taken, files, child } = JSON.parse(stdout || `{"stderr":${JSON.stringify(stderr)}}`) as {
        taken: [string, number[]][];
        files: string[];
        child: string[];
      };
      const named = new Map(taken);
      assert.deepEqual([named.get('tun'), named.get('socket')], [[3, 5], [4]]);
      assert.deepEqual(files, ['a', 'b', 'c']);
      // `ls` itself opens the directory as its lowest free descriptor.
      assert.deepEqual(child, ['3']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  for (const [what, environment] of [
    ['there are none', {}],
    ['they are for another process', { LISTEN_PID: '78', LISTEN_FDS: '1' }],
    ['their number makes no sense', { LISTEN_PID: '77', LISTEN_FDS: '-1' }],
  ] as const) {
    it(`takes nothing when ${what}, and clears the variables`, () => {
      const variables: Record<string, string | undefined> = { ...environment, OTHER: 'x' };
      assert.equal(takeInheritedDescriptors(variables, 77).size, 0);
      assert.deepEqual(variables, { OTHER: 'x' });
    });
  }
});
