import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { shellQuoted } from '../../src/extension/command-text.js';
import { type Container, type Host, Rig } from '../support/rig.js';
import { assertTalking, ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

/**
 * flannel's sample of this backend with WireGuard, as it is published.
 *
 * @see flannel `dist/extension-wireguard`
 */
const SAMPLE = {
  PreStartupCommand: 'wg genkey | tee privatekey | wg pubkey',
  PostStartupCommand:
    "export SUBNET_IP=`echo $SUBNET | cut -d'/' -f 1`; ip link del flannel-wg 2>/dev/null; ip link add flannel-wg type wireguard && wg set flannel-wg listen-port 51820 private-key privatekey && ip addr add $SUBNET_IP/32 dev flannel-wg && ip link set flannel-wg up && ip route add $NETWORK dev flannel-wg",
  ShutdownCommand: 'ip link del flannel-wg',
  SubnetAddCommand: 'read PUBLICKEY; wg set flannel-wg peer $PUBLICKEY endpoint $PUBLIC_IP:51820 allowed-ips $SUBNET',
  SubnetRemoveCommand: 'read PUBLICKEY; wg set flannel-wg peer $PUBLICKEY remove',
};

describe('flannel’s sample of the extension backend with WireGuard', () => {
  let rig: Rig;
  let near: Container;
  let far: Container;

  const directoryOf = (host: Host): string => path.join(rig.directory, host.name);

  const configured = (commands: Readonly<Record<string, string>>): Promise<void> =>
    rig.putConfig({ Network: '10.50.0.0/16', Backend: { Type: 'extension', ...commands } });

  const showPeers = async ({ netns }: Host): Promise<string> =>
    (await netns.run(['wg', 'show', 'flannel-wg', 'allowed-ips'])).stdout.trim();

  const subnetOf = ({ daemon }: Host): string =>
    (daemon?.subnetEnv().FLANNEL_SUBNET ?? '').replace(/\.1\/24$/, '.0/24');

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    await configured(SAMPLE);
    for (const host of rig.hosts) {
      // It puts the key into the working directory.
      mkdirSync(directoryOf(host), { recursive: true });
      host.makeDaemon({ args: ['--allow-extension-commands'], cwd: directoryOf(host) }).start();
    }
  });

  after(() => rig.close());

  it('carries packets once each command that needs a shell is written as the daemon says', async () => {
    const commands: Record<string, string> = { ...SAMPLE };
    for (const key of ['PreStartupCommand', 'PostStartupCommand', 'SubnetAddCommand', 'SubnetRemoveCommand'] as const) {
      for (const { daemon } of rig.hosts) {
        await daemon?.waitForLog(new RegExp(`not valid.*Backend\\.${key} is not a command.*write .*sh -c '`));
      }
      commands[key] = `sh -c ${shellQuoted(SAMPLE[key])}`;
      await configured(commands);
    }
    await eventually('both hosts to be ready', async () => {
      for (const { daemon } of rig.hosts) {
        const { isReady, commands: state } = (await daemon?.status()) ?? {};
        assert.deepEqual([isReady, state?.peersDone, state?.failingCount], [true, 1, 0]);
      }
    });
    // subnet.env tells the MTU of the interface, as with flannel.
    [near, far] = await Promise.all(
      [rig.host(1), rig.host(2)].map((host) =>
        host.addContainer({ ...host.daemon?.subnetEnv(), FLANNEL_MTU: '1420' }),
      ) as [Promise<Container>, Promise<Container>],
    );
    await assertTalking(near, far);
    assert.match(await showPeers(rig.host(1)), new RegExp(`^\\S+\t${subnetOf(rig.host(2))}$`));
    assert.equal(statSync(path.join(directoryOf(rig.host(1)), 'privatekey')).size, 45);
  });

  it('removes its device at the end of the daemon, and has other hosts use the new key after a start', async () => {
    const { daemon, netns } = rig.host(1);
    const before = await showPeers(rig.host(2));
    await daemon?.stop();
    const links = await netns.ipJson(['link', 'show']);
    assert.deepEqual(
      links.filter(({ ifname }) => ifname === 'flannel-wg'),
      [],
    );
    assert.equal((await ping(near.netns, far.address, { count: 1, waitSeconds: 1 })).received, 0);
    await daemon?.startAndWait();
    await assertTalking(near, far);
    const after = await showPeers(rig.host(2));
    assert.match(after, new RegExp(`^\\S+\t${subnetOf(rig.host(1))}$`), 'one peer, by its new key');
    assert.notEqual(after, before);
  });

  it('removes a peer whose lease is gone', async () => {
    const subnet = subnetOf(rig.host(1));
    await rig.host(1).daemon?.stop();
    await rig.etcd.delete(`${rig.etcdPrefix}/subnets/${subnet.replace('/', '-')}`);
    await eventually('the peer to be gone', async () => assert.equal(await showPeers(rig.host(2)), ''));
  });
});
