// Loaded into a daemon before its own program: tells how long its event loop was held at most.
//
// Each SIGUSR2 writes milliseconds since the last one into the file that LOOP_PROBE_FILE names. They are at most
// RESOLUTION_MS too many.
import { renameSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION_MS = 2;
const file = process.env.LOOP_PROBE_FILE;

if (file !== undefined) {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  process.on('SIGUSR2', () => {
    writeFileSync(`${file}.new`, String(delays.max / 1e6));
    renameSync(`${file}.new`, file);
    delays.reset();
  });
}
