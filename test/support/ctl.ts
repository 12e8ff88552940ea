import { systemClock } from '../../src/clock.js';
import type { Command, CtlHost, StoreOptions } from '../../src/ctl/command.js';
import { COMMANDS } from '../../src/ctl/commands.js';
import { runCtl } from '../../src/ctl/main.js';
import { EtcdStore } from '../../src/etcd/store.js';
import type { OperatorStore } from '../../src/lease/store.js';
import { silentLogger } from '../../src/log.js';

/** What a run of `tsflannelctl` gave. */
export interface CtlResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as JSON. */
  json(): unknown;
}

/** What {@link ctl} is run with besides its arguments. */
export interface CtlWorld {
  /** Standard input. */
  readonly input?: string;
  /** What the person says when asked; nobody is there by default. */
  readonly answer?: boolean;
  /** Default all of the program's. */
  readonly commands?: readonly Command[];
  /** Called with what the person is asked. */
  readonly onQuestion?: (question: string) => void;
  readonly environment?: Readonly<Record<string, string>>;
  /** Of the daemon's unit. Default none. */
  readonly environmentFile?: string;
  /** Default the real etcd store. */
  readonly openStore?: (options: StoreOptions) => OperatorStore;
  readonly signal?: AbortSignal;
  /** Called with what a terminal would show while something goes on. */
  readonly showProgress?: (text: string) => void;
  /** Called with each piece of standard output. */
  readonly onOutput?: (text: string) => void;
}

/** Runs `tsflannelctl` in this process. */
export async function ctl(argv: readonly string[], world: CtlWorld = {}): Promise<CtlResult> {
  let stdout = '';
  let stderr = '';
  const context: CtlHost = {
    stdout: (text) => {
      stdout += text;
      world.onOutput?.(text);
    },
    stderr: (text) => (stderr += text),
    environment: world.environment ?? {},
    environmentFile: world.environmentFile ?? '/nonexistent',
    clock: systemClock,
    signal: world.signal ?? new AbortController().signal,
    clearScreen: undefined,
    showProgress: world.showProgress,
    readInput: () => Promise.resolve(world.input ?? ''),
    confirm: (question) => {
      world.onQuestion?.(question);
      return Promise.resolve(world.answer);
    },
    openStore: world.openStore ?? openEtcd,
  };
  const code = await runCtl(world.commands ?? COMMANDS, argv, context);
  return { code, stdout, stderr, json: () => JSON.parse(stdout) as unknown };
}

function openEtcd(options: StoreOptions): OperatorStore {
  return new EtcdStore({ endpoints: options.etcdEndpoints.join(','), prefix: options.etcdPrefix, log: silentLogger });
}
