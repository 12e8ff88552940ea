import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { WireguardSecret } from '../../src/ip/wireguard-key.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { NetlinkKernel } from '../../src/reconcile/netlink-kernel.js';
import { net } from '../support/builders.js';
import type { KernelFixture } from '../support/kernel-contract.js';
import { OwnNetns } from '../support/own-netns.js';
import { addUnderlay, clearNetwork, linkNamed } from '../support/veth-underlay.js';
import { describeWireguardContract, secretOf } from '../support/wireguard-contract.js';

describe('WireGuard in the kernel', () => {
  let netns: OwnNetns;
  let netlink: Netlink;

  before(async () => {
    netns = await OwnNetns.enter('wireguard');
    netlink = Netlink.open();
  });

  after(() => {
    netlink.close();
    netns.leave();
  });

  const open = (): KernelFixture => ({ eth0: addUnderlay(netlink), kernel: new NetlinkKernel(systemClock) });
  const close = async ({ kernel }: KernelFixture): Promise<void> => {
    kernel.close();
    await clearNetwork(netlink);
  };

  describeWireguardContract('NetlinkKernel', open, close);

  it('tells a device with more peers than fit into one message, and one peer that does not fit either', async () => {
    netlink.links.add({ kind: 'wireguard', name: 'wg0' });
    const { index } = linkNamed(netlink, 'wg0');
    const many = Array.from({ length: 1500 }, (_, n) => net(`10.${n >> 8}.${n & 255}.0/24`));
    const common = { index, presharedKey: undefined, endpoint: undefined, keepaliveSeconds: 0 };
    netlink.wireguard.replacePeer({ ...common, publicKey: secretOf(2).publicKey, allowedIps: many });
    const others = Array.from({ length: 400 }, () => WireguardSecret.generate().publicKey);
    for (const [n, publicKey] of others.entries()) {
      netlink.wireguard.replacePeer({ ...common, publicKey, allowedIps: [net(`172.16.${n >> 8}.${n & 255}/32`)] });
    }
    const { peers } = (await netlink.wireguard.get(index)) ?? assert.fail('no device');
    const texts = (key: string): string[] =>
      (peers.find(({ publicKey }) => publicKey === key)?.allowedIps ?? []).map(String).sort();
    assert.deepEqual(texts(secretOf(2).publicKey), many.map(String).sort());
    assert.deepEqual(peers.map(({ publicKey }) => publicKey).sort(), [secretOf(2).publicKey, ...others].sort());
    assert.ok(others.every((key) => texts(key).length === 1));
    netlink.links.del({ index, name: 'wg0' });
  });

  it('says that another socket has the port when the device is up', async () => {
    netlink.links.add({ kind: 'wireguard', name: 'wg0' });
    netlink.links.add({ kind: 'wireguard', name: 'wg1' });
    const settings = { privateKey: secretOf(1), listenPort: 51820 };
    for (const name of ['wg0', 'wg1']) netlink.links.set(linkNamed(netlink, name), { isUp: true });
    netlink.wireguard.set({ ...settings, index: linkNamed(netlink, 'wg0').index });
    const { index } = linkNamed(netlink, 'wg1');
    assert.throws(() => netlink.wireguard.set({ ...settings, index }), /EADDRINUSE/);
    await clearNetwork(netlink);
  });
});
