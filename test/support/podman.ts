import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Output, type RunOptions, run } from './netns.js';
import { Program } from './program.js';
import type { Host } from './rig.js';

// crun neither takes a host that mixes both versions of cgroups nor needs cgroups at all; nothing is left of them then.
const CONTAINERS_CONF = `[containers]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
`;

/** Directories that podman, CNI or a recipe writes to. Each is empty at first, and gone in the end. */
const OWN_DIRECTORIES = ['/run', '/var/lib', '/etc/cni', '/usr/local/sbin'];

/**
 * podman and CNI on one host of a rig, with files of their own at the usual places and the daemon's directory as
 * `/run/flannel`. `close()` ends every container; so does every end of this process.
 */
export class PodmanHost {
  private constructor(
    readonly host: Host,
    private readonly keeper: Program,
  ) {}

  /** Why there can be none here, undefined if there can. */
  static async obstacle(): Promise<string | undefined> {
    for (const program of ['podman', 'crun', '/usr/lib/cni/bridge', 'busybox']) {
      const { code } = await run(['sh', '-c', `command -v ${program}`], { mayFail: true });
      if (code !== 0) return `no ${program} on this machine: node .ci/setup.mjs base containers`;
    }
    return undefined;
  }

  /** Prepares the files; the daemon of the host must have been made. */
  static async start(host: Host): Promise<PodmanHost> {
    const flannel = path.dirname(host.daemon?.subnetFile ?? '');
    const script = `set -e
mount --types cgroup2 cgroup2 /sys/fs/cgroup
for directory in ${OWN_DIRECTORIES.join(' ')}; do mount --types tmpfs tmpfs $directory; done
mkdir /run/flannel
mount --bind ${flannel} /run/flannel
cat >/run/containers.conf <<'EOF'
${CONTAINERS_CONF}EOF
echo ready
exec sleep infinity`;
    const keeper = new Program([
      ...['nsenter', `--net=/run/netns/${host.netns.name}`],
      ...['unshare', '--mount', '--propagation=private', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc'],
      ...['sh', '-c', script],
    ]);
    const podman = new PodmanHost(host, keeper);
    await keeper.waitForLine(/^ready$/, 10_000);
    return podman;
  }

  /** Runs lines of shell up to the first that fails. */
  async shell(lines: string, options: RunOptions = {}): Promise<Output> {
    const { pid } = this.keeper;
    const first = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    const enter = ['nsenter', `--target=${first}`, '--mount', '--pid', '--net'];
    const env = { ...options.env, CONTAINERS_CONF: '/run/containers.conf' };
    return run([...enter, 'sh', '-ec', lines], { timeoutMs: 60_000, ...options, env });
  }

  /** Ends everything at once. Idempotent. */
  async close(): Promise<void> {
    await this.keeper.kill();
  }
}
