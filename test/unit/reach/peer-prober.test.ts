import assert from 'node:assert/strict';
import { OverlayError } from '../../../src/errors.js';
import { Prefix } from '../../../src/ip/prefix.js';
import type { Lease } from '../../../src/lease/lease.js';
import { PeerProber, type ProbedPeers } from '../../../src/reach/peer-prober.js';
import { backendContext, ip, lease, network } from '../../support/builders.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeEcho } from '../../support/fake-echo.js';
import { RecordingLogger } from '../../support/recorder.js';
import { finish } from '../../support/steps.js';

const INTERVAL_MS = 30_000;
const VXLAN = backendContext({ network: network('vxlan') });
const HOST_GW = backendContext({ network: network('host-gw') });

const vxlanLease = (n: number): Lease => lease(n, { type: 'vxlan' });
const peers = (count: number): readonly Lease[] => Array.from({ length: count }, (_, index) => vxlanLease(index + 2));

/** As many as 10.0.0.0/9 has room for. */
const manyPeers = (count: number): readonly Lease[] =>
  Array.from({ length: count }, (_, index) => ({
    ...vxlanLease(2),
    subnet: Prefix.of(ip('10.0.0.0').add(BigInt(256 * index)), 24),
  }));

describe('PeerProber', () => {
  let clock: FakeClock;
  let echo: FakeEcho;
  let log: RecordingLogger;
  let prober: PeerProber;

  beforeEach(() => {
    clock = new FakeClock();
    echo = new FakeEcho();
    log = new RecordingLogger();
    prober = new PeerProber({ clock, log, openPort: echo.open, intervalMs: INTERVAL_MS });
  });

  afterEach(() => prober.close());

  const follow = (all: readonly Lease[], context: Omit<ProbedPeers, 'peers' | 'skipped'> = VXLAN): void =>
    finish(prober.follow({ ...context, peers: all, skipped: [] }));

  const stateOf = (peer: Lease): string | undefined => prober.reportsOf(peer)[0]?.health.state;

  it('asks each peer at its device address, at most once in the interval and not much more rarely', async () => {
    const all = peers(20);
    follow(all);
    const rounds = 10;
    await clock.advance(rounds * INTERVAL_MS);
    for (const { subnet } of all) {
      const count = echo.sent.filter((address) => address === subnet.address.toString()).length;
      assert.ok(count <= rounds + 1 && count >= rounds * 0.8, `${count} probes in ${rounds} intervals`);
    }
    const bridges = echo.sent.filter((address) => !address.endsWith('.0'));
    assert.equal(bridges.length, all.length, 'only the first probe asks the bridge as well');
  });

  it('may rest at each peer', () => {
    assert.equal([...prober.follow({ ...VXLAN, peers: peers(20), skipped: [] })].length, 20);
  });

  it('lets the time between two probes of a peer vary by up to a quarter', async () => {
    follow([vxlanLease(2)]);
    const times: number[] = [];
    for (let before = 0; times.length < 12; before = echo.sent.length) {
      await clock.advance(100);
      if (echo.sent.length > before) times.push(clock.monotonicMs());
    }
    const gaps = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    assert.ok(Math.min(...gaps) >= INTERVAL_MS - 100 && Math.max(...gaps) <= INTERVAL_MS * 1.25 + 200, gaps.join(' '));
    assert.ok(Math.max(...gaps) - Math.min(...gaps) > INTERVAL_MS / 10, gaps.join(' '));
  });

  it('does not ask peers in step', async () => {
    follow(peers(20));
    const bursts: number[] = [];
    for (let second = 0; second < 120; second++) {
      const before = echo.sent.length;
      await clock.advance(1000);
      bursts.push(echo.sent.length - before);
    }
    assert.ok(Math.max(...bursts) <= 10, bursts.join(' '));
  });

  it('asks at most a hundred a second however many peers there are, and all of them in turn', async () => {
    const all = manyPeers(5000);
    follow(all);
    await clock.advance(6000);
    const probes = (): readonly string[] => echo.sent.filter((address) => address.endsWith('.0'));
    const before = probes().length;
    await clock.advance(10_000);
    assert.equal(probes().length - before, 1000);
    await clock.advance(50_000);
    assert.equal(new Set(probes()).size, 5000);
    assert.equal(prober.totals().intervalMs, 50_000);
  });

  it('knows a peer that answers, with its round trip', async () => {
    const [peer] = [vxlanLease(2)];
    echo.isSlow = true;
    follow([peer]);
    while (echo.sent.length === 0) await clock.advance(50);
    await clock.advance(7);
    echo.arrive();
    echo.deliver();
    const [report] = prober.reportsOf(peer);
    assert.equal(report?.health.state, 'reachable');
    assert.equal(report.answeredBy?.layer, 'overlay');
    assert.ok((report.health.roundTripMs ?? 0) >= 7 && (report.health.roundTripMs ?? 0) <= 57);
    assert.deepEqual(prober.totals().peers, { reachable: 1, unreachable: 0, unknown: 0 });
    assert.equal(prober.totals().probes.answered, 1);
    assert.equal(
      prober.totals().roundTrips.buckets.reduce((sum, count) => sum + count),
      1,
    );
  });

  it('finds a peer unreachable after three lost probes and reachable after two answers', async () => {
    const peer = vxlanLease(2);
    follow([peer]);
    await clock.advance(INTERVAL_MS);
    assert.equal(stateOf(peer), 'reachable');
    echo.answers = () => false;
    await clock.advance(2 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'reachable');
    await clock.advance(2.5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'unreachable');
    assert.equal(prober.totals().peers.unreachable, 1);
    echo.answers = () => true;
    await clock.advance(3 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'reachable');
  });

  it('asks the bridge as well once the device has not answered, and takes its answer for the peer’s', async () => {
    const peer = vxlanLease(2);
    echo.answers = (address) => address.endsWith('.1');
    follow([peer]);
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(prober.reportsOf(peer)[0]?.answeredBy?.layer, 'bridge');
    assert.equal(stateOf(peer), 'reachable');
    assert.equal(prober.totals().probes.lost, 0);
  });

  it('takes the answer of a host-gw peer’s host as long as its bridge has never answered', async () => {
    const peer = lease(2, { type: 'host-gw' });
    echo.answers = (address) => address === '192.0.2.2';
    follow([peer], HOST_GW);
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'reachable');
    assert.equal(prober.reportsOf(peer)[0]?.answeredBy?.layer, 'underlay');
    echo.answers = () => true;
    await clock.advance(2 * INTERVAL_MS);
    assert.equal(prober.reportsOf(peer)[0]?.answeredBy?.layer, 'bridge');
    echo.answers = (address) => address === '192.0.2.2';
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'unreachable');
    assert.equal(prober.reportsOf(peer)[0]?.answeredBy?.layer, 'underlay', 'it still tells that the host is there');
  });

  it('takes the answer of the bridge for what it is when that of the host came first', async () => {
    const peer = lease(2, { type: 'host-gw' });
    echo.isSlow = true;
    follow([peer], HOST_GW);
    while (echo.sent.length === 0) await clock.advance(50);
    echo.arrive({ isReversed: true });
    echo.deliver();
    assert.equal(prober.reportsOf(peer)[0]?.answeredBy?.layer, 'bridge');
    assert.equal(prober.totals().probes.answered, 1);
  });

  it('asks the bridge of a host-gw peer alone while it answers', async () => {
    follow([lease(2, { type: 'host-gw' })], HOST_GW);
    await clock.advance(3 * INTERVAL_MS);
    assert.deepEqual(
      echo.sent.slice(2),
      echo.sent.slice(2).map(() => '10.5.2.1'),
    );
    assert.ok(echo.sent.length > 3);
  });

  it('ignores an answer from another address than was asked, and one that nobody waits for', async () => {
    const peer = vxlanLease(2);
    const replies: ((address: string) => void)[] = [];
    prober.close();
    prober = new PeerProber({
      clock,
      log,
      intervalMs: INTERVAL_MS,
      openPort: (_family, onReply) => ({
        send: (address, sequence) => {
          replies.push(() => onReply({ address: address.add(9n), sequence }));
          replies.push(() => onReply({ address, sequence: sequence + 99 }));
          return 0;
        },
        receive: () => {
          for (const reply of replies.splice(0)) reply('');
        },
        close: () => {},
      }),
    });
    follow([peer]);
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'unreachable');
  });

  it('takes answers that arrived while the process stood still for answers, without their time', async () => {
    const peer = vxlanLease(2);
    follow([peer]);
    await clock.advance(INTERVAL_MS);
    const { roundTripMs } = prober.reportsOf(peer)[0]?.health ?? {};
    echo.isSlow = true;
    const before = echo.sent.length;
    while (echo.sent.length === before) await clock.advance(50);
    echo.arrive(); // the event loop does not get to it before the time for an answer is over
    await clock.advance(5000);
    assert.equal(prober.totals().probes.lost, 0);
    assert.equal(prober.reportsOf(peer)[0]?.health.roundTripMs, roundTripMs);
  });

  it('counts what this host’s kernel refuses to send apart, and names the error', async () => {
    const peer = vxlanLease(2);
    echo.result = () => -101;
    follow([peer]);
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'unreachable');
    assert.equal(prober.reportsOf(peer)[0]?.errno, 'ENETUNREACH');
    const { lost, failed } = prober.totals().probes;
    assert.equal(lost, 0);
    assert.ok(failed >= 3);
  });

  it('holds a full queue of this host against nobody', async () => {
    const peer = vxlanLease(2);
    echo.result = () => -105;
    follow([peer]);
    await clock.advance(5 * INTERVAL_MS);
    assert.equal(stateOf(peer), 'unknown');
    assert.deepEqual(prober.totals().probes, { answered: 0, lost: 0, failed: 0 });
  });

  it('follows peers that come and go', async () => {
    const [a, b] = [vxlanLease(2), vxlanLease(3)];
    follow([a]);
    await clock.advance(INTERVAL_MS);
    follow([b]);
    assert.deepEqual(prober.reportsOf(a), []);
    echo.sent.length = 0;
    await clock.advance(2 * INTERVAL_MS);
    assert.deepEqual([...new Set(echo.sent)], ['10.5.3.0', '10.5.3.1']);
    assert.deepEqual(prober.totals().peers, { reachable: 1, unreachable: 0, unknown: 0 });
  });

  it('keeps what it knows of a peer whose lease was written anew, and when this host changes', async () => {
    const peer = vxlanLease(2);
    follow([peer]);
    await clock.advance(INTERVAL_MS);
    const renewed = { ...peer, revision: '7' };
    follow([renewed]);
    assert.equal(stateOf(renewed), 'reachable');
    follow([renewed], { ...VXLAN, own: lease(9) });
    assert.equal(stateOf(renewed), 'reachable');
  });

  it('knows nothing of a peer that is reached another way than before', async () => {
    const peer = vxlanLease(2);
    follow([peer]);
    await clock.advance(INTERVAL_MS);
    const other = lease(2, { type: 'host-gw' });
    follow([other]);
    assert.equal(stateOf(other), 'unknown');
  });

  it('does not ask peers that are skipped', async () => {
    const [a, b] = [vxlanLease(2), vxlanLease(3)];
    finish(prober.follow({ ...VXLAN, peers: [a, b], skipped: [{ lease: a }] }));
    await clock.advance(2 * INTERVAL_MS);
    assert.deepEqual([...new Set(echo.sent)], ['10.5.3.0', '10.5.3.1']);
    assert.deepEqual(prober.reportsOf(a), []);
  });

  it('asks in both families, and counts a peer as unreachable when one of them is', async () => {
    const dual = backendContext({ network: network('vxlan', {}, true), own: lease(1, { isDualStack: true }) });
    const peer = lease(2, { type: 'vxlan', isDualStack: true });
    echo.answers = (address) => !address.includes(':');
    follow([peer], dual);
    await clock.advance(5 * INTERVAL_MS);
    assert.deepEqual(
      prober.reportsOf(peer).map(({ path, health }) => [path.family, health.state]),
      [
        [4, 'reachable'],
        [6, 'unreachable'],
      ],
    );
    assert.deepEqual(prober.totals().peers, { reachable: 0, unreachable: 1, unknown: 0 });
  });

  it('says once that there is no socket, and goes on when there is one', async () => {
    const peer = vxlanLease(2);
    echo.refusal = new OverlayError('ERR_ECHO_SOCKET', 'cannot open an ICMP socket for IPv4: EPERM');
    follow([peer]);
    await clock.advance(10 * 60_000);
    assert.ok(echo.opens <= 11, `${echo.opens} attempts in 10 minutes`);
    assert.equal(log.find(/cannot be probed/, 'warn').length, 1);
    assert.equal(prober.totals().error, echo.refusal);
    assert.equal(stateOf(peer), 'unknown');
    echo.refusal = undefined;
    await clock.advance(2 * 60_000);
    assert.equal(prober.totals().error, undefined);
    assert.equal(stateOf(peer), 'reachable');
  });

  it('leaves no timer and no socket behind', async () => {
    const peer = vxlanLease(2);
    echo.answers = () => false;
    follow([peer, vxlanLease(3)]);
    while (stateOf(peer) !== 'unreachable') await clock.advance(1000); // now a line of the log is due, too
    prober.close();
    assert.equal(clock.pending, 0);
    assert.equal(echo.openPorts, 0);
  });

  describe('in the log', () => {
    const lines = (): string[] =>
      log.lines.map(({ level, message, fields }) => `${level} ${message} ${fields.detail ?? fields.count ?? ''}`);

    it('tells in one line of many peers that stop answering, with examples, and of their return', async () => {
      follow(peers(40));
      await clock.advance(2 * INTERVAL_MS);
      const silent = /^10\.5\.([2-9]|1[0-3])\.0$/;
      echo.answers = (address) => !silent.test(address.replace(/\.1$/, '.0'));
      await clock.advance(8 * INTERVAL_MS);
      assert.equal(lines().length, 1);
      assert.match(
        lines()[0] ?? '',
        /^warn peers do not answer 12 of 40 peers: 10\.5\.\d+\.0\/24 \(192\.0\.2\.\d+\), .* and others$/,
      );
      await clock.advance(20 * INTERVAL_MS);
      assert.equal(lines().length, 1, 'what lasts is not told again');
      echo.answers = () => true;
      await clock.advance(8 * INTERVAL_MS);
      assert.equal(lines().at(-1), 'info all peers answer again 40');
      assert.ok(lines().length <= 3);
    });

    it('tells at most once a minute of peers that come and go', async () => {
      follow(peers(40));
      // Each peer has a rhythm of its own, so that some of them change in every minute.
      echo.answers = (address) => {
        const number = Number(address.split('.')[2]);
        return Math.floor(clock.monotonicMs() / (120_000 + 7000 * number)) % 2 === 0;
      };
      const times: number[] = [];
      for (let before = 0; clock.monotonicMs() < 3_600_000; before = lines().length) {
        await clock.advance(5000);
        if (lines().length > before) times.push(clock.monotonicMs());
      }
      const gaps = times.slice(1).map((time, index) => time - (times[index] ?? 0));
      assert.ok(gaps.length > 20 && Math.min(...gaps) >= 55_000, gaps.join(' '));
    });

    it('tells nothing of a peer that restarts', async () => {
      follow(peers(3));
      await clock.advance(2 * INTERVAL_MS);
      echo.answers = () => false;
      await clock.advance(INTERVAL_MS * 1.5);
      echo.answers = () => true;
      await clock.advance(10 * INTERVAL_MS);
      assert.deepEqual(lines(), []);
    });

    it('tells nothing of a peer that leaves before there was a line about it', async () => {
      const peer = vxlanLease(2);
      echo.answers = () => false;
      follow([peer]);
      while (stateOf(peer) !== 'unreachable') await clock.advance(1000);
      follow([]);
      await clock.advance(10 * INTERVAL_MS);
      assert.deepEqual(lines(), []);
    });

    it('tells when the last peer that did not answer has left', async () => {
      const [a, b] = [vxlanLease(2), vxlanLease(3)];
      follow([a, b]);
      echo.answers = (address) => !address.startsWith('10.5.2.');
      await clock.advance(8 * INTERVAL_MS);
      assert.equal(lines().length, 1);
      follow([b]);
      await clock.advance(4 * INTERVAL_MS);
      assert.equal(lines().at(-1), 'info all peers answer again 1');
    });
  });
});
