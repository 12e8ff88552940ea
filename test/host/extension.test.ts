import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Container, type Host, Rig } from '../support/rig.js';
import { assertTalking } from '../support/traffic.js';
import { eventually, waitFor } from '../support/wait.js';

const HOST_GW = {
  SubnetAddCommand: 'ip route add $SUBNET via $PUBLIC_IP',
  SubnetRemoveCommand: 'ip route del $SUBNET via $PUBLIC_IP',
};

/** A device without a fixed remote, whose forwarding entries the commands make of what the peers published. */
const VXLAN = {
  PreStartupCommand:
    "sh -c 'ip link del ext0 2>/dev/null; ip link add ext0 type vxlan id 7 dstport 8472 nolearning && ip link set ext0 mtu 1450 && cat /sys/class/net/ext0/address'",
  PostStartupCommand: "sh -c 'ip addr add ${SUBNET%/*}/32 dev ext0 && ip link set ext0 up'",
  SubnetAddCommand:
    'sh -c \'read MAC; NET=${SUBNET%/*}; ip route add $SUBNET nexthop via $NET dev ext0 onlink && ip neigh replace $NET lladdr "$MAC" dev ext0 && bridge fdb append "$MAC" dev ext0 dst $PUBLIC_IP\'',
  SubnetRemoveCommand:
    'sh -c \'read MAC; NET=${SUBNET%/*}; ip route del $SUBNET dev ext0; ip neigh del $NET dev ext0; bridge fdb del "$MAC" dev ext0 dst $PUBLIC_IP\'',
  ShutdownCommand: 'ip link del ext0',
};

/** The device carries all subnets; which host has which says the route. */
const IPIP = {
  PreStartupCommand: "sh -c 'ip link add tunl-ext type ipip ttl 64 2>/dev/null; ip link set tunl-ext up'",
  SubnetAddCommand: 'ip route replace $SUBNET via $PUBLIC_IP dev tunl-ext onlink',
  SubnetRemoveCommand: 'ip route del $SUBNET via $PUBLIC_IP dev tunl-ext onlink',
  ShutdownCommand: 'ip link del tunl-ext',
};

describe('extension', function () {
  this.timeout(180_000);
  let rig: Rig;

  const flags = { args: ['--allow-extension-commands'] };
  const config = (backend: object): object => ({ Network: '10.5.0.0/16', Backend: backend });

  const containers = (): Promise<readonly [Container, Container]> =>
    Promise.all([rig.host(1).addContainer(), rig.host(2).addContainer()]);

  const statusOf = async ({ daemon }: Host): Promise<Awaited<ReturnType<NonNullable<typeof daemon>['status']>>> => {
    assert.ok(daemon);
    return daemon.status();
  };

  const start = async (backend: object): Promise<void> => {
    await rig.putConfig(config({ Type: 'extension', ...backend }));
    await Promise.all(rig.hosts.map((host) => host.startDaemon(flags)));
  };

  const routes = async ({ netns }: Host): Promise<string> => (await netns.run(['ip', 'route', 'show'])).stdout;
  const links = async ({ netns }: Host): Promise<string> => (await netns.run(['ip', 'link', 'show'])).stdout;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 2 });
  });

  afterEach(() => rig.close());

  it('carries packets with the commands of a host-gw, also after a restart that finds the routes, and until a peer leaves', async () => {
    await start(HOST_GW);
    const [near, far] = await containers();
    await assertTalking(near, far);
    await rig.host(1).daemon?.stop();
    await rig.host(1).daemon?.startAndWait();
    await eventually('the commands to succeed', async () => {
      const { commands } = await statusOf(rig.host(1));
      assert.deepEqual([commands?.peersDone, commands?.failingCount], [1, 0]);
    });
    await assertTalking(near, far);
    const subnet = (await statusOf(rig.host(2))).lease?.subnet ?? '';
    assert.match(await routes(rig.host(1)), new RegExp(`^${subnet} via 192\\.`, 'm'));
    await rig.host(2).daemon?.stop();
    await rig.etcd.delete(`/coreos.com/network/subnets/${subnet.replace('/', '-')}`);
    await eventually('the route to be gone', async () => {
      assert.doesNotMatch(await routes(rig.host(1)), new RegExp(subnet));
    });
  });

  it('carries packets with the commands of a vxlan, which ShutdownCommand takes away, also at a change to vxlan', async () => {
    await start(VXLAN);
    const [near, far] = await containers();
    await assertTalking(near, far);
    await rig.putConfig(config({ Type: 'vxlan', VNI: 3 }));
    await eventually(
      'the device of the commands to be gone',
      async () => {
        for (const host of rig.hosts) assert.doesNotMatch(await links(host), /ext0/);
      },
      { timeoutMs: 60_000 },
    );
    await assertTalking(near, far);
    await rig.putConfig(config({ Type: 'extension', ...VXLAN }));
    await eventually(
      'both hosts to have changed over',
      async () => {
        for (const host of rig.hosts) {
          const { backends, commands } = await statusOf(host);
          assert.deepEqual([backends, commands?.peersDone], [['extension'], 1]);
        }
      },
      { timeoutMs: 60_000 },
    );
    await assertTalking(near, far);
    await rig.host(1).daemon?.stop();
    assert.doesNotMatch(await links(rig.host(1)), /ext0/);
  });

  it('carries packets with the commands of an ipip, or says with its words that the kernel has none', async () => {
    await rig.putConfig(config({ Type: 'extension', ...IPIP }));
    for (const host of rig.hosts) host.makeDaemon(flags).start();
    const status = await waitFor(
      async () => {
        const now = await statusOf(rig.host(1));
        return now.isReady || (now.commands?.failingCount ?? 0) > 0 ? now : undefined;
      },
      { what: 'the first command' },
    );
    if (status.isReady) {
      const [near, far] = await containers();
      await assertTalking(near, far);
      return;
    }
    assert.match(
      status.notReadyBecause.join(),
      /PreStartupCommand fails: exit status 1: Cannot find device "tunl-ext"/,
    );
  });

  it('ends a command that hangs with what it has started, and shows it with a printable line', async () => {
    const file = path.join(rig.directory, 'hang.pid');
    await writeFile(file, '');
    await start({
      CommandTimeout: 1,
      SubnetAddCommand: `sh -c 'printf "stuck\\033[2J\\007\\n"; sleep 600 & echo $! >${file}; wait'`,
    });
    const host = rig.host(1);
    const failing = await waitFor(async () => (await statusOf(host)).commands?.failing[0], { what: 'a failure' });
    assert.equal(failing.failure, 'not ended within 1 s');
    assert.equal(failing.lastLine, String.raw`stuck\u001b[2J\u0007`);
    assert.equal((await statusOf(host)).isReady, true, 'other peers are not waited for');
    await host.daemon?.stop();
    const pid = (await readFile(file, 'utf8')).trim();
    // What is left of one that nobody waits for is a zombie.
    const stateOf = (): Promise<string> => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => 'gone');
    await waitFor(async () => /gone|\) Z /.test(await stateOf()), { what: 'the end of what the command started' });
  });

  it('runs nothing on a host that has not allowed it', async () => {
    await rig.putConfig(config({ Type: 'extension', ...HOST_GW }));
    const daemon = rig.host(1).makeDaemon();
    daemon.start();
    await daemon.waitForLog(/network configuration not valid.*--allow-extension-commands/);
  });
});
