import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { compilePageScript } from '../../.ci/page.mjs';
import { silentLogger } from '../../src/log.js';
import { Metrics } from '../../src/observe/metrics.js';
import { ObserveServer } from '../../src/observe/server.js';
import type { DaemonStatus, HistoryEntry, PathStatus, PeerStatus } from '../../src/observe/status.js';
import { ChromiumPage, hasChromium } from '../support/chromium.js';
import { freePort } from '../support/free-port.js';
import { HOSTILE, UNPRINTABLE } from '../support/hostile-text.js';
import { samplePeer, sampleStatus } from '../support/sample-status.js';
import { skipBecause } from '../support/skip.js';
import { inOneStep } from '../support/steps.js';

describe('what Prometheus gets', function () {
  before(function () {
    if (!existsSync('/usr/bin/promtool')) skipBecause(this, 'no promtool (Debian package prometheus)');
  });

  it('passes promtool check metrics when everything is in it', async () => {
    const input = await new Metrics({ status: () => inOneStep(sampleStatus()) }).text();
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' });
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
  });

  it('passes it before there is a lease, a peer or a tunnel', async () => {
    const bare = {
      lease: null,
      network: null,
      underlay: null,
      mtu: null,
      peers: [],
      backends: [],
      devices: [],
      tunnels: [],
    };
    const input = await new Metrics({ status: () => inOneStep(sampleStatus({ ...bare, firewall: null })) }).text();
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' });
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
  });

  it('gets alert rules that promtool accepts', () => {
    const rules = path.resolve(import.meta.dirname, '../../docs/alerts.yml');
    assert.match(execFileSync('promtool', ['check', 'rules', rules], { encoding: 'utf8' }), /SUCCESS: \d+ rules found/);
  });
});

describe('the status page in a browser', function () {
  before(function () {
    if (!hasChromium()) skipBecause(this, 'no chromium (Debian package chromium)');
  });

  let server: ObserveServer | undefined;
  let page: ChromiumPage | undefined;
  let change: (asked: number) => Partial<DaemonStatus>;
  let port: number;
  let history: readonly HistoryEntry[];

  beforeEach(async () => {
    change = () => ({});
    history = [];
    let asked = 0;
    port = await freePort();
    server = await ObserveServer.start({
      ip: '127.0.0.1',
      port,
      log: silentLogger,
      pageScript: compilePageScript(),
      source: { status: () => inOneStep(sampleStatus(change(++asked))), history: () => history },
    });
  });

  afterEach(async () => {
    await page?.close();
    page = undefined;
    await server?.close();
  });

  async function open(width = 1280): Promise<ChromiumPage> {
    page = await ChromiumPage.open(`http://127.0.0.1:${port}/`, { width, height: 900 });
    await page.waitUntil(`document.querySelectorAll('#tiles .tile').length > 0`);
    return page;
  }

  const text = async (id: string): Promise<string> =>
    String(await page?.evaluate(`document.getElementById(${JSON.stringify(id)}).textContent`));

  it('shows host, lease, peers, offloads and problems without a complaint', async () => {
    const { complaints } = await open();
    assert.equal(await text('host'), 'node-1.example.net');
    assert.match(await text('tiles'), /10\.99\.7\.0\/24.*held.*renewed 18 times.*connected/);
    for (const peer of sampleStatus().peers) {
      for (const id of ['picture', 'peers'])
        assert.ok((await text(id)).includes(peer.subnet), `${peer.subnet} in ${id}`);
    }
    assert.match(await text('peers'), /this host lacks it; load the module/);
    assert.match(await text('tunnels'), /tso: on.*uso: switched off.*udpSegment: refused by the kernel/);
    assert.match(await text('peers'), /node-2\.example\.net/);
    assert.match(await text('tiles'), /answers in 18 ms/);
    assert.match(await text('problems'), /eth1 has that route.*lease lost/);
    assert.match(await text('drop-totals'), /no-route 7/);
    assert.deepEqual(complaints, []);
  });

  it('is red and not ready where something of others is in the way', async () => {
    await open();
    assert.equal(await text('ready'), 'conflict');
    assert.equal(await page?.evaluate(`document.getElementById('ready').className`), 'pill bad');
    assert.match(await text('tiles'), /in conflict/);
    assert.equal(
      await page?.evaluate(
        `[...document.querySelectorAll('#problems .bad')].some((one) => /^In the way: /.test(one.textContent))`,
      ),
      true,
    );
  });

  it('is ready only where nothing is wrong, and says what else is', async () => {
    const { reconcile, peerSet, lease, peers } = sampleStatus();
    assert.ok(lease !== null);
    const fine: Partial<DaemonStatus> = {
      lease: { ...lease, rivals: [], expiresInSeconds: 86_399.7 },
      reconcile: { ...reconcile, conflicts: [], failures: [] },
      peers: peers.slice(0, 2),
      peerSet: { ...peerSet, badKeyCount: 0, keptCount: 0, quarantinedCounts: {} as typeof peerSet.quarantinedCounts },
      problems: [],
    };
    change = () => fine;
    await open();
    assert.equal(await text('ready'), 'ready');
    assert.equal(await text('problems'), 'None now.');
    assert.match(await text('tiles'), /ends in 24 h, renewed/);
    change = () => ({ ...fine, dockerHint: 'restart Docker' });
    await page?.waitUntil(`document.getElementById('ready').textContent === 'degraded'`);
    assert.equal(await text('problems'), 'restart Docker');
  });

  it('folds away problems that are over, and those that are shown as a state', async () => {
    change = () => ({
      problems: [
        ...sampleStatus().problems,
        {
          at: '2026-01-02T04:20:00.000Z',
          level: 'warn',
          message: 'etcd lost',
          detail: '',
          hint: null,
          resolvedAt: null,
        },
      ],
    });
    await open();
    const now = await text('problems');
    assert.match(now, /lease lost/);
    assert.doesNotMatch(now, /etcd lost|reverted a change/);
    assert.equal(await page?.evaluate(`document.getElementById('over').open`), false);
    assert.match(await text('over-list'), /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d etcd lost.*reverted a change/);
  });

  it('shows durations and instants in one form', async () => {
    const seconds = [0, 119, 125, 3599, 3600, 7199, 86_399.7, 86_400, 93_784, 172_799, 172_800, 176_500, 1e7];
    await open();
    const [span] = /^function span\(.*?\n\}\n/ms.exec(compilePageScript()) ?? [];
    assert.deepEqual(await page?.evaluate(`${JSON.stringify(seconds)}.map((s) => { ${span ?? ''} return span(s); })`), [
      ...['0 s', '119 s', '2 min', '1 h', '1 h', '2 h', '24 h', '24 h', '26 h 3 min', '2 d', '2 d', '2 d 1 h'],
      '115 d 18 h',
    ]);
  });

  it('draws the history that the daemon has, also what was before the page was opened', async () => {
    const now = Date.now();
    history = Array.from({ length: 720 }, (_, index) => ({
      at: now - (719 - index) * 5000,
      ...{ txPps: 2000, rxPps: 1000, txBps: 16e6, rxBps: 8e6 },
      drops: index > 700 ? { 'tun-blocked': 3 } : {},
      etcdMs: index % 3 === 0 ? 2.5 : null,
    }));
    change = (asked) => ({ peers: [samplePeer(0, asked * 1000)] });
    const { complaints } = await open();
    const points = `document.querySelector('#packets .curve').getAttribute('points').split(' ').length`;
    await page?.waitUntil(`${points} === 61`);
    assert.match(await text('packets-legend'), /out 2 kpkt\/s.*in 1 kpkt\/s/);
    assert.match(await text('bits-legend'), /out 16 Mbit\/s/);
    assert.match(await text('drops-legend'), /^tun-blocked 3 pkt\/s$/);
    assert.match(await text('etcd-legend'), /answers in 2\.5 ms/);
    await page?.evaluate(`document.querySelector('button[data-range="3600000"]').click()`);
    assert.equal(await page?.evaluate(points), 720);
    await page?.waitUntil(`/[1-9].*bit\\/s/.test(document.querySelector('#peers td.num').textContent)`);
    assert.deepEqual(complaints, []);
  });

  describe('with peers that are probed', () => {
    const path = (changes: Partial<PathStatus>): PathStatus => ({
      ...{ family: 4, state: 'reachable', since: '2026-01-02T03:04:35.000Z', roundTripSeconds: 0.000_42, loss: 0 },
      ...{ answeredBy: 'overlay', address: '10.100.0.0', errno: null },
      ...changes,
    });
    const silent = path({
      ...{ state: 'unreachable', since: '2026-01-02T04:00:00.000Z', loss: 1, answeredBy: null, errno: 'ENETUNREACH' },
    });
    const probed = (index: number, ...reachability: PathStatus[]): PeerStatus => ({
      ...samplePeer(index, 1000 * (10 - index)),
      skipped: null,
      reachability,
    });
    /** Subnet and round trip of each peer, and what is wrong with it. */
    const rows = async (): Promise<unknown> =>
      page?.evaluate(`[...document.querySelectorAll('#peers tbody tr')].map((row) =>
        [...row.children].filter((_, n) => row.children.length === 1 || n === 1 || n === 4).map((cell) =>
          cell.textContent.replace(/[-0-9]{10} [:0-9]{8}/, 'INSTANT')))`);

    it('lists those that do not answer first, since when, and the round trip and loss of the others', async () => {
      change = () => ({
        peers: [
          probed(1, path({})),
          probed(2, path({ roundTripSeconds: 0.0128, loss: 0.001 })),
          probed(3, path({ state: 'unknown', since: null, roundTripSeconds: null, loss: null, answeredBy: null })),
          probed(4, path({ answeredBy: 'underlay' })),
          probed(5, silent),
          probed(7, path({}), path({ ...silent, family: 6, errno: null, answeredBy: 'underlay' })),
          probed(8),
        ],
      });
      const { complaints } = await open();
      assert.deepEqual(await rows(), [
        ['10.100.5.0/24', 'no answer'],
        ['no answer since INSTANT, this host cannot send: ENETUNREACH'],
        ['10.100.7.0/24', 'IPv4: 0.42 msIPv6: no answer'],
        ['IPv6: no answer since INSTANT, its host alone answers'],
        ['10.100.1.0/24', '0.42 ms'],
        ['10.100.2.0/242001:db8:2::/64', '13 ms, 1 % lost'],
        ['10.100.3.0/24', 'not known yet'],
        ['10.100.4.0/242001:db8:4::/64', '0.42 ms, the host itself'],
        ['10.100.8.0/242001:db8:8::/64', 'not probed'],
      ]);
      const [instant] = (await page?.evaluate(
        `[...document.querySelectorAll('#peers time')].map((time) => time.dateTime)`,
      )) as string[];
      assert.equal(instant, '2026-01-02T04:00:00.000Z');
      assert.deepEqual(complaints, []);
    });

    it('counts and marks those that do not answer', async () => {
      change = () => ({ peers: [probed(1, path({})), probed(5, silent), probed(7, path({}), silent)], problems: [] });
      await open();
      assert.match(await text('problems'), /2 peers do not answer through the overlay/);
      assert.match(await text('tiles'), /Peers32 not reached/);
      assert.match(await text('backends'), /not reached: 2/);
      const marked = `[...document.querySelectorAll('#picture circle.skip')].map((dot) => dot.textContent)`;
      assert.deepEqual(
        ((await page?.evaluate(marked)) as string[]).map((title) => title.split('\n').slice(1)),
        [5, 7].map((n) => [`10.100.${n}.0/24`, `198.51.100.${n + 1}, udp`, 'does not answer']),
      );
    });

    it('shows the log line about them as one that is seen above', async () => {
      const line = { at: '2026-01-02T04:01:30.000Z', level: 'warn', detail: '', hint: null, resolvedAt: null } as const;
      change = () => ({
        peers: [probed(5, silent)],
        problems: ['peers do not answer', 'peers cannot be probed'].map((message) => ({ ...line, message })),
      });
      await open();
      assert.match(await text('over-list'), /peers cannot be probed.*peers do not answer/);
      assert.doesNotMatch(await text('problems'), /:30/);
    });

    it('says why none is probed, and has no column where that is switched off', async () => {
      const { reachability } = sampleStatus();
      assert.ok(reachability !== null);
      change = () => ({ peers: [probed(1)], reachability: { ...reachability, error: 'EPERM: no raw socket' } });
      await open();
      assert.match(await text('problems'), /Peers are not probed: EPERM: no raw socket/);
      assert.match(await text('peers'), /Round trip/);
      change = () => ({ peers: [probed(1)], reachability: null });
      await page?.waitUntil(`!/Round trip/.test(document.getElementById('peers').textContent)`);
      assert.doesNotMatch(await text('problems'), /probed/);
    });

    it('shows fifty of them, of which three do not answer', async () => {
      change = (asked) => ({
        peers: Array.from({ length: 50 }, (_, index) => ({
          ...samplePeer(index, asked * 1000 * (index + 1)),
          hostName: `node-${index + 2}`,
          skipped: null,
          reachability: [index % 20 === 9 ? silent : path({ roundTripSeconds: 0.0004 * (index + 1) })],
        })),
      });
      await open();
      const silentRows = `[...document.querySelectorAll('#peers tbody tr')].findIndex((row) => !/no answer/.test(row.textContent))`;
      assert.equal(await page?.evaluate(silentRows), 6, 'three peers, with a row below each');
      assert.equal(await page?.evaluate(`document.querySelectorAll('#picture circle.skip').length`), 3);
      await keepScreenshot('peers-desktop-light');
      await page?.resize({ width: 390, height: 844 });
      await page?.emulate('dark');
      await page?.waitUntil('document.documentElement.scrollWidth === 390');
      await keepScreenshot('peers-phone-dark');
    });
  });

  it('shows what peers chose as text and never as part of the page', async () => {
    const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
    change = () => ({
      hostName: evil,
      peers: [
        { ...samplePeer(0), backend: evil, publicIp: evil, skipped: { cause: 'data', reason: evil, hint: evil } },
      ],
      problems: [{ at: evil, level: 'error', message: evil, detail: evil, hint: evil, resolvedAt: null }],
    });
    const { complaints } = await open();
    assert.ok((await text('peers')).includes(evil));
    assert.equal(await text('host'), evil);
    assert.equal(await page?.evaluate(`document.querySelectorAll('img, main script').length`), 0);
    assert.deepEqual(complaints, []);
  });

  it('groups thousands of peers, lists the first of them and finds the others', async () => {
    change = () => ({ peers: Array.from({ length: 3000 }, (_, index) => samplePeer(index)) });
    await open();
    assert.ok(Number(await page?.evaluate(`document.querySelectorAll('#picture circle').length`)) < 400);
    assert.match(await text('backends'), /a dot is up to \d+ peers/);
    assert.match(await text('more'), /and 2900 more/);
    await page?.evaluate(`{ const filter = document.getElementById('filter'); filter.value = '10.111.182.';
      filter.dispatchEvent(new Event('input')); }`);
    assert.match(await text('peers'), /10\.111\.182\.0\/24/);
    assert.equal(await page?.evaluate(`document.querySelectorAll('#peers tbody tr').length`), 1);
  });

  it('fits on a phone', async () => {
    await open(390);
    assert.equal(await page?.evaluate('document.documentElement.scrollWidth'), 390);
    for (const scheme of ['light', 'dark'] as const) {
      await page?.emulate(scheme);
      await keepScreenshot(`phone-${scheme}`);
    }
  });

  it('shows hostile texts of peers as texts, and cuts them', async () => {
    const backend = `<img src=x onerror=alert(1)>${HOSTILE}`;
    change = () => ({
      peers: [
        { ...samplePeer(1), backend },
        { ...samplePeer(2), backend: 'y'.repeat(1_000_000) },
      ],
    });
    const { complaints } = await open();
    const peers = await text('peers');
    assert.match(peers, /<img src=x onerror=alert\(1\)>\\u001b\[2J/);
    assert.match(peers, /y… \(1000000 characters\)/);
    assert.doesNotMatch(peers.replaceAll(/[\n\t]/g, ' '), UNPRINTABLE);
    assert.ok(peers.length < 5000);
    assert.deepEqual(complaints, []);
  });

  it('says what readiness waits for', async () => {
    change = () => ({
      isReady: false,
      notReadyBecause: ['etcd has not answered yet'],
      lease: null,
      network: null,
      mtu: null,
      tunnels: [],
    });
    const { complaints } = await open();
    assert.equal(await text('ready'), 'not ready');
    assert.equal(await text('reasons'), 'etcd has not answered yet');
    assert.equal(await page?.evaluate(`document.getElementById('tunnel-section').hidden`), true);
    assert.deepEqual(complaints, []);
  });

  it('says that the daemon is away, and comes back with it', async () => {
    await open();
    await server?.close();
    await page?.waitUntil(`!document.getElementById('away').hidden`);
    assert.match(await text('away'), /No answer from the daemon/);
    server = await ObserveServer.start({
      ip: '127.0.0.1',
      port,
      log: silentLogger,
      pageScript: compilePageScript(),
      source: { status: () => inOneStep(sampleStatus({ pid: 4712 })) },
    });
    await page?.waitUntil(`document.getElementById('away').hidden`);
  });

  /** For a look by eye: `OBSERVE_SCREENSHOTS=/some/folder`. */
  async function keepScreenshot(name: string): Promise<void> {
    const folder = process.env.OBSERVE_SCREENSHOTS;
    if (folder === undefined || page === undefined) return;
    writeFileSync(path.join(folder, `${name}.png`), await page.screenshot());
  }
});
