import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { BACKEND_LINGER_MS, Lingering } from '../../../src/daemon/lingering.js';
import { ENDED_BY, REPAIRED } from '../../../src/daemon/problem-ends.js';
import { ProblemLog } from '../../../src/daemon/problem-log.js';
import type { SkippedPeer } from '../../../src/backend/backend.js';
import { SkippedPeers } from '../../../src/daemon/skipped-peers.js';
import { inheritedTunnels } from '../../../src/daemon/tunnel-store.js';
import { OverlayError } from '../../../src/errors.js';
import { readDeviceCounters } from '../../../src/netlink/device-counters.js';
import { lease } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';

describe('lingering', () => {
  let clock: FakeClock;
  let expired: number;
  let lingering: Lingering;

  beforeEach(() => {
    clock = new FakeClock();
    expired = 0;
    lingering = new Lingering(clock, BACKEND_LINGER_MS, () => expired++);
  });

  it('keeps what is in use, and for 30 s what was, then reports it gone', async () => {
    lingering.use(['udp']);
    lingering.use(['vxlan']);
    assert.deepEqual([...lingering.names].sort(), ['udp', 'vxlan']);
    await clock.advance(29_000);
    assert.equal(expired, 0);
    await clock.advance(2_000);
    assert.equal(expired, 1);
    assert.deepEqual(lingering.names, ['vxlan']);
    lingering.use(['vxlan']);
    assert.deepEqual(lingering.names, ['vxlan']);
  });

  // Nothing is said while nothing changes: a backend or network in use for an hour must not go in an instant.
  it('counts the time from the end of a use, however long nothing was said', async () => {
    lingering.use(['udp']);
    await clock.advance(3_600_000);
    assert.deepEqual(lingering.names, ['udp']);
    lingering.use(['vxlan']);
    assert.deepEqual([...lingering.names].sort(), ['udp', 'vxlan']);
    await clock.advance(29_000);
    lingering.use(['vxlan']);
    assert.deepEqual([...lingering.names].sort(), ['udp', 'vxlan']);
    await clock.advance(2_000);
    assert.equal(expired, 1);
    assert.deepEqual(lingering.names, ['vxlan']);
  });

  it('forgets that something was out of use when it is used again', async () => {
    lingering.use(['udp']);
    lingering.use(['vxlan']);
    lingering.use(['vxlan', 'udp']);
    await clock.advance(60_000);
    assert.equal(expired, 0);
    assert.deepEqual([...lingering.names].sort(), ['udp', 'vxlan']);
  });

  it('says nothing more once it is closed', () => {
    lingering.use(['udp']);
    lingering.use([]);
    assert.equal(clock.pending, 1);
    lingering.close();
    assert.equal(clock.pending, 0);
  });
});

describe('problem log', () => {
  it('remembers the latest warnings and errors with their hints and passes everything on', () => {
    const log = new RecordingLogger();
    const problems = new ProblemLog(log, () => 0);
    problems.info('all well');
    problems.warn('peer cannot be reached', { peer: '10.5.2.0/24', hint: 'do this' });
    problems.error('failed', { error: new OverlayError('ERR_TUNNEL', 'cannot open', { hint: 'do that' }) });
    assert.deepEqual(problems.problems, [
      {
        at: '1970-01-01T00:00:00.000Z',
        level: 'warn',
        message: 'peer cannot be reached',
        detail: 'peer=10.5.2.0/24',
        hint: 'do this',
        resolvedAt: null,
      },
      {
        at: '1970-01-01T00:00:00.000Z',
        level: 'error',
        message: 'failed',
        detail: 'cannot open',
        hint: 'do that',
        resolvedAt: null,
      },
    ]);
    assert.equal(log.find(/./).length, 3);
    for (let i = 0; i < 100; i++) problems.warn(`again ${i}`);
    assert.equal(problems.problems.length, 20);
    assert.equal(problems.problems.at(-1)?.message, 'again 99');
  });
});

describe('the end of a problem', () => {
  let nowMs: number;
  let problems: ProblemLog;

  beforeEach(() => {
    nowMs = 0;
    problems = new ProblemLog(new RecordingLogger(), () => nowMs);
  });

  const open = (): string[] =>
    problems.problems.filter(({ resolvedAt }) => resolvedAt === null).map(({ detail }) => detail);

  it('is when a line says so, about the same thing', () => {
    problems.warn('peer cannot be reached', { peer: '10.5.2.0/24' });
    problems.warn('peer cannot be reached', { peer: '10.5.3.0/24' });
    nowMs = 5000;
    problems.info('peer can be reached again, or is gone', { peer: '10.5.2.0/24' });
    assert.deepEqual(open(), ['peer=10.5.3.0/24']);
    assert.equal(problems.problems[0]?.resolvedAt, '1970-01-01T00:00:05.000Z');
    nowMs = 6000;
    problems.info('peers can be reached again, or are gone', { count: 5 });
    assert.deepEqual(open(), []);
    assert.equal(problems.problems[0].resolvedAt, '1970-01-01T00:00:05.000Z', 'it does not end twice');
  });

  it('comes when all peers answer again, and when Docker was restarted', () => {
    problems.warn('peers do not answer', { count: 2, detail: 'a' });
    problems.warn('containers need a restart of Docker', { detail: 'b' });
    problems.info('fewer peers do not answer', { count: 1 });
    assert.deepEqual(open(), ['count=2 detail=a', 'detail=b']);
    problems.info('all peers answer again', { count: 5 });
    assert.deepEqual(open(), ['detail=b']);
    problems.info('containers follow subnet file', { mtu: 1450 });
    assert.deepEqual(open(), []);
  });

  it('is at once where the daemon has repaired what it tells of', () => {
    problems.warn('reverted a change made by somebody else', { kind: 'route' });
    assert.deepEqual(open(), []);
  });

  it('is told by lines that exist, about lines that exist', () => {
    const source = readdirSync('src', { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.endsWith('problem-ends.ts'))
      .map((file) => readFileSync(`src/${file}`, 'utf8'))
      .join('\n');
    const literals = new Set([...source.matchAll(/'([^'\n]+)'/g)].map(([, text]) => text));
    for (const message of [...Object.entries(ENDED_BY).flat(2), ...REPAIRED]) {
      assert.ok(literals.has(message), `nothing writes "${message}"`);
    }
  });
});

describe('skipped peers', () => {
  it('are told once, again with another reason, and when it is over', () => {
    const log = new RecordingLogger();
    const skipped = new SkippedPeers(log, new FakeClock());
    const peer = (reason: string): SkippedPeer => ({
      lease: lease(2),
      cause: 'data',
      reason,
      hint: 'hint',
    });
    skipped.tell([peer('no MAC')]);
    skipped.tell([peer('no MAC')]);
    assert.equal(log.find(/cannot be reached/, 'warn').length, 1);
    skipped.tell([peer('no address')]);
    assert.equal(log.find(/cannot be reached/, 'warn').length, 2);
    skipped.tell([]);
    assert.equal(log.find(/can be reached again/, 'info').length, 1);
  });

  it('are one line for many with the same cause, and one when it is over', () => {
    const log = new RecordingLogger();
    const skipped = new SkippedPeers(log, new FakeClock());
    const many = Array.from({ length: 100 }, (_, n): SkippedPeer => {
      const cause = n < 60 ? 'off-link' : 'data';
      return { lease: lease(n), cause, reason: `no way ${n}`, hint: `fix ${cause}` };
    });
    skipped.tell(many);
    skipped.tell([]);
    assert.deepEqual(
      log.lines.map(({ level, message, fields }) => [level, message, fields.kind, fields.count, fields.hint]),
      [
        ['warn', 'peers cannot be reached', 'off-link', 60, 'fix off-link'],
        ['warn', 'peers cannot be reached', 'data', 40, 'fix data'],
        ['info', 'peers can be reached again, or are gone', undefined, 100, undefined],
      ],
    );
    assert.match(log.lines[0]?.fields.detail ?? '', /^10\.5\.0\.0\/24: no way 0, .* and 57 more$/);
  });

  it('are told of at the end', () => {
    const log = new RecordingLogger();
    const clock = new FakeClock();
    const skipped = new SkippedPeers(log, clock);
    for (let n = 0; n < 30; n++) skipped.tell([{ lease: lease(n), cause: 'data', reason: 'no MAC', hint: 'hint' }]);
    skipped.close();
    assert.equal(clock.pending, 0);
    const sum = (message: RegExp): number =>
      log.find(message).reduce((total, { fields }) => total + (fields.count ?? 1), 0);
    assert.deepEqual([sum(/cannot be reached/), sum(/can be reached again/)], [30, 29]);
  });
});

describe('inherited tunnels', () => {
  it('are put together from the names of descriptors', () => {
    const tunnels = inheritedTunnels(
      new Map([
        ['tun.flannel0', [3, 4]],
        ['udp.flannel0', [5]],
        ['unknown', [6]],
      ]),
    );
    assert.deepEqual([...tunnels], [['flannel0', { tun: [3, 4], socket: [5] }]]);
  });

  it('come with the kernel path where there was one', () => {
    const tunnels = inheritedTunnels(
      new Map([
        ['tun.flannel0', [3]],
        ['bpf-map.flannel0', [6, 7]],
        ['bpf-link.flannel0', [8]],
      ]),
    );
    assert.deepEqual(tunnels.get('flannel0')?.kernelPath, { maps: [6, 7], links: [8] });
  });
});

describe('device counters', () => {
  it('are read from the kernel text', () => {
    const text = [
      'Inter-|   Receive                                                |  Transmit',
      ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed',
      '    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0',
      'flannel.1: 200 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0',
    ].join('\n');
    assert.deepEqual(readDeviceCounters(text).get('flannel.1'), {
      rxBytes: 200,
      rxPackets: 2,
      rxErrors: 3,
      rxDropped: 4,
      txBytes: 500,
      txPackets: 6,
      txErrors: 7,
      txDropped: 8,
    });
    assert.equal(readDeviceCounters(text).size, 2);
  });
});
