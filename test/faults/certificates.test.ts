import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { type Certificate, CertificateAuthority, type CertificateRequest } from '../support/certificates.js';
import { countLines } from '../support/overlay.js';
import { type FaultBed, assertNothingLost } from './bed.js';
import { type Scenario, scenario } from './scenario.js';

const ETCD_ADDRESS = '192.0.2.2';

/** The files that etcd and daemons are started with, whose content a test exchanges. */
class TlsFiles {
  readonly #directory: string;
  #serial = 0;

  constructor(directory: string) {
    this.#directory = path.join(directory, 'tls');
    mkdirSync(this.#directory, { recursive: true });
  }

  file(name: string): string {
    return path.join(this.#directory, name);
  }

  /** Exchanges everything for what a new authority issues. */
  renew(server: CertificateRequest = {}): void {
    const authority = new CertificateAuthority(this.file(`ca${++this.#serial}`));
    const issued = authority.issue('server', { names: [ETCD_ADDRESS], ...server });
    const client = authority.issue('client');
    copyFileSync(authority.caFile, this.file('ca.pem'));
    copyFileSync(issued.certFile, this.file('server.pem'));
    copyFileSync(issued.keyFile, this.file('server.key'));
    copyFileSync(client.certFile, this.file('client.pem'));
    copyFileSync(client.keyFile, this.file('client.key'));
  }
}

/** A bed whose etcd demands client certificates. */
async function secureBed(make: Scenario['bed']): Promise<{ readonly bed: FaultBed; readonly files: TlsFiles }> {
  let files: TlsFiles | undefined;
  const bed = await make({
    etcdTls: (directory) => {
      files = new TlsFiles(directory);
      files.renew();
      const pair = (name: string): Certificate => ({
        certFile: path.join(directory, 'tls', `${name}.pem`),
        keyFile: path.join(directory, 'tls', `${name}.key`),
      });
      return { caFile: path.join(directory, 'tls', 'ca.pem'), server: pair('server'), client: pair('client') };
    },
  });
  if (files === undefined) throw new Error('etcd was started without TLS');
  return { bed, files };
}

/** Starts etcd with other files, and waits until its clients have it again. */
async function comeBack(bed: FaultBed, change: () => void, recovered: Scenario['recovered']): Promise<void> {
  const marks = bed.marks();
  await bed.whileEtcdIsAway(change);
  const sinceMs = performance.now();
  await bed.reconnected(marks);
  for (const number of bed.started) await bed.waitUntilFollowing(number, 20_000);
  recovered(sinceMs, 45_000);
}

/** Starts etcd with files that its clients must refuse, which they say within the minute between two reports. */
async function loseEtcd(bed: FaultBed, says: RegExp): Promise<void> {
  const marks = bed.marks();
  await bed.etcd.restart();
  for (const number of bed.started) {
    await bed.daemon(number).waitForLog(says, 90_000, marks.get(number));
    assert.equal(countLines(bed.daemon(number).log.slice(marks.get(number)), / (warn |error) .*hint=/) > 0, true);
  }
}

scenario('tls-rotated', { backends: ['vxlan'] }, async ({ bed: make, recovered }) => {
  const { bed, files } = await secureBed(make);
  const pids = bed.started.map((number) => bed.daemon(number).program.pid);
  const traffic = await bed.traffic(async () => {
    await comeBack(bed, () => files.renew(), recovered);
  });
  assertNothingLost(traffic);
  assert.deepEqual(
    bed.started.map((number) => bed.daemon(number).program.pid),
    pids,
  );
});

scenario('tls-expired', { backends: ['udp'], timeoutMs: 300_000 }, async ({ bed: make, recovered }) => {
  const { bed, files } = await secureBed(make);
  const traffic = await bed.traffic(async () => {
    files.renew({ days: -1 });
    await loseEtcd(bed, /expired/);
    // Who is away already does not lose etcd again.
    files.renew();
    const marks = bed.marks();
    await bed.etcd.restart();
    const sinceMs = performance.now();
    await bed.reconnected(marks);
    recovered(sinceMs, 45_000);
    for (const number of bed.started) await bed.waitUntilFollowing(number);
  });
  assertNothingLost(traffic);
});

scenario('tls-wrong-name', { backends: ['udp'], timeoutMs: 300_000 }, async ({ bed: make, recovered }) => {
  const { bed, files } = await secureBed(make);
  const traffic = await bed.traffic(async () => {
    files.renew({ names: ['198.51.100.1', 'elsewhere.example'] });
    await loseEtcd(bed, /elsewhere\.example|198\.51\.100\.1|not in the cert/);
    // Who is away already does not lose etcd again.
    files.renew();
    const marks = bed.marks();
    await bed.etcd.restart();
    const sinceMs = performance.now();
    await bed.reconnected(marks);
    recovered(sinceMs, 45_000);
    for (const number of bed.started) await bed.waitUntilFollowing(number);
  });
  assertNothingLost(traffic);
});
