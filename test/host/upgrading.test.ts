import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run } from '../support/netns.js';
import { skipBecause } from '../support/skip.js';
import { MachineSwitch, SystemdMachine } from '../support/systemd-machine.js';
import { waitFor } from '../support/wait.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const PAGE = readFileSync(path.join(ROOT, 'docs/upgrading.md'), 'utf8');

/** The n-th block of shell below a heading of the page. */
function block(heading: string, place = 0): string {
  const section = PAGE.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
  const [, found] = [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)][place] ?? [];
  assert.ok(found !== undefined, `no block ${place} below "${heading}"`);
  return found;
}

describe('the commands of the page on upgrading, under systemd', function () {
  this.timeout(240_000);
  let directory: string;
  let lan: MachineSwitch;
  let machine: SystemdMachine;

  before(async function () {
    const obstacle = SystemdMachine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannel-upgrading-'));
    await run([process.execPath, path.join(ROOT, '.ci/prebuild.mjs')], { timeoutMs: 180_000 });
    await run([process.execPath, path.join(ROOT, '.ci/package-deb.mjs'), directory], { timeoutMs: 180_000 });
    const [deb = ''] = readdirSync(directory).filter((name) => name.endsWith('.deb'));
    lan = await MachineSwitch.create();
    machine = await SystemdMachine.start({
      network: { switch: lan, address: '192.0.2.11/24', gateway: '192.0.2.1' },
    });
    // As Docker does.
    await machine.shell('mkdir /root/former /root/newer; sysctl -qw net.ipv4.ip_forward=1');
    await machine.putFile(path.join(directory, deb), '/root/newer/tsflannel_9.0.0_amd64.deb');
    // The same programs under the number of a former release.
    const stage = path.join(directory, 'former');
    const control = path.join(stage, 'DEBIAN/control');
    await run(['dpkg-deb', '--raw-extract', path.join(directory, deb), stage]);
    writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*/m, 'Version: 0.0.1'));
    await run(['dpkg-deb', '-Znone', '--build', stage, path.join(directory, 'former.deb')]);
    await machine.putFile(path.join(directory, 'former.deb'), '/root/former/tsflannel_0.1.0_amd64.deb');
  });

  after(() => {
    (machine as SystemdMachine | undefined)?.close();
    (lan as MachineSwitch | undefined)?.close();
    if ((directory as string | undefined) !== undefined) rmSync(directory, { recursive: true });
  });

  /** Packages cannot be fetched in there, and what they depend on is this machine's. */
  const follow = async (lines: string, at: 'former' | 'newer'): Promise<string> =>
    (
      await machine.shell(`set -e; cd /root/${at}\n${lines.replaceAll('dpkg -i', 'dpkg --force-depends -i')}`, {
        timeoutMs: 60_000,
      })
    ).stdout;

  const network = async (): Promise<string> =>
    (
      await machine.shell(
        'cat /run/flannel/subnet.env; cat /sys/class/net/flannel.1/ifindex /sys/class/net/flannel.1/address',
      )
    ).stdout;

  /** Does something and waits until another process of the daemon is ready. */
  const withRestart = async (action: () => Promise<unknown>): Promise<void> => {
    const before = await machine.property('tsflanneld', 'MainPID');
    await action();
    await waitFor(
      async () =>
        !['0', before].includes(await machine.property('tsflanneld', 'MainPID')) &&
        (await machine.property('tsflanneld', 'ActiveState')) === 'active',
      { what: 'the new daemon', timeoutMs: 30_000, intervalMs: 100 },
    );
  };

  it('look at the cluster before', async () => {
    await follow(block('One host'), 'former');
    assert.equal(await machine.property('tsflanneld', 'ActiveState'), 'inactive', 'an installation has started it');
    const config = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}';
    await machine.shell(
      `systemctl start etcd && ETCDCTL_API=3 etcdctl put /coreos.com/network/config '${config}' && systemctl start tsflanneld`,
      { timeoutMs: 60_000 },
    );
    await machine.shell(`set -e; export ETCDCTL_API=3; cd /root/former; ${block('Before')}`);
  });

  it('upgrade it without another subnet or device, and find the host well', async () => {
    const before = await network();
    await withRestart(async () => follow(block('One host'), 'newer'));
    assert.equal(await network(), before);
    const said = await follow(block('One host', 1), 'newer');
    assert.match(said, /, ready$/m);
    assert.match(said, /^nothing wrong found/m);
  });

  it('downgrade it, and hand the state over to where a former release looks', async () => {
    const before = await network();
    await withRestart(async () => follow(block('Downgrading'), 'former'));
    assert.equal(await network(), before);
    assert.equal((await machine.run(['dpkg-query', '--show', '--showformat=${Version}', 'tsflannel'])).stdout, '0.0.1');
    const { stdout } = await machine.shell('cat /run/flannel/tsflanneld/own-lease.json');
    const [, subnet = ''] = /FLANNEL_SUBNET=([\d.]+)\.1\//.exec(before) ?? [];
    assert.ok(stdout.includes(`${subnet}.0`), stdout);
  });
});
