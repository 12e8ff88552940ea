import assert from 'node:assert/strict';
import { chmodSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { refuseForeignLinks } from '../../../src/sys/safe-path.js';
import { skipBecause } from '../../support/skip.js';

const NOBODY = 65_534;

describe('refuseForeignLinks', function () {
  let directory: string;

  before(function () {
    if (process.geteuid?.() !== 0) skipBecause(this, 'needs root to make files of others');
  });

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'safe-path-'));
    mkdirSync(path.join(directory, 'target'));
    mkdirSync(path.join(directory, 'holder'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  /** A link in a directory, each with its owner; returns the link. */
  function arrange(
    holder: { uid: number; mode: number },
    linkUid: number,
    target = path.join(directory, 'target'),
  ): string {
    const at = path.join(directory, 'holder');
    const link = path.join(at, 'link');
    symlinkSync(target, link);
    lchownSync(link, linkUid, linkUid);
    lchownSync(at, holder.uid, holder.uid);
    chmodSync(at, holder.mode);
    return link;
  }

  for (const [title, uid, mode, linkUid, isRefused] of [
    ['our link in our directory', 0, 0o755, 0, false],
    ['our link in a directory like /tmp', 0, 0o1777, 0, false],
    ["another user's link in a directory like /tmp", 0, 0o1777, NOBODY, true],
    ["another user's link in our directory", 0, 0o755, NOBODY, true],
    ["our link in another user's directory", NOBODY, 0o755, 0, true],
    ["another user's link in a directory of that user", NOBODY, 0o755, NOBODY, true],
    ['our link in a directory that everybody may change', 0, 0o777, 0, true],
  ] as const) {
    it(`${isRefused ? 'refuses' : 'takes'} ${title}`, () => {
      const link = arrange({ uid, mode }, linkUid);
      for (const file of [link, path.join(link, 'file'), path.join(link, 'missing', 'file')]) {
        if (!isRefused) refuseForeignLinks(file);
        else
          assert.throws(
            () => refuseForeignLinks(file),
            (error: Error & { code: string; hint: string }) => {
              assert.equal(error.code, 'ERR_UNSAFE_PATH');
              assert.ok(error.message.includes(link) && error.message.includes(file));
              assert.match(error.hint, /without that link/);
              return true;
            },
          );
      }
    });
  }

  it('looks behind a link of ours, relative or absolute', () => {
    const foreign = arrange({ uid: NOBODY, mode: 0o755 }, NOBODY);
    symlinkSync(foreign, path.join(directory, 'absolute'));
    symlinkSync('target/../holder/link', path.join(directory, 'relative'));
    for (const name of ['absolute', 'relative']) {
      assert.throws(() => refuseForeignLinks(path.join(directory, name, 'file')), { code: 'ERR_UNSAFE_PATH' });
    }
  });

  it('takes a directory of another user without a link', () => {
    lchownSync(path.join(directory, 'holder'), NOBODY, NOBODY);
    refuseForeignLinks(path.join(directory, 'holder', 'file'));
  });

  it('leaves links that lead in a circle, and what is no directory, to whoever uses them', () => {
    symlinkSync('b', path.join(directory, 'a'));
    symlinkSync('a', path.join(directory, 'b'));
    refuseForeignLinks(path.join(directory, 'a'));
    refuseForeignLinks('/etc/hostname/file');
    refuseForeignLinks('/proc/nowhere/deep');
  });
});
