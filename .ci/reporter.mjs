// A mocha reporter that shows the run as one of mocha's own reporters does and leaves its totals in a file, together
// with every skipped test and the reason it gave (see test/support/skip.ts), for .ci/test.mjs to add up.
//
//   --reporter-option style=dot|spec,totals=FILE
import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

const { EVENT_RUN_END, EVENT_TEST_PENDING, EVENT_TEST_RETRY } = Mocha.Runner.constants;

export default class TotalsReporter {
  constructor(runner, options) {
    const { style = 'spec', totals } = options.reporterOption ?? options.reporterOptions ?? {};
    const Shown = style === 'dot' ? Mocha.reporters.Dot : Mocha.reporters.Spec;
    const shown = new Shown(runner, options);
    const skipped = [];
    runner.on(EVENT_TEST_PENDING, (test) => skipped.push({ title: test.fullTitle(), reason: reasonOf(test) }));
    runner.on(EVENT_TEST_RETRY, (test, error) => {
      process.stdout.write(`      failed once, tried again: ${test.title}: ${error.message}\n`);
    });
    runner.on(EVENT_RUN_END, () => {
      if (totals === undefined) return;
      const { passes, failures } = shown.stats;
      writeFileSync(totals, JSON.stringify({ passed: passes, failed: failures, skipped }));
    });
  }
}

/** The reason stands on the test or on a suite around it. */
function reasonOf(test) {
  for (let node = test; node !== undefined; node = node.parent)
    if (node.skipReason !== undefined) return node.skipReason;
  return undefined;
}
