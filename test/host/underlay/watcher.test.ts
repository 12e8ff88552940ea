import assert from 'node:assert/strict';
import { systemClock } from '../../../src/clock.js';
import { IpAddress } from '../../../src/ip/address.js';
import { silentLogger } from '../../../src/log.js';
import { Netlink } from '../../../src/netlink/netlink.js';
import * as libc from '../../../src/sys/libc.js';
import { netlinkHostNetwork } from '../../../src/underlay/host-network.js';
import { type HostNetworkSource, type UnderlayState, UnderlayWatcher } from '../../../src/underlay/watcher.js';
import type { UnderlayRequest } from '../../../src/underlay/select.js';
import { onExit } from '../../support/cleanup.js';
import { Netns, deleteNamespaces, namePrefix } from '../../support/netns.js';
import { waitFor } from '../../support/wait.js';

/** Makes sockets inside a namespace; they stay there. */
function within<T>(netns: Netns, make: () => T): T {
  const home = libc.open('/proc/thread-self/ns/net', libc.SYS.O_RDONLY);
  const target = libc.open(`/run/netns/${netns.name}`, libc.SYS.O_RDONLY);
  assert.ok(home >= 0 && target >= 0);
  assert.equal(libc.setns(target, libc.SYS.CLONE_NEWNET), 0);
  try {
    return make();
  } finally {
    assert.equal(libc.setns(home, libc.SYS.CLONE_NEWNET), 0);
    libc.close(home);
    libc.close(target);
  }
}

describe('UnderlayWatcher on a host', () => {
  const name = `${namePrefix(0)}-underlay`;
  let netns: Netns;
  let netlink: Netlink;
  let source: HostNetworkSource;
  let withdraw: () => void;
  let watcher: UnderlayWatcher | undefined;
  let states: UnderlayState[];

  beforeEach(async () => {
    withdraw = onExit(() => deleteNamespaces([name]));
    [netns] = (await Netns.create([name])) as [Netns];
    await netns.ip([
      'link add eth0 type veth peer name far0',
      'link set far0 up',
      'link set eth0 up',
      'address add 192.0.2.1/24 dev eth0',
      'address add 2001:db8::1/64 dev eth0 nodad',
      'route add default via 192.0.2.254',
      'route add default via 2001:db8::ff',
      'route add unreachable default metric 9',
    ]);
    netlink = within(netns, () => Netlink.open());
    const plain = netlinkHostNetwork(netlink);
    source = { ...plain, onChange: (callback) => within(netns, () => plain.onChange(callback)) };
    states = [];
  });

  afterEach(() => {
    watcher?.close();
    watcher = undefined;
    netlink.close();
    deleteNamespaces([name]);
    withdraw();
  });

  async function start(given: Partial<UnderlayRequest> = {}): Promise<UnderlayState> {
    watcher = await UnderlayWatcher.start({
      source,
      request: {
        ...{ families: [4], iface: [], ifaceRegex: [], ifaceCanReach: undefined, publicIp: undefined },
        ...{ publicIpv6: undefined, ...given },
      },
      clock: systemClock,
      logger: silentLogger,
      onChange: (state) => states.push(state),
    });
    return watcher.state;
  }

  const waitForState = (isRight: (state: UnderlayState) => boolean): Promise<unknown> =>
    waitFor(() => states.some(isRight), { what: 'the state of the underlay' });

  it('finds the default route of both families', async () => {
    const { underlay } = await start({ families: [4, 6] });
    assert.deepEqual([underlay.device, underlay.mtu], ['eth0', 1500]);
    assert.deepEqual([String(underlay.address), String(underlay.addressV6)], ['192.0.2.1', '2001:db8::1']);
  });

  it('finds the interface towards an address, with its source', async () => {
    await netns.ip([
      'link add eth1 type veth peer name far1',
      'link set far1 up',
      'link set eth1 up',
      'address add 198.51.100.1/24 dev eth1',
      'address add 198.51.100.2/32 dev eth1',
      'route add 203.0.113.0/24 via 198.51.100.254 src 198.51.100.2',
    ]);
    const { underlay } = await start({ ifaceCanReach: IpAddress.parse('203.0.113.9') });
    assert.deepEqual([underlay.device, String(underlay.address)], ['eth1', '198.51.100.2']);
  });

  it('knows which addresses the kernel calls deprecated or dynamic', async () => {
    await netns.ip([
      'address add 2001:db8::d/64 dev eth0 nodad valid_lft 3600 preferred_lft 0',
      'address add 2001:db8::e/64 dev eth0 nodad valid_lft 3600 preferred_lft 3600',
    ]);
    const { addresses } = await source.read({ withRoutes: false });
    const flagsOf = (text: string): unknown => {
      const found = addresses.find(({ address }) => address.toString() === text);
      return [found?.isDeprecated, found?.isPermanent, found?.isTentative];
    };
    assert.deepEqual(flagsOf('2001:db8::1'), [false, true, false]);
    assert.deepEqual(flagsOf('2001:db8::d'), [true, false, false]);
    assert.deepEqual(flagsOf('2001:db8::e'), [false, false, false]);
  });

  it('follows the MTU', async () => {
    await start();
    await netns.ip(['link set eth0 mtu 1400']);
    await waitForState(({ underlay }) => underlay.mtu === 1400);
  });

  it('sees the carrier go and come back', async () => {
    await start();
    await netns.ip(['link set far0 down']);
    await waitForState(({ isUsable }) => !isUsable);
    await netns.ip(['link set far0 up']);
    await waitFor(() => watcher?.state.isUsable === true, { what: 'the carrier' });
    assert.equal(states.length, 2);
  });

  it('keeps the device that was deleted until it is back with another index', async () => {
    const { underlay } = await start({ iface: ['eth0'] });
    await netns.ip(['link del eth0']);
    await waitForState(({ reason }) => reason === 'the device is gone');
    assert.equal(watcher?.state.underlay.ifindex, underlay.ifindex);
    await netns.ip([
      'link add eth0 index 77 type veth peer name far0',
      'link set far0 up',
      'link set eth0 up',
      'address add 192.0.2.1/24 dev eth0',
    ]);
    await waitForState(({ isUsable, underlay: next }) => isUsable && next.ifindex === 77);
  });

  it('moves with its address into a bridge', async () => {
    await start();
    await netns.ip([
      'link add br0 type bridge',
      'link set br0 up',
      'link set eth0 master br0',
      'address del 192.0.2.1/24 dev eth0',
      'address add 192.0.2.1/24 dev br0',
      'route add default via 192.0.2.254',
    ]);
    await waitForState(({ isUsable, underlay }) => isUsable && underlay.device === 'br0');
  });
});
