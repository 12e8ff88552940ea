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
import { Netns, type Output, type RunOptions, deleteNamespaces, run, sweepLeftovers } from './netns.js';
import { waitFor } from './wait.js';

/** Where a cgroup v2 hierarchy is mounted: on its own, or beside version 1. */
const CGROUP_ROOTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];

/** What systemd would otherwise start from this machine's own disk, or do to parts of the kernel that are shared. */
const MASKED = [
  ...['systemd-sysctl', 'systemd-binfmt', 'systemd-modules-load', 'systemd-udevd', 'systemd-udev-trigger'],
  ...['systemd-networkd', 'systemd-resolved', 'systemd-timesyncd', 'systemd-logind', 'systemd-random-seed'],
].map((name) => `${name}.service`);

/** What a machine is made with. */
export interface MachineOptions {
  /** Shell commands that run in the new root before systemd starts for the first time, such as installing files. */
  readonly prepare?: string;
  /** Empty directories of a file system that can be the upper layer of an overlay, as Docker wants them. */
  readonly disks?: readonly string[];
  /** Where `eth0` leads from the beginning. */
  readonly network?: {
    readonly switch: MachineSwitch;
    /** With its prefix length. */
    readonly address: string;
    /** Need not exist: by the default route the daemon finds its interface. */
    readonly gateway: string;
  };
}

/** An Ethernet switch for machines, in a namespace of its own, so that a machine that boots takes nobody's link down. */
export class MachineSwitch {
  private static count = 0;
  private ports = 0;

  private constructor(readonly name: string) {}

  static async create(): Promise<MachineSwitch> {
    sweepLeftovers();
    const made = new MachineSwitch(`tsf${process.pid}-switch${++MachineSwitch.count}`);
    onExit(() => made.close());
    const [netns] = await Netns.create([made.name]);
    await netns?.ip(['link add br0 type bridge', 'link set br0 up']);
    return made;
  }

  /**
   * Commands that lay a cable from the namespace they run in, as its eth0.
   *
   * @param mac - as a network card, it keeps its address over a reboot, and neighbours believe in the one they know.
   */
  cable(mac: string): string {
    // The old one of a machine that boots again may still be there for a moment.
    const port = `port${++this.ports}`;
    return `ip link add eth0 address ${mac} type veth peer name ${port} netns ${this.name}
ip -n ${this.name} link set ${port} master br0 up
ip link set eth0 up`;
  }

  /** Idempotent. */
  close(): void {
    deleteNamespaces([this.name]);
  }
}

/**
 * A host of its own that runs the real systemd: process, mount, network and cgroup namespaces over a copy-on-write view
 * of this machine's files.
 *
 * ```
 * this machine ── keeper ── unshare ──▶ /  = overlay(lower: /, upper: tmpfs)     PID 1 = /lib/systemd/systemd
 *                 has the               /run, /tmp, /dev = tmpfs, /sys/fs/cgroup = cgroup2 of its own
 *                 tmpfs mounted         network: lo, and eth0 to a switch
 * ```
 *
 * The keeper has the files: over a {@link reboot} they stay, and processes, /run, /tmp and everything in the network
 * namespace go. Nothing inside reaches this machine's files, devices or processes. Everything ends with {@link close},
 * or with this process.
 */
export class SystemdMachine {
  private unshare: ChildProcess | undefined;
  private pid = 0;

  private constructor(
    private readonly directory: string,
    private readonly cgroup: string,
    private readonly keeper: ChildProcess,
    private readonly options: MachineOptions,
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

  /** Starts one and waits until systemd has started everything that is enabled. */
  static async start(options: MachineOptions = {}): Promise<SystemdMachine> {
    const directory = mkdtempSync(path.join(tmpdir(), `tsflannel-systemd-${process.pid}-`));
    const cgroup = path.join(cgroupRoot() ?? '', path.basename(directory));
    // It ends with its standard input, so with this process whatever happens.
    const layers = `mount -t tmpfs tmpfs ${directory} && mkdir ${directory}/upper ${directory}/work ${directory}/root`;
    const keeper = spawn('unshare', ['--mount', 'sh', '-ec', `${layers}; echo ready; exec cat`]);
    const clear = (): void => clearAway(cgroup, directory, keeper);
    const machine = new SystemdMachine(directory, cgroup, keeper, options, onExit(clear));
    try {
      await waitFor(() => keeper.stdout.read() !== null, { what: 'the files of the machine' });
      await machine.boot(true);
      return machine;
    } catch (error) {
      machine.close();
      throw error;
    }
  }

  /** Shuts down as `systemctl reboot` does, and starts again with what is on disk. */
  async reboot(): Promise<void> {
    const old = this.unshare;
    await this.run(['systemctl', 'reboot'], { mayFail: true });
    await waitFor(() => old?.exitCode !== null || old.signalCode !== null, {
      what: 'the shutdown',
      timeoutMs: 100_000,
      intervalMs: 100,
    });
    endProcesses(this.cgroup);
    await this.boot(false);
  }

  /** As when the power fails and is back: nobody was asked before. */
  async cutPower(): Promise<void> {
    const old = this.unshare;
    endProcesses(this.cgroup);
    await waitFor(() => old?.exitCode !== null || old.signalCode !== null, { what: 'the end of all processes' });
    await this.boot(false);
  }

  private async boot(isFirst: boolean): Promise<void> {
    mkdirSync(this.cgroup);
    const shell = 'unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup bash -c "$BOOT"';
    const enter = `echo $$ >${this.cgroup}/cgroup.procs; exec nsenter --target=${this.keeper.pid} --mount ${shell}`;
    const env = { ...process.env, BOOT: bootScript(this.directory, this.options, isFirst) };
    const unshare = spawn('bash', ['-ec', enter], { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.unshare = unshare;
    let said = '';
    for (const stream of [unshare.stdout, unshare.stderr])
      stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const assertStarted = (): void => {
      if (unshare.exitCode !== null) throw new Error(`systemd did not start: ${said}`);
    };
    this.pid = await waitFor(
      () => {
        assertStarted();
        return childOf(unshare.pid);
      },
      { what: 'the first process of the machine' },
    );
    await waitFor(
      async () => {
        assertStarted();
        const { stdout } = await this.run(['systemctl', 'is-system-running'], { mayFail: true });
        return ['running', 'degraded'].includes(stdout.trim()) ? true : undefined;
      },
      { what: 'systemd', timeoutMs: 120_000, intervalMs: 100 },
    );
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
    clearAway(this.cgroup, this.directory, this.keeper);
  }
}

function cgroupRoot(): string | undefined {
  return CGROUP_ROOTS.find((root) => existsSync(path.join(root, 'cgroup.controllers')));
}

function bootScript(
  directory: string,
  { prepare = '', disks = [], network }: MachineOptions,
  isFirst: boolean,
): string {
  const cable =
    network === undefined
      ? ''
      : `${network.switch.cable(macOf(network.address))}
ip address add ${network.address} dev eth0
ip route add default via ${network.gateway}`;
  return `set -e
root=${directory}/root
mount -t overlay overlay -o lowerdir=/,upperdir=${directory}/upper,workdir=${directory}/work $root
for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $root/$place; done
chmod 1777 $root/tmp
for disk in ${disks.join(' ')}; do
  mkdir -p ${directory}/disks$disk $root$disk
  mount --bind ${directory}/disks$disk $root$disk
done
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
${cable}
cd $root
pivot_root . mnt
umount -l /mnt
cd /
hostname machine
${isFirst ? firstBoot(prepare) : ''}
exec env -i container=tsflannel-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0 --default-standard-output=journal
`;
}

function macOf(address: string): string {
  const bytes = address.replace(/\/.*/, '').split('.');
  return ['02', '00', ...bytes.map((byte) => Number(byte).toString(16).padStart(2, '0'))].join(':');
}

function firstBoot(prepare: string): string {
  return `# systemd would make the same one for all, of the hardware.
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
# A unit of this machine must not start in the new one: systemd's own are enough.
rm -rf /etc/systemd/system
mkdir -p /etc/systemd/system /etc/systemd/journald.conf.d
for unit in ${MASKED.join(' ')}; do ln -s /dev/null /etc/systemd/system/$unit; done
printf '[Journal]\\nStorage=volatile\\nForwardToSyslog=no\\nReadKMsg=no\\n' >/etc/systemd/journald.conf.d/test.conf
${prepare}`;
}

function childOf(pid: number | undefined): number | undefined {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? undefined : Number(text.split(' ')[0]);
}

function clearAway(cgroup: string, directory: string, keeper: ChildProcess): void {
  endProcesses(cgroup);
  keeper.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
}

/** Ends everything in a cgroup, with which the namespaces go, and removes it. */
function endProcesses(cgroup: string): void {
  if (existsSync(path.join(cgroup, 'cgroup.kill'))) writeFileSync(path.join(cgroup, 'cgroup.kill'), '1'); // 5.14
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
}

function removeCgroup(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(path.join(directory, entry.name));
  }
  rmdirSync(directory);
}
