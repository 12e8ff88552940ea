import assert from 'node:assert/strict';
import { PrivateKeyFile } from '../../../src/daemon/private-key.js';
import { isOverlayError } from '../../../src/errors.js';
import { WireguardSecret } from '../../../src/ip/wireguard-key.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeSecretFiles } from '../../support/fake-secret-files.js';
import { RecordingLogger } from '../../support/recorder.js';
import { secretOf } from '../../support/wireguard-contract.js';

const FILE = '/run/flannel/wgkey';

describe('the private key of a host', () => {
  let clock: FakeClock;
  let files: FakeSecretFiles;
  let log: RecordingLogger;
  let changes: number;
  let keys: PrivateKeyFile;

  const open = (): PrivateKeyFile => {
    const onChange = (): void => {
      changes++;
    };
    return new PrivateKeyFile({ file: FILE, files, clock, log, onChange });
  };

  beforeEach(() => {
    clock = new FakeClock();
    files = new FakeSecretFiles();
    log = new RecordingLogger();
    changes = 0;
    keys = open();
  });

  afterEach(() => {
    keys.close();
    assert.equal(clock.pending, 0, 'a timer is left over');
    for (const secret of [...files.texts.values()].filter((text) => text.length > 10)) {
      assert.ok(!JSON.stringify(log.lines).includes(secret.trim().slice(0, 10)), 'no secret in the log');
    }
  });

  const put = (secret: WireguardSecret): void => {
    files.texts.set(FILE, secret.toBase64());
  };

  it('is made where there is none, in the form that wg has, and found again', async () => {
    const key = await keys.load();
    assert.equal(files.texts.get(FILE), `${key.toBase64()}\n`);
    assert.equal(await keys.load(), key, 'one object for one key');
    const later = open();
    assert.ok((await later.load()).equals(key));
    later.close();
    assert.deepEqual(keys.status, { file: FILE, publicKey: key.publicKey, isOpen: false });
  });

  it('is not looked for before it is needed', () => {
    assert.equal(keys.status, undefined);
    assert.equal(clock.pending, 0);
  });

  for (const [what, text] of [
    ['as flannel writes it, without an end of the line', secretOf(1).toBase64()],
    ['as wg genkey writes it', `${secretOf(1).toBase64()}\n`],
  ] as const) {
    it(`is read ${what}`, async () => {
      files.texts.set(FILE, text);
      assert.ok((await keys.load()).equals(secretOf(1)));
    });
  }

  for (const [what, text] of [
    ['an empty file', ''],
    ['half a key', secretOf(1).toBase64().slice(0, 20)],
    ['two keys', `${secretOf(1).toBase64()}\n${secretOf(2).toBase64()}\n`],
    ['zeros', Buffer.alloc(32).toString('base64')],
  ] as const) {
    it(`is not taken from ${what}, nor is that written over`, async () => {
      files.texts.set(FILE, text);
      await assert.rejects(keys.load(), (error) => {
        assert.ok(isOverlayError(error, 'ERR_PRIVATE_KEY'));
        assert.match(error.hint ?? '', /wg genkey >\/run\/flannel\/wgkey/);
        return text === '' || !error.message.includes(text.trim().slice(0, 10));
      });
      assert.equal(files.texts.get(FILE), text);
    });
  }

  it('cannot be made where nothing can be written, and says why', async () => {
    files.errno = 'EACCES';
    await assert.rejects(
      keys.load(),
      (error) => isOverlayError(error, 'ERR_PRIVATE_KEY') && /EACCES/.test(error.message),
    );
    files.errno = undefined;
    await keys.load();
  });

  it('is that of whoever was faster in making it', async () => {
    const create = files.create.bind(files);
    files.create = (file, text) => {
      put(secretOf(3));
      return create(file, text);
    };
    assert.ok((await keys.load()).equals(secretOf(3)));
  });

  it('is exchanged while it is in use', async () => {
    put(secretOf(1));
    await keys.load();
    put(secretOf(2));
    await clock.advance(31_000);
    assert.equal(changes, 1);
    assert.ok((await keys.load()).equals(secretOf(2)));
    assert.equal(log.find(/private key was exchanged/, 'info').length, 1);
    await clock.advance(120_000);
    assert.equal(changes, 1);
  });

  for (const [what, spoil] of [
    ['spoilt', () => files.texts.set(FILE, 'x')],
    ['gone', () => files.texts.delete(FILE)],
  ] as const) {
    it(`stays in use when the file is ${what}, with one line of the log`, async () => {
      put(secretOf(1));
      await keys.load();
      spoil();
      await clock.advance(300_000);
      assert.ok((await keys.load()).equals(secretOf(1)));
      assert.equal(log.find(/going on with/, 'warn').length, 1);
      assert.equal(changes, 0);
      assert.notEqual(files.texts.get(FILE), secretOf(1).toBase64(), 'not written');
      put(secretOf(1));
      await clock.advance(31_000);
      spoil();
      await clock.advance(31_000);
      assert.equal(log.find(/going on with/, 'warn').length, 2, 'each time it happens');
    });
  }

  it('that others can read is told once, and in the status', async () => {
    put(secretOf(1));
    files.open.add(FILE);
    await keys.load();
    await clock.advance(300_000);
    const [line, ...rest] = log.find(/others can read/, 'warn');
    assert.match(line?.fields.hint ?? '', /chmod 600/);
    assert.equal(rest.length, 0);
    const isOpen = (): boolean | undefined => keys.status?.isOpen;
    assert.equal(isOpen(), true);
    files.open.delete(FILE);
    await clock.advance(31_000);
    assert.equal(isOpen(), false);
  });
});
