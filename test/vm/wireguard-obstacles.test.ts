import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Operator } from '../support/operator.js';
import { type Container, Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { waitFor } from '../support/wait.js';
import { pairOf, published, reaches, wireguardLinks } from '../support/wireguard-hosts.js';

const NETWORK = { Network: '10.5.0.0/16' };
const WIREGUARD = { Type: 'wireguard' };
const MODPROBE = '/proc/sys/kernel/modprobe';

/**
 * A host that others see as the router of the rig, by ports that differ from its own and are forgotten after 2 s:
 *
 * ```
 *   inside ns 198.51.100.2 ── .1 router, masquerade --random-fully, 192.0.2.1 ── switch with the other hosts
 * ```
 */
async function addHostBehindNat(rig: Rig): Promise<Host> {
  const { router } = rig;
  const inside = await rig.addNamespace('inside');
  await router.ip([
    `link add inside type veth peer name eth0 netns ${inside.name}`,
    'link set inside up',
    'addr add 198.51.100.1/24 dev inside',
  ]);
  await inside.ip(['link set eth0 up', 'addr add 198.51.100.2/24 dev eth0', 'route add default via 198.51.100.1']);
  const masquerade = ['-o', 'eth0', '-s', '198.51.100.0/24', '-j', 'MASQUERADE', '--random-fully'];
  await router.run(['iptables', '-t', 'nat', '-A', 'POSTROUTING', ...masquerade]);
  const timeouts = ['udp_timeout', 'udp_timeout_stream'].map((name) => [`net/netfilter/nf_conntrack_${name}`, 2]);
  router.setParameters(Object.fromEntries(timeouts) as Record<string, number>);
  const host = new Host(rig, inside, 'inside', 1);
  rig.hosts.push(host);
  return host;
}

describe('hosts with the wireguard backend beyond NAT', () => {
  let rig: Rig;
  let far: Container;

  before(async () => {
    rig = await Rig.create({ hosts: 2 });
    await rig.putConfig({ ...NETWORK, Backend: WIREGUARD });
    [, far] = await pairOf(rig);
  });

  after(() => rig.close());

  it('reach a host behind NAT while it keeps the way open, and answer where it was heard, whatever its lease says', async () => {
    const host = await addHostBehindNat(rig);
    await host.startDaemon({ args: ['--iface=eth0', `--public-ip=${host.publicIp}`] });
    const hidden = await host.addContainer();
    await waitFor(() => reaches(hidden, far.address), { what: 'an answer to the host behind NAT' });
    assert.ok(await reaches(far, hidden.address), 'by the same way back');
    const isForgotten = async (): Promise<boolean> => {
      const { stdout } = await rig.router.run(['cat', '/proc/net/nf_conntrack']);
      return !/dport=51820/.test(stdout) && !(await reaches(far, hidden.address));
    };
    await waitFor(isForgotten, { what: 'the way to be forgotten', timeoutMs: 30_000 });

    await rig.putConfig({ ...NETWORK, Backend: { ...WIREGUARD, PersistentKeepaliveInterval: 1 } });
    const key = (await published(rig.host(2))).BackendData?.PublicKey ?? '';
    const hiddenKey = (await published(host)).BackendData?.PublicKey ?? '';
    const shown = async ({ netns }: Host, of: string, what: string): Promise<string> => {
      const { stdout } = await netns.run(['wg', 'show', 'flannel-wg', what]);
      return (stdout.split('\n').find((line) => line.startsWith(of)) ?? '').slice(of.length + 1);
    };
    const sent = async (): Promise<number> => Number((await shown(host, key, 'transfer')).split('\t')[1]);
    await waitFor(async () => (await shown(host, key, 'persistent-keepalive')) === '1', { what: 'the interval' });
    // Eight keep-alives of 32 bytes, in four times what NAT remembers for.
    const before = await sent();
    await waitFor(async () => (await sent()) > before + 8 * 32, { what: 'keep-alives', timeoutMs: 30_000 });
    assert.ok(await reaches(far, hidden.address), 'without a word of the container behind NAT');

    const heardAt = await shown(rig.host(2), hiddenKey, 'endpoints');
    assert.match(heardAt, /^192\.0\.2\.1:\d+$/);
    assert.notEqual(heardAt, '192.0.2.1:51820');
    await rig.host(2).netns.run(['wg', 'set', 'flannel-wg', 'peer', hiddenKey, 'persistent-keepalive', '99']);
    await rig.host(2).netns.ip(['link set flannel-wg mtu 1300']); // has all be compared at once
    await waitFor(async () => (await shown(rig.host(2), hiddenKey, 'persistent-keepalive')) === '1', {
      what: 'the interval of the configuration',
      timeoutMs: 40_000,
    });
    assert.equal(await shown(rig.host(2), hiddenKey, 'endpoints'), heardAt);
    assert.ok(await reaches(far, hidden.address));
  });
});

describe('a host whose kernel has no WireGuard', () => {
  let rig: Rig;
  let operator: Operator;
  let loader: string;

  before(async function () {
    // Elsewhere it would take the modules of the machine away.
    if (os.hostname() !== 'guest') skipBecause(this, 'only npm run test:vm runs in a machine of its own');
    rig = await Rig.create({ hosts: 1 });
    loader = readFileSync(MODPROBE, 'utf8').trim();
    const others = path.join(rig.directory, 'modprobe');
    const script = `#!/bin/sh\ncase "$*" in *wireguard*) exit 1; esac\nexec ${loader} "$@"\n`;
    writeFileSync(others, script, { mode: 0o755 });
    writeFileSync(MODPROBE, others);
    operator = new Operator(rig.host(1));
  });

  after(async () => {
    if ((loader as string | undefined) !== undefined) writeFileSync(MODPROBE, loader);
    await (rig as Rig | undefined)?.close();
  });

  beforeEach(() => unload());

  function unload(): void {
    const { status, stderr } = spawnSync('modprobe', ['--remove', 'wireguard'], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  }

  /** What the doctor says, done; the daemon finds it out by itself. */
  async function cure(host: Host): Promise<void> {
    const finding = await operator.onlyFinding();
    assert.equal(finding.check, 'wireguard-module', JSON.stringify(finding));
    await operator.type(finding.command);
    await waitFor(async () => isDeepStrictEqual(await wireguardLinks(host), ['flannel-wg 1420']), {
      what: 'the device',
      timeoutMs: 60_000,
    });
    await waitFor(async () => (await host.daemon?.status())?.isReady, { what: 'readiness', timeoutMs: 60_000 });
  }

  it('says at the start what to load, waits for it, and goes on by itself', async () => {
    await rig.putConfig({ ...NETWORK, Backend: WIREGUARD });
    const host = rig.host(1);
    const daemon = host.makeDaemon();
    daemon.start();
    await daemon.waitForLog(/modprobe wireguard/);
    assert.equal((await daemon.status()).isReady, false);
    await cure(host);
    await daemon.kill();
    await host.netns.ip(['link del flannel-wg']);
  });

  it('keeps the backend that it has when another one is configured, says why, and changes once it can', async () => {
    await rig.putConfig({ ...NETWORK, Backend: { Type: 'host-gw' } });
    const host = rig.host(1);
    const daemon = await host.startDaemon();
    await rig.putConfig({ ...NETWORK, Backend: WIREGUARD });
    await daemon.waitForLog(/modprobe wireguard/);
    assert.equal((await published(host)).BackendType, 'host-gw');
    await cure(host);
    await waitFor(async () => (await published(host)).BackendType === 'wireguard', { what: 'the lease' });
  });
});
