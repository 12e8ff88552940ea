import { systemClock } from '../../src/clock.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { NetlinkKernel } from '../../src/reconcile/netlink-kernel.js';
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
});
