import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onExit } from '../cleanup.js';
import { initramfs } from './initramfs.js';
import type { MachineFiles } from './packages.js';

/** Where the guest finds {@link GuestOptions.results}. */
export const RESULTS = '/run/results';

/** What a guest runs, and for how long at most. */
export interface GuestOptions {
  readonly files: MachineFiles;
  /** Holds the files of this run. */
  readonly directory: string;
  /** The one directory of the host that the guest can write to, there {@link RESULTS}. */
  readonly results: string;
  /** A JavaScript file. */
  readonly program: string;
  readonly limitMs: number;
  /** Is called with what the program writes. */
  readonly onOutput: (text: string) => void;
}

/** A guest that did not come to its end. The message ends with what its kernel said last. */
export class GuestError extends Error {}

/** Idle, a machine of 2020 needs 5 s until the program runs. */
const BOOT_LIMIT_MS = 180_000;
const CONSOLE_LINES = 40;
/**
 * A model of 2008 takes an eighth to a quarter less time to emulate than all that qemu can (`max`), where a guest has
 * page tables of five levels, opens and closes the way to user memory at each copy (SMAP), and copies with AVX.
 */
const CPU = 'Nehalem';
const GUEST = fileURLToPath(new URL('guest.sh', import.meta.url));

/**
 * Boots Debian's kernel on an emulated machine, whose file system is a copy of this one's, runs a program there, and
 * waits until the guest has turned itself off.
 *
 * @remarks The processors are emulated (`tcg`) also where KVM is: what a host that is a guest itself offers as
 * `/dev/kvm` may hang.
 * @throws GuestError if it does not boot, panics, ends early or not within the limit.
 */
export async function runGuest({ files, directory, results, program, limitMs, onOutput }: GuestOptions): Promise<void> {
  const log = path.join(directory, 'console');
  const image = path.join(directory, 'initramfs');
  const settings = { GUEST, NODE: process.execPath, PROGRAM: program, DIRECTORY: process.cwd() };
  writeFileSync(log, '');
  writeFileSync(image, initramfs({ modules: files.modules, busybox: files.program('busybox'), settings }));
  const share = (tag: string, folder: string, more = ''): string[] => [
    '-virtfs',
    `local,mount_tag=${tag},path=${folder.replaceAll(',', ',,')},security_model=none,multidevs=remap${more}`,
  ];
  const argv = [
    // The guest ends with this process, also if this is killed.
    ...['--pdeathsig', 'KILL', files.program('qemu-system-x86_64'), '-nodefaults', '-no-user-config'],
    ...files.firmware.flatMap((folder) => ['-L', folder]),
    ...['-accel', 'tcg,thread=multi', '-cpu', CPU, '-smp', '2', '-m', '2G', '-display', 'none'],
    ...['-serial', `file:${log}`, '-serial', 'stdio', '-no-reboot'],
    ...share('host', '/', ',readonly=on'),
    ...share('packages', files.directory, ',readonly=on'),
    ...share('results', results),
    ...['-kernel', files.kernel, '-initrd', image],
    ...['-append', 'console=ttyS0 panic=-1 oops=panic mitigations=off nokaslr audit=0 tsc=reliable'],
  ];
  const env = { ...process.env, ...files.environment };
  const qemu = spawn('setpriv', argv, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const withdraw = onExit(() => qemu.kill('SIGKILL'));

  let fault: string | undefined;
  const giveUp = (why: string): void => {
    fault ??= why;
    qemu.kill('SIGKILL');
  };
  const bootLimit = setTimeout(() => giveUp(`did not boot within ${BOOT_LIMIT_MS / 1000} s`), BOOT_LIMIT_MS);
  const limit = setTimeout(() => giveUp(`did not end within ${limitMs / 1000} s`), limitMs);
  let said = '';
  qemu.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  qemu.stdout.setEncoding('utf8').on('data', (text: string) => {
    clearTimeout(bootLimit);
    onOutput(text);
  });
  const code = await new Promise<number | string | null>((resolve) => {
    qemu.on('error', (error) => resolve(error.message));
    qemu.on('close', (status, signal) => resolve(status ?? signal));
  });
  clearTimeout(bootLimit);
  clearTimeout(limit);
  withdraw();
  const console = readFileSync(log, 'latin1');
  if (code !== 0) fault ??= `could not run: ${said.trim() || String(code)}`;
  if (console.includes('Kernel panic')) fault ??= 'panicked';
  if (!console.includes(ENDED)) fault ??= 'ended early';
  if (fault !== undefined) throw new GuestError(`the guest ${fault}; its console ended so:\n${lastLines(console)}`);
}

/** What `guest.sh` says at its end. */
const ENDED = 'the program has ended';

function lastLines(text: string): string {
  return text.trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES).join('\n');
}
