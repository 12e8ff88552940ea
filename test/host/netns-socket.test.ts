import assert from 'node:assert/strict';
import { openNetnsSocket } from '../../src/dataplane/native.js';
import { isOverlayError } from '../../src/errors.js';
import { Netlink } from '../../src/netlink/netlink.js';
import * as libc from '../../src/sys/libc.js';
import { SYS } from '../../src/sys/libc.js';
import { Netns, deleteNamespaces, namePrefix } from '../support/netns.js';
import { onExit } from '../support/cleanup.js';

const NETLINK_ROUTE = 0;

describe('a socket of another network namespace', () => {
  const name = `${namePrefix(0)}-socket`;
  const withdraw = onExit(() => deleteNamespaces([name]));

  before(async () => {
    const [netns] = await Netns.create([name]);
    await netns?.ip(['link add inside type bridge']);
  });

  after(() => {
    deleteNamespaces([name]);
    withdraw();
  });

  const open = (path: string): number => openNetnsSocket(path, SYS.AF_NETLINK, SYS.SOCK_RAW, NETLINK_ROUTE);

  it('shows what is there, and leaves this process where it is', async () => {
    const there = Netlink.open({ openSocket: () => open(`/run/netns/${name}`) });
    const here = Netlink.open();
    try {
      assert.deepEqual((await there.links.list()).map((link) => link.name).sort(), ['inside', 'lo']);
      assert.equal(here.links.get('inside'), undefined);
    } finally {
      there.close();
      here.close();
    }
  });

  it('is closed on exec, and does not block', () => {
    const fd = open(`/run/netns/${name}`);
    assert.equal(libc.fcntl(fd, SYS.F_GETFD), SYS.FD_CLOEXEC);
    assert.notEqual(libc.fcntl(fd, SYS.F_GETFL) & SYS.O_NONBLOCK, 0);
    libc.close(fd);
  });

  for (const [path, reason] of [
    ['/run/netns/nowhere', /open ENOENT/],
    ['/dev/null', /setns EINVAL/],
  ] as const) {
    it(`is refused for ${path}, with the reason`, () => {
      assert.throws(
        () => open(path),
        (error) => isOverlayError(error, 'ERR_NETNS') && reason.test(error.message),
      );
    });
  }
});
