import assert from 'node:assert/strict';
import type { Netns } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { assertTalking } from '../support/traffic.js';

describe('ipip', () => {
  let rig: Rig;
  let isInKernel: boolean;

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    isInKernel = await canMakeIpip(rig.host(1).netns);
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'ipip' } });
    for (const host of rig.hosts) await host.startDaemon();
  });

  after(() => rig.close());

  it('carries packets between containers', async function () {
    if (!isInKernel) skipBecause(this, 'this kernel has no ipip devices');
    const near = await rig.host(1).addContainer();
    const far = await rig.host(2).addContainer();
    await assertTalking(near, far);
  });

  it('says how to get the device where the kernel lacks it', async function () {
    if (isInKernel) skipBecause(this, 'this kernel has ipip devices');
    const daemon = rig.host(1).daemon;
    await daemon?.waitForLog(/cannot make ipip device flannel\.ipip: EOPNOTSUPP.*modprobe ipip/);
    const status = await daemon?.status();
    assert.equal(status?.isReady, false);
    assert.match(status.notReadyBecause.join(), /flannel\.ipip/);
  });
});

async function canMakeIpip(netns: Netns): Promise<boolean> {
  try {
    await netns.ip(['link add probe0 type ipip local 192.0.2.11', 'link del probe0']);
    return true;
  } catch {
    return false; // "Unknown device type"
  }
}
