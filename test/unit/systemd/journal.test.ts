import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { isJournal } from '../../../src/systemd/journal.js';

describe('isJournal', () => {
  const stderr = { dev: 8n, ino: 18_446_744_073_709_551_557n };

  it('is true only where standard error is the stream that systemd made', () => {
    assert.equal(isJournal({ JOURNAL_STREAM: '8:18446744073709551557' }, stderr), true);
    assert.equal(isJournal({ JOURNAL_STREAM: '8:18446744073709551558' }, stderr), false);
    assert.equal(isJournal({ JOURNAL_STREAM: '9:18446744073709551557' }, stderr), false);
    assert.equal(isJournal({ JOURNAL_STREAM: '' }, stderr), false);
    assert.equal(isJournal({}, stderr), false);
    assert.equal(isJournal({ JOURNAL_STREAM: '8:18446744073709551557' }, undefined), false);
  });

  it('looks at the standard error of this process', () => {
    const shell = 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$0" "$@"';
    const module = new URL('../../../src/systemd/journal.ts', import.meta.url).href;
    const script = `import(${JSON.stringify(module)}).then(({ isJournal }) => console.log(isJournal(process.env)))`;
    const node = [process.execPath, '--import', 'tsx', '-e', script];
    const look = (redirection: string): string =>
      spawnSync('sh', ['-c', `${shell} ${redirection}`, ...node], { encoding: 'utf8' }).stdout;
    assert.equal(look(''), 'true\n');
    assert.equal(look('2>/dev/null'), 'false\n');
  });
});
