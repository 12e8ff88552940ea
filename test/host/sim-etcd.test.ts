import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type EtcdService, dialEtcd } from '../../src/etcd/connection.js';
import { type Outcome, RawRpc, type RawStream, comparable } from '../support/etcd-rpc.js';
import { type Operation, aHistory, toRequest } from '../support/etcd-operations.js';
import { FakeClock } from '../support/fake-clock.js';
import { type EtcdServer, rawEtcd, startEtcd } from '../support/loopback-etcd.js';
import { SimEtcdCluster } from '../support/sim-etcd/cluster.js';

/**
 * An answer as far as it is decided by the history: of the time that a lease has left only whether there is any, as the
 * clock of the double stands still, and its keys sorted, as etcd gives them in the order of a Go map.
 */
function decided(outcome: Outcome): unknown {
  if ('error' in outcome || !('grantedTTL' in outcome.response)) return comparable(outcome);
  const { TTL, keys, ...rest } = outcome.response;
  return comparable({
    ...rest,
    hasTime: Number(TTL) > 0,
    keys: [...(keys as Buffer[])].sort((a, b) => Buffer.compare(a, b)),
  });
}

describe('SimEtcdCluster beside a real etcd', () => {
  let server: EtcdServer;
  let real: RawRpc;
  let double: RawRpc;
  let cluster: SimEtcdCluster;
  const clock = new FakeClock();
  let revision = 1n;
  let compacted = 0n;
  let rounds = 0;

  before(async () => {
    server = await startEtcd();
    real = new RawRpc(dialEtcd, new URL(server.endpoint).host);
    // With the short election time-out of the real one.
    cluster = new SimEtcdCluster({ clock, minTtlSeconds: 1 });
    double = new RawRpc(cluster.connect('host-1'), cluster.members[0]?.target ?? '');
  });

  after(async () => {
    real.close();
    double.close();
    await server.destroy();
  });

  /** Sends the same to both, fails unless they say the same. */
  async function both(operation: Operation): Promise<void> {
    const { service, method, request } = toRequest(operation, { revision, compacted });
    await ask(service, method, request);
  }

  async function ask(service: EtcdService, method: string, request: object): Promise<Outcome> {
    const expected = await real.call(service, method, request);
    const actual = await double.call(service, method, request);
    const what = `${method} ${JSON.stringify(comparable(request))}`;
    assert.deepEqual(decided(actual), decided(expected), what);
    if ('error' in expected) return expected;
    revision = BigInt((expected.response['header'] as { revision: string }).revision);
    if (method === 'compact') compacted = BigInt((request as { revision: string }).revision);
    return expected;
  }

  async function watchBoth(request: object): Promise<readonly [RawStream, RawStream]> {
    return [await real.watch(request), await double.watch(request)];
  }

  /** What both streams have brought up to a key that marks the end. */
  async function finish(streams: readonly RawStream[], mark: string): Promise<void> {
    const isMarked = ({ events, responses }: RawStream): boolean =>
      responses.at(-1)?.['canceled'] === true ||
      events.some(({ kv }) => (kv as { key: Buffer }).key.toString() === mark);
    for (const stream of streams) {
      await stream.until(isMarked, 'the last event');
      stream.close();
    }
  }

  it('gives the same answers and events to the same random histories', async function () {
    this.timeout(120_000);
    await fc.assert(
      fc.asyncProperty(aHistory, async ({ operations, isPrevWanted, filters }) => {
        const mark = `z${++rounds}`;
        for (const lease of ['7001', '7002', '7003']) await both({ kind: 'revoke', lease });
        await both({ kind: 'delete', key: '\0', end: '\0', isPrevWanted: false });
        const everything = { key: Buffer.from([0]), range_end: Buffer.from([0]), prev_kv: isPrevWanted, filters };
        const [expected, actual] = await watchBoth(everything);
        for (const operation of operations) await both(operation);
        const starts = [compacted - 1n, compacted + 1n, revision - 3n, revision, revision + 2n];
        const past: (readonly [RawStream, RawStream])[] = [];
        for (const start of starts) {
          if (start > 0n && start !== compacted) {
            past.push(
              await watchBoth({ ...everything, prev_kv: false, filters: [], start_revision: start.toString() }),
            );
          }
        }
        await both({ kind: 'put', key: 'w', value: 'w', lease: '0', flags: [] });
        await both({ kind: 'put', key: mark, value: '', lease: '0', flags: [] });
        if (!filters.includes('Noput')) {
          await finish([expected, actual], mark);
          assert.deepEqual(comparable(actual.responses), comparable(expected.responses), 'responses to a watch');
        } else {
          expected.close();
          actual.close();
        }
        for (const [late, lateDouble] of past) {
          await finish([late, lateDouble], mark);
          const [confirmation, ...rest] = late.responses;
          const [confirmationDouble, ...restDouble] = lateDouble.responses;
          assert.deepEqual(comparable(confirmationDouble), comparable(confirmation), 'the confirmation');
          // How many revisions come together depends on when etcd gets round to it.
          assert.deepEqual(comparable(lateDouble.events), comparable(late.events), 'events of the past');
          const end = rest.find(({ canceled }) => canceled);
          assert.deepEqual(comparable(restDouble.find(({ canceled }) => canceled)), comparable(end), 'the end');
        }
      }),
      { numRuns: Number(process.env['RPC_CONTRACT_RUNS'] ?? 60), endOnFailure: true },
    );
  });

  it('deletes the keys of a lease that ends in one revision, in order', async () => {
    await ask('Lease', 'leaseGrant', { ID: '8001', TTL: 0 });
    for (const key of ['e/2', 'e/1']) await both({ kind: 'put', key, value: 'x', lease: '8001', flags: [] });
    const streams = await watchBoth({ key: Buffer.from('e/'), range_end: Buffer.from('e0') });
    const [expected, actual] = streams;
    await clock.advance(1000);
    for (const stream of streams) {
      await stream.until(({ events }) => events.length === 2, 'two deletions');
      stream.close();
    }
    assert.deepEqual(comparable(actual.responses), comparable(expected.responses));
    await ask('Lease', 'leaseTimeToLive', { ID: '8001', keys: true });
    await ask('KV', 'range', { key: Buffer.from('e/1') });
  });

  it('keeps alive what there is, and says 0 for what there is not', async () => {
    await ask('Lease', 'leaseGrant', { ID: '8002', TTL: 600 });
    for (const id of ['8002', '8003']) {
      assert.deepEqual(comparable(await double.keepAlive(id)), comparable(await real.keepAlive(id)));
    }
    await ask('Lease', 'leaseGrant', { ID: '8002', TTL: 600 });
    await ask('Lease', 'leaseGrant', { ID: '8004', TTL: 1200 });
    await ask('Lease', 'leaseLeases', {});
    for (const ID of ['8002', '8004', '8005']) await ask('Lease', 'leaseRevoke', { ID });
  });

  it('cancels a watch when asked, and tells how far it is', async () => {
    const streams = await watchBoth({ key: Buffer.from('p') });
    for (const stream of streams) {
      stream.write({ progress_request: {} });
      await stream.until(({ responses }) => responses.length === 2, 'the progress');
      stream.write({ cancel_request: { watch_id: '0' } });
      await stream.until(({ responses }) => responses.length === 3, 'the cancellation');
      stream.close();
    }
    assert.deepEqual(comparable(streams[1].responses), comparable(streams[0].responses));
  });

  describe('with users', () => {
    const own = { key: Buffer.from('own/'), range_end: Buffer.from('own0') };
    const elsewhere = { key: Buffer.from('own/a'), range_end: Buffer.from('p') };
    const logIn = async (name: string): Promise<void> => {
      for (const rpc of [real, double]) {
        rpc.useToken(undefined);
        const { token } = await rpc.must('Auth', 'authenticate', { name, password: 'secret' });
        rpc.useToken(token as string);
      }
    };

    before(async () => {
      const raw = rawEtcd(server);
      const { auth } = raw;
      for (const [name, permType] of [
        ['writer', 'Readwrite'],
        ['reader', 'Read'],
      ] as const) {
        await auth.userAdd({ name, password: 'secret' });
        await auth.roleAdd({ name });
        await auth.userGrantRole({ user: name, role: name });
        await auth.roleGrantPermission({ name, perm: { permType, ...own } });
      }
      await auth.userAdd({ name: 'root', password: 'secret' });
      await auth.userGrantRole({ user: 'root', role: 'root' });
      assert.deepEqual(await ask('Auth', 'authenticate', { name: 'reader', password: 'secret' }), {
        error: { code: 9, details: 'etcdserver: authentication is not enabled' },
      });
      await auth.authEnable();
      raw.close();
      cluster.setAuth({
        root: { password: 'secret', permissions: 'root' },
        writer: { password: 'secret', permissions: [{ type: 'readwrite', key: 'own/', rangeEnd: 'own0' }] },
        reader: { password: 'secret', permissions: [{ type: 'read', key: 'own/', rangeEnd: 'own0' }] },
      });
    });

    for (const user of ['root', 'writer', 'reader', 'nobody', 'a former user'] as const) {
      it(`lets ${user} do the same`, async () => {
        if (user === 'nobody') for (const rpc of [real, double]) rpc.useToken(undefined);
        else if (user === 'a former user') for (const rpc of [real, double]) rpc.useToken('wrong.1');
        else await logIn(user);
        const key = Buffer.from('own/a');
        await ask('KV', 'range', own);
        await ask('KV', 'range', { ...own, serializable: true });
        await ask('KV', 'range', elsewhere);
        await ask('KV', 'put', { key });
        await ask('KV', 'put', { key, prev_kv: true });
        await ask('KV', 'put', { key: Buffer.from('other') });
        await ask('KV', 'deleteRange', { key, prev_kv: true });
        await ask('KV', 'deleteRange', elsewhere);
        const isThere = { key, target: 'Version', result: 'Greater', version: 0 };
        await ask('KV', 'txn', { compare: [isThere], failure: [{ request_put: { key } }] });
        await ask('KV', 'txn', { compare: [isThere], failure: [{ request_range: elsewhere }] });
        await ask('KV', 'txn', { compare: [{ ...isThere, key: Buffer.from('other') }], failure: [] });
        await ask('KV', 'txn', { success: [{ request_range: own }] });
        const granted = await ask('Lease', 'leaseGrant', { ID: '9001', TTL: 600 });
        await ask('KV', 'put', { key, lease: '9001' });
        await ask('Lease', 'leaseTimeToLive', { ID: '9001', keys: false });
        await ask('Lease', 'leaseLeases', {});
        await ask('Lease', 'leaseRevoke', { ID: '9001' });
        assert.equal('error' in granted, user === 'a former user');
        for (const range of [own, elsewhere]) {
          const [expected, actual] = await watchBoth(range);
          expected.close();
          actual.close();
          assert.deepEqual(comparable(actual.responses), comparable(expected.responses));
        }
      });
    }

    it('refuses a wrong password and an unknown user alike', async () => {
      for (const rpc of [real, double]) rpc.useToken(undefined);
      await ask('Auth', 'authenticate', { name: 'reader', password: 'wrong' });
      await ask('Auth', 'authenticate', { name: 'stranger', password: 'secret' });
    });
  });
});
