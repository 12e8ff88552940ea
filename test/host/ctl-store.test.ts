import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { encodeHostStatus } from '../../src/lease/host-status.js';
import { type CtlResult, type CtlWorld, ctl } from '../support/ctl.js';
import { ctlFile } from '../support/daemon.js';
import { type EtcdServer, type RawEtcd, rawEtcd, startEtcd } from '../support/loopback-etcd.js';
import { run } from '../support/netns.js';

const PREFIX = '/coreos.com/network';
const UDP = '{"Network":"10.5.0.0/16"}';
const VXLAN = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';

describe('tsflannelctl with a real etcd', () => {
  let etcd: EtcdServer;
  let raw: RawEtcd;
  let directory: string;

  before(async () => {
    etcd = await startEtcd();
    raw = rawEtcd(etcd);
    directory = await mkdtemp(path.join(tmpdir(), 'tsflannelctl-'));
  });

  after(async () => {
    raw.close();
    await etcd.destroy();
    await rm(directory, { recursive: true });
  });

  beforeEach(async () => {
    const everything = { key: Buffer.from('/'), range_end: Buffer.from('0') };
    await raw.kv.deleteRange(everything);
  });

  const call = (words: string, world: CtlWorld = {}): Promise<CtlResult> =>
    ctl([...words.split(' '), `--etcd-endpoints=${etcd.endpoint}`], world);

  async function putLease(subnet: string, publicIp: string, ttlSeconds?: number): Promise<void> {
    const value = JSON.stringify({ PublicIP: publicIp, PublicIPv6: null });
    let lease = '0';
    if (ttlSeconds !== undefined) lease = (await raw.lease.leaseGrant({ TTL: ttlSeconds })).ID;
    await raw.put(`${PREFIX}/subnets/${subnet.replace('/', '-')}`, value, lease);
  }

  const leaseOf = (subnet: string): ReturnType<RawEtcd['get']> =>
    raw.get(`${PREFIX}/subnets/${subnet.replace('/', '-')}`);

  describe('config', () => {
    it('says that there is none, and what to do', async () => {
      const { code, stderr } = await call('config get');
      assert.equal(code, 1);
      assert.match(stderr, /\/coreos.com\/network\/config is empty; write one with tsflannelctl config set/);
    });

    it('writes a first configuration from standard input and prints it unaltered', async () => {
      const { code, stdout } = await call('config set - --yes', { input: UDP });
      assert.equal(code, 0, stdout);
      assert.match(stdout, /there is no configuration yet\nwritten at revision \d+\n/);
      assert.equal((await call('config get')).stdout, `${UDP}\n`);
    });

    it('writes nothing that no daemon could use', async () => {
      const { code, stderr } = await call('config set - --yes', {
        input: '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"1"}}',
      });
      assert.equal(code, 1);
      assert.match(stderr, /Backend\.VNI is "1"; set it to a whole number/);
      assert.equal(await raw.get(`${PREFIX}/config`), undefined);
    });

    it('shows hosts that lose their subnet, and writes only after a yes', async () => {
      await raw.put(`${PREFIX}/config`, UDP);
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      await putLease('10.5.200.0/24', '192.0.2.4', 3600);
      const file = path.join(directory, 'new.json');
      await writeFile(file, '{"Network":"10.5.0.0/16","SubnetMax":"10.5.100.0"}');

      const unasked = await call(`config set ${file}`);
      assert.equal(unasked.code, 5);
      assert.match(unasked.stdout, /host 192\.0\.2\.4 loses 10\.5\.200\.0\/24/);
      assert.doesNotMatch(unasked.stdout, /192\.0\.2\.3/);
      assert.equal((await call(`config set ${file}`, { answer: false })).code, 5);
      assert.equal((await raw.get(`${PREFIX}/config`))?.value, UDP);

      assert.equal((await call(`config set ${file}`, { answer: true })).code, 0);
      assert.match((await raw.get(`${PREFIX}/config`))?.value ?? '', /10\.5\.100\.0/);
    });

    it('writes nothing in a dry run and ends with 3', async () => {
      await raw.put(`${PREFIX}/config`, UDP);
      const result = await call('config set - --dry-run --json', { input: VXLAN });
      assert.equal(result.code, 3);
      const report = result.json() as { impacts: { kind: string }[]; isWritten: boolean };
      assert.deepEqual(
        report.impacts.map(({ kind }) => kind),
        ['backend', 'mtu'],
      );
      assert.equal(report.isWritten, false);
      assert.equal((await raw.get(`${PREFIX}/config`))?.value, UDP);
    });

    it('does not overwrite what somebody else wrote while it asked', async () => {
      await raw.put(`${PREFIX}/config`, UDP);
      const other = '{"Network":"10.6.0.0/16"}';
      const store = await import('../../src/etcd/store.js');
      const { silentLogger } = await import('../../src/log.js');
      const { code, stderr } = await call('config set - --yes', {
        input: VXLAN,
        openStore: (options) => {
          const real = new store.EtcdStore({ endpoints: etcd.endpoint, prefix: options.etcdPrefix, log: silentLogger });
          const list = real.listLeases.bind(real);
          real.listLeases = async (signal) => {
            await raw.put(`${PREFIX}/config`, other);
            return list(signal);
          };
          return real;
        },
      });
      assert.equal(code, 1);
      assert.match(stderr, /somebody else has written it in the meantime/);
      assert.equal((await raw.get(`${PREFIX}/config`))?.value, other);
    });

    it('walks back through earlier versions until the first one', async () => {
      for (const text of ['one', 'two', 'three']) await raw.put(`${PREFIX}/config`, text);
      const all = (await call('config history --json')).json() as { versions: { text: string }[]; end: string };
      assert.deepEqual(
        all.versions.map(({ text }) => text),
        ['three', 'two', 'one'],
      );
      assert.equal(all.end, 'first');
      const some = (await call('config history --json --limit 2')).json() as { versions: unknown[]; end: string };
      assert.deepEqual([some.versions.length, some.end], [2, 'limit']);
    });

    it('stops at what etcd has forgotten', async () => {
      await raw.put(`${PREFIX}/config`, 'one');
      await raw.put(`${PREFIX}/config`, 'two');
      await raw.compact();
      await raw.put(`${PREFIX}/config`, 'three');
      const { versions, end } = (await call('config history --json')).json() as {
        versions: { text: string }[];
        end: string;
      };
      // The version that was current at the compaction is kept.
      assert.deepEqual([versions.map(({ text }) => text), end], [['three', 'two'], 'compacted']);
    });
  });

  describe('leases', () => {
    beforeEach(() => raw.put(`${PREFIX}/config`, UDP));

    it('lists remaining time, reservations and what hosts tell of themselves', async () => {
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      await putLease('10.5.4.0/24', '192.0.2.4');
      const leaseSince = new Date(Date.now() - 3 * 3_600_000).toISOString();
      await raw.put(
        `${PREFIX}-ts/hosts/192.0.2.3`,
        encodeHostStatus({ hostName: 'alpha', version: 'v1', leaseKey: '10.5.3.0-24', leaseSince }),
      );
      const { stdout, code } = await call('leases list');
      assert.equal(code, 0);
      const lines = stdout.split('\n').map((line) => line.split(/\s{2,}/));
      assert.deepEqual(lines[0], ['SUBNET', 'PUBLIC IP', 'BACKEND', 'EXPIRES', 'HOST', 'AGE']);
      assert.match(lines[1]?.[3] ?? '', /^(1h|59m \d+s)$/);
      assert.deepEqual([lines[1]?.[4], lines[1]?.[5]], ['alpha', '3h']);
      assert.deepEqual(lines[2], ['10.5.4.0/24', '192.0.2.4', 'udp', 'never', '-', '-']);
    });

    it('names keys that are no leases and ends with 3', async () => {
      await raw.put(`${PREFIX}/subnets/.lock`, 'x');
      const { code, stderr } = await call('leases list');
      assert.equal(code, 3);
      assert.match(stderr, /cannot read the lease key "\.lock"/);
    });

    it('finds a lease by subnet, by key, by public address, by host name and by the address of a container', async () => {
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      await raw.put(
        `${PREFIX}-ts/hosts/192.0.2.3`,
        encodeHostStatus({ hostName: 'alpha.example.org', version: 'v1', leaseKey: '10.5.3.0-24', leaseSince: '' }),
      );
      for (const name of ['10.5.3.0/24', '10.5.3.0-24', '192.0.2.3', 'alpha', '10.5.3.77']) {
        const row = (await call(`leases show ${name} --json`)).json() as { key: string };
        assert.equal(row.key, '10.5.3.0-24', name);
      }
      assert.equal((await call('leases show 10.5.9.0/24')).code, 1);
      assert.equal((await call('leases show 10.5.9.0/99')).code, 2);
    });

    it('turns a live lease into a reservation that survives its etcd lease, and back', async () => {
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      const before = await leaseOf('10.5.3.0/24');
      assert.equal((await call('leases reserve 10.5.3.0/24')).code, 0);
      const reserved = await leaseOf('10.5.3.0/24');
      assert.equal(reserved?.lease, '0');
      assert.equal(reserved.value, before?.value);
      await raw.lease.leaseRevoke({ ID: before?.lease ?? '' }).catch(() => undefined);
      assert.notEqual(await leaseOf('10.5.3.0/24'), undefined);

      assert.equal((await call('leases unreserve 10.5.3.0/24')).code, 0);
      const row = (await call('leases show 10.5.3.0/24 --json')).json() as { expiresInSeconds: number };
      assert.ok(row.expiresInSeconds > 86_000, String(row.expiresInSeconds));
    });

    it('reserves a free subnet in the form that flannel documents', async () => {
      const { code, stdout } = await call('leases reserve 10.5.7.0/24 --public-ip 192.0.2.7');
      assert.equal(code, 0, stdout);
      const value = await leaseOf('10.5.7.0/24');
      assert.deepEqual([value?.value, value?.lease], ['{"PublicIP":"192.0.2.7","PublicIPv6":null}', '0']);
    });

    it('gives no host what another one holds, nor what lies outside the configuration', async () => {
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      const foreign = await call('leases reserve 10.5.3.0/24 --public-ip 192.0.2.9');
      assert.deepEqual([foreign.code, /taken by 10\.5\.3\.0\/24 \(192\.0\.2\.3\)/.test(foreign.stderr)], [1, true]);
      const outside = await call('leases reserve 10.9.3.0/24 --public-ip 192.0.2.9');
      assert.match(outside.stderr, /does not fit the network configuration/);
      const short = await call('leases reserve 10.5.8.0/25 --public-ip 192.0.2.9');
      assert.match(short.stderr, /choose a subnet of \/24 from 10\.5\.1\.0/);
      assert.equal((await leaseOf('10.5.3.0/24'))?.value.includes('192.0.2.3'), true);
    });

    it('releases a lease only after a yes', async () => {
      await putLease('10.5.3.0/24', '192.0.2.3', 3600);
      assert.equal((await call('leases release 10.5.3.0/24')).code, 5);
      assert.notEqual(await leaseOf('10.5.3.0/24'), undefined);
      const host = { hostName: 'alpha', version: 'v1', leaseKey: '10.5.3.0-24', leaseSince: '' };
      await raw.put(`${PREFIX}-ts/hosts/192.0.2.3`, encodeHostStatus(host));
      const { code, stdout } = await call('leases release alpha --yes');
      assert.deepEqual([code, stdout], [0, 'released 10.5.3.0/24, which 192.0.2.3 held\n']);
      assert.equal(await leaseOf('10.5.3.0/24'), undefined);
    });
  });

  it('ends with 4 and one JSON line about it where etcd does not answer', async () => {
    const { code, stderr } = await ctl(['leases', 'list', '--json', '--etcd-endpoints=http://127.0.0.1:1']);
    assert.equal(code, 4);
    const { error } = JSON.parse(stderr) as { error: { code: string; hint: string } };
    assert.equal(error.code, 'ERR_ETCD_UNAVAILABLE');
    assert.match(error.hint, /--etcd-endpoints/);
  });

  it('works as a program, with the variables of the daemon', async () => {
    await raw.put(`${PREFIX}/config`, UDP);
    const argv = [process.execPath, ctlFile(), 'config', 'set', '-'];
    const env = { FLANNELD_ETCD_ENDPOINTS: etcd.endpoint };
    const refused = await run(argv, { env, input: VXLAN, mayFail: true });
    assert.deepEqual([refused.code, /give --yes/.test(refused.stderr)], [5, true]);
    const written = await run([...argv, '--yes'], { env, input: VXLAN });
    assert.match(written.stdout, /backend: udp → vxlan/);
    assert.equal((await raw.get(`${PREFIX}/config`))?.value, VXLAN);
  });
});
