import assert from 'node:assert/strict';
import { isOverlayError } from '../../../src/errors.js';
import { runChecked } from '../../../src/firewall/run.js';
import { runCommand } from '../../../src/sys/command.js';

describe('runChecked', () => {
  const request = {
    program: 'sh',
    args: ['-c', 'echo one >&2; echo two >&2; exit 2'],
    task: 'list the rules of sh',
    packageName: 'dash',
  };

  it('says what could not be done and what the program said', async () => {
    await assert.rejects(runChecked(runCommand, request), (error: unknown) => {
      assert(isOverlayError(error, 'ERR_FIREWALL'));
      assert.equal(error.message, 'cannot list the rules of sh: sh ended with 2: one | two');
      return true;
    });
  });

  it('names the package of a missing program', async () => {
    await assert.rejects(
      runChecked(runCommand, { ...request, program: 'tsflannel-no-such-program' }),
      (error: unknown) => {
        assert(isOverlayError(error, 'ERR_FIREWALL'));
        assert.equal(error.hint, 'install the package dash');
        assert.equal(error.isRetryable, false);
        return true;
      },
    );
  });
});
