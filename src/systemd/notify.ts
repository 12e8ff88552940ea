import type { Clock } from '../clock.js';
import type { Logger } from '../log.js';
import * as libc from '../sys/libc.js';
import { SYS } from '../sys/libc.js';

/** Part of the environment. */
type Environment = Readonly<Record<string, string | undefined>>;

/** A message that waits until the service manager takes it. */
interface Message {
  readonly text: string;
  readonly descriptors: readonly number[];
}

/** The service manager reads its socket in a loop: a full queue is empty again after a moment. */
const RETRY_MS = 50;

/** Beyond that the service manager is stuck for good, and the oldest message is the least worth. */
const MAX_WAITING = 32;

/** `SCM_MAX_FD` of the kernel (include/net/scm.h). */
const MAX_DESCRIPTORS_PER_MESSAGE = 253;

/**
 * Tells the service manager how the daemon is doing, and leaves descriptors with it over a restart.
 *
 * API: {@link ready}, {@link status}, {@link stopping}; {@link startWatchdog} for `WatchdogSec=`; {@link storeDescriptors} and
 * {@link removeDescriptors} for `FileDescriptorStoreMax=`, with {@link takeInheritedDescriptors} on the other side of the
 * restart. Without a service manager everything does nothing.
 * Threads: none; never blocks. What the socket does not take now is sent later, in order.
 * Errors: trouble with the socket is logged once and changes nothing else.
 * @see sd_notify(3)
 */
export class ServiceManager {
  private readonly address: Uint8Array | undefined;
  private readonly watchdogMs: number | undefined;
  private readonly clock: Clock;
  private readonly logger: Logger;
  private waiting: readonly Message[] = [];
  private hasComplained = false;
  private cancelRetry: (() => void) | undefined;
  private cancelWatchdog: (() => void) | undefined;

  /** @param options.environment - for `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. */
  constructor(options: {
    readonly environment: Environment;
    readonly pid: number;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    const { environment, pid, clock, logger } = options;
    this.clock = clock;
    this.logger = logger;
    const name = environment['NOTIFY_SOCKET'] ?? '';
    if (/^[/@]./.test(name)) this.address = libc.sockaddrUn(name);
    else if (name !== '') logger.warn('NOTIFY_SOCKET is neither a path nor an abstract name', { file: name });
    this.watchdogMs = readWatchdogMs(environment, pid);
  }

  /** Whether there is a service manager that listens. */
  get isPresent(): boolean {
    return this.address !== undefined;
  }

  /** The daemon does its work; units that wait for it may start. */
  ready(status: string): void {
    this.send(`READY=1\nSTATUS=${oneLine(status)}`);
  }

  /** The line that `systemctl status` shows. */
  status(text: string): void {
    this.send(`STATUS=${oneLine(text)}`);
  }

  /** The daemon is about to end. */
  stopping(): void {
    this.send('STOPPING=1');
  }

  /**
   * Sends signs of life, twice per `WatchdogSec=`, as long as the event loop turns and the daemon is healthy. Does
   * nothing if the unit has no watchdog.
   */
  startWatchdog(isHealthy: () => boolean): void {
    if (this.watchdogMs === undefined || this.address === undefined) return;
    const periodMs = this.watchdogMs / 2;
    const beat = (): void => {
      if (isHealthy()) this.send('WATCHDOG=1');
      this.cancelWatchdog = this.clock.after(periodMs, beat);
    };
    this.cancelWatchdog?.();
    beat();
  }

  /**
   * Leaves duplicates of descriptors with the service manager, which hands them to the next process of this unit.
   *
   * @remarks `FDPOLL=0` (systemd 246): otherwise it drops sockets that have ever had an error to report.
   * @param name - to find them again; letters, digits, dots and dashes.
   */
  storeDescriptors(name: string, descriptors: readonly number[]): void {
    for (let at = 0; at < descriptors.length; at += MAX_DESCRIPTORS_PER_MESSAGE) {
      const part = descriptors.slice(at, at + MAX_DESCRIPTORS_PER_MESSAGE);
      this.send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, part);
    }
  }

  /** Makes the service manager drop the descriptors of that name. */
  removeDescriptors(name: string): void {
    this.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Ends the watchdog and gives up what is still waiting. Idempotent. */
  close(): void {
    this.cancelWatchdog?.();
    this.cancelRetry?.();
    for (const { descriptors } of this.waiting) descriptors.forEach(libc.close);
    this.waiting = [];
  }

  private send(text: string, descriptors: readonly number[] = []): void {
    if (this.address === undefined) return;
    if (this.waiting.length === 0 && this.trySend({ text, descriptors })) return;
    // Duplicates, as the caller may close its own in the meantime.
    const duplicates = descriptors.map(libc.duplicate).filter((fd) => fd >= 0);
    this.waiting = [...this.waiting, { text, descriptors: duplicates }];
    while (this.waiting.length > MAX_WAITING) this.drop();
    this.scheduleRetry();
  }

  private scheduleRetry(): void {
    this.cancelRetry?.();
    this.cancelRetry = this.clock.after(RETRY_MS, () => {
      for (let first = this.waiting[0]; first !== undefined; first = this.waiting[0]) {
        if (!this.trySend(first)) {
          this.scheduleRetry();
          return;
        }
        this.drop();
      }
    });
  }

  private drop(): void {
    const [first, ...rest] = this.waiting;
    first?.descriptors.forEach(libc.close);
    this.waiting = rest;
  }

  /** @returns false if it must be tried again. */
  private trySend({ text, descriptors }: Message): boolean {
    const data = new TextEncoder().encode(text);
    const fd = libc.socket(SYS.AF_UNIX, SYS.SOCK_DGRAM | SYS.SOCK_NONBLOCK, 0);
    if (fd < 0) return this.complain(fd);
    // Without descriptors no control message: the kernel would add credentials that some receivers do not expect.
    const result =
      descriptors.length > 0
        ? libc.sendDescriptors(fd, data, descriptors, this.address)
        : libc.sendTo(fd, data, SYS.MSG_NOSIGNAL, this.address ?? new Uint8Array());
    libc.close(fd);
    if (result >= 0) return true;
    return libc.errnoName(result) === 'EAGAIN' ? false : this.complain(result);
  }

  private complain(result: number): true {
    if (!this.hasComplained) {
      this.logger.warn('the service manager cannot be told', { errno: libc.errnoName(result) });
    }
    this.hasComplained = true;
    return true;
  }
}

/**
 * Descriptors that the service manager kept for this process or opened for it, by their names. They are closed on exec
 * from now on, and the variables are removed, so that no child takes them for its own.
 *
 * @param environment - `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` are read and deleted.
 * @see sd_listen_fds(3)
 */
export function takeInheritedDescriptors(
  environment: Record<string, string | undefined>,
  pid: number,
): ReadonlyMap<string, readonly number[]> {
  const { LISTEN_PID: receiver, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = environment;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID'])
    Reflect.deleteProperty(environment, name);
  const byName = new Map<string, number[]>();
  if (receiver !== String(pid) || !/^\d{1,6}$/.test(count)) return byName;
  const nameOf: readonly (string | undefined)[] = names.split(':');
  for (let place = 0; place < Number(count); place++) {
    const fd = FIRST_INHERITED + place;
    if (libc.fcntl(fd, SYS.F_SETFD, SYS.FD_CLOEXEC) < 0) continue; // not open after all: nothing to take
    const name = nameOf[place] || 'unknown';
    byName.set(name, [...(byName.get(name) ?? []), fd]);
  }
  return byName;
}

/** `SD_LISTEN_FDS_START`: the first one after standard input, output and error. */
const FIRST_INHERITED = 3;

function readWatchdogMs(environment: Environment, pid: number): number | undefined {
  const { WATCHDOG_USEC: text = '', WATCHDOG_PID: receiver } = environment;
  if (receiver !== undefined && receiver !== String(pid)) return undefined;
  const microseconds = /^\d+$/.test(text) ? Number(text) : 0;
  return microseconds > 0 ? microseconds / 1000 : undefined;
}

/** The protocol's messages are lines. */
function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ');
}
