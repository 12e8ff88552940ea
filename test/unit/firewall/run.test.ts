import assert from 'node:assert/strict';
import { isOverlayError } from '../../../src/errors.js';
import { runChecked, runCommand } from '../../../src/firewall/run.js';

describe('runCommand', () => {
  it('gives output and exit code', async () => {
    const result = await runCommand('sh', ['-c', 'echo out; echo err >&2; exit 3']);
    assert.deepEqual(result, { exitCode: 3, stdout: 'out\n', stderr: 'err\n' });
  });

  it('writes standard input, and closes it when there is none', async () => {
    assert.equal((await runCommand('cat', [], 'rules\n'))?.stdout, 'rules\n');
    assert.equal((await runCommand('cat', []))?.stdout, '');
  });

  it('asks for untranslated messages', async () => {
    assert.equal((await runCommand('sh', ['-c', 'printf %s "$LC_ALL"']))?.stdout, 'C');
  });

  it('knows a program that does not exist from one that fails', async () => {
    assert.equal(await runCommand('tsflannel-no-such-program', []), undefined);
  });

  it('judges a program that reads nothing by its exit code', async () => {
    assert.equal((await runCommand('true', [], 'x'.repeat(1_000_000)))?.exitCode, 0);
  });
});

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
