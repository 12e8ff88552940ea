import assert from 'node:assert/strict';
import { encodeBlock, encodeHolder, encodeRecord } from '../../src/container/records.js';
import type { StoreOptions } from '../../src/ctl/command.js';
import type { NetworksView } from '../../src/ctl/docker-networks-view.js';
import { EtcdStore } from '../../src/etcd/store.js';
import type { EtcdLeaseTimes } from '../../src/lease/store.js';
import { silentLogger } from '../../src/log.js';
import { type CtlResult, type CtlWorld, ctl } from '../support/ctl.js';
import { net } from '../support/builders.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd } from '../support/loopback-etcd.js';

const ROOT = '/coreos.com/network-ts';
const NETWORK = 'networks/lan/192.0.2.0-24';
const BLOCK = `${NETWORK}/blocks/192.0.2.64-28`;

describe('tsflannelctl docker-networks with a real etcd', () => {
  let etcd: EtcdServer;
  let raw: RawEtcd;

  before(async () => {
    etcd = await startEtcd();
    raw = rawEtcd(etcd);
  });

  after(async () => {
    raw.close();
    await etcd.destroy();
  });

  beforeEach(async () => {
    await raw.kv.deleteRange({ key: Buffer.from('/'), range_end: Buffer.from('0') });
    const record = { range: net('192.0.2.64/26'), properties: { type: 'macvlan', gateway: '192.0.2.1' } };
    await raw.put(`${ROOT}/network-records/lan/192.0.2.0-24`, encodeRecord(record));
  });

  const call = (words: string, world: CtlWorld = {}): Promise<CtlResult> =>
    ctl([...words.split(' '), `--etcd-endpoints=${etcd.endpoint}`, '--status-socket=/nonexistent'], world);

  const textOf = async (path: string): Promise<string | undefined> => (await raw.get(`${ROOT}/${path}`))?.value;

  /** A host with a block in which it uses 192.0.2.66, a single address and the gateway. */
  async function putHost(host: string, ttlSeconds = 86_400): Promise<string> {
    const lease = (await raw.lease.leaseGrant({ TTL: ttlSeconds })).ID;
    const values = {
      [`${NETWORK}/hosts/${host}`]: '',
      [BLOCK]: encodeBlock({ host, own: 0b1111n, used: 0b100n }),
      [`${NETWORK}/addresses/192.0.2.90/container`]: encodeHolder({ host, kind: 'container' }),
      [`${NETWORK}/addresses/192.0.2.1/shared-${host}`]: encodeHolder({ host, kind: 'gateway' }),
    };
    for (const [path, text] of Object.entries(values)) await raw.put(`${ROOT}/${path}`, text, lease);
    return lease;
  }

  const keysLeft = async (): Promise<number> =>
    Number(
      (await raw.kv.range({ key: Buffer.from(`${ROOT}/networks/`), range_end: Buffer.from(`${ROOT}/networks0`) }))
        .count,
    );

  it('lists networks, what each host has, and who has which address', async () => {
    await putHost('host-a');
    const { code, stdout } = await call('docker-networks --json');
    assert.equal(code, 0);
    const view = JSON.parse(stdout) as NetworksView;
    assert.deepEqual(view.networks, [
      {
        network: 'lan',
        subnet: '192.0.2.0/24',
        range: '192.0.2.64/26',
        properties: { gateway: '192.0.2.1', type: 'macvlan' },
        hosts: ['host-a'],
        here: null,
      },
    ]);
    const [host] = view.hosts;
    assert.deepEqual(
      [host?.blocks, host?.addresses, host?.isAlive],
      [['192.0.2.64/28'], ['192.0.2.1', '192.0.2.90'], true],
    );
    assert.deepEqual(
      view.addresses.map(({ address, state }) => [address, state]),
      [
        ['192.0.2.66', 'leased'],
        ['192.0.2.90', 'leased'],
      ],
    );
    const text = (await call('docker-networks')).stdout;
    assert.match(text, /^lan +192\.0\.2\.0\/24 +192\.0\.2\.64\/26 +macvlan +192\.0\.2\.1 +1 /m);
    assert.match(text, /^host-a +- +lan +192\.0\.2\.64\/28 +192\.0\.2\.1 192\.0\.2\.90 +now$/m);
  });

  it('names keys that it cannot read, and ends with 3', async () => {
    await raw.put(`${ROOT}/${NETWORK}/blocks/192.0.2.80-28`, 'junk');
    await raw.put(
      `${ROOT}/networks/lan/192.0.2.0-24/addresses/192.0.2.9/container`,
      '{"host":"\\u001b[2J","kind":"x"}',
    );
    const { code, stderr } = await call('docker-networks');
    assert.equal(code, 3);
    assert.match(stderr, /blocks\/192\.0\.2\.80-28 cannot be read/);
    assert.match(stderr, /addresses\/192\.0\.2\.9\/container cannot be read/);
  });

  it('refuses to free what a host has that is alive, unless forced', async () => {
    await putHost('host-a');
    const refused = await call('docker-networks release host-a --yes');
    assert.equal(refused.code, 5);
    assert.match(refused.stderr, /host host-a is alive, it renewed its lease .* ago; stop its daemon, or give --force/);
    assert.equal(await keysLeft(), 4);
    assert.equal((await call('docker-networks release host-a --yes --force')).code, 0);
    assert.equal(await keysLeft(), 0);
  });

  describe('for a host that was last heard of an hour ago', () => {
    const gone: CtlWorld = { openStore: (options) => new SilentHosts(options) };

    it('says what it will free and asks', async () => {
      await putHost('host-a');
      let question = '';
      const { code, stderr } = await call('docker-networks release host-a', {
        ...gone,
        answer: false,
        onQuestion: (text) => (question = text),
      });
      assert.equal(code, 5);
      assert.match(stderr, /to be freed: all of host host-a: 192\.0\.2\.64\/28, 192\.0\.2\.1, 192\.0\.2\.90/);
      assert.match(question, /Free them\?/);
      assert.equal(await keysLeft(), 4);
    });

    it('frees all that it has, and revokes its lease, so that it asks before it gives an address again', async () => {
      const lease = await putHost('host-a');
      await raw.put(`${ROOT}/${NETWORK}/blocks/192.0.2.80-28`, encodeBlock({ host: 'host-b', own: 1n, used: 0n }));
      const { code, stdout } = await call('docker-networks release host-a', { ...gone, answer: true });
      assert.equal(code, 0);
      assert.match(stdout, /^freed all of host host-a: /);
      assert.equal(await keysLeft(), 1);
      assert.equal((await raw.lease.leaseTimeToLive({ ID: lease })).TTL, '-1');
    });

    it('frees one address of a block and leaves the others to the host, with the same lease', async () => {
      const lease = await putHost('host-a');
      assert.equal((await call('docker-networks release 192.0.2.66 --yes', gone)).code, 0);
      const left = await raw.get(`${ROOT}/${BLOCK}`);
      assert.deepEqual(left?.value, encodeBlock({ host: 'host-a', own: 0b1011n, used: 0n }));
      assert.equal(left.lease, lease);
      assert.equal(await keysLeft(), 4);
    });

    it('frees several addresses, and single ones by their keys', async () => {
      await putHost('host-a');
      assert.equal((await call('docker-networks release 192.0.2.90 192.0.2.65 --yes', gone)).code, 0);
      assert.equal(await textOf(`${NETWORK}/addresses/192.0.2.90/container`), undefined);
      assert.equal(await textOf(BLOCK), encodeBlock({ host: 'host-a', own: 0b1101n, used: 0b100n }));
    });

    it('frees nothing that its host has changed in the meantime', async () => {
      await putHost('host-a');
      const { code, stderr } = await call('docker-networks release 192.0.2.66 --yes', {
        openStore: (options) =>
          new SilentHosts(options, async () =>
            raw.put(`${ROOT}/${BLOCK}`, encodeBlock({ host: 'host-a', own: 7n, used: 7n })),
          ),
      });
      assert.equal(code, 1);
      assert.match(stderr, /cannot free addresses of host host-a: they changed in the meantime/);
      assert.equal(await textOf(BLOCK), encodeBlock({ host: 'host-a', own: 7n, used: 7n }));
    });

    it('says which word is neither a host nor an address that is leased', async () => {
      await putHost('host-a');
      assert.match(
        (await call('docker-networks release host-z --yes', gone)).stderr,
        /cannot free host-z: no host has/,
      );
      assert.match(
        (await call('docker-networks release host-a 192.0.2.77 --yes', gone)).stderr,
        /cannot free 192\.0\.2\.77: no host has leased that address/,
      );
      assert.equal(await keysLeft(), 4);
    });
  });
});

/** A store whose hosts have not renewed their leases for an hour. */
class SilentHosts extends EtcdStore {
  constructor(
    options: StoreOptions,
    private readonly meanwhile: () => Promise<void> = () => Promise.resolve(),
  ) {
    super({ endpoints: options.etcdEndpoints.join(','), prefix: options.etcdPrefix, log: silentLogger });
  }

  override async etcdLeaseTimes(): Promise<EtcdLeaseTimes> {
    await this.meanwhile();
    return { remainingSeconds: 82_800, grantedSeconds: 86_400 };
  }
}
