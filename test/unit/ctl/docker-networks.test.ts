import assert from 'node:assert/strict';
import type { ClusterNetworks } from '../../../src/container/cluster-networks.js';
import { readClusterNetworks } from '../../../src/container/cluster-networks.js';
import { encodeHostName, encodeUse, hostNamePath, usePath } from '../../../src/container/account-records.js';
import { encodeBlock, encodeHolder, encodeRecord } from '../../../src/container/records.js';
import { formatNetworks } from '../../../src/ctl/docker-networks.js';
import { type NetworksView, viewNetworks } from '../../../src/ctl/docker-networks-view.js';
import { ip, mac, net } from '../../support/builders.js';
import { ctl } from '../../support/ctl.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeSharedValues } from '../../support/fake-shared-values.js';
import { sampleContainerNetworks } from '../../support/sample-status.js';

const NETWORK = 'networks/lan/192.0.2.0-24';

/** What lies in etcd after some values were written there. */
async function clusterOf(values: Readonly<Record<string, string>>): Promise<ClusterNetworks> {
  const shared = new FakeSharedValues(new FakeClock());
  for (const [path, text] of Object.entries(values)) shared.poke(path, text);
  const store = { listValues: (path: string) => Promise.resolve(shared.list(path)) };
  return readClusterNetworks(store, new AbortController().signal);
}

const TWO_HOSTS = {
  'network-records/lan/192.0.2.0-24': encodeRecord({ range: net('192.0.2.64/26'), properties: { type: 'macvlan' } }),
  [`${NETWORK}/hosts/host-1`]: '',
  [`${NETWORK}/hosts/host-2`]: '',
  [`${NETWORK}/blocks/192.0.2.64-30`]: encodeBlock({ host: 'host-1', own: 0b1111n, used: 0b0010n }),
  [`${NETWORK}/blocks/192.0.2.68-30`]: encodeBlock({ host: 'host-2', own: 0b1111n, used: 0b0001n }),
};

const ACCOUNTS = {
  [hostNamePath('host-2')]: encodeHostName('node-2'),
  [usePath('host-2', { name: 'lan', subnet: net('192.0.2.0/24') }, ip('192.0.2.68'))]: encodeUse({
    owner: 'db',
    mac: mac(68),
    sinceMs: Date.parse('2026-01-02T04:00:00.000Z'),
  }),
  // Of an address that it has not leased.
  [usePath('host-2', { name: 'lan', subnet: net('192.0.2.0/24') }, ip('192.0.2.69'))]: encodeUse({
    owner: 'thief',
    mac: undefined,
    sinceMs: 0,
  }),
};

describe('docker-networks', () => {
  const view = async (): Promise<NetworksView> => {
    const silence = new Map([['host-2', { silentSeconds: 7200, isAlive: false }]]);
    return viewNetworks(await clusterOf(TWO_HOSTS), silence, sampleContainerNetworks());
  };

  it('takes containers of this host from its daemon, and those of others from etcd', async () => {
    const { addresses } = await view();
    assert.deepEqual(
      addresses.map(({ address, host, owner, state }) => [address, host, owner, state]),
      [
        ['192.0.2.65', 'host-1', 'web', 'confirmed'],
        ['192.0.2.66', 'host-1', null, 'lost'],
        ['192.0.2.68', 'host-2', null, 'leased'],
      ],
    );
  });

  it('tells of other hosts what they tell, of addresses that they have leased', async () => {
    const cluster = await clusterOf({ ...TWO_HOSTS, ...ACCOUNTS });
    const told = viewNetworks(cluster, new Map(), sampleContainerNetworks());
    assert.deepEqual(
      told.addresses.filter(({ host }) => host === 'host-2'),
      [
        {
          address: '192.0.2.68',
          network: 'lan',
          host: 'host-2',
          hostName: 'node-2',
          owner: 'db',
          mac: mac(68),
          since: '2026-01-02T04:00:00.000Z',
          abandonedSince: null,
          state: 'leased',
        },
      ],
    );
    const text = formatNetworks(told, Date.parse('2026-01-02T04:05:00.000Z'));
    assert.match(text, /^host-2 +node-2 +lan /m);
    assert.match(text, new RegExp(`^192\\.0\\.2\\.68 +lan +node-2 +db +${mac(68)} +5m +leased$`, 'm'));
  });

  it('tells how this host connects to a network, what was seen on it, and which hosts are gone', async () => {
    const text = formatNetworks(await view(), Date.parse('2026-01-02T04:05:00.000Z'));
    assert.match(text, /^lan +192\.0\.2\.0\/24 +192\.0\.2\.64\/26 +macvlan +- +2 +bridge +eth0 +yes$/m);
    assert.match(text, /^host-1 \(this host\) +- +lan +192\.0\.2\.64\/30 /m);
    assert.match(text, /^host-2 +- +lan +192\.0\.2\.68\/30 +- +2h ago$/m);
    assert.match(text, /^192\.0\.2\.65 +lan +host-1 +web +02:42:c0:00:02:41 +1h +confirmed$/m);
    assert.match(text, /^192\.0\.2\.66 +lan +host-1 +none for 15m +- +59m +lost$/m);
    assert.match(text, /^192\.0\.2\.67 +lan +02:00:00:00:00:67 +58m$/m);
  });

  it('shows its own page and that of its commands together', async () => {
    const { stdout } = await ctl(['help', 'docker-networks']);
    assert.match(stdout, /tsflannelctl docker-networks \[OPTION\]/);
    assert.match(stdout, /tsflannelctl docker-networks release HOST\|ADDRESS\.\.\. /);
  });
});

describe('networks of the cluster', () => {
  it('believes no key that no host writes', async () => {
    const bad = {
      'network-records/lan/192.0.2.9-24': '{}',
      'networks/lan/junk/hosts/host-1': '',
      [`${NETWORK}/hosts/no host`]: '',
      [`${NETWORK}/blocks/198.51.100.0-30`]: encodeBlock({ host: 'host-1', own: 1n, used: 0n }),
      [`${NETWORK}/blocks/192.0.2.72-30`]: encodeBlock({ host: 'host-1', own: 0b1_0000n, used: 0n }),
      [`${NETWORK}/blocks/192.0.2.0-24`]: encodeBlock({ host: 'host-1', own: 1n, used: 0n }),
      [`${NETWORK}/addresses/192.0.2.9/shared-host-1`]: encodeHolder({ host: 'host-2', kind: 'gateway' }),
      'container-hosts/host-1/name': '{"name":5}',
      'container-hosts/host-1/uses/lan/192.0.2.0-24/192.0.2.65': '{}',
    };
    const { networks, badPaths } = await clusterOf({ ...TWO_HOSTS, ...bad });
    assert.deepEqual([...badPaths].sort(), Object.keys(bad).sort());
    assert.equal(networks.length, 1);
    assert.equal(networks[0]?.blocks.length, 2);
  });

  it('knows which addresses of a network that spreads them are given', async () => {
    const properties = { type: 'bridge', 'ndp-proxy': 'true', 'shared-low-bits': '24' };
    const base = 'networks/web/2001:db8:0:1::-66';
    const { networks, badPaths } = await clusterOf({
      'network-records/web/2001:db8:0:1::-66': encodeRecord({ range: net('2001:db8:0:1::/66'), properties }),
      [`${base}/blocks/2001:db8:0:1::4000:0-98`]: encodeBlock({ host: 'host-1', own: 0b1111n, used: 0b0110n }),
      [`${base}/blocks/2001:db8:0:1::-97`]: encodeBlock({ host: 'host-1', own: 1n, used: 0n }),
    });
    assert.deepEqual(badPaths, [`${base}/blocks/2001:db8:0:1::-97`]);
    const used = networks.flatMap(({ blocks }) => blocks.flatMap((block) => block.used.map(String)));
    assert.deepEqual(used, ['2001:db8:0:1::4100:2', '2001:db8:0:1::4200:2']);
  });

  it('knows a network whose record is missing', async () => {
    const { networks } = await clusterOf({ [`${NETWORK}/hosts/host-1`]: '' });
    assert.deepEqual(
      networks.map(({ name, record, hosts }) => [name, record, hosts]),
      [['lan', undefined, ['host-1']]],
    );
  });
});
