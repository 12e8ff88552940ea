import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { SYS, capset, errnoName, execve, fcntl, prctl } from './libc.js';

/**
 * What the daemon uses of root's powers, by number (include/uapi/linux/capability.h); the unit grants the same, except
 * for ports below 1024. What each is for is told in docs/security.md.
 */
const KEPT = {
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_NICE: 23,
  CAP_BPF: 39,
} as const;

/** {@link KEPT} as a set of bits. */
export const KEPT_CAPABILITIES: bigint = Object.values(KEPT).reduce((set, bit) => set | (1n << BigInt(bit)), 0n);

const CAP_SYS_MODULE = 1n << 16n;

/** What iptables-legacy and the tunnel need and the kernel does not load by itself; the unit has them loaded as well. */
const MODULES = ['tun', 'ip_tables', 'ip6_tables'];
const MODPROBE_TIMEOUT_MS = 10_000;

/** First descriptor that a service manager passes (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3;

/** The sets of one thread, from its `status` file in /proc. */
export interface CapabilitySets {
  readonly inheritable: bigint;
  readonly permitted: bigint;
  readonly effective: bigint;
  readonly bounding: bigint;
}

/** Reads the text of `/proc/<pid>/status`. */
export function parseCapabilities(status: string): CapabilitySets {
  const read = (name: string): bigint => {
    const hex = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
    return hex === undefined ? 0n : BigInt(`0x${hex}`);
  };
  return {
    inheritable: read('CapInh'),
    permitted: read('CapPrm'),
    effective: read('CapEff'),
    bounding: read('CapBnd'),
  };
}

/**
 * Gives up every power of root that the daemon does not use, for this process and all it starts. Does not return then:
 * the process executes itself, with the same id, arguments, environment and descriptors.
 *
 * @remarks Capabilities belong to threads, and by the time JavaScript runs there are a dozen of them. Executing the
 * program again ends all but this one, and every thread of the new program inherits from it: the new permitted set of
 * root is the bounding set (capabilities(7)), which this thread has cut before. Nothing is left to be raced with.
 * @returns undefined if there is nothing to give up (another user than root, or the service manager has done it), else
 * why it was not possible.
 */
export function dropCapabilities(): string | undefined {
  const { bounding, permitted, effective } = parseCapabilities(readFileSync('/proc/self/status', 'utf8'));
  const excess = bounding & ~KEPT_CAPABILITIES;
  if (process.geteuid?.() !== 0 || excess === 0n) return undefined;
  // A program of the same rights could still do it for us while we can; later nobody can.
  if ((effective & CAP_SYS_MODULE) !== 0n) {
    spawnSync('modprobe', ['--all', '--quiet', '--use-blacklist', ...MODULES], {
      stdio: 'ignore',
      timeout: MODPROBE_TIMEOUT_MS,
    });
  }
  for (let bit = 0; bit < 64; bit++) {
    if (((excess >> BigInt(bit)) & 1n) === 0n) continue;
    const result = prctl(SYS.PR_CAPBSET_DROP, bit);
    if (result < 0) return `cannot drop capability ${bit} from the bounding set: ${errnoName(result)}`;
  }
  // Root gets what is inheritable at an execution, too; set-user-ID programs give nothing back.
  const result = capset({ effective, permitted, inheritable: 0n });
  if (result < 0) return `cannot clear the inheritable capabilities: ${errnoName(result)}`;
  prctl(SYS.PR_SET_NO_NEW_PRIVS, 1);
  passDescriptorsOn();
  const argv = [process.argv0, ...process.execArgv, ...process.argv.slice(1)];
  return `cannot execute ${process.execPath} again: ${errnoName(execve(process.execPath, argv, process.env))}`;
}

/** Node marks every descriptor that it is started with as closed on execution (uv_disable_stdio_inheritance). */
function passDescriptorsOn(): void {
  const isForUs = process.env['LISTEN_PID'] === String(process.pid);
  const passed = isForUs ? Number(process.env['LISTEN_FDS'] ?? 0) : 0;
  for (let fd = 0; fd < LISTEN_FDS_START + passed; fd++) fcntl(fd, SYS.F_SETFD, 0);
}
