import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { FlagValue } from '../../../src/config/flag-values.js';
import type { DaemonSettings } from '../../../src/config/daemon-settings.js';
import { type FoundSettings, findSettings } from '../../../src/ctl/settings.js';
import type { StoreOptions } from '../../../src/ctl/command.js';
import { describeError } from '../../../src/errors.js';
import type { OperatorStore } from '../../../src/lease/store.js';
import { ctl } from '../../support/ctl.js';

const WANTED = [
  ...['etcd-endpoints', 'etcd-prefix', 'etcd-cafile', 'etcd-username', 'etcd-password', 'etcd-password-file'],
  ...['status-socket', 'subnet-file'],
];

const DAEMON: DaemonSettings = {
  flags: { 'etcd-endpoints': 'https://192.0.2.1:2379', 'etcd-prefix': '/a', 'etcd-cafile': '/etc/ca.pem' },
  withheld: [],
};
const WITH_PASSWORD: DaemonSettings = {
  flags: { ...DAEMON.flags, 'etcd-username': 'overlay' },
  withheld: ['etcd-password'],
};

describe('findSettings', () => {
  let directory: string;
  let socket: string;
  let environmentFile: string;
  let server: http.Server | undefined;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'tsflannelctl-settings-'));
    socket = path.join(directory, 'socket');
    environmentFile = path.join(directory, 'tsflanneld');
  });

  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
    server = undefined;
    rmSync(directory, { recursive: true });
  });

  async function listen(answer: http.RequestListener): Promise<void> {
    server = http.createServer(answer);
    await new Promise<void>((resolve) => server?.listen(socket, resolve));
  }

  const daemonTells = (settings: unknown): Promise<void> =>
    listen((request, response) => {
      assert.equal(request.url, '/settings');
      response.end(JSON.stringify(settings));
    });

  const fileSays = (text: string): void => writeFileSync(environmentFile, text, { mode: 0o600 });

  const find = (given: Readonly<Record<string, FlagValue>> = {}): Promise<FoundSettings> =>
    findSettings({
      wanted: new Set(WANTED),
      given: new Map(Object.entries({ 'status-socket': socket, ...given })),
      environmentFile,
      signal: new AbortController().signal,
    });

  const findByFile = (): Promise<FoundSettings> =>
    findSettings({
      wanted: new Set(WANTED),
      given: new Map(),
      environmentFile,
      signal: new AbortController().signal,
    });

  it('asks the running daemon', async () => {
    await daemonTells(DAEMON);
    const { flags, origin, notes, storeProblem } = await find();
    assert.deepEqual(Object.fromEntries(flags), DAEMON.flags);
    assert.deepEqual([origin, notes, storeProblem], ['settings of the running daemon', [], undefined]);
  });

  it('reads variables and arguments in the environment file of the unit where no daemon answers', async () => {
    fileSays(
      'FLANNELD_ETCD_PREFIX=/b\nFLANNELD_ETCD_CAFILE=ca.pem\nTSFLANNELD_OPTS="--etcd-endpoints=http://b:2379 -v 1"\n',
    );
    const { flags, origin } = await find();
    // The service manager starts the daemon in the root directory.
    const read = { 'etcd-endpoints': 'http://b:2379', 'etcd-prefix': '/b', 'etcd-cafile': '/ca.pem' };
    assert.deepEqual(Object.fromEntries(flags), read);
    assert.equal(origin, `settings of ${environmentFile}, as no daemon runs here`);
  });

  it('goes on with the socket that answered, whatever its name is to the daemon', async () => {
    await daemonTells({ ...DAEMON, flags: { ...DAEMON.flags, 'status-socket': '/elsewhere/socket' } });
    fileSays(`FLANNELD_STATUS_SOCKET=${socket}\n`);
    assert.equal((await findByFile()).flags.get('status-socket'), socket);
  });

  it('finds the socket of the daemon by that file', async () => {
    await daemonTells(DAEMON);
    fileSays(`FLANNELD_STATUS_SOCKET=${socket}\n`);
    const { flags } = await findByFile();
    assert.equal(flags.get('etcd-prefix'), '/a');
  });

  it('leaves to the defaults what neither knows, and says so', async () => {
    const none = await find();
    assert.equal(none.flags.size, 0);
    assert.equal(none.origin, `default settings, as no daemon runs here and there is no ${environmentFile}`);
    fileSays('FLANNELD_IP_MASQ=true\n');
    const { flags, origin } = await find();
    assert.equal(flags.size, 0);
    assert.equal(origin, `default settings, as no daemon runs here and ${environmentFile} names no endpoints`);
  });

  it('finds nothing for what was given', async () => {
    await daemonTells(DAEMON);
    const { flags } = await find({ 'etcd-prefix': '/mine' });
    assert.deepEqual([...flags.keys()], ['etcd-endpoints', 'etcd-cafile']);
  });

  for (const [what, answer] of [
    ['of an earlier release', (response) => response.writeHead(404).end()],
    ['that answers with something else', (response) => response.end('{"flags":[]}')],
    ['whose answer has no end', (response) => response.write('{"flags":')],
  ] as readonly (readonly [string, (response: http.ServerResponse) => unknown])[]) {
    it(`goes by the file beside a daemon ${what}`, async () => {
      fileSays('FLANNELD_ETCD_ENDPOINTS=http://b:2379\n');
      await listen((_request, response) => void answer(response));
      const { flags, origin } = await find();
      assert.equal(flags.get('etcd-endpoints'), 'http://b:2379');
      assert.equal(origin, `settings of ${environmentFile}, as the running daemon does not answer`);
    });
  }

  it('does not wait for ever for a daemon whose answer drips', async () => {
    const drops: NodeJS.Timeout[] = [];
    await listen((_request, response) => void drops.push(setInterval(() => response.write(' '), 50)));
    try {
      assert.match((await find()).origin, /^default settings, as the running daemon does not answer/);
    } finally {
      for (const drop of drops) clearInterval(drop);
    }
  });

  it('tells of a file that was changed after the daemon had read it', async () => {
    await daemonTells(DAEMON);
    fileSays('FLANNELD_ETCD_PREFIX=/new\nFLANNELD_ETCD_CAFILE=/etc/ca.pem\n');
    const { flags, notes } = await find();
    assert.equal(flags.get('etcd-prefix'), '/a');
    assert.equal(notes.length, 1);
    assert.match(notes[0] ?? '', /^the running daemon has another --etcd-prefix than .*tsflanneld and is followed/);
    assert.deepEqual((await find({ 'etcd-prefix': '/mine' })).notes, []);
  });

  it('refuses to guess where a file that is there cannot be used', async () => {
    fileSays('FLANNELD_UDP_WORKERS=many\n');
    const { storeProblem } = await find();
    assert.match(
      describeError(storeProblem),
      /^cannot use the daemon's settings in .*: cannot use the value "many" for FLANNELD_UDP_WORKERS: .*; fix that file/,
    );
    assert.equal((await find({ 'etcd-endpoints': ['http://c'] })).storeProblem, undefined);
    fileSays('TSFLANNELD_OPTS=--help\n');
    assert.match(describeError((await find()).storeProblem), /TSFLANNELD_OPTS asks for help, which starts no daemon/);
  });

  describe('with a password', () => {
    const FILE = 'FLANNELD_ETCD_USERNAME=overlay\nFLANNELD_ETCD_PASSWORD="s3 cret"\n';

    it('reads what the daemon withholds in the file of its unit, if it is that of the same user', async () => {
      await daemonTells(WITH_PASSWORD);
      fileSays(FILE);
      const found = await find();
      assert.deepEqual([found.flags.get('etcd-password'), found.storeProblem, found.notes], ['s3 cret', undefined, []]);
      fileSays(FILE.replace('overlay', 'other'));
      const other = await find();
      assert.equal(other.flags.has('etcd-password'), false);
      assert.match(
        describeError(other.storeProblem),
        /^cannot log in to etcd as "overlay": the running daemon does not/,
      );
    });

    it('says how to give it where it is nowhere', async () => {
      await daemonTells(WITH_PASSWORD);
      assert.match(
        describeError((await find()).storeProblem),
        /; give --etcd-password-file, or FLANNELD_ETCD_PASSWORD/,
      );
      for (const name of ['etcd-password', 'etcd-password-file']) {
        assert.equal((await find({ [name]: 'x' })).storeProblem, undefined, name);
      }
    });

    it('warns of a file that everybody may read', async () => {
      fileSays(FILE);
      chmodSync(environmentFile, 0o644);
      const { flags, notes } = await find();
      assert.equal(flags.get('etcd-password'), 's3 cret');
      assert.equal(notes.length, 1);
      assert.match(notes[0] ?? '', /^everybody on this host may read the password in .*; run chmod 600 /);
    });

    it('sends user and password to no other endpoints', async () => {
      const flags = { ...WITH_PASSWORD.flags, 'etcd-password-file': '/etc/password' };
      await daemonTells({ flags, withheld: ['etcd-password'] });
      fileSays(FILE);
      const found = await find({ 'etcd-endpoints': ['http://192.0.2.66:2379'] });
      assert.deepEqual([...found.flags.keys()], ['etcd-prefix', 'etcd-cafile']);
    });

    it('uses it for no other user', async () => {
      await daemonTells({ flags: { ...WITH_PASSWORD.flags, 'etcd-password-file': '/etc/password' }, withheld: [] });
      const { flags } = await find({ 'etcd-username': 'root' });
      assert.equal(flags.has('etcd-password-file'), false);
    });
  });

  describe('for a command', () => {
    const refused = (options: StoreOptions): OperatorStore => {
      asked.push(options);
      throw new Error('asked');
    };
    let asked: StoreOptions[];

    beforeEach(() => (asked = []));

    it('goes before the defaults and behind what was given, by flag or variable', async () => {
      await daemonTells(DAEMON);
      const environment = { FLANNELD_ETCD_CAFILE: '/my/ca.pem', FLANNELD_STATUS_SOCKET: socket };
      await ctl(['config', 'get', '--etcd-prefix=/mine'], { environment, openStore: refused });
      const [{ etcdEndpoints, etcdPrefix, etcdCafile, etcdUsername } = asked[0] as StoreOptions] = asked;
      assert.deepEqual(
        [etcdEndpoints, etcdPrefix, etcdCafile, etcdUsername],
        [['https://192.0.2.1:2379'], '/mine', '/my/ca.pem', undefined],
      );
    });

    it('is told when asked for, without secrets', async () => {
      await daemonTells(WITH_PASSWORD);
      fileSays('FLANNELD_ETCD_USERNAME=overlay\nFLANNELD_ETCD_PASSWORD=s3cret\n');
      const world = { environmentFile, openStore: refused };
      const { stderr } = await ctl(['config', 'get', '--verbose', `--status-socket=${socket}`], world);
      assert.match(
        stderr,
        /^tsflannelctl: settings of the running daemon: --etcd-endpoints=https:\/\/192\.0\.2\.1:2379 /,
      );
      assert.match(stderr, / --etcd-username=overlay --etcd-password=\*\*\*\n/);
      assert.doesNotMatch(stderr, /s3cret/);
      const quiet = await ctl(['config', 'get', `--status-socket=${socket}`], world);
      assert.doesNotMatch(quiet.stderr, /settings/);
    });

    it('refuses what the daemon tells if it makes no sense', async () => {
      await daemonTells({ flags: { 'etcd-endpoints': 'ftp://192.0.2.1' }, withheld: [] });
      const { code, stderr } = await ctl(['config', 'get', `--status-socket=${socket}`], { openStore: refused });
      assert.equal(code, 2);
      assert.match(stderr, /"ftp:\/\/192\.0\.2\.1" for --etcd-endpoints \(settings of the running daemon\)/);
    });

    it('is looked for before etcd is asked, and then etcd is not asked if that fails', async () => {
      fileSays('FLANNELD_UDP_WORKERS=many\n');
      const world = { environmentFile, openStore: refused };
      const { code, stderr } = await ctl(['config', 'get', `--status-socket=${socket}`], world);
      assert.equal(code, 1);
      assert.match(stderr, /cannot use the daemon's settings in /);
      assert.deepEqual(asked, []);
    });
  });
});
