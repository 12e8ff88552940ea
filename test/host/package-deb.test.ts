import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { debianPackage } from '../support/debian-package.js';
import { makeDebianRoot } from '../support/debian-root.js';
import { run } from '../support/netns.js';
import { Rig } from '../support/rig.js';
import { skipBecause } from '../support/skip.js';
import { ping } from '../support/traffic.js';
import { eventually } from '../support/wait.js';

describe('the Debian package on a host without Node', function () {
  this.timeout(300_000);
  let rig: Rig;
  let root: string;
  let deb: string;
  let packages: readonly string[];
  /** Holds the files of the daemon, inside the root and outside. */
  let shared: string;
  /** What a running system has in its root; for a mount namespace of its own. */
  let mounts: readonly string[];

  before(async function () {
    if ((await run(['sh', '-c', 'command -v dpkg-query'], { mayFail: true })).code !== 0)
      skipBecause(this, 'no dpkg on this machine, of whose packages a root could be made');
    rig = await Rig.create({ hosts: 2 });
    deb = await debianPackage();
    root = path.join(rig.directory, 'root');
    packages = await makeDebianRoot(root, ['dpkg', 'dash', 'coreutils', 'sed', 'nftables']);
    shared = path.join(rig.directory, rig.host(1).name);
    for (const directory of [shared, path.join(root, shared)]) mkdirSync(directory, { recursive: true });
    mounts = [
      `mount -t proc proc ${root}/proc`,
      `mount --rbind /dev ${root}/dev`,
      `mount --rbind /sys ${root}/sys`,
      `mount --bind ${shared} ${root}${shared}`,
    ];
  });

  after(async () => {
    await (rig as Rig | undefined)?.close();
  });

  it('is installed where there is only glibc and nft', async () => {
    for (const name of ['nodejs', 'libstdc++6', 'libatomic1', 'iptables']) assert.ok(!packages.includes(name), name);
    const { stdout } = await run(['dpkg', `--root=${root}`, '--install', deb], { timeoutMs: 60_000 });
    assert.match(stdout, /Setting up tsflannel/);
    assert.ok(existsSync(path.join(root, 'usr/lib/tsflannel/node/LICENSE')), 'the license of Node is missing');
    const kernelPath = 'usr/lib/tsflannel/native/prebuilds/kernel_path.bpf.o';
    assert.ok(existsSync(path.join(root, kernelPath)), 'the programs of the kernel path are missing');
  });

  it('has programs that run', async () => {
    const script = [...mounts, `exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot ${root} sh -c "$0"`].join('\n');
    const inside = async (line: string): Promise<string> => {
      const { stdout, stderr } = await run(['unshare', '--mount', 'sh', '-ec', script, line]);
      return stdout + stderr;
    };
    assert.match(await inside('command -v node; tsflanneld --version'), /^v\d+\.\d+\.\d+\n$/);
    assert.match(await inside('tsflannelctl --help'), /tsflannelctl COMMAND/);
    for (const program of ['run-daemon', 'tsflannelctl']) {
      const check = `const vm = require("node:vm");
        vm.Script = class extends vm.Script {
          constructor(...of) { super(...of); console.log("rejected", this.cachedDataRejected); }
        };
        process.argv.push("--version");
        require("/usr/lib/tsflannel/dist/bin/load-program.js").load("${program}");`;
      const node = '/usr/lib/tsflannel/node/node --max-semi-space-size=2';
      assert.match(await inside(`${node} --eval '${check}'`), /^rejected false$/m, `byte code of ${program}`);
    }
    writeFileSync(
      path.join(root, 'tmp/subnet.env'),
      'FLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    );
    await inside('mk-docker-opts -c -f /tmp/subnet.env -d /tmp/docker_opts.env');
    assert.match(await inside('cat /tmp/docker_opts.env'), /--bip=10\.5\.1\.1\/24 .*--mtu=1450/);
  });

  it('carries packets, with the native packet path', async () => {
    await rig.putConfig({ Network: '10.5.0.0/16', EnableNFTables: true, Backend: { Type: 'udp' } });
    const [packaged, other] = [rig.host(1), rig.host(2)];
    const start = path.join(rig.directory, 'start');
    const script = ['#!/bin/sh -e', ...mounts, `exec chroot ${root} tsflanneld "$@"`, ''].join('\n');
    writeFileSync(start, script, { mode: 0o755 });
    const files = [`--state-dir=${shared}/state`, `--status-socket=${shared}/status.sock`];
    const daemon = await packaged.startDaemon({ stock: start, args: [...files, '--datapath=native'] });
    await other.startDaemon();
    await daemon.waitUntilReady();
    const near = await packaged.addContainer();
    const far = await other.addContainer();
    await eventually('the first packet between the hosts', async () => {
      assert.equal((await ping(near.netns, far.address, { count: 1 })).received, 1);
    });
    assert.doesNotMatch(daemon.log, /portable|cannot/);
  });
});
