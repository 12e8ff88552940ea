import assert from 'node:assert/strict';
import { echoReplyFilter, encodeEchoRequest } from '../../src/reach/echo-message.js';
import { EchoSocket } from '../../src/reach/echo-socket.js';
import * as libc from '../../src/sys/libc.js';
import { SYS } from '../../src/sys/libc.js';
import { ip } from '../support/builders.js';
import { OwnNetns } from '../support/own-netns.js';
import { waitFor } from '../support/wait.js';

const FAMILIES = [
  { family: 4, loopback: '127.0.0.1', nowhere: '192.0.2.1', domain: SYS.AF_INET, protocol: SYS.IPPROTO_ICMP },
  { family: 6, loopback: '::1', nowhere: '2001:db8::1', domain: SYS.AF_INET6, protocol: SYS.IPPROTO_ICMPV6 },
] as const;

describe('EchoSocket', () => {
  let netns: OwnNetns;

  before(async () => {
    netns = await OwnNetns.enter('echo');
  });

  after(() => netns.leave());

  for (const { family, loopback, nowhere, domain, protocol } of FAMILIES) {
    const target = ip(loopback);

    it(`hands out the reply of the host that was asked, over IPv${family}`, async () => {
      const replies: string[] = [];
      const socket = EchoSocket.open(family, ({ address, sequence }) => {
        replies.push(`${address.toString()} ${sequence}`);
      });
      try {
        assert.equal(socket.send(target, 0xfffe), 0);
        await waitFor(() => replies.length > 0, { what: 'a reply' });
        assert.deepEqual(replies, [`${loopback} 65534`]);
      } finally {
        socket.close();
      }
    });

    it(`hands out at once what has arrived, and nothing once it is closed, over IPv${family}`, () => {
      const replies: number[] = [];
      const socket = EchoSocket.open(family, ({ sequence }) => replies.push(sequence));
      socket.send(target, 1); // the loopback device answers before the call returns
      socket.receive();
      assert.deepEqual(replies, [1]);
      socket.send(target, 2);
      socket.close();
      socket.receive();
      assert.deepEqual(replies, [1]);
    });

    it(`returns what the kernel says to an address without a route, over IPv${family}`, () => {
      const socket = EchoSocket.open(family, () => {});
      assert.equal(libc.errnoName(socket.send(ip(nowhere), 1)), 'ENETUNREACH');
      socket.close();
    });

    it(`does not get the replies to the pings of others, over IPv${family}`, async () => {
      const identifier = 0x5aa5;
      const fd = libc.socket(domain, SYS.SOCK_RAW | SYS.SOCK_NONBLOCK, protocol);
      try {
        assert.equal(libc.attachFilter(fd, echoReplyFilter(family, identifier)), 0);
        await netns.run(['ping', '-c', '3', '-i', '0.01', loopback]);
        assert.equal(libc.errnoName(libc.recv(fd, new Uint8Array(128))), 'EAGAIN');
        const socket = EchoSocket.open(family, () => {});
        socket.send(target, 1);
        socket.close();
        assert.equal(libc.errnoName(libc.recv(fd, new Uint8Array(128))), 'EAGAIN');
        const address = libc.sockaddrIn(target.toBytes(), 0);
        const request = encodeEchoRequest(family, identifier, 7, new Uint8Array(8));
        assert.equal(libc.sendTo(fd, request, 0, address), request.length);
        const header = family === 4 ? 20 : 0;
        assert.equal(libc.recv(fd, new Uint8Array(128)), header + request.length);
        assert.equal(libc.errnoName(libc.recv(fd, new Uint8Array(128))), 'EAGAIN', 'nor the request itself');
      } finally {
        libc.close(fd);
      }
    });
  }
});
