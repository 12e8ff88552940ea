import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { encodeBlock } from '../../src/container/records.js';
import type { NetworksView } from '../../src/ctl/docker-networks-view.js';
import type { Finding } from '../../src/ctl/doctor/facts.js';
import { DockerHosts, skipWithoutDocker } from '../support/docker-hosts.js';
import type { NetworkedContainer } from '../support/docker-network-host.js';
import type { Netns } from '../support/netns.js';
import { Operator } from '../support/operator.js';
import { Rig } from '../support/rig.js';
import { eventually, waitFor } from '../support/wait.js';

const SUBNET = '198.51.100.0/24';
const ROUTER = '198.51.100.1';

/** Sixteen addresses, of which fourteen are given out: a block of four for each host that has a container. */
const RANGE = '198.51.100.64/28';

const CHECKS: readonly string[] = [
  ...['network-parent', 'address-lost', 'address-range', 'address-seen', 'container-start', 'plugin-socket'],
  ...['foreign-mac', 'mac-limit'],
];

/**
 * ```
 *  h1: engine, daemon, lan0 ── port1 ─┐
 *  h2: engine, daemon, lan0 ── port2 ─┴ wire ns: bridge br0, which is the router
 * ```
 */
describe('tsflannelctl doctor beside container networks', function () {
  this.timeout(240_000);
  const hosts = new DockerHosts();
  const { host, onEach: onBoth } = hosts;
  let rig: Rig;
  let wire: Netns;
  let operator: Operator;

  const layCable = async (number: number): Promise<void> => {
    await wire.ip([`link add port${number} type veth peer name lan0 netns ${rig.host(number).netns.name}`]);
    await wire.ip([`link set port${number} master br0 up`]);
    await rig.host(number).netns.ip(['link set lan0 up', `address add 198.51.100.${10 + number}/24 dev lan0`]);
  };

  const createLan = async (range = RANGE, more: readonly string[] = []): Promise<void> => {
    const options = ['--subnet', SUBNET, '--gateway', ROUTER, '--ip-range', range, '--opt', 'parent=lan0', ...more];
    await onBoth((on) => on.createNetwork('lan', options));
  };

  const ownMac = async (): Promise<string> => {
    const [link] = await host(1).host.netns.ipJson(['link', 'show', 'lan0']);
    return String(link?.['address']);
  };

  /** What the doctor finds on the first host about container networks. */
  const findings = async (options = ''): Promise<readonly Finding[]> =>
    (await operator.findings(options)).filter(({ check }) => CHECKS.includes(check));

  const onlyFinding = async (check: string, options = ''): Promise<Finding> => {
    const all = await findings(options);
    const [finding] = all;
    assert.ok(finding !== undefined, 'the doctor finds nothing');
    assert.deepEqual(
      all.map((each) => each.check),
      [check],
      JSON.stringify(all),
    );
    return finding;
  };

  const expectNothing = async (options = ''): Promise<void> => {
    assert.deepEqual(await findings(options), []);
  };

  const reachesRouter = (container: NetworkedContainer): Promise<boolean> => container.host.reaches(container, ROUTER);

  before(async function () {
    await skipWithoutDocker(this);
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ Network: '10.5.0.0/16', Backend: { Type: 'host-gw' } });
    wire = await rig.addNamespace('wire');
    await wire.ip(['link add br0 type bridge', 'link set br0 up', `address add ${ROUTER}/24 dev br0`]);
    await layCable(1);
    await layCable(2);
    await hosts.start(rig.hosts);
    operator = new Operator(rig.host(1));
    const { stdout } = await operator.shell('command -v docker');
    operator.shim('docker', `exec ${stdout.trim()} --host ${host(1).engine.endpoint} "$@"`);
  });

  afterEach(() => hosts.removeAll());

  after(async () => {
    await hosts.close();
    await rig.close();
  });

  it('finds nothing where nothing is wrong, and names the containers of this host', async () => {
    await createLan();
    await host(1).run('lan', ['--name', 'web']);
    await expectNothing();
    const { stdout } = await operator.shell('tsflannelctl docker-networks');
    assert.match(stdout, /^198\.51\.100\.\d+ +\S+ +\S+ +web /m);
  });

  it('sets an interface up that is down', async () => {
    await createLan();
    const container = await host(1).run('lan');
    await host(1).host.netns.ip(['link set lan0 down']);
    const finding = await onlyFinding('network-parent');
    assert.match(finding.evidence, /^lan0 is not set up$/);
    await operator.type(finding.command);
    await eventually('the interface to forward', () => expectNothing());
    assert.ok(await reachesRouter(container));
  });

  it('removes a network whose interface is gone, with a container that runs and one that does not', async () => {
    await createLan();
    await host(1).run('lan');
    const stopped = await host(1).run('lan');
    await host(1).docker(['stop', stopped.id]);
    await wire.ip(['link del port1']);
    try {
      const finding = await onlyFinding('network-parent');
      assert.match(finding.message, /their interface lan0 does not exist/);
      await operator.type(finding.command);
      await expectNothing();
      assert.equal((await host(1).docker(['network', 'ls', '--quiet', '--filter', 'name=^lan$'])).stdout, '');
    } finally {
      await layCable(1);
    }
  });

  for (const [what, isRunning, flags] of [
    ['drops frames from containers', true, ['learning', 'off', 'locked', 'on']],
    ['drops frames from containers, of which none runs', false, ['learning', 'off', 'locked', 'on']],
    ['drops frames to containers', true, ['learning', 'off', 'flood', 'off']],
  ] as const) {
    it(`names a network that ${what}, and what lets them through`, async () => {
      await createLan();
      const container = isRunning ? await host(1).run('lan') : undefined;
      await wire.run(['bridge', 'fdb', 'replace', await ownMac(), 'dev', 'port1', 'master', 'static']);
      await wire.run(['bridge', 'link', 'set', 'dev', 'port1', ...flags]);
      await wire.run(['bridge', 'fdb', 'flush', 'dev', 'br0', 'brport', 'port1', 'dynamic'], { mayFail: true });
      try {
        const finding = await onlyFinding('foreign-mac');
        assert.ok(finding.evidence.startsWith(`${ROUTER} answers ${await ownMac()}, and not`), finding.evidence);
        if (container !== undefined) {
          assert.match(finding.evidence, new RegExp(container.mac), 'asked as the container');
          assert.equal(await reachesRouter(container), false);
        }
        // On the switch, as it says.
        await wire.run(['sh', '-c', finding.command.replace('PORT', 'port1')]);
        await expectNothing();
        if (container !== undefined) assert.ok(await reachesRouter(container));
      } finally {
        await wire.run(['bridge', 'link', 'set', 'dev', 'port1', 'learning', 'on', 'flood', 'on', 'locked', 'off']);
      }
    });
  }

  it('counts MAC addresses of a port against a limit, those of containers that run', async () => {
    // What the host reaches them through shows its MAC address to nobody else.
    await createLan(RANGE, ['--opt', 'host-access=true']);
    const [first, second] = [await host(1).run('lan'), await host(1).run('lan')];
    await expectNothing('--mac-limit 4');
    assert.equal((await onlyFinding('mac-limit', '--mac-limit 3')).severity, 'warning');
    const finding = await onlyFinding('mac-limit', '--mac-limit 2');
    assert.equal(finding.severity, 'error');
    assert.match(finding.evidence, /^3 MAC addresses/);
    await operator.type(finding.command);
    assert.match(finding.command, /end 2 here/);
    for (const { id } of [first, second]) await host(1).docker(['stop', id]);
    await expectNothing('--mac-limit 2');
  });

  it('shows no port more MAC addresses than it takes in order to ask', async () => {
    await createLan();
    await wire.run(['bridge', 'fdb', 'replace', await ownMac(), 'dev', 'port1', 'master', 'static']);
    await wire.run(['bridge', 'link', 'set', 'dev', 'port1', 'learning', 'off', 'locked', 'on']);
    try {
      assert.equal((await onlyFinding('mac-limit', '--mac-limit 1')).severity, 'warning');
    } finally {
      await wire.run(['bridge', 'link', 'set', 'dev', 'port1', 'learning', 'on', 'locked', 'off']);
    }
  });

  it('names a range that is nearly full, and has room once containers are gone', async () => {
    await createLan();
    const containers: NetworkedContainer[] = [];
    for (let count = 0; count < 12; count++) containers.push(await host(1).run('lan'));
    await expectNothing();
    containers.push(await host(1).run('lan'), await host(1).run('lan'), await host(1).run('lan'));
    const finding = await onlyFinding('address-range');
    assert.match(finding.message, /one address left/);
    await operator.type(finding.command);
    await host(1).docker(['rm', '--force', ...containers.slice(0, 4).map(({ id }) => id)]);
    await expectNothing();
  });

  it('restarts a container whose address another host was given', async () => {
    await createLan();
    const mine = await host(1).run('lan', ['--name', 'web']);
    await host(1).daemon.kill();
    const release = ['docker-networks', 'release', 'h1', '--yes', '--force'];
    await operator.shell(`tsflannelctl ${release.join(' ')}`);
    // It is still there, and would be found.
    await host(1).host.netns.ip(['link set lan0 down']);
    await host(2).run('lan', ['--ip', mine.address]);
    await host(1).host.netns.ip(['link set lan0 up']);
    await host(1).daemon.startAndWait();
    const finding = await waitFor(async () => (await findings()).find(({ check }) => check === 'address-lost'), {
      what: 'the loss',
    });
    assert.equal(finding.command, 'docker restart web');
    await operator.type(finding.command);
    await expectNothing();
    const { address } = await host(1).inspect(mine.id);
    assert.notEqual(address, mine.address);
  });

  it('starts containers that an engine could not start before the socket was there', async () => {
    await createLan();
    const on = host(1);
    const always = await on.run('lan', ['--name', 'always', '--restart', 'always']);
    const plain = await on.run('lan', ['--name', 'plain']);
    await on.engine.stop();
    await on.daemon.stop();
    rmSync(path.join(on.engine.pluginDirectory, 'tsflannel.sock'));
    await on.engine.start();
    await on.boot();
    await on.daemon.startAndWait();
    const finding = await onlyFinding('container-start');
    assert.match(finding.evidence, /^always: .*plugin "tsflannel" not found$/);
    await operator.type(finding.command);
    await expectNothing();
    assert.ok(await reachesRouter(always));
    // The engine itself needs nothing more.
    await on.docker(['start', plain.id]);
    assert.ok(await reachesRouter(await on.run('lan')));
  });

  it('names a range of which a host has a part that is gone, and frees that', async () => {
    // Another range, as the doctor has it: once the network is listed no longer.
    await eventually(
      'the network to be forgotten',
      async () => {
        const { stdout } = await operator.shell('tsflannelctl docker-networks --json');
        assert.deepEqual((JSON.parse(stdout) as NetworksView).networks, []);
        await onBoth(async ({ daemon }) => {
          assert.deepEqual((await daemon.status()).containerNetworks?.pools, []);
        });
      },
      { timeoutMs: 120_000, intervalMs: 1000 },
    );
    await createLan('198.51.100.64/29');
    // A key without an etcd lease: nobody renews it.
    const block = `${rig.etcdPrefix}-ts/networks/-/198.51.100.0-24/blocks/198.51.100.64-30`;
    await rig.etcd.put(block, encodeBlock({ host: 'h9', own: 0b1111n, used: 0b0001n }));
    for (let count = 0; count < 4; count++) await host(1).run('lan');
    const finding = await onlyFinding('address-range');
    assert.match(finding.message, /no address left/);
    assert.match(finding.evidence, /8 are in use or leased by .*h9/);
    await operator.type(finding.command);
    await expectNothing();
    await host(1).run('lan');
  });
});
