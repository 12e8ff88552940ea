import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { debianPackage } from '../support/debian-package.js';
import { makeDebianRoot } from '../support/debian-root.js';
import { DockerEngine } from '../support/docker.js';
import { run } from '../support/netns.js';
import { type Host, Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const IMAGE = 'tsflannel';

describe('the container image', function () {
  this.timeout(300_000);
  let rig: Rig;
  let host: Host;
  let engine: DockerEngine | undefined;

  before(async function () {
    const obstacle = await DockerEngine.obstacle();
    if (obstacle !== undefined) skipBecause(this, obstacle);
    rig = await Rig.create({ hosts: 2 });
    host = rig.host(1);
    const context = path.join(rig.directory, 'context');
    mkdirSync(context);
    const files = ['Dockerfile', '.dockerignore'].map((name) => path.join(ROOT, name));
    for (const file of [await debianPackage(), ...files]) copyFileSync(file, path.join(context, path.basename(file)));
    engine = new DockerEngine(host);
    await engine.start({ dropIn: 'subnet-env', options: '--bridge=none', environmentFile: '/dev/null' });
    // No registry is asked: the base is made of this machine's packages.
    const base = path.join(rig.directory, 'base');
    await makeDebianRoot(base, ['dpkg', 'libc-bin', 'diffutils', 'dash', 'coreutils', 'sed', 'nftables']);
    await run(['tar', '--create', `--file=${base}.tar`, `--directory=${base}`, '.']);
    await engine.docker(['import', `${base}.tar`, 'base'], { timeoutMs: 120_000 });
    const build = ['build', '--network=none', '--build-arg=BASE=base', `--cgroup-parent=/${host.netns.name}`];
    await engine.docker([...build, `--tag=${IMAGE}`, context], { timeoutMs: 240_000 });
  });

  after(async () => {
    await engine?.close();
    await (rig as Rig | undefined)?.close();
  });

  it('holds the package and no other Node', async () => {
    const look = ['run', '--rm', '--network=none', '--entrypoint=sh', IMAGE, '-c'];
    const { stdout } = await engine!.docker([...look, 'command -v node; ls /var/tmp; dpkg --list tsflannel'], {
      timeoutMs: 60_000,
    });
    assert.match(stdout, /^ii {2}tsflannel /m);
    assert.doesNotMatch(stdout, /node$|\.deb$/m);
  });

  for (const type of ['udp', 'vxlan'] as const)
    it(`carries packets over ${type} with the rights that its page gives it`, async () => {
      await rig.putConfig({ Network: '10.5.0.0/16', EnableNFTables: true, Backend: { Type: type } });
      const shared = path.join(rig.directory, `run-${type}`);
      const state = path.join(rig.directory, `state-${type}`);
      for (const directory of [shared, state]) mkdirSync(directory);
      const rights = [
        ...['--cap-add=NET_ADMIN', '--cap-add=SYS_NICE', '--security-opt=systempaths=unconfined'],
        '--device=/dev/net/tun',
      ];
      const volumes = [`--volume=${shared}:/run/flannel`, `--volume=${state}:/var/lib/tsflannel`];
      const options = ['--detach', '--name', type, '--network=host', ...rights, ...volumes];
      await engine!.docker(['run', ...options, IMAGE, `--etcd-endpoints=${rig.etcd.endpoint}`], { timeoutMs: 60_000 });
      try {
        await eventually(
          'subnet.env',
          () => {
            assert.ok(readdirSync(shared).includes('subnet.env'));
          },
          { timeoutMs: 60_000 },
        );
        const other = rig.host(2).daemon ?? (await rig.host(2).startDaemon());
        const address = (other.subnetEnv().FLANNEL_SUBNET ?? '').replace(/\/\d+$/, '').replace(/\.1$/, '.0');
        await eventually('the first packet between the hosts', async () => {
          assert.equal((await ping(host.netns, address, { count: 1 })).received, 1);
        });
        const { stdout } = await engine!.docker(['exec', type, 'tsflannelctl', 'status'], { mayFail: true });
        assert.match(stdout, /ready/);
        assert.ok(readdirSync(state).includes('own-lease.json'), readdirSync(state).join());
        const { stdout: out, stderr } = await engine!.docker(['logs', type]);
        // This engine may not know the capability that the kernel path takes.
        const lines = `${out}${stderr}`.split('\n').filter((line) => !/no kernel path/.test(line));
        assert.doesNotMatch(lines.join('\n'), /EPERM|EROFS|EACCES|portable/);
      } finally {
        await engine!.docker(['rm', '--force', type]);
      }
    });
});
