// A mocha reporter that shows the run as one of mocha's own reporters does and leaves its totals in a file, together
// with every skipped test and the reason it gave (see test/support/skip.ts), every failed one, and every one that passed
// at a second try, for .ci/test.mjs to add up.
//
//   --reporter-option style=dot|spec,totals=FILE
import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

const { EVENT_RUN_END, EVENT_TEST_FAIL, EVENT_TEST_PASS, EVENT_TEST_PENDING, EVENT_TEST_RETRY } =
  Mocha.Runner.constants;

export default class TotalsReporter {
  constructor(runner, options) {
    const { style = 'spec', totals } = options.reporterOption ?? options.reporterOptions ?? {};
    const Shown = style === 'dot' ? Mocha.reporters.Dot : Mocha.reporters.Spec;
    const shown = new Shown(runner, options);
    const skipped = [];
    const failures = [];
    const retried = [];
    /** What the first try of a test that is tried again failed with, by title. */
    const errors = new Map();
    runner.on(EVENT_TEST_PENDING, (test) => skipped.push({ title: test.fullTitle(), reason: reasonOf(test) }));
    runner.on(EVENT_TEST_FAIL, (test) => failures.push(test.fullTitle()));
    runner.on(EVENT_TEST_RETRY, (test, error) => {
      const [first = ''] = error.message.split('\n');
      errors.set(test.fullTitle(), first);
      process.stdout.write(`      failed once, tried again: ${test.title}: ${error.message}\n`);
    });
    runner.on(EVENT_TEST_PASS, (test) => {
      const error = errors.get(test.fullTitle());
      if (error !== undefined) retried.push({ title: test.fullTitle(), error });
    });
    runner.on(EVENT_RUN_END, () => {
      if (totals === undefined) return;
      const { passes } = shown.stats;
      writeFileSync(
        totals,
        JSON.stringify({ passed: passes, failed: shown.stats.failures, failures, skipped, retried }),
      );
    });
  }
}

/** The reason stands on the test or on a suite around it. */
function reasonOf(test) {
  for (let node = test; node !== undefined; node = node.parent)
    if (node.skipReason !== undefined) return node.skipReason;
  return undefined;
}
