import assert from 'node:assert/strict';
import { silentLogger } from '../../src/log.js';
import { EtcdStore } from '../../src/etcd/store.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd } from '../support/loopback-etcd.js';
import { attributesOf, describeStoreContract, mustCreate, subnetsOf } from '../support/store-contract.js';

describe('EtcdStore on one etcd', () => {
  let server: EtcdServer;
  let raw: RawEtcd;
  let tests = 0;
  let prefix = '';
  const open = (): EtcdStore => new EtcdStore({ endpoints: server.endpoint, prefix, log: silentLogger });

  before(async () => {
    server = await startEtcd();
    raw = rawEtcd(server);
  });

  after(async () => {
    raw.close();
    await server.destroy();
  });

  beforeEach(() => {
    prefix = `/test/${++tests}`;
  });

  describeStoreContract('EtcdStore', () => ({
    store: open(),
    other: open(),
    poke: (key, value) => raw.put(`${prefix}/subnets/${key}`, value),
  }));

  describe('what lies in etcd', () => {
    let store: EtcdStore;

    beforeEach(() => {
      store = open();
    });

    afterEach(() => store.close());

    it('is byte for byte what flannel writes', async () => {
      const attributes = attributesOf(9, {
        backendType: 'vxlan',
        backendData: { VNI: 1, VtepMAC: '02:42:ac:11:00:09' },
      });
      await store.createLease({ subnets: subnetsOf(34, 0x22), attributes, ttlSeconds: 86_400 });
      const entry = await raw.get(`${prefix}/subnets/10.5.34.0-24&fd00:10:5:22::-64`);
      assert.equal(
        entry?.value,
        '{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:42:ac:11:00:09"}}',
      );
      assert.notEqual(entry.lease, '0');
      const { grantedTTL } = await raw.lease.leaseTimeToLive({ ID: entry.lease });
      assert.equal(grantedTTL, '86400');
    });

    it('is read although a flannel of another age wrote it', async () => {
      await raw.put(`${prefix}/subnets/10.5.1.0-24`, '{"PublicIP":"192.0.2.1"}');
      await raw.put(`${prefix}/subnets/10.5.2.0-24`, '{"publicip":"192.0.2.2","BackendType":"x","Future":{"a":[1]}}');
      const { leases, bad } = await store.listLeases();
      assert.deepEqual(
        leases.map(({ attributes }) => attributes.publicIp.toString()),
        ['192.0.2.1', '192.0.2.2'],
      );
      assert.deepEqual(bad, []);
    });

    it('does not include neighbours of the subnets directory', async () => {
      await raw.put(`${prefix}/subnets-old/10.5.1.0-24`, '{"PublicIP":"192.0.2.1"}');
      await raw.put(`${prefix}/subnets`, 'x');
      const { leases, bad } = await store.listLeases();
      assert.deepEqual([...leases, ...bad], []);
    });

    it('leaves no etcd lease behind when a subnet was taken or a lease deleted', async () => {
      const count = async (): Promise<number> => (await raw.lease.leaseLeases()).leases.length;
      const before = await count();
      const lease = await mustCreate(store, 1);
      await store.createLease({ subnets: subnetsOf(1), attributes: attributesOf(2), ttlSeconds: 600 });
      assert.equal(await count(), before + 1);
      await store.deleteLease(lease);
      assert.equal(await count(), before);
    });
  });
});
