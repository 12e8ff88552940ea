#!/usr/bin/env node
import { DEFECT_HINT, guardProcess, withStack } from '../process-guard.js';
import { dropCapabilities } from '../sys/capabilities.js';
import { errorLine } from '../systemd/journal.js';

guardProcess((error) => process.stderr.write(errorLine(`${withStack(error)}; ${DEFECT_HINT}`)));
// Before everything else is loaded, as this process may begin again.
const capabilityProblem = dropCapabilities();
void import('./run-daemon.js').then(async ({ runDaemon }) => {
  process.exitCode = await runDaemon(capabilityProblem);
});
