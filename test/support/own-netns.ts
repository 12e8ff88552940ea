import { SYS, close, errnoName, open, setns } from '../../src/sys/libc.js';
import { onExit } from './cleanup.js';
import { Netns, deleteNamespaces, sweepLeftovers } from './netns.js';

/**
 * A network namespace that this process itself moves into, for tests of code that works in "the" namespace. Sockets
 * opened meanwhile belong to it, and `/proc/sys/net` shows its parameters; commands are started in it as well.
 */
export class OwnNetns extends Netns {
  #leave: (() => void) | undefined;

  /** @param label - part of its name, unique within this process. */
  static async enter(label: string): Promise<OwnNetns> {
    sweepLeftovers();
    const name = `tsf${process.pid}-${label}`;
    const withdraw = onExit(() => {
      deleteNamespaces([name]);
    });
    await Netns.create([name]);
    const home = check(open('/proc/self/ns/net', SYS.O_RDONLY), 'open own namespace');
    const target = check(open(`/run/netns/${name}`, SYS.O_RDONLY), `open ${name}`);
    check(setns(target, SYS.CLONE_NEWNET), `enter ${name}`);
    close(target);
    const netns = new OwnNetns(name);
    netns.#leave = () => {
      check(setns(home, SYS.CLONE_NEWNET), 'return to own namespace');
      close(home);
      deleteNamespaces([name]);
      withdraw();
    };
    return netns;
  }

  /** Goes back and deletes it. Idempotent. */
  leave(): void {
    this.#leave?.();
    this.#leave = undefined;
  }
}

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`cannot ${what}: ${errnoName(result)}`);
  return result;
}
