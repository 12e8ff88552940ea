import assert from 'node:assert/strict';
import { leaseKey, NETWORK } from '../support/overlay.js';
import { type Host, Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

/** A second interface of host 1, without default route: 198.51.100.1, with 198.51.100.7 as another address of it. */
const SECOND = { device: 'eth1', address: '198.51.100.1', other: '198.51.100.7', mtu: 1400 };

interface Choice {
  readonly args: readonly string[];
  readonly publicIp: string;
  /** Where the tunnel's socket is bound. */
  readonly bound?: string;
  readonly mtu?: number;
}

const CHOICES: readonly Choice[] = [
  { args: [], publicIp: '192.0.2.11' },
  { args: ['--iface=eth0'], publicIp: '192.0.2.11' },
  { args: ['--iface=eth1'], publicIp: SECOND.address, mtu: SECOND.mtu - 28 },
  { args: [`--iface=${SECOND.other}`], publicIp: SECOND.other, mtu: SECOND.mtu - 28 },
  { args: ['--iface=eth9', '--iface=eth1'], publicIp: SECOND.address, mtu: SECOND.mtu - 28 },
  { args: ['--iface-regex=^eth[1-9]$'], publicIp: SECOND.address, mtu: SECOND.mtu - 28 },
  { args: ['--iface-regex=198\\.51\\.100\\.'], publicIp: SECOND.address, mtu: SECOND.mtu - 28 },
  { args: ['--iface-can-reach=198.51.100.200'], publicIp: SECOND.address, mtu: SECOND.mtu - 28 },
  { args: ['--iface-can-reach=203.0.113.1'], publicIp: '192.0.2.11' },
  { args: ['--public-ip=192.0.2.11'], publicIp: '192.0.2.11' },
  // Behind address translation: announced is what peers can reach, bound is what the host has.
  {
    args: ['--iface=eth1', '--public-ip=203.0.113.5'],
    publicIp: '203.0.113.5',
    bound: SECOND.address,
    mtu: SECOND.mtu - 28,
  },
];

describe('interface of the daemon', () => {
  let rig: Rig;
  let host: Host;

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    host = rig.host(1);
    await host.netns.ip([
      `link add ${SECOND.device} type bridge`,
      `link set ${SECOND.device} mtu ${SECOND.mtu} up`,
      `addr add ${SECOND.address}/24 dev ${SECOND.device}`,
      `addr add ${SECOND.other}/24 dev ${SECOND.device}`,
    ]);
    await rig.putConfig(NETWORK);
  });
  after(() => rig.close());

  for (const [index, { args, publicIp, bound = publicIp, mtu = 1472 }] of CHOICES.entries()) {
    it(`is found with ${args.join(' ') || 'no flag at all'}`, async () => {
      const daemon = host.makeDaemon({ args, directory: `choice${index}` });
      const env = await daemon.startAndWait();
      await daemon.waitForLog(/ ready /);
      assert.equal(env.FLANNEL_MTU, String(mtu));
      const entry = await rig.etcd.get(leaseKey(rig, env.FLANNEL_SUBNET));
      assert.equal((JSON.parse(entry?.value ?? '') as { PublicIP: string }).PublicIP, publicIp);
      const sockets = await host.netns.run(['ss', '-Hnul']);
      assert.match(sockets.stdout, new RegExp(`\\s${bound.replaceAll('.', '\\.')}:8285\\s`));
      await daemon.stop();
    });
  }

  it('takes the environment where no flag says otherwise', async () => {
    const daemon = host.makeDaemon({ env: { FLANNELD_IFACE: 'eth1' }, directory: 'environment' });
    await daemon.startAndWait();
    await daemon.waitForLog(/interface chosen dev=eth1 /);
    await daemon.stop();
    const flag = host.makeDaemon({ env: { FLANNELD_IFACE: 'eth1' }, args: ['--iface=eth0'], directory: 'flag' });
    await flag.startAndWait();
    await flag.waitForLog(/interface chosen dev=eth0 /);
    await flag.stop();
  });

  it('may have an address that peers reach only through address translation', async () => {
    // Peers send to 203.0.113.11, and what host 1 sends looks as if it came from there; its own nftables stand in for
    // the router that does so.
    await host.netns.run(['nft', '-f', '-'], {
      input: `table ip nat {
        chain prerouting { type nat hook prerouting priority dstnat; ip daddr 203.0.113.11 dnat to ${host.publicIp}; }
        chain postrouting { type nat hook postrouting priority srcnat; udp sport 8285 snat to 203.0.113.11; }
      }`,
    });
    await host.netns.ip(['addr add 203.0.113.11/32 dev lo']);
    const near = await host.startDaemon({ args: ['--iface=eth0', '--public-ip=203.0.113.11'], directory: 'nat' });
    await near.waitForLog(/ ready /);
    await rig.host(2).netns.ip([`route add 203.0.113.11 via ${host.publicIp}`]);
    await rig.host(2).startDaemon();
    const [a, b] = [await host.addContainer(), await rig.host(2).addContainer()];
    await waitFor(async () => (await ping(a.netns, b.address, { count: 1, waitSeconds: 1 })).received === 1, {
      what: `a ping; log:\n${near.log}`,
    });
    assert.equal((await ping(b.netns, a.address, { count: 20 })).received, 20);
  });
});
