import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { hasTlsFiles, loadTlsMaterial } from '../../../src/etcd/tls.js';

describe('loadTlsMaterial', () => {
  let directory = '';
  const file = (name: string): string => path.join(directory, name);

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-tls-'));
    for (const name of ['a', 'b']) {
      const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
      const names = ['-keyout', file(`${name}.key`), '-out', file(`${name}.pem`), '-days', '2', '-subj', '/CN=test'];
      execFileSync('openssl', ['req', '-x509', ...curve, ...names], { stdio: 'ignore' });
    }
    writeFileSync(file('text'), 'hello\n');
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  it('reads all three files', () => {
    const material = loadTlsMaterial({ caFile: file('b.pem'), certFile: file('a.pem'), keyFile: file('a.key') });
    assert.deepEqual(material.rootCertificate, readFileSync(file('b.pem')));
    assert.deepEqual(material.certChain, readFileSync(file('a.pem')));
    assert.deepEqual(material.privateKey, readFileSync(file('a.key')));
  });

  it('is content with a CA file alone', () => {
    const material = loadTlsMaterial({ caFile: file('a.pem'), certFile: '', keyFile: '' });
    assert.deepEqual(Object.keys(material), ['rootCertificate']);
  });

  it('trusts the roots of the system when no CA file is named', () => {
    assert.match(loadTlsMaterial({}).rootCertificate.toString(), /BEGIN CERTIFICATE/);
  });

  it('leaves a certificate without its key out', () => {
    assert.equal(loadTlsMaterial({ caFile: file('a.pem'), certFile: file('a.pem') }).certChain, undefined);
  });

  for (const [title, files, named] of [
    ['a missing CA file', { caFile: 'none.pem' }, 'none.pem'],
    ['a CA file that is no certificate', { caFile: 'text' }, 'text'],
    ['a missing certificate', { certFile: 'none.pem', keyFile: 'a.key' }, 'none.pem'],
    ['a key that is none', { certFile: 'a.pem', keyFile: 'text' }, 'text'],
    ['a key of another certificate', { certFile: 'a.pem', keyFile: 'b.key' }, 'b.key'],
  ] as const) {
    it(`names the file and the flag for ${title}`, () => {
      const inPlace = Object.fromEntries(Object.entries(files).map(([key, name]) => [key, file(name)]));
      assert.throws(
        () => loadTlsMaterial(inPlace),
        (error: Error & { code?: string; hint?: string; context?: { file?: string } }) => {
          assert.equal(error.code, 'ERR_TLS_FILE');
          assert.ok(error.message.includes(file(named)), error.message);
          assert.equal(error.context?.file, file(named));
          assert.match(error.hint ?? '', /--etcd-(ca|cert|key)file/);
          return true;
        },
      );
    });
  }

  it('knows whether any file is named', () => {
    assert.equal(hasTlsFiles({ caFile: '', certFile: undefined }), false);
    assert.equal(hasTlsFiles({ keyFile: 'x' }), true);
  });
});
