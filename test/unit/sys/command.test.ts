import assert from 'node:assert/strict';
import { runCommand } from '../../../src/sys/command.js';

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
