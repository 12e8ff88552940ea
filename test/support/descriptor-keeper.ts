import { mkdirSync } from 'node:fs';
import path from 'node:path';
import * as libc from '../../src/sys/libc.js';
import { SYS } from '../../src/sys/libc.js';
import { onExit } from './cleanup.js';
import { NotifySocket } from './notify-socket.js';

/** How often messages are taken: a daemon that is killed takes those along that the socket had no room for. */
const PUMP_MS = 20;

/** Stands in for a service manager with a descriptor store: what one run of a daemon leaves here, the next one gets. */
export class DescriptorKeeper {
  readonly #socket: NotifySocket;
  readonly #timer: NodeJS.Timeout;
  readonly #withdraw: () => void;
  #stored = new Map<string, number[]>();
  /** Names of what an earlier run has left; what the present one stores takes its place. */
  #former = new Set<string>();

  /** @param directory - of the daemon. */
  constructor(directory: string) {
    this.#socket = new NotifySocket(path.join(directory, 'notify.sock'));
    this.#timer = setInterval(() => {
      this.#pump();
    }, PUMP_MS);
    this.#withdraw = onExit(() => {
      clearInterval(this.#timer);
    });
  }

  /** Names of what is stored, each once. */
  get names(): readonly string[] {
    this.#pump();
    return [...this.#stored.keys()].sort();
  }

  /** What the next run is started with. */
  nextRun(): { readonly env: Readonly<Record<string, string>>; readonly descriptors: readonly number[] } {
    this.#pump();
    this.#former = new Set(this.#stored.keys());
    const entries = [...this.#stored].flatMap(([name, numbers]) => numbers.map((number) => ({ name, number })));
    const env = {
      NOTIFY_SOCKET: this.#socket.name,
      LISTEN_FDS: String(entries.length),
      LISTEN_FDNAMES: entries.map(({ name }) => name).join(':'),
    };
    return { env, descriptors: entries.map(({ number }) => number) };
  }

  /** Lets everything go, as a service manager does when the service is stopped for good. */
  drop(): void {
    this.#pump();
    for (const name of [...this.#stored.keys()]) this.#remove(name);
  }

  close(): void {
    this.drop();
    clearInterval(this.#timer);
    this.#withdraw();
    this.#socket.close();
  }

  #pump(): void {
    for (const { text, descriptors } of this.#socket.receiveAll()) {
      const name = /^FDNAME=(.*)$/m.exec(text)?.[1] ?? '';
      if (text.startsWith('FDSTOREREMOVE=1')) this.#remove(name);
      if (!text.startsWith('FDSTORE=1')) continue;
      // Whatever else this process starts meanwhile must not hold on to them.
      for (const fd of descriptors) libc.fcntl(fd, SYS.F_SETFD, SYS.FD_CLOEXEC);
      if (this.#former.delete(name)) this.#remove(name);
      this.#stored.set(name, [...(this.#stored.get(name) ?? []), ...descriptors]);
    }
  }

  #remove(name: string): void {
    for (const fd of this.#stored.get(name) ?? []) libc.close(fd);
    this.#stored.delete(name);
    this.#former.delete(name);
  }
}

/** The keepers of the daemons of a test, let go together. */
export class DescriptorKeepers {
  readonly all: DescriptorKeeper[] = [];

  /** Makes one for a daemon, in its directory. */
  readonly make = (directory: string): DescriptorKeeper => {
    mkdirSync(directory, { recursive: true });
    const keeper = new DescriptorKeeper(directory);
    this.all.push(keeper);
    return keeper;
  };

  close(): void {
    for (const keeper of this.all.splice(0)) keeper.close();
  }
}
