import assert from 'node:assert/strict';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { EtcdStore, type EtcdStoreOptions } from '../../src/etcd/store.js';
import { PeerSet } from '../../src/lease/peers.js';
import type { EtcdLeaseId } from '../../src/lease/record.js';
import { systemClock } from '../../src/clock.js';
import { admissionContext, follow as followWith } from '../support/lease-world.js';
import { ip } from '../support/builders.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd, startEtcdCluster } from '../support/loopback-etcd.js';
import { Program } from '../support/program.js';
import { RecordingLogger } from '../support/recorder.js';
import { mustCreate } from '../support/store-contract.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { waitFor } from '../support/wait.js';

const PREFIX = '/test/network';
const key = (n: number): string => `${PREFIX}/subnets/10.5.${n}.0-24`;
const value = (n: number): string => `{"PublicIP":"192.0.2.${n}","PublicIPv6":null}`;

describe('EtcdStore in trouble', () => {
  const undo: (() => void | Promise<void>)[] = [];
  let log: RecordingLogger;

  beforeEach(() => {
    log = new RecordingLogger();
  });

  afterEach(async () => {
    for (const action of undo.splice(0).reverse()) await action();
  });

  function open(options: Partial<EtcdStoreOptions> & { readonly endpoints: string }): EtcdStore {
    const store = new EtcdStore({ prefix: PREFIX, log, callTimeoutMs: 1000, ...options });
    undo.push(() => store.close());
    return store;
  }

  function openRaw(server: EtcdServer): RawEtcd {
    const raw = rawEtcd(server);
    undo.push(() => raw.close());
    return raw;
  }

  async function start(options: Parameters<typeof startEtcd>[0] = {}): Promise<EtcdServer> {
    const server = await startEtcd(options);
    undo.push(() => server.destroy());
    return server;
  }

  async function follow(store: EtcdStore): Promise<PeerSet> {
    const context = admissionContext({ own: undefined, publicIp: ip('192.0.2.250') });
    const peers = new PeerSet({ clock: systemClock, log, context, debounceMs: 1 });
    undo.push(() => peers.close());
    const before = store.counters().roundTrips;
    followWith(store, peers);
    await waitFor(() => store.counters().roundTrips >= before + 3, { what: 'listing, watch and recognition' });
    return peers;
  }

  const has = (peers: PeerSet, ...expected: readonly number[]): Promise<true> =>
    waitFor(
      () =>
        peers.peers.map(({ subnet }) => subnet.toString()).join() === expected.map((n) => `10.5.${n}.0/24`).join() ||
        undefined,
      { what: `peers ${expected.join()}` },
    ).then(() => true);

  describe('with one endpoint', () => {
    let server: EtcdServer;
    let raw: RawEtcd;

    beforeEach(async () => {
      server = await start();
      raw = openRaw(server);
      await raw.put(key(2), value(2));
    });

    it('keeps the peers when etcd is killed, and resumes when it is back', async () => {
      const store = open({ endpoints: server.endpoint });
      const peers = await follow(store);
      const transitions: boolean[] = [];
      store.onHealth(({ isConnected }) => transitions.push(isConnected));
      await server.kill();
      await waitFor(() => !store.health.isConnected, { what: 'the loss to be noticed' });
      await assert.rejects(store.listLeases(), { code: 'ERR_ETCD_UNAVAILABLE', isRetryable: true });
      assert.deepEqual(
        peers.peers.map(({ subnet }) => subnet.toString()),
        ['10.5.2.0/24'],
      );
      await server.start();
      await waitFor(() => store.health.isConnected, { what: 'etcd to be back' });
      await raw.put(key(3), value(3));
      await has(peers, 2, 3);
      assert.equal(peers.counters.epochs, 1);
      assert.equal(store.counters().compactions, 0, 'nothing was listed again');
      assert.deepEqual(transitions, [false, true]);
      assert.equal(log.find(/^etcd lost$/, 'warn').length, 1);
      assert.equal(log.find(/still away/).length, 0);
      assert.equal(log.find(/^etcd is back$/, 'info').length, 1);
      assert.ok((store.counters().errors['ERR_ETCD_UNAVAILABLE'] ?? 0) > 0);
      assert.ok(store.counters().watchRestarts >= 1);
    });

    it('catches up with what happened while its connection was cut', async () => {
      const proxy = await TcpProxy.to(server.endpoint);
      undo.push(() => proxy.close());
      const store = open({ endpoints: proxy.endpoint });
      const peers = await follow(store);
      proxy.cut();
      await raw.put(key(3), value(3));
      await raw.delete(key(2));
      proxy.heal();
      await has(peers, 3);
      assert.equal(store.counters().compactions, 0);
    });

    it('lists again when the history in between was compacted', async () => {
      const proxy = await TcpProxy.to(server.endpoint);
      undo.push(() => proxy.close());
      await raw.put(key(4), value(4));
      await raw.put(key(9), value(9)); // stays as it is, which shows that the history is the same
      const store = open({ endpoints: proxy.endpoint });
      const peers = await follow(store);
      proxy.cut();
      await raw.put(key(3), value(3));
      await raw.put(key(4), value(44));
      await raw.delete(key(2));
      await raw.put(`${PREFIX}/elsewhere`, 'x');
      await raw.compact();
      proxy.heal();
      await has(peers, 3, 4, 9);
      assert.equal(peers.peers[1]?.attributes.publicIp.toString(), '192.0.2.44');
      assert.equal(store.counters().compactions, 1);
      await raw.put(key(5), value(5));
      await has(peers, 3, 4, 5, 9);
      assert.equal(store.counters().compactions, 1);
      assert.equal(peers.counters.epochs, 1);
    });

    it('keeps its peers when etcd came back empty, and takes new ones', async () => {
      const store = open({ endpoints: server.endpoint });
      for (const n of [3, 4, 5]) await raw.put(key(n), value(n));
      const peers = await follow(store);
      await server.kill();
      server.wipe();
      await server.start();
      await raw.put(key(6), value(6));
      await has(peers, 2, 3, 4, 5, 6);
      assert.equal(peers.kept.length, 4);
      assert.equal(log.find(/restored or wiped/, 'warn').length, 1);
    });

    it('gives up a request to an etcd that hangs at the deadline, and goes on when it wakes', async () => {
      const store = open({ endpoints: server.endpoint, callTimeoutMs: 300 });
      const peers = await follow(store);
      await server.suspend();
      undo.push(() => server.resume());
      // Both times by the timers of this process: however long it is kept from running, the earlier one comes first.
      const isLate = new Promise<never>((_, reject) => {
        setTimeout(() => reject(new Error('the request went on for 600 ms')), 600).unref();
      });
      isLate.catch(() => undefined);
      const refusal = { code: 'ERR_ETCD_UNAVAILABLE', message: /did not answer in 300 ms/ };
      await assert.rejects(Promise.race([store.listLeases(), isLate]), refusal);
      await assert.rejects(store.keepAlive('1234' as EtcdLeaseId), { code: 'ERR_ETCD_UNAVAILABLE' });
      server.resume();
      await waitFor(() => store.health.isConnected, { what: 'etcd to be back' });
      await raw.put(key(3), value(3));
      await has(peers, 2, 3);
    });

    it('loses nothing of a backlog larger than etcd sends at once', async () => {
      const proxy = await TcpProxy.to(server.endpoint);
      undo.push(() => proxy.close());
      const store = open({ endpoints: proxy.endpoint });
      let count = 0;
      const subscription = store.followWorld(({ leases }) => (count = leases.size));
      undo.push(() => subscription.close());
      await waitFor(() => count === 1, { what: 'the listing' });
      await raw.put(key(3), value(3));
      await waitFor(() => count === 2, { what: 'the watch' });
      proxy.cut();
      const added = 2500;
      const data = `{"PublicIP":"192.0.2.9","BackendData":"${'x'.repeat(200)}"}`;
      for (let from = 0; from < added; from += 100) {
        const names = Array.from({ length: 100 }, (_, i) => `10.${100 + ((from + i) >> 8)}.${(from + i) & 255}.0-24`);
        await Promise.all(names.map((name) => raw.put(`${PREFIX}/subnets/${name}`, data)));
      }
      proxy.heal();
      await waitFor(() => count > 300, { what: 'the first events' });
      proxy.cut();
      proxy.heal();
      await waitFor(() => count === added + 2, { what: 'all events' });
      assert.equal(store.counters().compactions, 0);
    });

    it('says that an endpoint is wrong once, and waits for it', async () => {
      const store = open({ endpoints: 'http://127.0.0.1:1', callTimeoutMs: 200 });
      for (let i = 0; i < 5; i++) await assert.rejects(store.readConfig(), { code: 'ERR_ETCD_UNAVAILABLE' });
      assert.equal(log.find(/etcd lost/, 'warn').length, 1);
      assert.equal(log.find(/etcd/).length, 1);
    });
  });

  describe('with a cluster of three', () => {
    let servers: readonly EtcdServer[];
    let endpoints = '';

    beforeEach(async () => {
      servers = await startEtcdCluster(3);
      undo.push(async () => {
        for (const server of servers) await server.destroy();
      });
      endpoints = servers.map(({ endpoint }) => endpoint).join();
    });

    const inUse = (store: EtcdStore): EtcdServer => {
      const server = servers.find(({ endpoint }) => endpoint.endsWith(`/${store.health.endpoint ?? ''}`));
      if (server === undefined) throw new Error(`no server at ${store.health.endpoint ?? 'nowhere'}`);
      return server;
    };

    for (const [what, harm] of [
      ['hangs', (server: EtcdServer) => server.suspend()],
      ['is killed', (server: EtcdServer) => server.kill()],
    ] as const) {
      it(`goes on with another member when the one in use ${what}`, async () => {
        // A third of it for each member: more than an election takes on a busy machine.
        const store = open({ endpoints, callTimeoutMs: 9000 });
        const lease = await mustCreate(store, 1);
        const peers = await follow(store);
        const victim = inUse(store);
        await harm(victim);
        await store.publishLease(lease, lease.attributes);
        assert.ok(lease.etcdLeaseId !== undefined);
        assert.equal(await store.keepAlive(lease.etcdLeaseId), 600);
        assert.notEqual(inUse(store), victim);
        await mustCreate(store, 2);
        await has(peers, 1, 2);
        assert.equal(peers.counters.epochs, 1);
        assert.equal(log.find(/etcd lost/).length, 0, 'the store as a whole was never away');
        // A member that is still electing when it is asked is left as well.
        const changes = log.find(/endpoint changed/, 'info').length;
        assert.ok(changes === 1 || changes === 2, `${changes} changes of the endpoint`);
      });
    }

    it('notices a hanging member by itself when only a watch is open', async () => {
      const store = open({ endpoints, callTimeoutMs: 1500, pingIntervalMs: 1000 });
      const peers = await follow(store);
      const victim = inUse(store);
      await victim.suspend();
      const survivor = servers.find((server) => server !== victim);
      assert.ok(survivor !== undefined);
      await waitFor(() => store.counters().watchRestarts > 0, { what: 'the watch to move' });
      await openRaw(survivor).put(key(7), value(7));
      await has(peers, 7);
    });

    it('leaves a member that lost the others', async () => {
      const [cutOff, ...rest] = servers;
      assert.ok(cutOff !== undefined);
      // The member that stays alone has no leader; the wish for one makes it say so.
      const store = open({ endpoints: cutOff.endpoint, callTimeoutMs: 3000 });
      const ended = await follow(store);
      for (const server of rest) await server.suspend();
      await waitFor(() => store.counters().watchRestarts > 0, { what: 'the watch to end' });
      for (const server of rest) server.resume();
      await waitFor(
        () =>
          store.listLeases().then(
            () => true,
            () => undefined,
          ),
        { what: 'the cluster to be whole' },
      );
      await mustCreate(store, 3);
      await has(ended, 3);
    });
  });

  describe('with TLS', () => {
    it('presents a client certificate', async () => {
      const server = await start({ tls: 'mutual' });
      const store = open({ endpoints: server.endpoint, ...server.certificates });
      await mustCreate(store, 1);
      await has(await follow(store), 1);
    });

    it('is content with a CA alone, with and without a scheme', async () => {
      const server = await start({ tls: 'server' });
      const caFile = server.certificates?.caFile;
      await mustCreate(open({ endpoints: server.endpoint, caFile }), 1);
      const bare = server.endpoint.replace('https://', '');
      assert.equal((await open({ endpoints: bare, caFile }).listLeases()).leases.length, 1);
    });

    it('says what to check when the server is not trusted', async () => {
      const server = await start({ tls: 'server' });
      const store = open({ endpoints: server.endpoint });
      await assert.rejects(store.readConfig(), { code: 'ERR_ETCD_UNAVAILABLE', hint: /--etcd-cafile/ });
    });

    it('says what to check when a client certificate is missing', async () => {
      const server = await start({ tls: 'mutual' });
      const store = open({ endpoints: server.endpoint, caFile: server.certificates?.caFile });
      await assert.rejects(store.readConfig(), { code: 'ERR_ETCD_UNAVAILABLE', hint: /--etcd-certfile/ });
    });

    it('speaks plain to http:// although certificates are given', async () => {
      const secure = await start({ tls: 'mutual' });
      const plain = await start();
      const store = open({ endpoints: plain.endpoint, ...secure.certificates });
      assert.equal(await store.readConfig(), undefined);
    });
  });

  describe('with authentication', () => {
    const user = { name: 'flannel', password: 'correct' };

    it('logs in, and again when its token has expired', async () => {
      const server = await start({ user, tokenTtlSeconds: 1 });
      const proxy = await TcpProxy.to(server.endpoint);
      undo.push(() => proxy.close());
      const store = open({
        endpoints: proxy.endpoint,
        username: user.name,
        password: user.password,
        callTimeoutMs: 3000,
      });
      const lease = await mustCreate(store, 1);
      const peers = await follow(store);
      await new Promise((resolve) => setTimeout(resolve, 2500));
      // With the token gone, the watch has to be opened anew; nothing but the watch asks for a new one.
      proxy.cut();
      proxy.heal();
      await waitFor(() => store.counters().watchRestarts > 0, { what: 'the watch to break' });
      await waitFor(() => store.health.isConnected, { what: 'the store to be back' });
      await mustCreate(store, 2);
      await has(peers, 1, 2);
      await new Promise((resolve) => setTimeout(resolve, 2500));
      assert.ok(lease.etcdLeaseId !== undefined);
      assert.equal(await store.keepAlive(lease.etcdLeaseId), 600);
      assert.equal((await store.listLeases()).leases.length, 2);
    });

    it('refuses a wrong password and a missing user for good', async () => {
      const server = await start({ user });
      const wrong = open({ endpoints: server.endpoint, username: user.name, password: 'wrong' });
      const refusal = { code: 'ERR_ETCD_AUTH', isRetryable: false };
      await assert.rejects(wrong.readConfig(), { ...refusal, hint: /--etcd-username and the password/ });
      await assert.rejects(wrong.listLeases(), refusal);
      const nobody = open({ endpoints: server.endpoint });
      await assert.rejects(nobody.readConfig(), { ...refusal, hint: /set --etcd-username/ });
      assert.ok((nobody.counters().errors['ERR_ETCD_AUTH'] ?? 0) > 0);
      const text = JSON.stringify(log.lines);
      assert.ok(!text.includes('wrong') && !text.includes('correct'), 'a password was logged');
    });

    it('does without a log-in if etcd knows no users', async () => {
      const server = await start();
      const store = open({ endpoints: server.endpoint, username: user.name, password: user.password });
      assert.equal(await store.readConfig(), undefined);
      await store.listLeases();
      assert.equal(log.find(/no authentication/, 'warn').length, 1);
    });
  });

  describe('close', () => {
    const script = path.join(path.dirname(fileURLToPath(import.meta.url)), '../support/store-exit.ts');

    it('lets the process end by itself, whether etcd answers or not', async () => {
      const server = await start();
      const cases = [server.endpoint, 'http://127.0.0.1:1', `http://127.0.0.1:1,${server.endpoint}`];
      await Promise.all(
        cases.map(async (endpoints) => {
          const program = new Program([process.execPath, '--import', 'tsx', script, endpoints]);
          await program.waitForLine(/^closed$/, 20_000);
          const closedAt = performance.now();
          const { code } = await program.exited;
          assert.equal(code, 0, program.output);
          assert.ok(performance.now() - closedAt < 3000, `it took ${performance.now() - closedAt} ms`);
        }),
      );
    });

    it('ends requests that are under way', async () => {
      const server = await start();
      const store = open({ endpoints: server.endpoint, callTimeoutMs: 10_000 });
      await store.readConfig();
      await server.suspend();
      undo.push(() => server.resume());
      const waiting = assert.rejects(store.listLeases(), { code: 'ERR_STORE_CLOSED' });
      await store.close();
      await waiting;
    });
  });
});
