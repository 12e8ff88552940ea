import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { defineCommand, EXIT } from '../../../src/ctl/command.js';
import { formatHelp } from '../../../src/config/help.js';
import { OverlayError } from '../../../src/errors.js';
import type { OperatorStore } from '../../../src/lease/store.js';
import { sampleStatus } from '../../support/sample-status.js';
import { ctl, type CtlResult } from '../../support/ctl.js';
import { FakeClock } from '../../support/fake-clock.js';
import { HOSTILE, UNPRINTABLE, withHostileTexts } from '../../support/hostile-text.js';
import { simStore } from '../../support/sim-etcd/sim-store.js';
import { SimFlannel } from '../../support/sim-flannel.js';

/** A configuration is a text of several lines. */
const HOSTILE_LINE = HOSTILE.split('\r\n', 1)[0] ?? '';

/** Each line on its own is printable, and none was begun by a value. */
function assertPrintable({ stdout, stderr }: CtlResult): void {
  for (const line of `${stdout}${stderr}`.split('\n')) {
    assert.doesNotMatch(line.replaceAll('\t', ' '), UNPRINTABLE);
    assert.doesNotMatch(line, /^forged/);
  }
}

describe('tsflannelctl and texts that others chose', () => {
  let directory: string;
  let socket: string;
  let server: http.Server;
  let status: unknown;
  let clock: FakeClock;
  let cluster: SimFlannel;

  /** A subnet key, a value, a host's status and a configuration that all attack the terminal. */
  const openStore = (): OperatorStore =>
    Object.assign(simStore(clock, { cluster: cluster.etcd }).store, {
      configHistory: () =>
        Promise.resolve({
          versions: [{ text: `{"Network":"10.5.0.0/16","x":"${HOSTILE_LINE}"}`, revision: '3' }],
          end: 'first' as const,
        }),
    });

  beforeEach(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'hostile-text-'));
    socket = path.join(directory, 'status.sock');
    status = { ...withHostileTexts(sampleStatus()), statusVersion: sampleStatus().statusVersion };
    server = http.createServer((_, response) => response.end(JSON.stringify(status)));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    clock = new FakeClock();
    cluster = new SimFlannel(clock);
    const value = JSON.stringify({
      PublicIP: '192.0.2.7',
      BackendType: `x${HOSTILE}`,
      BackendData: { VtepMAC: HOSTILE },
    });
    cluster.configure(`{"Network":"10.5.0.0/16","Backend":{"Type":"udp","x":"${HOSTILE_LINE}"}}`);
    cluster.putLease('10.5.7.0-24', value);
    cluster.putLease(`10.5.8.0-24${HOSTILE}`, value);
    cluster.putLease('10.5.9.0-24', HOSTILE);
  });

  afterEach(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  it('shows them in the status', async () => {
    const benign = JSON.stringify(sampleStatus());
    const attacked = await ctl(['status', '--status-socket', socket]);
    status = JSON.parse(benign);
    const quiet = await ctl(['status', '--status-socket', socket]);
    assert.match(attacked.stdout, /node-1\.example\.net\\u001b\[2J/);
    assertPrintable(attacked);
    assert.equal(attacked.stdout.split('\n').length, quiet.stdout.split('\n').length, 'no line more, no line less');
  });

  for (const argv of [
    ['leases', 'list'],
    ['leases', 'show', '10.5.7.0/24'],
    ['config', 'get'],
    ['config', 'history'],
    ['leases', 'release', HOSTILE],
    ['config', HOSTILE],
    [`--${HOSTILE}`],
  ]) {
    it(`shows them in ${argv.join(' ').replace(HOSTILE, '…')}`, async () => {
      const result = await ctl(argv, { openStore });
      assert.match(result.stdout + result.stderr, /\\u001b/, 'the text is shown, not hidden');
      assertPrintable(result);
    });
  }

  it('shows them in the error of a store', async () => {
    const refusing = (): OperatorStore =>
      Object.assign(openStore(), {
        readConfig: () =>
          Promise.reject(new OverlayError('ERR_ETCD_REQUEST', `etcd says ${HOSTILE}`, { hint: HOSTILE })),
      });
    const result = await ctl(['config', 'get'], { openStore: refusing });
    assert.equal(result.stderr.split('\n').length, 2);
    assertPrintable(result);
  });

  it('shows them in a question', async () => {
    const asking = defineCommand({
      name: 'ask',
      summary: 'Ask',
      operands: [],
      flags: {},
      exits: [],
      run: async (context) => ((await context.confirm(`sure? ${HOSTILE}`)) === true ? EXIT.ok : EXIT.refused),
    });
    let asked = '';
    await ctl(['ask'], { commands: [asking], onQuestion: (question) => (asked = question) });
    assert.match(asked, /^sure\? \\u001b/);
    assert.doesNotMatch(asked, UNPRINTABLE);
  });

  it('shows them in findings on a configuration file', async () => {
    const file = path.join(directory, 'config.json');
    writeFileSync(file, JSON.stringify({ Network: '10.5.0.0/16', [HOSTILE]: 1, Backend: { Type: 'udp', x: HOSTILE } }));
    const result = await ctl(['config', 'check', file]);
    assert.match(result.stdout, /\\u001b/);
    assertPrintable(result);
  });

  it('prints JSON that is the same document as before, and printable', async () => {
    const shown = await ctl(['status', '--json', '--status-socket', socket]);
    assert.deepEqual(shown.json(), { daemon: status });
    assertPrintable(shown);
    const leases = await ctl(['leases', 'list', '--json'], { openStore });
    const { leases: rows } = leases.json() as { leases: { backend: string }[] };
    assert.equal(rows[0]?.backend, `x${HOSTILE}`.toLowerCase());
    assertPrintable(leases);
  });

  it('cuts a value of a megabyte, but not in JSON', async () => {
    const long = 'y'.repeat(1_000_000);
    status = sampleStatus({ notReadyBecause: [long], hostName: long });
    const text = await ctl(['status', '--status-socket', socket]);
    assert.match(text.stdout, /y… \(\d+ characters\)/);
    assert.ok(text.stdout.length < 20_000, `${text.stdout.length} characters`);
    assert.deepEqual((await ctl(['status', '--json', '--status-socket', socket])).json(), { daemon: status });
    cluster.putLease('10.5.7.0-24', JSON.stringify({ PublicIP: '192.0.2.7', BackendType: long }));
    const table = await ctl(['leases', 'list'], { openStore });
    assert.ok(table.stdout.length < 20_000, `${table.stdout.length} characters`);
  });

  it('has no character in its own help that it would have to escape', () => {
    for (const line of formatHelp({ program: 'tsflanneld', width: 80 }).split('\n')) {
      assert.doesNotMatch(line, UNPRINTABLE);
    }
  });
});
