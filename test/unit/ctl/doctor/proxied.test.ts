import assert from 'node:assert/strict';
import { PROXIED_CHECKS } from '../../../../src/ctl/doctor/checks/proxied.js';
import type { DoctorFacts, Found, ProxiedFacts } from '../../../../src/ctl/doctor/facts.js';
import { readProxied } from '../../../../src/ctl/doctor/gather-proxied.js';
import type { Echo } from '../../../../src/ctl/doctor/facts.js';
import type { IpAddress } from '../../../../src/ip/address.js';
import type { NeighInfo } from '../../../../src/netlink/neighbour.js';
import { ROUTE_PROTOCOL } from '../../../../src/reconcile/desired.js';
import { ip, mac } from '../../../support/builders.js';
import { address, facts, link, route } from '../../../support/doctor-facts.js';
import type { DaemonStatus } from '../../../../src/observe/status.js';

const UPLINK = 2;
const BRIDGE = 3;
const PLUGIN = 4;

describe('doctor on whom the host answers for', () => {
  const found = (check: string, proxied: Partial<ProxiedFacts>, more: Partial<DoctorFacts> = {}): readonly Found[] => {
    const { run } = PROXIED_CHECKS.find(({ id }) => id === check) ?? assert.fail(check);
    return run(facts({ proxied: { proxied: [], stale: [], missing: [], ...proxied }, ...more }));
  };

  const links = [
    link(UPLINK, 'eth0'),
    link(BRIDGE, 'docker0', { kind: 'bridge' }),
    link(PLUGIN, 'tsfb-1', { kind: 'bridge', alias: 'tsflannel:x:docker' }),
  ];
  const addresses = [address(UPLINK, '2001:db8::b', 64), address(BRIDGE, '2001:db8::1:0:0:1', 80)];

  const neighbour = (index: number, text: string, change: Partial<NeighInfo> = {}): NeighInfo => {
    return { index, address: ip(text), mac: mac(9), isPermanent: false, isFailed: false, ...change };
  };

  const read = (neighbours: readonly NeighInfo[], proxies: readonly string[], echo?: Echo): Promise<ProxiedFacts> =>
    readProxied({
      links,
      addresses,
      ping: () => Promise.resolve(echo),
      netlink: {
        neighbours: { list: (_family, index) => Promise.resolve(neighbours.filter((each) => each.index === index)) },
        proxies: {
          list: () =>
            Promise.resolve(proxies.map((text) => ({ index: UPLINK, address: ip(text), protocol: ROUTE_PROTOCOL }))),
        },
        routes: {
          lookup: (to: IpAddress) => {
            const index = to.toString().startsWith('2001:db8::1:') ? BRIDGE : UPLINK;
            return route('2001:db8::/64', { index, gateway: undefined });
          },
        },
      },
    });

  const texts = (list: readonly { readonly address: IpAddress }[]): string[] =>
    list.map((each) => each.address.toString());

  it('misses neighbours of any bridge that a router asks for on the uplink, and no others', async () => {
    const { missing } = await read(
      [
        neighbour(BRIDGE, '2001:db8::1:0:0:2'),
        neighbour(BRIDGE, '2001:db8::1:0:0:3'),
        neighbour(BRIDGE, '2001:db8::1:0:0:4', { isFailed: true }),
        neighbour(BRIDGE, '2001:db8::1:0:0:5', { mac: undefined }),
        neighbour(BRIDGE, 'fe80::5'),
        neighbour(BRIDGE, 'fd00:7::5'),
        neighbour(PLUGIN, '2001:db8::2:0:0:2'),
        neighbour(UPLINK, '2001:db8::1'),
      ],
      ['2001:db8::1:0:0:3'],
      'silence',
    );
    assert.deepEqual(
      missing.map((each) => `${each.address.toString()} ${each.device} ${each.bridge}`),
      ['2001:db8::1:0:0:2 eth0 docker0', '2001:db8::2:0:0:2 eth0 tsfb-1'],
    );
  });

  it('takes for stale what leads back to the uplink, and whoever cannot be found behind a bridge', async () => {
    const proxies = ['2001:db8::1:0:0:2', '2001:db8::1:0:0:3', '2001:db8::dead'];
    const neighbours = [
      neighbour(BRIDGE, '2001:db8::1:0:0:2'),
      neighbour(BRIDGE, '2001:db8::1:0:0:3', { isFailed: true }),
    ];
    assert.deepEqual(texts((await read(neighbours, proxies, 'silence')).stale), proxies.slice(1));
    assert.deepEqual(texts((await read(neighbours, proxies)).stale), proxies.slice(2), 'without a program ping');
  });

  it('names the way out that fits whose bridge it is', () => {
    const missing = [{ address: ip('2001:db8::1:0:0:2'), device: 'eth0', bridge: 'docker0' }];
    const ours = [{ address: ip('2001:db8::2:0:0:2'), device: 'eth0', bridge: 'tsfb-1' }];
    const daemon = (ndpProxy: unknown): DaemonStatus =>
      ({
        ndpProxy,
        containerNetworks: { networks: [{ id: 'abcdef0123456789', parent: 'tsfb-1' }] },
      }) as unknown as DaemonStatus;
    const command = (what: typeof missing, ndpProxy: unknown): string | undefined =>
      found('ndp-missing', { missing: what }, { links, daemon: daemon(ndpProxy) })[0]?.command;
    assert.match(command(missing, null) ?? '', /FLANNELD_NDP_PROXY=true/);
    assert.equal(command(missing, {}), 'systemctl restart tsflanneld');
    assert.match(command(ours, null) ?? '', /docker network rm abcdef012345 # .*-o ndp-proxy=true/);
    assert.deepEqual(found('ndp-missing', { missing }, { daemon: undefined }), []);
  });

  it('counts groups, not addresses', () => {
    const at = (n: number, low: number): { address: IpAddress; device: string } => ({
      device: 'eth0',
      address: ip('2001:db8::').add((BigInt(n) << 24n) + BigInt(low)),
    });
    const many = Array.from({ length: 600 }, (_, n) => at(n, n));
    const [note] = found('mld-groups', { proxied: many });
    assert.match(note?.message ?? '', /^eth0 is in 600 multicast groups/);
    assert.equal(note?.severity, 'note');
    assert.match(note.command, /\/88 or wider.* --ip6/);
    assert.deepEqual(found('mld-groups', { proxied: Array.from({ length: 600 }, (_, n) => at(n, 7)) }), []);
  });
});
