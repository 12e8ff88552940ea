import assert from 'node:assert/strict';
import { NETWORK, Overlay, countLines, leaseKey } from '../support/overlay.js';
import { Rig } from '../support/rig.js';
import { ping } from '../support/traffic.js';
import { waitFor } from '../support/wait.js';

describe('daemons whose etcd fails', () => {
  let overlay: Overlay;

  before(async () => {
    overlay = await Overlay.create();
  });
  after(() => overlay.close());

  const outages = [
    {
      title: 'is killed and started again',
      lose: () => overlay.rig.etcd.kill(),
      restore: () => overlay.rig.etcd.start(),
    },
    {
      title: 'hangs and wakes up',
      lose: () => {
        overlay.rig.etcd.pause();
        return Promise.resolve();
      },
      restore: () => {
        overlay.rig.etcd.resume();
        return Promise.resolve();
      },
    },
  ];
  for (const { title, lose, restore } of outages) {
    it(`lose no packet and say each transition once when it ${title}`, async () => {
      const daemons = [overlay.daemon(1), overlay.daemon(2)];
      const marks = daemons.map((daemon) => daemon.program.mark());
      const env = daemons.map((daemon) => daemon.subnetEnv());
      await overlay.withoutLoss(async () => {
        await lose();
        await Promise.all(daemons.map((daemon, i) => daemon.waitForLog(/etcd lost/, 40_000, marks[i])));
        await ping(overlay.container(1).netns, overlay.container(2).address, { count: 100 });
        await restore();
        await Promise.all(daemons.map((daemon, i) => daemon.waitForLog(/etcd is back/, 40_000, marks[i])));
      });
      for (const [i, daemon] of daemons.entries()) {
        const log = daemon.log.slice(marks[i]);
        assert.equal(countLines(log, /etcd/), 2, log);
        assert.match(log, / warn {2}etcd lost .*hint=/);
        assert.equal(countLines(log, / (warn|error) /), 1, log);
        assert.deepEqual(daemon.subnetEnv(), env[i]);
      }
    });
  }

  it('follow leases again afterwards', async () => {
    const daemon = overlay.daemon(1);
    const mark = daemon.program.mark();
    const key = `${overlay.rig.etcdPrefix}/subnets/10.5.250.0-24`;
    await overlay.rig.etcd.put(key, '{"PublicIP":"192.0.2.250"}');
    await daemon.waitForLog(/peer joined subnet=10\.5\.250\.0\/24/, 10_000, mark);
    await overlay.rig.etcd.delete(key);
    await daemon.waitForLog(/peer left subnet=10\.5\.250\.0\/24/, 10_000, mark);
  });

  it('stop in order and carry packets at once after a restart with what they knew last', async () => {
    const daemon = overlay.daemon(1);
    const env = daemon.subnetEnv();
    await overlay.rig.etcd.kill();
    assert.deepEqual(await daemon.stop(), { code: 0, signal: null });

    const start = performance.now();
    daemon.start();
    await waitFor(
      async () =>
        (await ping(overlay.container(1).netns, overlay.container(2).address, { count: 1, waitSeconds: 1 }))
          .received === 1,
      { what: `a ping without etcd; log:\n${daemon.log}` },
    );
    const tookMs = performance.now() - start;
    assert.ok(tookMs < 5000, `${tookMs} ms`);
    assert.deepEqual(daemon.subnetEnv(), env);
    await daemon.waitForLog(/etcd does not answer, going on with the saved/);
    assert.equal(countLines(daemon.log, /etcd does not answer, going on with the saved/), 1, daemon.log);

    await overlay.withoutLoss(async () => {
      await overlay.rig.etcd.start();
      await daemon.waitForLog(/ ready /, 40_000);
    });
    assert.deepEqual(daemon.subnetEnv(), env);
    assert.equal((await overlay.rig.etcd.list(`${overlay.rig.etcdPrefix}/subnets/`)).length, 2);
    assert.ok((await overlay.rig.etcd.get(leaseKey(overlay.rig, env.FLANNEL_SUBNET))) !== undefined);
  });
});

describe('a daemon that finds no etcd, or nothing usable in it', () => {
  let rig: Rig;

  beforeEach(async () => {
    rig = await Rig.create({ hosts: 1 });
  });
  afterEach(() => rig.close());

  it('waits for etcd, says so once and goes on by itself', async () => {
    await rig.putConfig(NETWORK);
    await rig.etcd.stop();
    const daemon = rig.host(1).makeDaemon();
    daemon.start();
    await daemon.waitForLog(/ warn {2}etcd lost .*192\.0\.2\.2:2379.* hint=/);
    await waitFor(async () => ((await daemon.status()).store.counters.errors['ERR_ETCD_UNAVAILABLE'] ?? 0) >= 3, {
      what: 'more attempts, which are not told again',
    });
    assert.ok(daemon.program.isRunning, daemon.log);
    assert.equal(countLines(daemon.log, / (warn|error) /), 1, daemon.log);
    await rig.etcd.start();
    await daemon.waitForLog(/ ready /, 40_000);
    assert.equal(countLines(daemon.log, / (warn|error) /), 1, daemon.log);
  });

  it('ends in order while it waits for etcd', async () => {
    await rig.etcd.stop();
    const daemon = rig.host(1).makeDaemon();
    daemon.start();
    await daemon.waitForLog(/etcd lost/);
    assert.deepEqual(await daemon.stop(), { code: 0, signal: null });
  });

  it('waits for a missing configuration, names the command that writes one, and goes on by itself', async () => {
    const daemon = rig.host(1).makeDaemon();
    daemon.start();
    const [line] = await daemon.waitForLog(/ error network configuration missing .*/);
    assert.match(line, /hint="etcdctl put \/coreos\.com\/network\/config /);
    await rig.putConfig(NETWORK);
    await daemon.waitForLog(/ ready /);
    assert.equal(countLines(daemon.log, / (warn|error) /), 1, daemon.log);
  });

  const mistakes: readonly { config: string; says: RegExp }[] = [
    { config: 'no JSON', says: /JSON/ },
    { config: '{}', says: /Network/ },
    { config: '{"Network":"10.5.0.0"}', says: /Network.*10\.5\.0\.0/ },
    { config: '{"Network":"10.5.0.0/16","SubnetLen":12}', says: /SubnetLen/ },
    { config: '{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}', says: /SubnetMin/ },
    { config: '{"Network":"10.5.0.0/16","Backend":{"Type":"telepathy"}}', says: /telepathy.*udp/ },
    { config: '{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":99999}}', says: /Port/ },
  ];
  it('says once what is wrong with each configuration and takes the first that is right', async () => {
    const [first] = mistakes;
    await rig.putConfig(first?.config ?? '');
    const daemon = rig.host(1).makeDaemon();
    daemon.start();
    for (const { config, says } of mistakes) {
      const mark = config === first?.config ? 0 : daemon.program.mark();
      await rig.putConfig(config);
      const [line] = await daemon.waitForLog(
        / error (network configuration not valid|cannot carry the overlay) .*/,
        10_000,
        mark,
      );
      assert.match(line, says);
      assert.match(line, / hint=/, line);
    }
    await rig.putConfig(NETWORK);
    await daemon.waitForLog(/ ready /);
    assert.equal(countLines(daemon.log, / error /), mistakes.length, daemon.log);
  });

  it('keeps the last valid configuration when a wrong one follows', async () => {
    await rig.putConfig(NETWORK);
    const daemon = await rig.host(1).startDaemon();
    await daemon.waitForLog(/ ready /);
    const env = daemon.subnetEnv();
    await rig.putConfig('{"Network":"10.5.0.0/16","SubnetLen":12}');
    await daemon.waitForLog(/ error network configuration not valid /);
    await rig.etcd.delete(`${rig.etcdPrefix}/config`);
    await daemon.waitForLog(/ error network configuration missing .*going on with the last one/);
    assert.deepEqual(daemon.subnetEnv(), env);
    assert.equal((await rig.host(1).netns.ipJson(['link', 'show', 'dev', 'flannel0'])).length, 1);
  });
});
