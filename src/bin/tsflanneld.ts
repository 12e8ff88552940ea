#!/usr/bin/env node
import { oneLine } from '../printable.js';
import { DEFECT_HINT, guardProcess, withStack } from '../process-guard.js';
import { dropCapabilities } from '../sys/capabilities.js';

guardProcess((error) => process.stderr.write(`${oneLine(`tsflanneld: ${withStack(error)}; ${DEFECT_HINT}`)}\n`));
// Before everything else is loaded, as this process may begin again.
const capabilityProblem = dropCapabilities();
const { runDaemon } = await import('../daemon/main.js');

process.exitCode = await runDaemon(capabilityProblem);
