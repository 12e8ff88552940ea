import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import fc from 'fast-check';
import { OverlayError } from '../../src/errors.js';
import { HOSTILE, UNPRINTABLE } from '../support/hostile-text.js';
import { type LogFields, type LogLevel, type LeveledLogger, createLogger, formatTextLine } from '../../src/log.js';

/** A logger and the lines it has written. */
function capture(
  format: 'text' | 'json',
  level: LogLevel = 'debug',
  isJournal = false,
): { logger: LeveledLogger; lines: () => string[] } {
  let text = '';
  const destination = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk);
      done();
    },
  });
  const logger = createLogger({ format, level, isJournal, host: 'node-1', pid: 4711, destination });
  return { logger, lines: () => text.split('\n').slice(0, -1) };
}

/** A line without its time of day, which is checked on its own. */
function withoutTime(line: string | undefined): string | undefined {
  return line?.replace(/^\d\d:\d\d:\d\d\.\d{3} /, '');
}

function textOf(message: string, fields?: LogFields): string | undefined {
  const { logger, lines } = capture('text');
  logger.info(message, fields);
  return withoutTime(lines()[0]);
}

describe('createLogger', () => {
  it('writes one line per event, with time, level, message and fields', () => {
    const { logger, lines } = capture('text');
    logger.error('a');
    logger.warn('b', { dev: 'eth0' });
    logger.info('c', { mtu: 1472, subnet: '10.5.34.0/24' });
    logger.debug('d');
    assert.match(lines()[0] ?? '', /^\d\d:\d\d:\d\d\.\d{3} error a$/);
    assert.deepEqual(lines().map(withoutTime), [
      'error a',
      'warn  b dev=eth0',
      'info  c mtu=1472 subnet=10.5.34.0/24',
      'debug d',
    ]);
  });

  it('writes nothing below its level', () => {
    for (const [level, count] of [
      ['error', 1],
      ['warn', 2],
      ['info', 3],
      ['debug', 4],
    ] as const) {
      const { logger, lines } = capture('text', level);
      for (const severity of ['debug', 'info', 'warn', 'error'] as const) logger[severity](severity);
      assert.equal(lines().length, count);
    }
  });

  it('writes at another level as soon as it is told to', () => {
    const { logger, lines } = capture('text', 'warn');
    logger.info('a');
    logger.level = 'debug';
    logger.debug('b');
    logger.level = 'error';
    logger.warn('c');
    assert.deepEqual(lines().map(withoutTime), ['debug b']);
    assert.equal(logger.level, 'error');
  });

  it('begins each line for journald with its priority and leaves the time to it', () => {
    const { logger, lines } = capture('text', 'debug', true);
    for (const level of ['error', 'warn', 'info', 'debug'] as const) logger[level]('x', { dev: 'eth0' });
    assert.deepEqual(lines(), [
      '<3>error x dev=eth0',
      '<4>warn  x dev=eth0',
      '<6>info  x dev=eth0',
      '<7>debug x dev=eth0',
    ]);
  });

  it('gives JSON for journald its priority, too', () => {
    const { logger, lines } = capture('json', 'debug', true);
    logger.warn('x');
    const [, priority, json = ''] = /^<(\d)>(.*)$/.exec(lines()[0] ?? '') ?? [];
    assert.equal(priority, '4');
    assert.equal((JSON.parse(json) as { msg: string }).msg, 'x');
  });

  it('quotes values that could be taken for several', () => {
    assert.equal(textOf('x', { detail: 'two words' }), 'info  x detail="two words"');
    assert.equal(textOf('x', { detail: 'a=b' }), 'info  x detail="a=b"');
    assert.equal(textOf('x', { detail: 'say "hi"' }), 'info  x detail="say \\"hi\\""');
    assert.equal(textOf('x', { detail: '' }), 'info  x detail=""');
    assert.equal(textOf('x', { detail: 'line\nline' }), 'info  x detail="line\\nline"');
  });

  it('shows what a terminal would obey, in the message, names and values of both formats', () => {
    for (const format of ['text', 'json'] as const) {
      const { logger, lines } = capture(format);
      logger.warn(`m${HOSTILE}`, { detail: HOSTILE, error: new OverlayError('ERR_FLAG', HOSTILE, { hint: HOSTILE }) });
      logger.warn('m', { error: new OverlayError('ERR_FLAG', 'x', { context: { [HOSTILE]: HOSTILE } }) });
      assert.equal(lines().length, 2, format);
      for (const line of lines()) assert.doesNotMatch(line, UNPRINTABLE);
    }
    const { logger, lines } = capture('json');
    logger.warn('m', { detail: HOSTILE });
    assert.equal((JSON.parse(lines()[0] ?? '') as { detail: string }).detail, HOSTILE);
  });

  it('cuts long values and says how long they were, in both formats', () => {
    const long = 'y'.repeat(1_000_000);
    for (const format of ['text', 'json'] as const) {
      const { logger, lines } = capture(format);
      logger.warn(long, {
        backend: long,
        error: new OverlayError('ERR_FLAG', long, { hint: long, context: { peers: Array(100_000).fill('192.0.2.1') } }),
      });
      assert.ok((lines()[0] ?? '').length < 8000, `${format}: ${(lines()[0] ?? '').length} characters`);
      assert.match(lines()[0] ?? '', /y… \(1000000 characters\)/);
    }
  });

  it('leaves out fields that are undefined', () => {
    assert.equal(textOf('x', { dev: undefined, port: 1 }), 'info  x port=1');
  });

  it('takes an error apart into detail, code, hint and what it knows', () => {
    const error = new OverlayError('ERR_FLAG', 'cannot do it: why', { hint: 'do that', context: { port: 8285 } });
    assert.equal(
      textOf('failed', { error }),
      'info  failed port=8285 detail="cannot do it: why" code=ERR_FLAG hint="do that"',
    );
    assert.equal(
      textOf('failed', { error, detail: 'mine' }),
      'info  failed port=8285 detail=mine code=ERR_FLAG hint="do that"',
    );
    assert.equal(textOf('failed', { error: new Error('why') }), 'info  failed detail=why');
    assert.equal(textOf('failed', { error: 'text' }), 'info  failed detail=text');
  });

  it('keeps time, level and message of a line whatever an error calls its values', () => {
    // Fields with these names would be second keys of the same name in one JSON object, and the last one wins.
    const error = new OverlayError('ERR_FLAG', 'cannot', {
      context: { msg: 'no', time: 0, level: 10, host: 'no', pid: 0 },
    });
    const { logger, lines } = capture('text');
    logger.warn('yes', { error });
    assert.match(lines()[0] ?? '', /^\d\d:\d\d:\d\d\.\d{3} warn  yes detail=cannot code=ERR_FLAG$/);
    const json = capture('json');
    json.logger.warn('yes', { error });
    const { time, ...rest } = JSON.parse(json.lines()[0] ?? '') as Record<string, unknown>;
    assert.notEqual(time, 0);
    const own = { level: 'warn', host: 'node-1', pid: 4711, msg: 'yes' };
    assert.deepEqual(rest, { ...own, detail: 'cannot', code: 'ERR_FLAG' });
  });

  it('writes JSON for collectors, with the name of the level, the host and the process', () => {
    const { logger, lines } = capture('json');
    logger.warn('underlay is gone', { dev: 'eth0', ifindex: 2 });
    const { time, ...rest } = JSON.parse(lines()[0] ?? '') as Record<string, unknown>;
    assert.deepEqual(rest, {
      level: 'warn',
      host: 'node-1',
      pid: 4711,
      dev: 'eth0',
      ifindex: 2,
      msg: 'underlay is gone',
    });
    assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 10_000);
  });

  it('writes one line whatever the values are', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (detail, peer) => {
        for (const format of ['text', 'json'] as const) {
          const { logger, lines } = capture(format);
          logger.info('event', { detail, peer });
          assert.equal(lines().length, 1);
        }
      }),
    );
  });
});

describe('formatTextLine', () => {
  it('shows the local time of day', () => {
    const at = new Date(2026, 0, 2, 3, 4, 5, 6);
    const line = JSON.stringify({ level: 'info', time: at.toISOString(), msg: 'x' });
    assert.equal(formatTextLine(line, { hasClock: true }), '03:04:05.006 info  x\n');
  });
});
