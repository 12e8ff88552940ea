import assert from 'node:assert/strict';
import { systemClock } from '../../src/clock.js';
import { isAnsweredTo, probeLan } from '../../src/container/probe-lan.js';
import type { IpAddress } from '../../src/ip/address.js';
import { parseMac } from '../../src/ip/mac.js';
import { ip } from '../support/builders.js';
import { capture } from '../support/capture.js';
import { onExit } from '../support/cleanup.js';
import { Netns, deleteNamespaces } from '../support/netns.js';
import { OwnNetns } from '../support/own-netns.js';
import { FakeClock } from '../support/fake-clock.js';
import { waitFor } from '../support/wait.js';

const OURS = '02:00:00:00:00:01';
const THEIRS = '02:00:00:00:00:99';

describe('probeLan', () => {
  let here: OwnNetns;
  let there: Netns;
  let withdraw: () => void;
  let remove: () => void;

  before(async () => {
    here = await OwnNetns.enter('probe');
    const name = `tsf${process.pid}-machine`;
    remove = () => deleteNamespaces([name]);
    withdraw = onExit(remove);
    [there] = (await Netns.create([name])) as [Netns];
    await here.ip([
      `link add lan0 address ${OURS} type veth peer name lan0 address ${THEIRS} netns ${name}`,
      'link set lan0 up',
      'address add 192.0.2.1/24 dev lan0',
      'link add none0 type veth peer name none1',
    ]);
    await there.ip([
      'link set lan0 up',
      'address add 192.0.2.7/24 dev lan0',
      'address add 2001:db8::7/64 dev lan0 nodad',
    ]);
    await waitFor(async () => (await here.ipJson(['link', 'show', 'lan0']))[0]?.['operstate'] === 'UP', {
      what: 'the link',
    });
  });

  after(() => {
    here.leave();
    remove();
    withdraw();
  });

  const probe = (address: IpAddress, device = 'lan0'): Promise<string | undefined> =>
    probeLan(device, address, systemClock);

  for (const [taken, free] of [
    ['192.0.2.7', '192.0.2.8'],
    ['2001:db8::7', '2001:db8::8'],
  ] as const) {
    it(`finds out who has ${taken}, and that nobody has ${free}`, async () => {
      const before = performance.now();
      assert.equal(await probe(ip(taken)), THEIRS);
      assert.equal(await probe(ip(free)), undefined);
      assert.ok(performance.now() - before < 5000);
    });

    it(`has an answer about ${taken} before any time has passed`, async () => {
      assert.equal(await probeLan('lan0', ip(taken), new FakeClock()), THEIRS);
    });

    it(`asks three times for ${free}, and changes nobody’s cache`, async () => {
      await there.run(['ip', 'neigh', 'flush', 'all']);
      const recording = await capture(there, 'lan0', 'arp or (icmp6 and ip6[40] == 135)');
      assert.equal(await probe(ip(free)), undefined);
      const { frames } = await recording.stop();
      assert.equal(frames.length, 3);
      const { stdout } = await there.run(['ip', 'neigh', 'show', 'dev', 'lan0']);
      assert.doesNotMatch(stdout, new RegExp(OURS));
    });
  }

  it('knows the addresses of this host', async () => {
    assert.equal(await probe(ip('192.0.2.1')), OURS);
  });

  it('takes a device that is down for one where nobody has the address', async () => {
    assert.equal(await probe(ip('192.0.2.7'), 'none0'), undefined);
  });

  it('says which device cannot be asked, and why', async () => {
    await assert.rejects(probe(ip('192.0.2.7'), 'gone0'), { code: 'ERR_LAN_PROBE', message: /gone0.*ENODEV/ });
    await assert.rejects(probe(ip('192.0.2.7'), 'lo'), { code: 'ERR_LAN_PROBE', message: /lo .*no Ethernet/ });
  });

  describe('isAnsweredTo', () => {
    const FOREIGN = parseMac('02:00:00:00:00:55');
    const asks = (sender: string, address = '192.0.2.7'): Promise<boolean> =>
      isAnsweredTo(parseMac(sender), 'lan0', ip(address), systemClock);

    it('hears what is answered to the own MAC address, and to another one', async () => {
      for (const sender of [OURS, FOREIGN]) {
        assert.equal(await asks(sender), true);
        assert.equal(await asks(sender, '192.0.2.8'), false);
      }
    });

    it('hears what is answered to a container, which has not asked', async () => {
      const name = `tsf${process.pid}-box`;
      const [box] = (await Netns.create([name])) as [Netns];
      try {
        await here.ip([`link add box0 address ${FOREIGN} link lan0 type macvlan mode bridge`]);
        await here.ip([`link set box0 netns ${name}`]);
        await box.ip(['link set box0 up', 'address add 192.0.2.9/24 dev box0']);
        assert.equal(await asks(FOREIGN), true);
        assert.equal(await asks(FOREIGN, '192.0.2.8'), false);
      } finally {
        deleteNamespaces([name]);
      }
    });

    it('takes an answer to somebody else, or to all, for none', async () => {
      for (const other of ['02:00:00:00:00:56', 'ff:ff:ff:ff:ff:ff']) {
        const chain = 'type filter hook egress device "lan0" priority 0';
        const table = `table netdev other { chain c { ${chain}; arp operation reply ether daddr set ${other}; }; }`;
        await there.run(['nft', table]);
        try {
          assert.equal(await asks(FOREIGN), false, other);
        } finally {
          await there.run(['nft', 'delete table netdev other']);
        }
      }
    });

    it('leaves nothing behind: no cache entry, no address of the device', async () => {
      await there.run(['ip', 'neigh', 'flush', 'all']);
      assert.equal(await asks(FOREIGN), true);
      const { stdout: known } = await there.run(['ip', 'neigh', 'show', 'dev', 'lan0']);
      assert.doesNotMatch(known, new RegExp(FOREIGN));
      const { stdout: own } = await here.run(['bridge', 'fdb', 'show', 'dev', 'lan0']);
      assert.doesNotMatch(own, new RegExp(FOREIGN));
      const [link] = await here.ipJson(['-details', 'link', 'show', 'lan0']);
      assert.equal(link?.['promiscuity'], 0);
    });
  });
});
