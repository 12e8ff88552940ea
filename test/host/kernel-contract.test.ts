import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { NetlinkKernel } from '../../src/reconcile/netlink-kernel.js';
import { ip } from '../support/builders.js';
import { describeKernelContract } from '../support/kernel-contract.js';
import { OwnNetns } from '../support/own-netns.js';
import { skipBecause } from '../support/skip.js';
import { addUnderlay, clearNetwork } from '../support/veth-underlay.js';

describe('the kernel contract', () => {
  let netns: OwnNetns;
  let netlink: Netlink;

  before(async function () {
    if (process.getuid?.() !== 0) skipBecause(this, 'network namespaces need root');
    netns = await OwnNetns.enter('kernel');
    netlink = Netlink.open();
  });

  after(() => {
    netlink.close();
    netns.leave();
  });

  describeKernelContract(
    'NetlinkKernel',
    () => ({ eth0: addUnderlay(netlink), kernel: new NetlinkKernel(systemClock) }),
    async ({ kernel }) => {
      kernel.close();
      await clearNetwork(netlink);
    },
  );

  it('has an IPv6 address used at once, and makes a route with it unless that is not wanted', async () => {
    const { index } = addUnderlay(netlink);
    const kernel = new NetlinkKernel(systemClock);
    try {
      for (const [prefix, noPrefixRoute] of [
        ['fd00:5', false],
        ['fd00:6', true],
      ] as const) {
        const address = ip(`${prefix}::1`);
        const operation = { kind: 'address', key: 'address eth0', reason: 'missing', device: 'eth0' } as const;
        kernel.apply(
          { ...operation, verb: 'replace', address, length: 64, peer: undefined, noPrefixRoute },
          () => index,
        );
        const [info] = (await kernel.listAddresses(index)).filter((each) => each.address.equals(address));
        assert.equal(info?.isTentative, false);
        const routes = await netlink.routes.list({ family: 6, table: 254 });
        assert.equal(
          routes.some(({ destination }) => destination.toString() === `${prefix}::/64`),
          !noPrefixRoute,
        );
      }
    } finally {
      kernel.close();
      await clearNetwork(netlink);
    }
  });
});
