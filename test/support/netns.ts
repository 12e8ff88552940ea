import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Netlink } from '../../src/netlink/netlink.js';
import { inNamespace } from './in-namespace.js';
import { patient } from './patience.js';
import { Program, type ProgramOptions } from './program.js';

/** What a finished command gave. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit code; −1 when a signal or the time limit ended it. */
  readonly code: number;
}

/** How {@link run} runs a command. */
export interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Default 30 000. */
  readonly timeoutMs?: number;
  /** Give the output of a failing command instead of throwing. Default false. */
  readonly mayFail?: boolean;
}

/**
 * Runs a command to its end.
 *
 * @throws Error with all it wrote if it fails, unless it may.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Output> {
  const [command = '', ...args] = argv;
  const timeoutMs = patient(options.timeoutMs ?? 30_000);
  const child = spawn(command, args, { env: { ...process.env, LC_ALL: 'C', ...options.env }, timeout: timeoutMs });
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      resolve(status ?? -1);
    });
  });
  if (code !== 0 && options.mayFail !== true) {
    const how = code === -1 ? `was ended, time limit ${timeoutMs / 1000} s` : `ended with ${code}`;
    throw new Error(`${argv.join(' ')}: ${how}\n${options.input ?? ''}${stdout}${stderr}`);
  }
  return { stdout, stderr, code };
}

/** Of `lo`, in every namespace. */
const LOOPBACK_INDEX = 1;

/**
 * For programs in a namespace, from which no server is reached that these certificates would be for: Node reads them at
 * every start, and 140 of them take as long as all the rest of that.
 */
const NO_CERTIFICATES = { NODE_EXTRA_CA_CERTS: '' };

/** A network namespace of our own. Its name shows which process made it, so that leftovers can be told. */
export class Netns {
  constructor(readonly name: string) {}

  /** Stands for it where a namespace is entered. */
  get file(): string {
    return `/run/netns/${this.name}`;
  }

  /** Makes the namespaces, with loopback up and forwarding on. IPv6 addresses are usable at once (no duplicate detection). */
  static async create(names: readonly string[]): Promise<Netns[]> {
    await run(['ip', '-batch', '-'], { input: names.map((name) => `netns add ${name}\n`).join('') });
    const made = names.map((name) => new Netns(name));
    for (const netns of made) {
      netns.#setLoopbackUp();
      netns.setParameters({
        'net/ipv4/ip_forward': 1,
        // A new namespace takes rp_filter over from the machine's own; 2 (loose) is what systemd sets on most hosts.
        'net/ipv4/conf/all/rp_filter': 2,
        'net/ipv4/conf/default/rp_filter': 2,
        'net/ipv6/conf/all/forwarding': 1,
        'net/ipv6/conf/all/accept_dad': 0,
        'net/ipv6/conf/default/accept_dad': 0,
      });
    }
    return made;
  }

  /** Sets kernel parameters in here, by their names below `/proc/sys`; those of IPv6 only if the kernel has that. */
  setParameters(values: Readonly<Record<string, number>>): void {
    inNamespace(this.file, () => {
      const hasIpv6 = existsSync('/proc/sys/net/ipv6');
      for (const [name, value] of Object.entries(values)) {
        if (hasIpv6 || !name.startsWith('net/ipv6/')) writeFileSync(`/proc/sys/${name}`, String(value));
      }
    });
  }

  #setLoopbackUp(): void {
    const netlink = inNamespace(this.file, () => Netlink.open());
    netlink.links.set({ index: LOOPBACK_INDEX, name: 'lo' }, { isUp: true });
    netlink.close();
  }

  /** The command line that runs a command in here. */
  command(argv: readonly string[]): string[] {
    return ['ip', 'netns', 'exec', this.name, ...argv];
  }

  /** Runs a command in here to its end; see {@link run}. */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Output> {
    return run(this.command(argv), { ...options, env: { ...NO_CERTIFICATES, ...options.env } });
  }

  /** Starts a program in here. */
  start(argv: readonly string[], options: ProgramOptions = {}): Program {
    return new Program(this.command(argv), { ...options, env: { ...NO_CERTIFICATES, ...options.env } });
  }

  /** Carries out `ip` commands in here, in order, with one process. */
  async ip(commands: readonly string[]): Promise<void> {
    await run(['ip', '-n', this.name, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  }

  /** The answer of an `ip -j` query, such as `['-d', 'link', 'show', 'dev', 'eth0']`. */
  async ipJson(args: readonly string[]): Promise<Record<string, unknown>[]> {
    const { stdout } = await run(['ip', '-n', this.name, '-j', ...args]);
    return stdout.trim() === '' ? [] : (JSON.parse(stdout) as Record<string, unknown>[]);
  }
}

/**
 * Ends every process inside these namespaces and deletes them. Synchronous, since it also runs while this process
 * exits; names that do not exist are passed over.
 */
export function deleteNamespaces(names: readonly string[]): void {
  for (const name of names) {
    const { stdout } = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' });
    for (const pid of stdout.split('\n').filter((line) => line !== '')) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }
  const existing = new Set(listNamespaces());
  const input = names.filter((name) => existing.has(name)).map((name) => `netns del ${name}\n`);
  if (input.length > 0) spawnSync('ip', ['-force', '-batch', '-'], { input: input.join('') });
}

const PREFIX = /^tsf(\d+)-/;
const DIRECTORY = /^tsflannel-rig-(\d+)-/;

/** Beginning of the names of this process's namespaces. */
export function namePrefix(serial: number): string {
  return `tsf${process.pid}-${serial}`;
}

/** Beginning of the names of this process's temporary directories. */
export function directoryPrefix(): string {
  return path.join(os.tmpdir(), `tsflannel-rig-${process.pid}-`);
}

/** Removes the namespaces and directories of processes that are gone without having cleaned up (SIGKILL, power cut). */
export function sweepLeftovers(): void {
  const isLeftover = (name: string, pattern: RegExp): boolean => {
    const pid = pattern.exec(name)?.[1];
    return pid !== undefined && !isAlive(Number(pid));
  };
  const namespaces = listNamespaces().filter((name) => isLeftover(name, PREFIX));
  if (namespaces.length > 0) deleteNamespaces(namespaces);
  for (const name of readdirSync(os.tmpdir())) {
    if (isLeftover(name, DIRECTORY)) rmSync(path.join(os.tmpdir(), name), { recursive: true, force: true });
  }
}

function listNamespaces(): string[] {
  // Where `ip netns` keeps them; the directory appears with the first one.
  try {
    return readdirSync('/run/netns');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
