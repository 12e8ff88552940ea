import type { CommandValues, CommandWords } from './command-text.js';

/** The commands of a backend, by the keys that flannel has for them, in the order in which they are run. */
export const COMMAND_KEYS = [
  'PreStartupCommand',
  'PostStartupCommand',
  'SubnetAddCommand',
  'SubnetRemoveCommand',
  'ShutdownCommand',
] as const;

/** One of {@link COMMAND_KEYS}. */
export type CommandKey = (typeof COMMAND_KEYS)[number];

/** Commands that a backend has run on the host instead of changing the kernel itself. */
export interface HostCommands {
  /** Those that there are. */
  readonly words: Readonly<Partial<Record<CommandKey, CommandWords>>>;
  /** How long each of them may take. */
  readonly timeoutMs: number;
}

/** What the commands for one peer are told. */
export interface PeerInput {
  /** The peer's subnet, by which it is known. */
  readonly subnet: string;
  readonly values: CommandValues;
  /** What the peer published; written to standard input with a line feed behind it. */
  readonly data: string;
}

/** Whether the same commands would be run in the same way. */
export function areSameCommands(a: HostCommands, b: HostCommands): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Whether the commands for a peer would be told the same. */
export function areSameInputs(a: PeerInput | undefined, b: PeerInput | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b));
}
