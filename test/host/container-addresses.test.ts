import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { systemClock } from '../../src/clock.js';
import { AddressPools } from '../../src/container/address-pools.js';
import type { AddressRequest } from '../../src/container/addresses.js';
import { formatPoolId } from '../../src/container/pool-id.js';
import { EtcdStore } from '../../src/etcd/store.js';
import { systemFiles } from '../../src/sys/text-files.js';
import { ip, mac, net } from '../support/builders.js';
import { onExit } from '../support/cleanup.js';
import { ctl } from '../support/ctl.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd } from '../support/loopback-etcd.js';
import { RecordingLogger } from '../support/recorder.js';
import { waitFor } from '../support/wait.js';

const SUBNET = net('10.10.10.0/24');
const POOL = formatPoolId({ name: undefined, subnet: SUBNET, range: SUBNET });

interface Host {
  readonly store: EtcdStore;
  readonly pools: AddressPools;
}

describe('AddressPools on etcd', () => {
  let server: EtcdServer;
  let raw: RawEtcd;
  let directory: string;
  let withdraw: () => void;
  let prefix = '';
  let tests = 0;
  let serial = 0;
  let log: RecordingLogger;
  const hosts: Host[] = [];

  before(async () => {
    server = await startEtcd();
    raw = rawEtcd(server);
    directory = mkdtempSync(path.join(os.tmpdir(), `tsflannel-addresses-${process.pid}-`));
    withdraw = onExit(() => rmSync(directory, { recursive: true, force: true }));
  });

  after(async () => {
    raw.close();
    await server.destroy();
    rmSync(directory, { recursive: true, force: true });
    withdraw();
  });

  beforeEach(() => {
    prefix = `/addresses/${++tests}`;
    log = new RecordingLogger();
  });

  afterEach(async () => {
    for (const host of hosts.splice(0)) await stop(host);
  });

  async function start(name: string): Promise<Host> {
    const store = new EtcdStore({ endpoints: server.endpoint, prefix, log, callTimeoutMs: 1000 });
    const pools = await AddressPools.open({
      host: name,
      etcdPrefix: prefix,
      store,
      clock: systemClock,
      log,
      files: systemFiles,
      file: path.join(directory, `${tests}-${name}`, 'container-addresses.json'),
      range: () => undefined,
    });
    const host = { store, pools };
    hosts.push(host);
    return host;
  }

  async function stop({ pools, store }: Host): Promise<void> {
    await pools.close();
    await store.close();
  }

  const join = ({ pools }: Host): Promise<unknown> =>
    pools.requestPool({ pool: SUBNET, range: undefined, name: undefined, family: 4 });
  const request = (address?: string): AddressRequest => ({
    kind: 'container',
    address: address === undefined ? undefined : ip(address),
    mac: mac(++serial),
    owner: `c${serial}`,
  });
  const give = async ({ pools }: Host, address?: string): Promise<string> =>
    (await pools.requestAddress(POOL, request(address))).toString();

  it('gives each of many containers on three hosts at once an address of its own', async () => {
    const all = await Promise.all(['a', 'b', 'c'].map((name) => start(name)));
    await Promise.all(all.map((host) => join(host)));
    const given = await Promise.all(Array.from({ length: 60 }, (_, index) => give(all[index % 3] as Host)));
    assert.equal(new Set(given).size, 60);
    for (const each of given) {
      const holder = all.find(({ pools }) =>
        pools.status().pools[0]?.uses.some(({ address }) => address.equals(ip(each))),
      );
      const others = all.filter((host) => host !== holder);
      for (const other of others.slice(0, 1)) {
        await assert.rejects(other.pools.requestAddress(POOL, request(each)), { code: 'ERR_ADDRESS_TAKEN' });
      }
    }
  });

  it('gets an address from the host that could have given it away, which follows', async () => {
    const [a, b] = [await start('a'), await start('b')];
    await Promise.all([join(a), join(b)]);
    await give(a);
    const before = performance.now();
    assert.equal(await give(b, '10.10.10.4'), '10.10.10.4');
    assert.ok(performance.now() - before < 5000, 'before it would have been given up');
    assert.equal(a.pools.status().counters.yielded, 1);
  });

  it('gives addresses while etcd hangs and after a restart of the daemon meanwhile', async () => {
    const a = await start('a');
    await join(a);
    await give(a);
    await waitFor(() => (a.pools.status().pools[0]?.free ?? 0) >= 8, { what: 'addresses to be given without etcd' });
    await server.suspend();
    try {
      assert.equal(await give(a), '10.10.10.3');
      const closing = a.pools.close();
      hosts.length = 0;
      const again = await start('a');
      assert.equal(await give(again), '10.10.10.4');
      await closing;
      await a.store.close();
    } finally {
      server.resume();
    }
  });

  it('finds out before its first answer that an operator has released what it had', async () => {
    const a = await start('a');
    await join(a);
    const mine = await give(a);
    hosts.length = 0;
    await stop(a);
    const store = [`--etcd-endpoints=${server.endpoint}`, `--etcd-prefix=${prefix}`, '--status-socket=/nonexistent'];
    const { code, stderr } = await ctl(['docker-networks', 'release', 'a', '--yes', '--force', ...store]);
    assert.equal(code, 0, stderr);
    const b = await start('b');
    await join(b);
    const theirs = [await give(b), await give(b)];
    assert.equal(theirs[0], mine);
    const again = await start('a');
    await assert.rejects(again.pools.requestAddress(POOL, request(mine)), { code: 'ERR_ADDRESS_TAKEN' });
    assert.ok(!theirs.includes(await give(again)));
  });

  it('leaves nothing in etcd when all is released', async () => {
    const leases = async (): Promise<number> => (await raw.lease.leaseLeases({})).leases.length;
    const before = await leases(); // of hosts of other tests
    const [a, b] = [await start('a'), await start('b')];
    await Promise.all([join(a), join(b)]);
    const given = [await give(a), await give(b, '10.10.10.200')];
    const keys = async (): Promise<readonly string[]> => {
      const range = { key: Buffer.from(`${prefix}-ts/`), range_end: Buffer.from(`${prefix}-ts0`) };
      return (await raw.kv.range(range)).kvs.map(({ key }) => key.toString());
    };
    assert.ok((await keys()).length >= 5);
    for (const [index, { pools }] of [a, b].entries()) {
      await pools.releaseAddress(POOL, ip(given[index] ?? ''));
      await pools.releasePool(POOL);
    }
    await waitFor(async () => (await keys()).length === 0, { what: 'nothing to be left' });
    await waitFor(async () => (await leases()) === before, { what: 'no etcd lease to be left' });
    assert.deepEqual(log.find(/./, 'error'), []);
  });
});
