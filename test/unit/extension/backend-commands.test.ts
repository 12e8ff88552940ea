import assert from 'node:assert/strict';
import { BackendCommands } from '../../../src/extension/backend-commands.js';
import { COMMAND_VARIABLES, isFault, readCommand } from '../../../src/extension/command-text.js';
import type { CommandKey, HostCommands, PeerInput } from '../../../src/extension/host-commands.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeProgramGroups } from '../../support/fake-program-groups.js';
import { RecordingLogger } from '../../support/recorder.js';

const OWN = { NETWORK: '10.5.0.0/16', SUBNET: '10.5.1.0/24' };

const ALL: Readonly<Record<CommandKey, string>> = {
  PreStartupCommand: 'pre',
  PostStartupCommand: 'post $NETWORK $SUBNET',
  SubnetAddCommand: 'add $SUBNET',
  SubnetRemoveCommand: 'remove $SUBNET',
  ShutdownCommand: 'shutdown $SUBNET',
};

function hostCommands(texts: Partial<Record<CommandKey, string>> = ALL): HostCommands {
  const entries = Object.entries(texts).map(([key, text]) => {
    const read = readCommand(text, COMMAND_VARIABLES);
    assert.ok(!isFault(read));
    return [key, read] as const;
  });
  return { words: Object.fromEntries(entries), timeoutMs: 30_000 };
}

const peer = (n: number, data = ''): PeerInput => ({
  subnet: `10.5.${n}.0/24`,
  values: { SUBNET: `10.5.${n}.0/24`, PUBLIC_IP: `192.0.2.${n}` },
  data,
});

describe('BackendCommands', () => {
  let clock: FakeClock;
  let programs: FakeProgramGroups;
  let log: RecordingLogger;
  let commands: BackendCommands;
  let changes: number;

  beforeEach(() => {
    clock = new FakeClock();
    programs = new FakeProgramGroups();
    log = new RecordingLogger();
    changes = 0;
    const environment = {
      PATH: '/opt/bin',
      PLACE: 'here',
      FLANNELD_ETCD_PASSWORD: 'secret',
      NOTIFY_SOCKET: '/run/n',
      NODE_OPTIONS: '-r x',
    };
    const { run } = programs;
    commands = new BackendCommands({ run, environment, clock, log, onChange: () => changes++ });
  });

  afterEach(async () => {
    programs.answer = () => ({});
    await close();
  });

  const close = async (): Promise<void> => {
    const closed = commands.close();
    await clock.advance(0);
    await closed;
  };

  /** What was run since the last time that somebody asked. */
  const ran = (): readonly string[] => programs.lines.splice(0);

  const follow = async (peers: readonly PeerInput[], own = OWN, texts: Partial<typeof ALL> = ALL): Promise<void> => {
    commands.follow({ commands: hostCommands(texts), own, peers });
    await clock.advance(0);
  };

  const failing = (): readonly string[] =>
    (commands.status?.failing ?? []).map(({ command, peer: who, lastLine, attempts }) =>
      [command, who ?? '-', lastLine, attempts].join(' '),
    );

  it('runs them in the order of their names, each once, and tells the output of the first', async () => {
    programs.answer = () => ({ stdout: ' key\nof me \n' });
    assert.equal(commands.start(hostCommands()), undefined);
    await clock.advance(0);
    assert.equal(commands.start(hostCommands()), 'key\nof me');
    assert.deepEqual(ran(), ['pre']);
    await follow([peer(2, 'a b'), peer(3)]);
    await follow([peer(2, 'a b'), peer(3)]);
    await clock.advance(600_000);
    assert.deepEqual(ran(), ['post 10.5.0.0/16 10.5.1.0/24', 'add 10.5.2.0/24 < a b', 'add 10.5.3.0/24']);
    await follow([peer(3)]);
    assert.deepEqual(ran(), ['remove 10.5.2.0/24 < a b']);
    await close();
    assert.deepEqual(ran(), ['shutdown 10.5.1.0/24'], 'the work for peers stays, as the kernel state does');
  });

  it('gives each command its variables and the environment, without what is for the daemon alone', async () => {
    await follow([peer(2)]);
    const [, , add] = programs.runs;
    assert.deepEqual(add?.environment, {
      PATH: '/opt/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin',
      PLACE: 'here',
      SUBNET: '10.5.2.0/24',
      PUBLIC_IP: '192.0.2.2',
    });
    assert.equal(add.timeoutMs, 30_000);
    assert.equal(programs.runs[0]?.stdin, '\n');
  });

  it('lacks what is not configured without a word', async () => {
    await follow([peer(2)], OWN, { SubnetAddCommand: 'add $SUBNET' });
    await follow([], OWN, { SubnetAddCommand: 'add $SUBNET' });
    await close();
    assert.deepEqual(ran(), ['add 10.5.2.0/24']);
    assert.deepEqual(log.find(/./, 'warn'), []);
  });

  it('removes a peer that changed as it was, and adds it as it is', async () => {
    await follow([peer(2, 'a')]);
    ran();
    await follow([peer(2, 'b')]);
    assert.deepEqual(ran(), ['remove 10.5.2.0/24 < a', 'add 10.5.2.0/24 < b']);
  });

  it('keeps the order for each peer, and runs eight commands at a time', async () => {
    await follow([]);
    ran();
    programs.answer = () => undefined;
    const peers = Array.from({ length: 20 }, (_, n) => peer(n + 2));
    await follow(peers);
    assert.equal(programs.pending.length, 8);
    await follow(peers.slice(1));
    assert.equal(ran().includes('remove 10.5.2.0/24'), false, 'its adding has not ended');
    programs.answer = () => ({});
    programs.pending[0]?.end({});
    await clock.advance(0);
    const rest = ran();
    assert.equal(rest.filter((line) => line === 'remove 10.5.2.0/24').length, 1);
    assert.equal(rest.filter((line) => line.startsWith('add')).length, 12);
    for (const { end } of [...programs.pending]) end({});
    await clock.advance(0);
    assert.deepEqual(ran(), []);
    assert.equal(commands.status?.peersDone, 19);
  });

  it('does not begin with a peer again before the command for it has ended', async () => {
    await follow([]);
    programs.answer = () => undefined;
    await follow([peer(2)]);
    ran();
    await follow([]);
    await follow([peer(2, 'b')]);
    assert.deepEqual(ran(), []);
    programs.answer = () => ({});
    programs.pending[0]?.end({});
    await clock.advance(0);
    assert.deepEqual(ran(), ['remove 10.5.2.0/24', 'add 10.5.2.0/24 < b']);
  });

  it('tries what failed again, later each time, after removing what may be half done', async () => {
    await follow([]);
    ran();
    programs.answer = (words) =>
      words.startsWith('add') ? { failure: 'exit status 2', output: 'first\nRTNETLINK answers: File exists\n' } : {};
    await follow([peer(2), peer(3)]);
    assert.deepEqual(ran(), ['add 10.5.2.0/24', 'add 10.5.3.0/24']);
    assert.deepEqual(failing(), [
      'SubnetAddCommand 10.5.2.0/24 RTNETLINK answers: File exists 1',
      'SubnetAddCommand 10.5.3.0/24 RTNETLINK answers: File exists 1',
    ]);
    await clock.advance(700);
    assert.deepEqual(new Set(ran()), new Set([2, 3].flatMap((n) => [`remove 10.5.${n}.0/24`, `add 10.5.${n}.0/24`])));
    await clock.advance(3_600_000);
    const inAnHour = ran().filter((line) => line === 'add 10.5.2.0/24').length;
    assert.ok(inAnHour >= 45 && inAnHour < 90, `${inAnHour} times`);
    const [warning] = log.find(/^command of the backend failed, trying again$/, 'warn');
    assert.deepEqual([warning?.fields.kind, warning?.fields.peer], ['SubnetAddCommand', '10.5.2.0/24']);
    assert.equal(warning?.fields.detail, 'exit status 2: RTNETLINK answers: File exists');
    assert.equal(log.find(/failed, trying again/, 'warn').length, 2, 'as long as nothing is new');
    programs.answer = () => ({});
    await clock.advance(80_000);
    assert.deepEqual(failing(), []);
    assert.equal(log.find(/^command of the backend works again/, 'info').length, 2);
    assert.deepEqual(commands.status?.runs.SubnetRemoveCommand.failed, 0);
    assert.ok(commands.status.runs.SubnetAddCommand.failed > 100);
  });

  it('gives a removal up that keeps failing, and says so', async () => {
    await follow([peer(2)]);
    ran();
    programs.answer = () => ({ failure: 'exit status 2', output: 'No such process' });
    await follow([]);
    await clock.advance(3_600_000);
    assert.equal(ran().length, 5);
    assert.deepEqual(failing(), []);
    const given = log.find(/not tried again$/, 'warn');
    assert.deepEqual(
      given.map(({ fields }) => fields.peer),
      ['10.5.2.0/24'],
    );
  });

  it('tells of hundreds of peers that fail in a few lines', async () => {
    await follow([]);
    programs.answer = () => ({ failure: 'exit status 1', output: '' });
    await follow(Array.from({ length: 150 }, (_, n) => ({ ...peer(2), subnet: `10.${n >> 8}.${n & 255}.0/24` })));
    await clock.advance(60_000);
    const lines = log.find(/failed, trying again/, 'warn');
    assert.ok(lines.length < 20, `${lines.length} lines`);
    const told = lines.reduce((sum, { fields }) => sum + (fields.count ?? 1), 0);
    assert.equal(told, 150);
    assert.equal(commands.status?.failingCount, 150);
    assert.equal(commands.status.failing.length, 100);
  });

  it('writes one printable line of what a command has written', async () => {
    programs.answer = () => ({ failure: 'exit status 1', output: `\u001b[2J${'x'.repeat(5000)}\u0007\r\n\n` });
    await follow([]);
    const [line = ''] = commands.status?.failing.map(({ lastLine }) => lastLine) ?? [];
    assert.match(line, /^\\u001b\[2Jx+… \(\d+ characters\)$/);
    assert.ok(line.length < 500);
    for (const { fields } of log.lines) assert.doesNotMatch(String(fields.detail), /[\u0000-\u001f]/);
  });

  for (const [key, texts] of [
    ['PreStartupCommand', 'pre'],
    ['PostStartupCommand', 'post'],
  ] as const) {
    it(`tries ${key} until it succeeds, and does nothing that comes later before`, async () => {
      programs.answer = (words) => (words.startsWith(texts) ? { failure: 'not ended within 30 s' } : {});
      await follow([peer(2)]);
      await clock.advance(600_000);
      const tried = ran();
      const attempts = tried.filter((line) => line.startsWith(texts)).length;
      assert.ok(attempts > 15 && attempts < 40, `${attempts} times`);
      assert.equal(
        tried.some((line) => line.startsWith('add')),
        false,
      );
      assert.match(commands.notReadyBecause ?? '', new RegExp(`^${key} fails: not ended within 30 s$`));
      assert.equal(log.find(/failed, trying again/, 'warn').length, 1);
      programs.answer = () => ({});
      await clock.advance(60_000);
      assert.equal(ran().at(-1), 'add 10.5.2.0/24');
      assert.equal(commands.notReadyBecause, undefined);
      assert.equal(commands.isStarting, false);
    });
  }

  it('says what it waits for while that runs', async () => {
    programs.answer = () => undefined;
    commands.start(hostCommands());
    await clock.advance(0);
    assert.equal(commands.notReadyBecause, 'PreStartupCommand has not ended yet');
    programs.pending[0]?.end({});
    await follow([]);
    assert.equal(commands.notReadyBecause, 'PostStartupCommand has not ended yet');
    assert.equal(commands.isStarting, true);
    const before = changes;
    programs.pending[0]?.end({});
    await clock.advance(0);
    assert.ok(changes > before, 'whoever waits is told');
    assert.equal(commands.isStarting, false);
  });

  it('refuses an output that no lease has room for', async () => {
    programs.answer = () => ({ stdout: 'x', isStdoutComplete: false });
    commands.start(hostCommands());
    await clock.advance(0);
    assert.match(commands.notReadyBecause ?? '', /PreStartupCommand fails: it wrote more than the 16384 bytes/);
  });

  for (const [what, own, texts, begin] of [
    ['other commands', OWN, { ...ALL, SubnetAddCommand: 'other $SUBNET' }, 'other 10.5.2.0/24'],
    ['another lease of this host', { ...OWN, SUBNET: '10.5.9.0/24' }, ALL, 'add 10.5.2.0/24'],
  ] as const) {
    it(`ends what it did before ${what}, as it was begun`, async () => {
      await follow([peer(2)]);
      ran();
      await follow([peer(2)], own, texts);
      assert.deepEqual(ran(), [
        'remove 10.5.2.0/24',
        'shutdown 10.5.1.0/24',
        'pre',
        `post 10.5.0.0/16 ${own.SUBNET}`,
        begin,
      ]);
    });
  }

  it('removes all peers and shuts down once when no backend has commands any more', async () => {
    await follow([peer(2), peer(3)]);
    ran();
    commands.follow(undefined);
    await clock.advance(0);
    assert.deepEqual(ran(), ['remove 10.5.2.0/24', 'remove 10.5.3.0/24', 'shutdown 10.5.1.0/24']);
    assert.equal(commands.status, null);
    await close();
    assert.deepEqual(ran(), []);
  });

  it('removes once what an earlier process left for peers that are gone, and adds the others as if they were new', async () => {
    programs.answer = (words) => (words.startsWith('remove') ? { failure: 'exit status 2' } : {});
    const former = [peer(2, 'a'), peer(3, 'a'), peer(4, 'a')];
    commands.follow({ commands: hostCommands(), own: OWN, peers: [peer(3, 'a'), peer(4, 'b')], former });
    await clock.advance(600_000);
    assert.deepEqual(
      new Set(ran().slice(2)),
      new Set(['remove 10.5.2.0/24 < a', 'add 10.5.3.0/24 < a', 'remove 10.5.4.0/24 < a', 'add 10.5.4.0/24 < b']),
    );
    assert.deepEqual(log.find(/./, 'warn'), [], 'it may have gone with that process');
    assert.equal(commands.status?.peersWaiting, 0);
  });

  it('interrupts what runs at the end, then shuts down within the time that systemd gives', async () => {
    programs.answer = (words) => (words.startsWith('shutdown') ? {} : undefined);
    commands.start(hostCommands());
    await clock.advance(0);
    assert.equal(programs.pending.length, 1);
    await close();
    assert.equal(programs.pending.length, 0);
    assert.deepEqual(ran(), ['pre', 'shutdown']);
    assert.ok((programs.runs.at(-1)?.timeoutMs ?? 0) <= 10_000);
    assert.equal(programs.runs.at(-1)?.signal.aborted, false);
    assert.equal(clock.pending, 0);
  });
});
