import assert from 'node:assert/strict';
import { isOverlayError } from '../../../src/errors.js';
import { requirePrivileges } from '../../../src/sys/privileges.js';

describe('privileges', () => {
  const status = (bits: string): string => `Name:\tnode\nCapInh:\t0000000000000000\nCapEff:\t${bits}\n`;

  it('are enough with CAP_NET_ADMIN alone', () => {
    requirePrivileges(status('0000000000001000'));
  });

  it('are refused without it, with the remedy', () => {
    assert.throws(
      () => requirePrivileges(status('00000000ffffefff')),
      (error) => isOverlayError(error, 'ERR_NOT_PRIVILEGED') && /run as root/.test(error.hint ?? ''),
    );
  });
});
