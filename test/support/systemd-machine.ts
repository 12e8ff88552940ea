import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onExit } from './cleanup.js';
import { type Output, type RunOptions, run } from './netns.js';
import { waitFor } from './wait.js';

/** Where a cgroup v2 hierarchy is mounted: on its own, or beside version 1. */
const CGROUP_ROOTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];

/** What systemd would otherwise start from this machine's own disk, or do to parts of the kernel that are shared. */
const MASKED = [
  ...['systemd-sysctl', 'systemd-binfmt', 'systemd-modules-load', 'systemd-udevd', 'systemd-udev-trigger'],
  ...['systemd-networkd', 'systemd-resolved', 'systemd-timesyncd', 'systemd-logind', 'systemd-random-seed'],
].map((name) => `${name}.service`);

/**
 * A host of its own that runs the real systemd: process, mount, network and cgroup namespaces over a copy-on-write view
 * of this machine's files.
 *
 * ```
 * this machine ── unshare ──▶ holder: a tmpfs as the disk
 *                                └── unshare, at each boot ──▶ /  = overlay(lower: /, upper: the disk)
 *                                      /run, /tmp, /dev = tmpfs, /sys/fs/cgroup = cgroup2 of its own, network: lo,
 *                                      boot id of its own, PID 1 = /lib/systemd/systemd
 * ```
 *
 * Nothing inside reaches this machine's files, devices or processes. Everything ends with {@link close}, or with this
 * process.
 */
export class SystemdMachine {
  private constructor(
    private readonly directory: string,
    private readonly cgroup: string,
    private readonly holder: ChildProcess,
    private pid: number,
    private readonly withdraw: () => void,
  ) {}

  /** Why there can be none here, undefined if there can. */
  static obstacle(): string | undefined {
    if (process.getuid?.() !== 0) return 'only root can make namespaces';
    if (!existsSync('/lib/systemd/systemd')) return 'no systemd on this machine (Debian package systemd)';
    if (!readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n'))
      return 'no overlay file system in this kernel';
    return cgroupRoot() === undefined ? 'no cgroup v2 on this machine' : undefined;
  }

  /**
   * Starts one and waits until systemd takes orders.
   *
   * @param options.prepare - shell commands that run in the new root before systemd starts, at each boot, such as laying
   * cables.
   */
  static async start(options: { readonly prepare?: string } = {}): Promise<SystemdMachine> {
    const directory = mkdtempSync(path.join(tmpdir(), `tsflannel-systemd-${process.pid}-`));
    const cgroup = path.join(cgroupRoot() ?? '', path.basename(directory));
    mkdirSync(cgroup);
    mkdirSync(path.join(directory, 'disk'));
    const scripts = { boot: path.join(directory, 'boot.sh'), hold: path.join(directory, 'hold.sh') };
    writeFileSync(scripts.boot, bootScript(directory, options.prepare ?? ''));
    writeFileSync(scripts.hold, holdScript(directory, scripts.boot));
    const enter = `echo $$ >${cgroup}/cgroup.procs; exec unshare --mount bash ${scripts.hold}`;
    const holder = spawn('bash', ['-ec', enter], { stdio: ['pipe', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [holder.stdout, holder.stderr])
      stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const clear = (): void => clearAway(holder, cgroup, directory);
    const withdraw = onExit(clear);
    try {
      const machine = new SystemdMachine(directory, cgroup, holder, 0, withdraw);
      await machine.boot(() => said);
      return machine;
    } catch (error) {
      withdraw();
      clear();
      throw error;
    }
  }

  /**
   * Cuts the power and starts the machine anew: files outside of /run, /tmp and /dev are all that stays. Cables have to
   * be laid again.
   */
  async reboot(): Promise<void> {
    process.kill(this.pid, 'SIGKILL');
    await this.boot(() => '');
  }

  private async boot(said: () => string): Promise<void> {
    const { holder } = this;
    await waitFor(() => childOf(holder.pid) === undefined, { what: 'the end of systemd' });
    holder.stdin?.write('boot\n');
    this.pid = await waitFor(() => childOf(childOf(holder.pid)), { what: 'the first process of the machine' });
    const first = childOf(holder.pid);
    await waitFor(
      async () => {
        if (childOf(holder.pid) !== first) throw new Error(`systemd did not start: ${said()}`);
        const { stdout } = await this.run(['systemctl', 'is-system-running'], { mayFail: true });
        return ['running', 'degraded'].includes(stdout.trim()) ? true : undefined;
      },
      { what: 'systemd', timeoutMs: 30_000 },
    );
  }

  /** Lays a cable: `eth0` in both machines, up and with these IPv4 addresses. */
  static async connect(ends: readonly (readonly [SystemdMachine, string])[]): Promise<void> {
    const [[near], [far]] = ends as [readonly [SystemdMachine, string], readonly [SystemdMachine, string]];
    const enter = ['nsenter', `--target=${near.pid}`, '--net'];
    const pair = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', String(far.pid)];
    await run([...enter, 'ip', 'link', 'add', 'eth0', ...pair]);
    for (const [machine, address] of ends) {
      await machine.shell(
        `ip link set eth0 up && ip address add ${address} dev eth0 && sysctl -qw net.ipv4.ip_forward=1`,
      );
    }
  }

  /** Runs a command in there to its end. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Output> {
    return run(this.command(argv), options);
  }

  /** Runs a line of shell in there. */
  async shell(line: string, options: RunOptions = {}): Promise<Output> {
    return this.run(['sh', '-c', line], options);
  }

  /** The command line that runs a command in there. */
  command(argv: readonly string[]): string[] {
    const root = `/proc/${this.pid}/root`;
    const enter = ['nsenter', `--target=${this.pid}`, '--mount', '--pid', '--net', '--uts', '--ipc', '--cgroup'];
    return [
      ...enter,
      `--root=${root}`,
      'env',
      '-i',
      '--chdir=/',
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'LC_ALL=C',
      ...argv,
    ];
  }

  /** Puts a file of this machine into that one. */
  async putFile(from: string, to: string): Promise<void> {
    // By way of standard input, as there is no directory that both see.
    await this.shell(`base64 -d >${to}`, { input: readFileSync(from).toString('base64') });
  }

  /** A property of a unit. */
  async property(unit: string, name: string): Promise<string> {
    const { stdout } = await this.run(['systemctl', 'show', '--value', `--property=${name}`, unit]);
    return stdout.trim();
  }

  /** What a unit wrote to the journal. */
  async journal(unit: string): Promise<string> {
    return (await this.run(['journalctl', '--no-pager', '--output=cat', `--unit=${unit}`])).stdout;
  }

  /** Ends every process in there and removes all traces. */
  close(): void {
    this.withdraw();
    clearAway(this.holder, this.cgroup, this.directory);
  }
}

function cgroupRoot(): string | undefined {
  return CGROUP_ROOTS.find((root) => existsSync(path.join(root, 'cgroup.controllers')));
}

/** Keeps what the machine has written while it is off; each line of input is a boot. */
function holdScript(directory: string, boot: string): string {
  return `mount -t tmpfs tmpfs ${directory}/disk
mkdir ${directory}/disk/upper ${directory}/disk/work ${directory}/disk/root
while read -r _; do
  setpriv --pdeathsig SIGKILL unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup bash ${boot} </dev/null
done
`;
}

function bootScript(directory: string, prepare: string): string {
  return `set -e
cd ${directory}/disk
root=${directory}/disk/root
mount -t overlay overlay -o lowerdir=/,upperdir=${directory}/disk/upper,workdir=${directory}/disk/work $root
for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $root/$place; done
chmod 1777 $root/tmp
for node in null zero full random urandom tty net/tun; do
  [ -e /dev/$node ] || continue
  mkdir -p $(dirname $root/dev/$node)
  : >$root/dev/$node
  mount --bind /dev/$node $root/dev/$node
done
mkdir $root/dev/shm $root/dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
: >$root/dev/console
mount -t proc proc $root/proc
# As a kernel of its own would have it.
cat /proc/sys/kernel/random/uuid >$root/run/boot_id
mount --bind $root/run/boot_id $root/proc/sys/kernel/random/boot_id
mount -t sysfs sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
ip link set lo up
cd $root
pivot_root . mnt
umount -l /mnt
cd /
hostname machine
# A unit of this machine must not start in the new one: systemd's own are enough.
if [ ! -e /etc/systemd/journald.conf.d/test.conf ]; then
  rm -rf /etc/systemd/system
  mkdir -p /etc/systemd/system /etc/systemd/journald.conf.d
  for unit in ${MASKED.join(' ')}; do ln -s /dev/null /etc/systemd/system/$unit; done
fi
printf '[Journal]\\nStorage=volatile\\nForwardToSyslog=no\\nReadKMsg=no\\n' >/etc/systemd/journald.conf.d/test.conf
${prepare}
exec env -i container=tsflannel-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0 --default-standard-output=journal
`;
}

function childOf(pid: number | undefined): number | undefined {
  if (pid === undefined || !existsSync(`/proc/${pid}/task/${pid}/children`)) return undefined;
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? undefined : Number(text.split(' ')[0]);
}

function clearAway(holder: ChildProcess, cgroup: string, directory: string): void {
  // Ends everything below at once (5.14); its first process takes the namespaces along.
  if (existsSync(path.join(cgroup, 'cgroup.kill'))) writeFileSync(path.join(cgroup, 'cgroup.kill'), '1');
  holder.kill('SIGKILL');
  const deadline = Date.now() + 5000;
  while (existsSync(cgroup)) {
    try {
      removeCgroup(cgroup);
    } catch (error) {
      // Until the kernel has buried the processes.
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY' || Date.now() > deadline) throw error;
      spawnSync('sleep', ['0.05']);
    }
  }
  rmSync(directory, { recursive: true, force: true });
}

function removeCgroup(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(path.join(directory, entry.name));
  }
  rmdirSync(directory);
}
