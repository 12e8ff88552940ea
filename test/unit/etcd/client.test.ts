import assert from 'node:assert/strict';
import { EtcdClient, type EtcdClientOptions, type OpenWatch } from '../../../src/etcd/client.js';
import { parseEndpoints } from '../../../src/etcd/endpoints.js';
import type { StoreHealth } from '../../../src/lease/store.js';
import { FakeClock, settle } from '../../support/fake-clock.js';
import { RecordingLogger } from '../../support/recorder.js';
import { SimEtcdCluster, type SimEtcdOptions } from '../../support/sim-etcd/cluster.js';
import type { SimLink } from '../../support/sim-etcd/link.js';

const TIMEOUT_MS = 5000;
const MINUTE = 60_000;
const KEY = Buffer.from('k');

describe('EtcdClient', () => {
  let clock: FakeClock;
  let log: RecordingLogger;
  let cluster: SimEtcdCluster;
  let link: SimLink;
  let client: EtcdClient;
  /** Members that were dialled, in order. */
  let dialled: string[];

  function open(options: Partial<EtcdClientOptions> & Partial<SimEtcdOptions> = {}): void {
    const { members, ...rest } = options;
    clock = new FakeClock();
    log = new RecordingLogger();
    cluster = new SimEtcdCluster({ clock, ...(members && { members }) });
    link = cluster.link('host-1');
    dialled = [];
    client = new EtcdClient({
      endpoints: parseEndpoints(cluster.endpoints, false),
      tlsFiles: {},
      user: undefined,
      callTimeoutMs: TIMEOUT_MS,
      pingIntervalMs: 10_000,
      clock,
      log,
      dial: (target, settings) => {
        dialled.push(target);
        return link.dial(target, settings);
      },
      ...rest,
    });
  }

  const THREE = ['a:1', 'b:1', 'c:1'];
  const USER = { name: 'flannel', password: 'secret' };
  const read = (signal?: AbortSignal): Promise<{ header: { revision: string }; kvs: readonly unknown[] }> =>
    client.call('KV', 'range', { key: KEY }, signal);
  const put = (): Promise<unknown> => client.call('KV', 'put', { key: KEY, value: Buffer.from('v') });
  /** Which member each request went to. */
  function trace(): string[] {
    const targets: string[] = [];
    link.intercept = ({ direction, target }) => {
      if (direction === 'request') targets.push(target);
      return 'pass';
    };
    return targets;
  }
  /** Lets time pass until a promise has settled. */
  async function finish<T>(promise: Promise<T>, ms = TIMEOUT_MS): Promise<PromiseSettledResult<T>> {
    const settled = Promise.allSettled([promise]);
    await clock.advance(ms);
    const late = settle().then(() => undefined);
    const [result] = (await Promise.race([settled, late])) ?? [];
    assert.ok(result !== undefined, `it takes longer than ${ms} ms`);
    return result;
  }

  afterEach(() => {
    client.close();
    cluster.close();
  });

  describe('which endpoint', () => {
    it('is the first one, and then the one that answered last', async () => {
      open({ members: THREE });
      const targets = trace();
      cluster.stopMember('a:1');
      await read();
      await read();
      cluster.startMember('a:1');
      await read();
      assert.deepEqual(targets, ['a:1', 'b:1', 'b:1', 'b:1']);
      assert.equal(client.health.endpoint, 'b:1');
    });

    it('is each in turn, once, when none answers', async () => {
      open({ members: THREE });
      const targets = trace();
      link.partition('refuse');
      await assert.rejects(read(), {
        code: 'ERR_ETCD_UNAVAILABLE',
        isRetryable: true,
        message: /a:1, b:1, c:1.*REFUSED/,
      });
      assert.deepEqual(targets, THREE);
      assert.equal(client.errors['ERR_ETCD_UNAVAILABLE'], 3);
    });

    it('is dialled anew on its next turn', async () => {
      open();
      await read();
      link.partition('refuse');
      await assert.rejects(read());
      link.heal();
      assert.equal((await read()).kvs.length, 0);
    });

    it('is told in the log when it changes', async () => {
      open({ members: THREE });
      await read();
      cluster.stopMember('a:1');
      await read();
      assert.deepEqual(
        log.find(/endpoint changed/, 'info').map(({ fields }) => [fields.from, fields.to]),
        [['a:1', 'b:1']],
      );
    });
  });

  describe('time', () => {
    it('is shared by the endpoints: one that hangs leaves enough for the next', async () => {
      open({ members: THREE });
      cluster.setPaused('a:1', true);
      const result = await finish(read(), TIMEOUT_MS / 3 + 1);
      assert.equal(result.status, 'fulfilled');
    });

    for (const direction of ['request', 'answer'] as const) {
      it(`ends a call whose ${direction} is lost, no later than promised`, async () => {
        open({ members: THREE });
        link.intercept = (passing) => (passing.direction === direction ? 'lose' : 'pass');
        const result = await finish(put());
        assert.ok(result.status === 'rejected');
        assert.match(String(result.reason), /did not answer in 1667 ms/);
        assert.equal(cluster.revision, direction === 'request' ? 1 : 4, 'each endpoint was asked once');
        assert.equal(link.callCount, 0, 'no call is left waiting');
      });
    }

    it('includes the log-in and its repetition', async () => {
      open({ user: USER });
      cluster.setAuth({ flannel: { password: 'secret', permissions: 'root' } });
      link.setFaults('both', { latencyMs: [TIMEOUT_MS * 0.2, TIMEOUT_MS * 0.2] });
      // Log-in and request take 80 % of the time; with the repetition it would be 160 %.
      let answers = 0;
      link.intercept = ({ direction }) => {
        if (direction === 'request' && ++answers === 2) cluster.invalidateTokens();
        return 'pass';
      };
      assert.equal((await finish(read())).status, 'rejected');
    });

    it('does not let an answer that comes too late do anything', async () => {
      open();
      link.intercept = ({ direction }) => (direction === 'answer' ? 'hold' : 'pass');
      assert.equal((await finish(read())).status, 'rejected');
      link.release();
      await clock.advance(1);
      assert.equal(client.health.isConnected, false);
      assert.equal(client.roundTrips, 0);
    });

    it('leaves no timer behind', async () => {
      open();
      await read();
      assert.equal(clock.pending, 0);
    });
  });

  describe('a signal', () => {
    it('ends a call with its reason', async () => {
      open();
      link.partition('hang');
      const abort = new AbortController();
      const call = assert.rejects(read(abort.signal), /enough/);
      await settle();
      abort.abort(new Error('enough'));
      await call;
    });

    it('ends an election that is waited for', async () => {
      open();
      cluster.loseLeader();
      const abort = new AbortController();
      const call = finish(read(abort.signal), 200);
      await settle();
      abort.abort(new Error('enough'));
      const result = await call;
      assert.ok(result.status === 'rejected');
      assert.match(String(result.reason), /enough/);
    });
  });

  describe('an election', () => {
    it('is waited for on the same connection, with ever fewer questions', async () => {
      open({ members: THREE });
      await read();
      const targets = trace();
      cluster.loseLeader();
      const call = read();
      await clock.advance(1000);
      cluster.electLeader();
      await clock.advance(1000);
      await call;
      assert.deepEqual(dialled, THREE, 'a member without a leader keeps its connection');
      // At 0, 100, 300 and 700 ms without success, at 1500 ms with.
      assert.equal(targets.length, 4 * THREE.length + 1);
    });

    it('that only one member knows nothing of makes another the first to be asked', async () => {
      open({ members: THREE });
      cluster.setIsolated('a:1', true);
      await read();
      const targets = trace();
      await read();
      assert.deepEqual(targets, ['b:1']);
    });

    it('that takes too long is what the error tells about', async () => {
      open({ members: THREE });
      cluster.stopMember('a:1');
      cluster.loseLeader();
      const result = await finish(read());
      assert.ok(result.status === 'rejected');
      assert.match(String(result.reason), /etcdserver: no leader/);
      assert.ok(link.requestCount <= 3 * 9, `${link.requestCount} requests in 5 s`);
    });

    it('ends streams of changes', async () => {
      open();
      const watch = await watchKey();
      cluster.loseLeader();
      await settle();
      assert.match(await detailOf(watch), /no leader/);
    });
  });

  describe('with a user', () => {
    const users = { flannel: { password: 'secret', permissions: 'root' as const } };

    it('logs in once', async () => {
      open({ user: USER });
      cluster.setAuth(users);
      await Promise.all([read(), read()]);
      await read();
      assert.equal(link.requests['Auth.authenticate'], 1);
    });

    it('logs in again when the token is void, once for all calls', async () => {
      open({ user: USER });
      cluster.setAuth(users);
      await read();
      cluster.invalidateTokens();
      await Promise.all([read(), put(), read()]);
      await read();
      assert.equal(link.requests['Auth.authenticate'], 2);
    });

    it('keeps a token that another call has renewed meanwhile', async () => {
      open({ user: USER });
      cluster.setAuth(users);
      await read();
      cluster.invalidateTokens();
      let held = 0;
      link.intercept = ({ direction, method }) =>
        direction === 'answer' && method === 'KV.range' && held++ === 0 ? 'hold' : 'pass';
      const slow = read();
      await settle();
      await put();
      link.release();
      await slow;
      assert.equal(link.requests['Auth.authenticate'], 2);
    });

    it('notices that authentication was enabled after it had decided that there is none', async () => {
      open({ user: USER });
      await read();
      assert.equal(log.find(/no authentication/, 'warn').length, 1);
      cluster.setAuth(users);
      await read();
      assert.equal(link.requests['Auth.authenticate'], 2);
    });

    it('is not held up by the log-in at an endpoint that hangs', async () => {
      open({ user: USER, members: THREE });
      cluster.setAuth(users);
      cluster.setPaused('a:1', true);
      const calls = Promise.all([read(), read()]);
      assert.equal((await finish(calls, TIMEOUT_MS / 3 + 1)).status, 'fulfilled');
      assert.equal(client.health.endpoint, 'b:1');
    });

    for (const [title, user, hint] of [
      ['a wrong password', { name: 'flannel', password: 'wrong' }, /check --etcd-username and the password/],
      ['no user at all', undefined, /set --etcd-username/],
    ] as const) {
      it(`says what to do about ${title}`, async () => {
        open({ user });
        cluster.setAuth(users);
        await assert.rejects(read(), { code: 'ERR_ETCD_AUTH', hint });
        assert.equal(link.requestCount, 1);
        assert.equal(client.health.isConnected, true, 'etcd did answer');
      });
    }

    it('opens a stream after the token became void', async () => {
      open({ user: USER });
      cluster.setAuth(users);
      await read();
      cluster.invalidateTokens();
      const watch = await watchKey();
      assert.equal(watch.header.cluster_id, cluster.clusterId);
    });

    it('says so when it may not do what it wants', async () => {
      open({ user: USER });
      cluster.setAuth({ flannel: { password: 'secret', permissions: [{ type: 'read', key: 'k' }] } });
      await read();
      await assert.rejects(put(), { code: 'ERR_ETCD_AUTH', hint: /grant/ });
      await assert.rejects(
        client.openWatch({ key: Buffer.from('other') }, () => {}, new AbortController().signal),
        { code: 'ERR_ETCD_AUTH' },
      );
      assert.equal(client.errors['ERR_ETCD_AUTH'], 2);
    });
  });

  describe('requests', () => {
    it('give the header with cluster and revision', async () => {
      open();
      cluster.put('k', 'v');
      const { header } = await client.call<{ header: { cluster_id: string; revision: string } }>('KV', 'range', {
        key: KEY,
      });
      assert.equal(header.cluster_id, cluster.clusterId);
      assert.equal(header.revision, '2');
    });

    it('give undefined instead of the refusal that is expected, and reject with any other', async () => {
      open();
      cluster.put('k', 'v');
      cluster.put('k', 'w');
      cluster.compact();
      assert.equal(await client.callUnless('compacted', 'KV', 'range', { key: KEY, revision: '2' }), undefined);
      await assert.rejects(client.callUnless('gone', 'KV', 'range', { key: KEY, revision: '2' }), {
        code: 'ERR_ETCD_REQUEST',
        message: /compacted/,
      });
    });

    it('that no endpoint can carry out for want of space say what to do', async () => {
      open();
      cluster.setFull(true);
      await assert.rejects(put(), { code: 'ERR_ETCD_REQUEST', hint: /NOSPACE/, isRetryable: true });
      await read();
    });

    it('of a method that etcd does not have fail', async () => {
      open();
      await assert.rejects(client.call('KV', 'nothing', {}), /no method KV.nothing/);
    });
  });

  describe('keepAlive', () => {
    it('gives the seconds, and 0 for a lease that is gone', async () => {
      open();
      const id = cluster.grantLease(60);
      await clock.advance(30_000);
      assert.equal(await client.keepAlive(id), 60);
      assert.equal(cluster.leases[0]?.expiresAtMs, clock.monotonicMs() + 60_000);
      cluster.revokeLease(id);
      assert.equal(await client.keepAlive(id), 0);
      await clock.advance(1);
      assert.equal(link.streamCount, 0, 'its stream is closed');
    });

    it('goes to the next endpoint when one does not answer', async () => {
      open({ members: THREE });
      const id = cluster.grantLease(60);
      cluster.setPaused('a:1', true);
      const result = await finish(client.keepAlive(id), TIMEOUT_MS / 3 + 1);
      assert.ok(result.status === 'fulfilled');
      assert.equal(result.value, 60);
    });
  });

  const aborts = new AbortController();
  function watchKey(
    onResponse: Parameters<EtcdClient['openWatch']>[1] = () => {},
    startRevision?: string,
  ): Promise<OpenWatch> {
    const request = { key: KEY, ...(startRevision !== undefined && { start_revision: startRevision }) };
    return client.openWatch(request, onResponse, aborts.signal);
  }
  async function detailOf(watch: OpenWatch): Promise<string> {
    const failure = await watch.ended;
    return 'detail' in failure ? failure.detail : failure.error.message;
  }

  describe('openWatch', () => {
    it('gives the header of the confirmation, then every response with its own', async () => {
      open();
      cluster.put('other', 'v');
      const seen: string[] = [];
      const watch = await watchKey(({ header, events }) =>
        seen.push(`${header.cluster_id} ${header.revision} ${events.length}`),
      );
      assert.deepEqual([watch.header.cluster_id, watch.header.revision], [cluster.clusterId, '2']);
      cluster.put('k', 'v');
      await settle();
      assert.deepEqual(seen, [`${cluster.clusterId} 3 1`]);
    });

    it('says nothing more after it was closed', async () => {
      open();
      let calls = 0;
      const watch = await watchKey(() => calls++);
      cluster.put('k', 'v');
      watch.close();
      cluster.put('k', 'w');
      await settle();
      assert.equal(calls, 0);
      assert.equal(link.streamCount, 0);
      await watch.ended;
    });

    it('ignores what a stream brings although it was cancelled', async () => {
      const listeners = new Map<string, (value: object) => void>();
      const stub = {
        watch: () => ({
          on: (event: string, listener: (value: object) => void) => listeners.set(event, listener),
          write: () => listeners.get('data')?.({ created: true, header: {} }),
          cancel: () => {},
        }),
      };
      const metadata = { set: () => {} };
      open({ dial: () => ({ open: () => Promise.resolve({ stub, metadata }), close: () => {} }) });
      let calls = 0;
      const watch = await watchKey(() => calls++);
      listeners.get('data')?.({ events: [] });
      watch.close();
      listeners.get('data')?.({ events: [] });
      assert.equal(calls, 1);
    });

    it('ends as compacted when the history is gone', async () => {
      open();
      cluster.put('k', 'v');
      cluster.put('k', 'w');
      cluster.compact();
      const watch = await watchKey(() => assert.fail(), '1');
      assert.equal((await watch.ended).kind, 'compacted');
    });

    it('ends when the connection is reset', async () => {
      open();
      const watch = await watchKey();
      link.reset();
      assert.match(await detailOf(watch), /ECONNRESET/);
    });

    it('ends by the probe when nothing is heard any more', async () => {
      open();
      const watch = await watchKey();
      link.partition('hang');
      await clock.advance(10_000 + TIMEOUT_MS);
      assert.match(await detailOf(watch), /Connection dropped/);
    });

    it('ends at once when a request on the same endpoint is not answered', async () => {
      open();
      const watch = await watchKey();
      link.partition('hang');
      await finish(read());
      assert.match(await detailOf(watch), /did not answer/);
    });

    it('ends when the network is said to have changed, and opens on a new connection', async () => {
      open();
      const watch = await watchKey();
      client.reconnect('the network has changed');
      assert.equal(await detailOf(watch), 'the network has changed');
      assert.equal((await watchKey()).header.revision, '1');
    });

    it('gives up when it is not confirmed in time, and leaves no stream', async () => {
      open();
      link.intercept = ({ direction }) => (direction === 'answer' ? 'lose' : 'pass');
      assert.equal((await finish(watchKey())).status, 'rejected');
      assert.equal(link.streamCount, 0);
    });

    it('turns what its observer throws into one log line a minute, and ends for another try', async () => {
      open();
      for (let attempt = 0; attempt < 5; attempt++) {
        const watch = await watchKey(() => {
          throw new Error('bad day');
        });
        cluster.put('k', `${attempt}`);
        await settle();
        assert.match(await detailOf(watch), /not processed/);
      }
      assert.equal(log.find(/not processed/, 'error').length, 1);
      assert.equal(client.health.isConnected, true);
    });
  });

  describe('health', () => {
    it('is announced on each transition, and told in few lines however long it lasts', async () => {
      open();
      const seen: boolean[] = [];
      client.onHealth(({ isConnected }) => seen.push(isConnected));
      await read();
      link.partition('refuse');
      for (let second = 0; second < 150; second++) {
        await assert.rejects(read());
        await clock.advance(1000);
      }
      link.heal();
      await read();
      assert.deepEqual(seen, [true, false, true]);
      assert.deepEqual(
        log.lines.map(({ level, message, fields }) => [level, message, fields.count]),
        [
          ['info', 'etcd connected', undefined],
          ['warn', 'etcd lost', 1],
          ['warn', 'etcd still away', 61],
          ['warn', 'etcd still away', 121],
          ['info', 'etcd is back', 150],
        ],
      );
    });

    it('tells another cause of the same outage at once, and the same one no more', async () => {
      open();
      link.partition('refuse');
      await finish(read());
      link.heal();
      link.partition('hang');
      await finish(read());
      await finish(read());
      const told = log.lines.filter(({ level }) => level === 'warn').map(({ message }) => message);
      assert.deepEqual(told, ['etcd lost', 'etcd still away']);
    });

    it('tells the next outage at once, however soon it follows', async () => {
      open();
      for (let outage = 0; outage < 3; outage++) {
        link.partition('refuse');
        await assert.rejects(read());
        link.heal();
        await read();
      }
      assert.equal(log.find(/etcd lost/, 'warn').length, 3);
    });

    it('is told to everybody although one of them throws', async () => {
      open();
      const seen: StoreHealth[] = [];
      client.onHealth(() => {
        throw new Error('bad day');
      });
      client.onHealth((health) => seen.push(health));
      await read();
      assert.equal(seen.length, 1);
      assert.equal(log.find(/not processed/, 'error').length, 1);
      await clock.advance(MINUTE);
    });

    it('counts and times each answer once', async () => {
      open();
      link.setFaults('both', { latencyMs: [10, 10] });
      assert.equal((await finish(read(), 20)).status, 'fulfilled');
      assert.equal(client.roundTrips, 1);
      assert.equal(client.roundTripTimes.sumSeconds, 0.02);
    });
  });

  describe('close', () => {
    it('ends calls and streams, refuses new ones, and can be repeated', async () => {
      open();
      const watch = await watchKey();
      link.partition('hang');
      const call = assert.rejects(read(), { code: 'ERR_STORE_CLOSED' });
      await settle();
      client.close();
      client.close();
      await call;
      assert.match(await detailOf(watch), /closed/);
      await assert.rejects(read(), { code: 'ERR_STORE_CLOSED' });
      await assert.rejects(watchKey(), { code: 'ERR_STORE_CLOSED' });
      assert.equal(link.streamCount, 0);
    });

    it('ends a call that waits for an election', async () => {
      open();
      cluster.loseLeader();
      const call = assert.rejects(read(), { code: 'ERR_STORE_CLOSED' });
      await settle();
      client.close();
      await call;
    });
  });
});
