import Mocha from 'mocha';
import hostTests from '../../../.ci/mocharc.host.json' with { type: 'json' };
import TotalsReporter from '../../../.ci/reporter.mjs';
import { patient } from '../patience.js';

/**
 * Runs the tests of some files as mocha's own program does with the options of host tests, and ends this process.
 *
 * @param files - what loads each.
 * @param totals - file for the reporter's totals.
 */
export async function runTests(files: Readonly<Record<string, () => Promise<unknown>>>, totals: string): Promise<void> {
  const mocha = new Mocha({
    timeout: patient(hostTests.timeout),
    slow: patient(hostTests.slow),
    retries: hostTests.retries,
    reporter: TotalsReporter,
    reporterOptions: { totals },
  });
  for (const [file, load] of Object.entries(files)) {
    mocha.suite.emit('pre-require', globalThis, file, mocha);
    await load();
  }
  mocha.run((failures) => process.exit(Math.min(failures, 255)));
}
