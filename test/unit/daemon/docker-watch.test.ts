import assert from 'node:assert/strict';
import { DockerWatch } from '../../../src/daemon/docker-watch.js';
import { SubnetFile } from '../../../src/daemon/subnet-file.js';
import type { AddressInfo } from '../../../src/netlink/address.js';
import type { LinkInfo } from '../../../src/netlink/link.js';
import { ip, lease, network } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeFiles } from '../../support/fake-files.js';
import { RecordingLogger } from '../../support/recorder.js';

const link = (index: number, kind: string, mtu: number, masterIndex = 0): LinkInfo =>
  ({ index, kind, mtu, masterIndex }) as LinkInfo;
const address = (text: string, length = 24): AddressInfo => ({ index: 3, address: ip(text), length }) as AddressInfo;

/** A host whose subnet.env has just changed from 10.5.7.0/24 and 1450 to another subnet, MTU, or both. */
async function changed(n: number, mtu: number) {
  const clock = new FakeClock();
  const log = new RecordingLogger();
  const file = new SubnetFile('/run/flannel/subnet.env', clock, log, new FakeFiles());
  const host: { links: LinkInfo[]; addresses: AddressInfo[] } = {
    links: [link(3, 'bridge', 1500), link(4, 'veth', 1450, 3)],
    addresses: [address('10.5.7.1')],
  };
  const netlink = {
    links: { list: () => Promise.resolve(host.links), get: () => undefined },
    addresses: { list: () => Promise.resolve(host.addresses) },
  };
  for (const [subnet, bytes] of [
    [7, 1450],
    [n, mtu],
  ] as const) {
    await file.update({ network: network(), lease: lease(subnet), mtu: bytes, isMasquerading: false });
  }
  const watch = new DockerWatch(file, clock, netlink);
  watch.start();
  /** Whether the hint is still there a while later. */
  const isPending = async (): Promise<boolean> => {
    await clock.advance(5000);
    return file.pendingRestart !== undefined;
  };
  return { host, isPending, watch, log };
}

describe('DockerWatch', () => {
  it('takes the hint back once the bridge has the new subnet', async () => {
    const { host, isPending, log } = await changed(8, 1450);
    assert.equal(await isPending(), true);
    host.addresses = [address('10.5.8.1', 16)];
    assert.equal(await isPending(), true, 'that is more than the subnet');
    host.addresses = [address('10.5.8.1')];
    assert.equal(await isPending(), false);
    assert.equal(log.find(/containers follow subnet file/).length, 1);
  });

  it('takes the hint back once all containers have the new MTU', async () => {
    const { host, isPending } = await changed(7, 1472);
    host.links = [link(3, 'bridge', 1450), link(4, 'veth', 1472, 3), link(5, 'veth', 1450, 3)];
    assert.equal(await isPending(), true);
    host.links = [link(3, 'bridge', 1472), link(4, 'veth', 1472, 3), link(9, 'veth', 1450, 8)];
    assert.equal(await isPending(), false);
  });

  it('goes by the bridge itself where there is no container', async () => {
    const { host, isPending } = await changed(7, 1472);
    host.links = [link(3, 'bridge', 1500)];
    assert.equal(await isPending(), true);
    host.links = [link(3, 'bridge', 1472)];
    assert.equal(await isPending(), false);
  });

  it('looks no longer when it is closed', async () => {
    const { host, isPending, watch } = await changed(8, 1450);
    watch.close();
    host.addresses = [address('10.5.8.1')];
    assert.equal(await isPending(), true);
  });
});
