import type { CommandKey } from './host-commands.js';

/** A command that does not do what it is to do. */
export interface FailingCommand {
  readonly command: CommandKey;
  /** The peer's subnet; null for commands that are about this host. */
  readonly peer: string | null;
  /** How it ended, such as `exit status 2`. */
  readonly failure: string;
  /** The last line that it wrote; empty if it wrote none. */
  readonly lastLine: string;
  /** How often it has failed in a row. */
  readonly attempts: number;
}

/** How often a command was run, by how that ended. */
export interface CommandRuns {
  readonly succeeded: number;
  readonly failed: number;
}

/** Commands that a backend has run on this host. */
export interface CommandsStatus {
  /** `starting` until PostStartupCommand has succeeded, `ending` while what they made is being removed. */
  readonly state: 'starting' | 'running' | 'ending';
  /** Peers for which SubnetAddCommand has succeeded. */
  readonly peersDone: number;
  /** Peers whose commands are still to be run, or to succeed. */
  readonly peersWaiting: number;
  /** The first hundred of them. */
  readonly failing: readonly FailingCommand[];
  readonly failingCount: number;
  readonly runs: Readonly<Record<CommandKey, CommandRuns>>;
}
