import { systemClock } from '../clock.js';
import { finishInTurns } from '../pace.js';
import type { DaemonStatus, StatusSource } from './status.js';

/** Has a source tell its status, while others have their turns. */
export async function takeStatus(source: StatusSource): Promise<DaemonStatus> {
  return finishInTurns(source.status(), systemClock);
}
