import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  SYS,
  bind,
  close,
  connect,
  duplicate,
  errnoName,
  eventfd,
  fcntl,
  flock,
  getsockname,
  getsockopt,
  getsockoptInt,
  ifNameToIndex,
  ioctl,
  open,
  read,
  recv,
  recvFrom,
  send,
  sendDescriptors,
  sendTo,
  setNonBlocking,
  setsockopt,
  setsockoptInt,
  sockaddrIn,
  sockaddrLl,
  sockaddrNl,
  sockaddrUn,
  socket,
  write,
} from '../../../src/sys/libc.js';

const LOOPBACK = Uint8Array.of(127, 0, 0, 1);
const openDescriptors = (): number => fs.readdirSync('/proc/self/fd').length;

describe('errnoName', () => {
  it('names error numbers of either sign', () => {
    assert.equal(errnoName(98), 'EADDRINUSE');
    assert.equal(errnoName(-98), 'EADDRINUSE');
    assert.equal(errnoName(-77), 'EBADFD');
    assert.equal(errnoName(11), 'EAGAIN');
    assert.equal(errnoName(95), 'EOPNOTSUPP');
  });

  it('shows a number that has no name', () => {
    assert.equal(errnoName(-524), 'errno 524');
  });
});

describe('libc', () => {
  const opened: number[] = [];
  const own = (fd: number): number => {
    assert.ok(fd >= 0, errnoName(fd));
    opened.push(fd);
    return fd;
  };
  let before = 0;
  beforeEach(() => (before = openDescriptors()));
  afterEach(() => {
    for (const fd of opened.splice(0)) assert.equal(close(fd), 0);
    assert.equal(openDescriptors(), before);
  });

  const boundUdp = (): { fd: number; address: Uint8Array } => {
    const fd = own(socket(SYS.AF_INET, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0));
    assert.equal(bind(fd, sockaddrIn(LOOPBACK, 0)), 0);
    const address = new Uint8Array(16);
    assert.equal(getsockname(fd, address), 16);
    return { fd, address };
  };

  it('returns minus errno and does not throw', () => {
    assert.equal(errnoName(read(1 << 20, new Uint8Array(1))), 'EBADF');
    assert.equal(errnoName(open('/proc/self/no-such-file', SYS.O_RDONLY)), 'ENOENT');
    assert.equal(errnoName(ifNameToIndex('no-such-device')), 'ENODEV');
    const { address } = boundUdp();
    assert.equal(errnoName(bind(own(socket(SYS.AF_INET, SYS.SOCK_DGRAM, 0)), address)), 'EADDRINUSE');
  });

  it('passes bytes of a view in place, from its offset and within its length', () => {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'libc-')), 'data');
    const fd = own(open(file, SYS.O_RDWR | SYS.O_CREAT, 0o600));
    const data = Uint8Array.of(9, 1, 2, 3, 9);
    assert.equal(write(fd, data.subarray(1, 4)), 3);
    assert.deepEqual([...fs.readFileSync(file)], [1, 2, 3]);
    const other = own(open(file, SYS.O_RDONLY));
    const target = new Uint8Array(6);
    assert.equal(read(other, target.subarray(2, 5)), 3);
    assert.deepEqual([...target], [0, 0, 1, 2, 3, 0]);
    assert.equal(read(other, target), 0);
    fs.rmSync(path.dirname(file), { recursive: true });
  });

  it('closes descriptors on exec', () => {
    const { fd } = boundUdp();
    assert.equal(fcntl(fd, SYS.F_GETFD) & SYS.FD_CLOEXEC, SYS.FD_CLOEXEC);
    assert.equal(fcntl(own(duplicate(fd)), SYS.F_GETFD) & SYS.FD_CLOEXEC, SYS.FD_CLOEXEC);
  });

  it('sends and receives datagrams with addresses, and tells the full length of one that was cut off', () => {
    const a = boundUdp();
    const b = boundUdp();
    assert.equal(sendTo(a.fd, Uint8Array.of(1, 2, 3, 4), 0, b.address), 4);
    const from = new Uint8Array(16);
    const buffer = new Uint8Array(2);
    assert.equal(recvFrom(b.fd, buffer, SYS.MSG_TRUNC, from), 4);
    assert.deepEqual([...buffer], [1, 2]);
    assert.deepEqual(from, a.address);
    assert.equal(errnoName(recv(b.fd, buffer)), 'EAGAIN');
    assert.equal(connect(b.fd, a.address), 0);
    assert.equal(send(b.fd, Uint8Array.of(7)), 1);
    assert.equal(recv(a.fd, buffer), 1);
    assert.equal(buffer[0], 7);
  });

  it('sets and reads socket options as numbers and as bytes', () => {
    const { fd } = boundUdp();
    assert.equal(setsockoptInt(fd, SYS.IPPROTO_IP, SYS.IP_MTU_DISCOVER, SYS.IP_PMTUDISC_DO), 0);
    assert.equal(getsockoptInt(fd, SYS.IPPROTO_IP, SYS.IP_MTU_DISCOVER), SYS.IP_PMTUDISC_DO);
    const IP_TOS = 1;
    assert.equal(setsockopt(fd, SYS.IPPROTO_IP, IP_TOS, Uint8Array.of(0x10)), 0);
    const value = new Uint8Array(1);
    assert.equal(getsockopt(fd, SYS.IPPROTO_IP, IP_TOS, value), 1);
    assert.equal(value[0], 0x10);
    assert.equal(errnoName(getsockoptInt(fd, SYS.IPPROTO_IP, 9999)), 'ENOPROTOOPT');
  });

  it('controls devices with a structure that the kernel fills', () => {
    const { fd } = boundUdp();
    const SIOCGIFINDEX = 0x8933;
    const request = new Uint8Array(40);
    request.set(Buffer.from('lo'));
    assert.equal(ioctl(fd, SIOCGIFINDEX, request), 0);
    assert.equal(new DataView(request.buffer).getInt32(16, os.endianness() === 'LE'), ifNameToIndex('lo'));
  });

  it('makes a descriptor non-blocking', () => {
    const fd = own(socket(SYS.AF_INET, SYS.SOCK_DGRAM, 0));
    assert.equal(setNonBlocking(fd), 0);
    assert.equal(errnoName(recv(fd, new Uint8Array(1))), 'EAGAIN');
  });

  it('counts on an eventfd', () => {
    const fd = own(eventfd());
    assert.equal(write(fd, new Uint8Array(BigUint64Array.of(3n).buffer)), 8);
    const value = new BigUint64Array(1);
    assert.equal(read(fd, new Uint8Array(value.buffer)), 8);
    assert.equal(value[0], 3n);
    assert.equal(errnoName(read(fd, new Uint8Array(8))), 'EAGAIN');
  });

  it('locks a file against a second opening of it', () => {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'libc-')), 'lock');
    const first = own(open(file, SYS.O_RDWR | SYS.O_CREAT, 0o600));
    const second = own(open(file, SYS.O_RDWR));
    assert.equal(flock(first, SYS.LOCK_EX | SYS.LOCK_NB), 0);
    assert.equal(errnoName(flock(second, SYS.LOCK_EX | SYS.LOCK_NB)), 'EAGAIN');
    assert.equal(flock(first, SYS.LOCK_UN), 0);
    assert.equal(flock(second, SYS.LOCK_EX | SYS.LOCK_NB), 0);
    fs.rmSync(path.dirname(file), { recursive: true });
  });

  it('talks to the kernel over netlink and sees that an answer was cut off', () => {
    const NETLINK_ROUTE = 0;
    const fd = own(socket(SYS.AF_NETLINK, SYS.SOCK_RAW, NETLINK_ROUTE));
    assert.equal(bind(fd, sockaddrNl()), 0);
    // struct nlmsghdr { u32 length; u16 RTM_GETLINK; u16 NLM_F_REQUEST | NLM_F_DUMP; u32 sequence, port; } struct ifinfomsg
    const request = new Uint8Array(32);
    new Uint32Array(request.buffer)[0] = 32;
    new Uint16Array(request.buffer).set([18, 0x301], 2);
    assert.equal(send(fd, request), 32);
    const tooShort = new Uint8Array(16);
    const from = new Uint8Array(12);
    assert.ok(recvFrom(fd, tooShort, SYS.MSG_TRUNC | SYS.MSG_PEEK, from) > 16);
    assert.deepEqual(from, sockaddrNl(), 'the kernel is port 0');
    const answer = new Uint8Array(65536);
    const length = recv(fd, answer, SYS.MSG_TRUNC);
    assert.ok(length > 32 && length <= answer.length);
    assert.equal(new Uint16Array(answer.buffer)[2], 16, 'RTM_NEWLINK');
  });

  it('hands descriptors to another socket', () => {
    const path = `@tsflannel-test-${process.pid}`;
    const receiver = own(socket(SYS.AF_UNIX, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0));
    assert.equal(bind(receiver, sockaddrUn(path)), 0);
    const sender = own(socket(SYS.AF_UNIX, SYS.SOCK_DGRAM, 0));
    const file = own(eventfd(5));
    const before = openDescriptors();
    assert.equal(sendDescriptors(sender, Buffer.from('FDSTORE=1'), [file], sockaddrUn(path)), 9);
    const buffer = new Uint8Array(64);
    // recv without room for control data drops what was attached, so only the payload can be seen here.
    assert.equal(recv(receiver, buffer), 9);
    assert.equal(Buffer.from(buffer.subarray(0, 9)).toString(), 'FDSTORE=1');
    assert.equal(openDescriptors(), before);
    assert.equal(errnoName(sendDescriptors(sender, buffer, [1 << 20], sockaddrUn(path))), 'EBADF');
  });

  it('lays out link-layer and abstract addresses as the kernel reads them', () => {
    assert.deepEqual([...sockaddrLl(7, 0x0800).subarray(2, 8)], [8, 0, 7, 0, 0, 0]);
    assert.deepEqual([...sockaddrUn('@a')], [1, 0, 0, 0x61]);
    assert.deepEqual([...sockaddrUn('/a')], [1, 0, 0x2f, 0x61, 0]);
  });
});
