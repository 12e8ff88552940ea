import assert from 'node:assert/strict';
import { CONTAINER_REACH_CHECKS } from '../../../src/ctl/doctor/checks/container-reach.js';
import type { DoctorFacts, Found } from '../../../src/ctl/doctor/facts.js';
import { sampleContainerReach } from '../../support/sample-status.js';

const run = (id: string, daemon: unknown): readonly Found[] => {
  const facts = { daemon } as unknown as DoctorFacts;
  return CONTAINER_REACH_CHECKS.find((check) => check.id === id)?.run(facts) ?? assert.fail(id);
};

describe('doctor on containers of other hosts', () => {
  const reach = sampleContainerReach();

  it('names what is behind a router, and hosts that nobody can find', () => {
    const [offLink, unplaced] = run('container-reach', { containerReach: reach });
    assert.equal(offLink?.severity, 'note');
    assert.match(offLink.evidence, /10\.98\.0\.16\/28 at 192\.0\.2\.4: 192\.0\.2\.4 is not on the link of eth0/);
    assert.match(offLink.command, /docker-networks routes/);
    assert.match(unplaced?.evidence ?? '', /host9: it does not tell where it is/);
  });

  it('says what a backend does not carry', () => {
    const skipped = reach.skipped.map((each) => ({ ...each, cause: 'backend' }));
    const [found] = run('container-reach', { containerReach: { ...reach, skipped, unplaced: [] } });
    assert.equal(found?.severity, 'warning');
  });

  it('names what is not believed', () => {
    assert.match(run('container-facts', { containerReach: reach })[0]?.evidence ?? '', /lan\/192\.0\.2\.0-24/);
  });

  it('finds nothing where all is well, or nothing is told', () => {
    const calm = { ...reach, skipped: [], unplaced: [], refused: [] };
    for (const daemon of [undefined, { containerReach: null }, { containerReach: calm }]) {
      for (const { id } of CONTAINER_REACH_CHECKS) assert.deepEqual(run(id, daemon), []);
    }
  });
});
