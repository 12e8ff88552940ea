import assert from 'node:assert/strict';
import { openAnnouncementPort } from '../../src/docker/plugin/announcement-port.js';
import { announcementFrames } from '../../src/docker/plugin/announcement.js';
import type { MacAddress } from '../../src/ip/mac.js';
import type { LinkInfo } from '../../src/netlink/link.js';
import { Netlink } from '../../src/netlink/netlink.js';
import { writeSysctl } from '../../src/netlink/sysctl.js';
import { SYSCTL } from '../../src/netlink/sysctl-paths.js';
import { ip, mac } from '../support/builders.js';
import { capture } from '../support/capture.js';
import { onExit } from '../support/cleanup.js';
import { Netns, deleteNamespaces } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import { waitFor } from '../support/wait.js';

const HOST = '192.0.2.11';
const CONTAINER_MAC = mac(0x70);
const FRAMES = ['192.0.2.70', '2001:db8::70'].flatMap((each) => announcementFrames(ip(each), CONTAINER_MAC));

describe('the port for announcements', () => {
  let here: OwnNetns;
  let lan: Netns;
  let netlink: Netlink;
  let withdraw: () => void;
  let remove: () => void;

  before(async () => {
    here = await OwnNetns.enter('announce');
    const name = `tsf${process.pid}-lan`;
    remove = () => deleteNamespaces([name]);
    withdraw = onExit(remove);
    [lan] = (await Netns.create([name])) as [Netns];
    await here.ip([
      `link add eth0 type veth peer name lan0 netns ${name}`,
      'link set eth0 up',
      `address add ${HOST}/24 dev eth0`,
      `link add new0 link eth0 address ${CONTAINER_MAC} type macvlan mode bridge`,
    ]);
    // As the kernel has it: with a filter it takes no question on an interface without an address.
    for (const scope of ['all', 'new0']) writeSysctl(SYSCTL.reversePathFilter(scope), '0');
    await lan.ip(['link set lan0 up', 'address add 192.0.2.1/24 dev lan0']);
    await waitFor(async () => (await here.ipJson(['link', 'show', 'eth0']))[0]?.['operstate'] === 'UP', {
      what: 'the link',
    });
    netlink = Netlink.open();
  });

  after(() => {
    netlink.close();
    here.leave();
    remove();
    withdraw();
  });

  const link = (name: string): LinkInfo => {
    const found = netlink.links.get(name);
    assert.ok(found, name);
    return found;
  };

  /** The stations that say they have the host's address. */
  const askForHost = async (): Promise<MacAddress[]> => {
    const { stdout } = await lan.run(['busybox', 'arping', '-c', '2', '-w', '2', '-I', 'lan0', HOST], {
      mayFail: true,
    });
    return [...stdout.matchAll(/\[([0-9a-f:]{17})\]/g)].map(([, found]) => found as MacAddress);
  };

  it('sends out of an interface that is down, and leaves it so', async () => {
    const seen = await capture(lan, 'lan0', `ether src ${CONTAINER_MAC}`);
    openAnnouncementPort(netlink.links).sendBriefly(link('new0'), FRAMES);
    const { frames } = await seen.stop();
    assert.deepEqual(
      frames.map(({ data }) => data.toString('hex')),
      FRAMES.map((each) => Buffer.from(each).toString('hex')),
    );
    assert.equal(link('new0').isUp, false);
  });

  it('says nothing else on it, and neither answers for the host nor forwards there', async () => {
    const seen = await capture(lan, 'lan0', `ether src ${CONTAINER_MAC}`);
    const up: LinkInfo[] = [];
    const port = openAnnouncementPort({
      set: (device, change) => {
        if (change.isUp === false) up.push(link('new0'));
        else netlink.links.set(device, change);
      },
    });
    // It stays up, for longer than it takes IPv6 to make an address of its own, tell its groups and ask for routers.
    port.sendBriefly(link('new0'), []);
    assert.deepEqual(
      up.map(({ isUp }) => isUp),
      [true],
    );
    const forwarded = await capture(lan, 'lan0', `arp[24:4] = 0xc0000246 and not ether src ${CONTAINER_MAC}`);
    await lan.ip([`neighbour replace 192.0.2.70 lladdr ${CONTAINER_MAC} dev lan0`]);
    await lan.run(['ping', '-c', '1', '-W', '1', '192.0.2.70'], { mayFail: true });
    assert.equal((await forwarded.stop()).frames.length, 0, 'the host looks for the container');
    const answers = await askForHost();
    assert.deepEqual([...new Set(answers)], [link('eth0').mac]);
    const { frames } = await seen.stop();
    netlink.links.set(link('new0'), { isUp: false });
    assert.deepEqual(
      frames.map(({ data }) => data.toString('hex')),
      [],
    );
  });

  it('takes the interface down where it could not send', () => {
    const { index } = link('eth0');
    const set = netlink.links.set.bind(netlink.links);
    const port = openAnnouncementPort({ set });
    const gone = { ...link('new0'), index: index + 1000 };
    assert.throws(() => port.send(gone, FRAMES), { code: 'ERR_ANNOUNCEMENT', message: /new0: (?:ENXIO|ENODEV)/ });
    const tooShort = Uint8Array.of(1);
    assert.throws(() => port.sendBriefly(link('new0'), [tooShort]), { code: 'ERR_ANNOUNCEMENT' });
    assert.equal(link('new0').isUp, false);
  });
});
