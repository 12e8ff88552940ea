import assert from 'node:assert/strict';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import { DescriptorKeepers } from '../support/descriptor-keeper.js';
import { BUILD_TIMEOUT_MS, buildKernelPath, kernelPathCommand } from '../support/kernel-path.js';
import {
  DATAPATH,
  carriesByKernel,
  eventuallySends,
  kernelCounters,
  startKernelOverlay,
  xdpOf,
} from '../support/kernel-overlay.js';
import { Operator } from '../support/operator.js';
import { NETWORK, type Overlay, countLines } from '../support/overlay.js';
import { Rig } from '../support/rig.js';
import { assertTalking } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const REFUSED = /no kernel path, the tunnel carries everything/;
/** Others are wanted with this priority, behind where ours would be. */
const PRIORITY = 7;
/** After which what was refused is tried again, and then some. */
const RETRY_MS = 90_000;

describe(`the kernel path (${DATAPATH}) beside what others have`, function () {
  this.timeout(BUILD_TIMEOUT_MS);
  let overlay: Overlay | undefined;
  let rig: Rig | undefined;
  const keepers = new DescriptorKeepers();

  before(async function () {
    await buildKernelPath(this);
  });
  afterEach(async () => {
    await overlay?.close();
    await rig?.close();
    keepers.close();
    [overlay, rig] = [undefined, undefined];
  });

  it('leaves filters at both devices as they are from its first program to its last, and rules see what comes in', async () => {
    const hosts = await startKernelOverlay({ keeper: keepers.make });
    overlay = hosts;
    const { netns } = hosts.rig.host(1);
    const places = ['eth0', 'flannel0'].flatMap((device) =>
      ['ingress', 'egress'].map((direction) => ['dev', device, direction]),
    );
    for (const [, device = ''] of places) {
      // Each direction's, and on kernels without TCX there already for ours.
      await netns.run(['tc', 'qdisc', 'add', 'dev', device, 'clsact'], { mayFail: true });
    }
    const filter = ['protocol', 'ip', 'prio', String(PRIORITY), 'u32', 'match', 'u32', '0', '0', 'classid', '1:1'];
    for (const place of places) await netns.run(['tc', 'filter', 'add', ...place, ...filter]);
    // What comes behind the filters at the device, on both kinds of hosts.
    const seeing = 'chain in { type filter hook ingress device flannel0 priority 0; counter; }';
    await netns.run(['nft', '-f', '-'], { input: `table netdev theirs {\n${seeing}\n}` });
    const filters = async (): Promise<string[]> => {
      const shown = places.map(async (place) => (await netns.run(['tc', 'filter', 'show', ...place])).stdout);
      return (await Promise.all(shown)).flatMap((text) =>
        text.split('\n').filter((line) => line.includes(`pref ${PRIORITY} `)),
      );
    };
    const seenBehind = async (): Promise<number> =>
      Number(/packets (\d+)/.exec((await netns.run(['nft', 'list', 'table', 'netdev', 'theirs'])).stdout)?.[1]);
    const before = await filters();
    assert.ok(before.length >= places.length, before.join('\n'));

    const countersBefore = await kernelCounters(hosts.daemon(1));
    await carriesByKernel(hosts);
    const received = (await kernelCounters(hosts.daemon(1))).received.packets - countersBefore.received.packets;
    // Frames that GRO has joined are one packet here.
    assert.ok((await seenBehind()) > received / 50, `${await seenBehind()} of ${received}`);
    assert.deepEqual(await filters(), before);

    await hosts.daemon(1).stop();
    await hosts.daemon(1).startAndWait();
    await eventuallySends(hosts, 1, 1);
    assert.deepEqual(await filters(), before, 'taken over');

    await hosts.daemon(1).stop();
    await hosts.daemon(1).startAndWait(['--datapath=native']);
    await eventually('the programs to go', async () => assert.equal(await xdpOf(hosts.rig.host(1)), undefined));
    assert.deepEqual(await filters(), before, 'withdrawn');
  });

  it('waits for somebody else’s XDP program to go, tells once that it does, and then begins', async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig(NETWORK);
    const [near, far] = [rig.host(1), rig.host(2)];
    await near.netns.ip(['address add 192.0.2.111/24 dev eth0']);
    const words = ['other0', 'eth0', '192.0.2.111', '10.6.1.0/24', 'xdp'];
    const other = near.netns.start(kernelPathCommand('carrier', words));
    await other.waitForLine(/^ready$/);
    const theirs = await xdpOf(near);
    const daemon = await near.startDaemon({ args: [`--datapath=${DATAPATH}`] });
    await far.startDaemon({ args: [`--datapath=${DATAPATH}`] });
    await assertTalking(await near.addContainer(), await far.addContainer());
    const metric = (value: number): RegExp =>
      new RegExp(`^tsflannel_kernel_path_refused\\{.*reason="foreign-program".*\\} ${value}$`, 'm');
    assert.match(await daemon.get('/metrics'), metric(1));

    const operator = new Operator(near);
    const finding = async (): Promise<Finding | undefined> =>
      (await operator.findings()).find(({ check }) => check === 'kernel-path');
    const found = await finding();
    assert.match(found?.evidence ?? '', /^foreign-program: /);
    // The command shows what is in the way, and the operator does away with it.
    const { stdout } = await near.netns.run(['sh', '-c', found?.command ?? 'false']);
    assert.match(stdout, /prog\/xdp id \d+/);
    assert.deepEqual(await xdpOf(near), theirs);
    other.write('', { end: true });
    await other.exited;

    await eventually(
      'the kernel path to begin',
      async () => assert.equal((await daemon.status()).tunnels[0]?.kernelPath?.isActive, true),
      { timeoutMs: RETRY_MS },
    );
    assert.equal(await finding(), undefined);
    assert.match(await daemon.get('/metrics'), metric(0));
    assert.equal(countLines(daemon.log, REFUSED), 1);
  });

  it('takes datagrams behind GRO where frames are too large for XDP', async () => {
    overlay = await startKernelOverlay({ mtu: 9000 });
    const { receiver } = (await overlay.daemon(1).status()).tunnels[0]?.kernelPath ?? {};
    assert.equal(receiver, 'tc');
    assert.equal(await xdpOf(overlay.rig.host(1)), undefined);
    await carriesByKernel(overlay);
  });

  it('leaves everything to the tunnel on an uplink that is a macvlan, and says so', async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig(NETWORK);
    const [near, far] = [rig.host(1), rig.host(2)];
    await near.netns.ip([
      `address del ${near.publicIp}/24 dev eth0`,
      'link add lan0 link eth0 type macvlan mode bridge',
      `address add ${near.publicIp}/24 dev lan0`,
      'link set lan0 up',
      'route add default via 192.0.2.1',
    ]);
    const daemon = await near.startDaemon({ args: [`--datapath=${DATAPATH}`] });
    await far.startDaemon({ args: [`--datapath=${DATAPATH}`] });
    await assertTalking(await near.addContainer(), await far.addContainer());
    const { tunnels, peers } = await daemon.status();
    const { reason, detail } = tunnels[0]?.kernelPath?.refused ?? {};
    assert.deepEqual([reason, detail], ['uplink-kind', 'lan0 is of kind macvlan']);
    // The other one has the kernel path, and this one cannot.
    assert.deepEqual(peers[0]?.carrier, { carrier: 'tunnel', because: 'refused' });
    assert.deepEqual((await far.daemon?.status())?.peers[0]?.carrier, { carrier: 'tunnel', because: 'not-announced' });
    assert.equal(countLines(daemon.log, REFUSED), 1);
  });
});
