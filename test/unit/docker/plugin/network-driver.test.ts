import assert from 'node:assert/strict';
import { parseMac } from '../../../../src/ip/mac.js';
import { IpAddress } from '../../../../src/ip/address.js';
import { waitFor } from '../../../support/wait.js';
import { PluginBed } from './plugin-bed.js';

const NETWORK = 'a'.repeat(64);
const ENDPOINT = 'e'.repeat(64);
const LINK = 'tsfceeeeeeeeeee';
const MAC = '02:42:0a:0a:0a:02';

/** What Docker sends for `docker network create`. */
function creation(options: Readonly<Record<string, string>> = {}, more: object = {}, id = NETWORK): object {
  return {
    NetworkID: id,
    Options: { 'com.docker.network.generic': options, 'com.docker.network.enable_ipv6': false, ...more },
    IPv4Data: [{ AddressSpace: 'tsflannel', Pool: '10.10.10.0/24', Gateway: '10.10.10.1/24', AuxAddresses: {} }],
    IPv6Data: [],
  };
}

const endpoint = (id = ENDPOINT, last = 2, network = NETWORK): object => ({
  NetworkID: network,
  EndpointID: id,
  Interface: { Address: `10.10.10.${last}/24`, AddressIPv6: '', MacAddress: MAC },
  Options: {},
});

const joining = { NetworkID: NETWORK, EndpointID: ENDPOINT, SandboxKey: '/proc/self/ns/net', Options: {} };
const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };

describe('the network driver', () => {
  let bed: PluginBed;

  beforeEach(async () => {
    bed = new PluginBed();
    await bed.plugin.start();
  });

  afterEach(() => bed.close());

  const create = async (options: Readonly<Record<string, string>> = {}, id = NETWORK): Promise<void> => {
    await bed.call('NetworkDriver.CreateNetwork', creation({ parent: 'eth0', ...options }, {}, id));
  };

  const join = async (): Promise<Readonly<Record<string, unknown>>> => {
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    return bed.call('NetworkDriver.Join', joining);
  };

  const sandboxes = (): readonly (string | undefined)[] => bed.plugin.status().endpoints.map(({ sandbox }) => sandbox);

  it('is of local scope, and is asked whether a network needs a gateway', async () => {
    assert.deepEqual(await bed.call('NetworkDriver.GetCapabilities'), { Scope: 'local', GwAllocChecker: true });
    for (const [internal, skips] of [
      [true, true],
      ['false', false],
    ] as const) {
      const answer = await bed.call('NetworkDriver.GwAllocCheck', {
        Options: { 'com.docker.network.internal': internal },
      });
      assert.deepEqual(answer, { SkipIPv4: skips, SkipIPv6: skips });
    }
  });

  it('gives a container an interface on the parent, and the gateway of the network', async () => {
    await create({ mode: 'private', mtu: '1400' });
    assert.deepEqual(await join(), {
      InterfaceName: { SrcName: LINK, DstPrefix: 'eth' },
      Gateway: '10.10.10.1',
      GatewayIPv6: '',
      DisableGatewayService: true,
    });
    const { kind, mac, mtu, lowerIndex, details } = bed.link(LINK);
    assert.deepEqual([kind, mac, mtu, lowerIndex], ['macvlan', MAC, 1400, bed.link('eth0').index]);
    assert.deepEqual(details, { kind: 'macvlan', mode: 'private' });
  });

  it('leaves what Docker has set out of its answer, and chooses what it has not', async () => {
    await create();
    assert.deepEqual(await bed.call('NetworkDriver.CreateEndpoint', endpoint()), { Interface: {} });
    const without = { ...endpoint('f'.repeat(64), 9), Interface: { Address: '10.10.10.9/24' } };
    assert.deepEqual(await bed.call('NetworkDriver.CreateEndpoint', without), {
      Interface: { MacAddress: '02:42:0a:0a:0a:09' },
    });
  });

  it('answers every call twice, and in any order, as if it came once', async () => {
    await create();
    await create();
    await join();
    await join();
    const known = bed.plugin.status();
    assert.deepEqual([known.networks.length, known.endpoints.length], [1, 1]);
    for (const method of ['Leave', 'DeleteEndpoint', 'DeleteNetwork', 'DeleteEndpoint', 'Leave', 'DeleteNetwork']) {
      assert.deepEqual(await bed.call(`NetworkDriver.${method}`, ids), {});
    }
    const { networks, endpoints } = bed.plugin.status();
    assert.deepEqual([networks, endpoints], [[], []]);
  });

  for (const [method, what] of [
    ['Leave', 'leaves'],
    ['DeleteEndpoint', 'is deleted'],
    ['DeleteNetwork', 'has its network deleted'],
  ] as const) {
    it(`removes the interface, which Docker has moved back, when the endpoint ${what}`, async () => {
      await create();
      await join();
      await bed.call(`NetworkDriver.${method}`, ids);
      assert.equal(bed.kernel.getLink(LINK), undefined);
    });
  }

  it('knows after a restart what it knew before', async () => {
    await create({ mode: 'vepa', mtu: '1400', probe: 'off' });
    await join();
    const before = bed.plugin.status();
    await bed.restart();
    const { networks, endpoints } = bed.plugin.status();
    assert.deepEqual([networks, endpoints], [before.networks, before.endpoints]);
  });

  it('does not answer before the disk has it', async () => {
    bed.files.writeErrno = 'ENOSPC';
    assert.match(await bed.failure('NetworkDriver.CreateNetwork', creation()), /cannot write .*ENOSPC/);
    bed.files.writeErrno = undefined;
    await create();
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    bed.files.writeErrno = 'ENOSPC';
    assert.match(await bed.failure('NetworkDriver.Join', joining), /ENOSPC/);
    assert.equal(bed.kernel.getLink(LINK), undefined, 'nothing is left');
  });

  it('forgets at its start that containers run whose namespace is gone', async () => {
    await create();
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    await bed.call('NetworkDriver.Join', { ...joining, SandboxKey: '/nowhere/netns' });
    bed.kernel.delLink(bed.link(LINK).index);
    await bed.restart();
    assert.deepEqual(sandboxes(), [undefined]);
  });

  it('leaves an interface alone at its start whose namespace Docker has not made yet, for as long as that takes', async () => {
    await create();
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    await bed.call('NetworkDriver.Join', { ...joining, SandboxKey: '/nowhere/netns' });
    await bed.restart();
    await bed.clock.advance(59_000);
    assert.ok(bed.kernel.getLink(LINK));
    assert.deepEqual(sandboxes(), ['/nowhere/netns']);
    await bed.clock.advance(2000);
    await waitFor(() => sandboxes()[0] === undefined && bed.kernel.getLink(LINK) === undefined, { what: 'it to go' });
  });

  it('leaves an interface alone of a container that is being started when it looks again for such', async () => {
    await create();
    await bed.restart();
    await bed.clock.advance(59_000);
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    await bed.call('NetworkDriver.Join', { ...joining, SandboxKey: '/nowhere/netns' });
    await bed.call('NetworkDriver.CreateEndpoint', { ...endpoint(), EndpointID: 'f'.repeat(64) });
    const { alias } = bed.link(LINK);
    for (const name of ['tsfc0123456789a', 'tsfcfffffffffff']) bed.kernel.addLink({ name, kind: 'macvlan', alias });
    await bed.clock.advance(2000);
    await waitFor(() => bed.kernel.getLink('tsfc0123456789a') === undefined, { what: 'the other one to go' });
    assert.ok(bed.kernel.getLink(LINK));
    assert.ok(bed.kernel.getLink('tsfcfffffffffff'), 'one that Join makes just now');
    assert.deepEqual(sandboxes(), ['/nowhere/netns', undefined]);
  });

  it('removes at its start interfaces that no container took, and nobody else’s', async () => {
    await create();
    await join();
    const { alias } = bed.link(LINK);
    bed.kernel.addLink({ name: 'tsfc0123456789a', kind: 'macvlan', alias });
    bed.kernel.addLink({ name: 'tsfc0123456789b', kind: 'macvlan', alias: 'of somebody else' });
    await bed.restart();
    assert.equal(bed.kernel.getLink('tsfc0123456789a'), undefined);
    assert.ok(bed.kernel.getLink('tsfc0123456789b'));
    assert.ok(bed.kernel.getLink(LINK), 'the one of a container that runs stays');
  });

  it('says what to do about a network that it does not know', async () => {
    assert.match(
      await bed.failure('NetworkDriver.CreateEndpoint', endpoint()),
      /network aaaaaaaaaaaa: this host does not know it; .* create it again/,
    );
  });

  it('has all hosts agree on type and gateway', async () => {
    const { PoolID } = await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    await create();
    assert.deepEqual(
      [...bed.addresses.agreed],
      [[PoolID, { type: 'macvlan', internal: 'false', gateway: '10.10.10.1' }]],
    );
  });

  it('refuses a network that other hosts have otherwise, and forgets it', async () => {
    const { PoolID } = await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    bed.addresses.agreed.set(PoolID as never, { type: 'macvlan', internal: 'false', gateway: '10.10.10.254' });
    assert.match(await bed.failure('NetworkDriver.CreateNetwork', creation()), /10\.10\.10\.1".*10\.10\.10\.254"/);
    assert.deepEqual(bed.plugin.status().networks, []);
  });

  it('finds the pool of each of two networks with the same subnet', async () => {
    const pool = async (network: string): Promise<unknown> =>
      (await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24', Options: { network } }))['PoolID'];
    const [first, second] = [await pool('one'), await pool('two')];
    bed.kernel.addLink({ name: 'eth1', isUp: true });
    await create();
    await create({ parent: 'eth1' }, 'b'.repeat(64));
    const pools = bed.plugin.status().networks.map(({ subnets }) => subnets.map((each) => each.pool));
    assert.deepEqual(pools, [[second], [first]], 'the newest one first');
  });

  it('gives out the addresses of one wire under one name alone', async () => {
    const request = async (network: string, SubPool = ''): Promise<unknown> =>
      bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24', SubPool, Options: { network } });
    await request('one', '10.10.10.0/25');
    await create();
    await request('two');
    const refusal = /network two\/10\.10\.10\.0-24 on eth0: one\/10\.10\.10\.0-24 gives out the same addresses/;
    await assert.rejects(create({}, 'b'.repeat(64)), refusal);
    await request('three', '10.10.10.128/25');
    await create({}, 'c'.repeat(64));
  });

  it('probes on the parent, unless it is not to', async () => {
    const { PoolID: one } = await bed.call('IpamDriver.RequestPool', { Pool: '10.10.10.0/24' });
    await create();
    const { PoolID: two } = await bed.call('IpamDriver.RequestPool', {
      Pool: '10.10.10.0/24',
      Options: { network: 'b' },
    });
    bed.kernel.addLink({ name: 'eth1', isUp: true });
    await create({ parent: 'eth1', probe: 'off' }, 'b'.repeat(64));
    assert.equal(bed.plugin.probeParentOf(one as never), 'eth0');
    assert.equal(bed.plugin.probeParentOf(two as never), undefined);
  });

  describe('without a parent', () => {
    const chosen = async (): Promise<string | undefined> => {
      await bed.call('NetworkDriver.CreateNetwork', creation());
      return bed.plugin.status().networks[0]?.parent;
    };

    it('takes the interface with an address in the subnet', async () => {
      const { index } = bed.kernel.addLink({ name: 'eth1', isUp: true });
      bed.kernel.putAddress(index, IpAddress.parse('10.10.10.250'), 24);
      assert.equal(await chosen(), 'eth1');
    });

    it('takes the daemon’s own if there is none', async () => {
      assert.equal(await chosen(), 'eth0');
    });
  });

  const refusals: readonly (readonly [what: string, options: Readonly<Record<string, string>>, why: RegExp])[] = [
    [
      'an unknown option',
      { parnet: 'eth0' },
      /-o parnet: there is no such option; .*type, parent, vlan, mode, .*mtu, host-access, probe/,
    ],
    [
      'an option of other types',
      { icc: 'false' },
      /-o icc: networks of type macvlan have no such option; leave it out.*; those of macvlan: parent, vlan, mode/,
    ],
    ['an unknown mode', { mode: 'l2' }, /mode=l2: it has to be one of bridge, vepa, private, passthru/],
    ['an MTU that is none', { mtu: '15OO' }, /mtu=15OO: it has to be a number from 68 to 65535/],
    ['an MTU above the parent’s', { mtu: '9000' }, /its MTU is 1500, below the wanted 9000/],
    ['a VLAN that is none', { vlan: '4095' }, /vlan=4095: it has to be a number from 1 to 4094/],
    ['host access that is neither', { 'host-access': 'yes' }, /host-access=yes: it has to be one of true, false/],
    ['host access in another mode', { 'host-access': 'true', mode: 'vepa' }, /host access needs mode=bridge/],
    ['a parent that there is not', { parent: 'eth7' }, /this host has no interface eth7; .*there are eth0/],
    ['a parent with an impossible name', { parent: 'eth0/../../x' }, /it has to be the name of an interface, or auto/],
    ['the loopback interface', { parent: 'lo' }, /it is the loopback interface/],
    ['a bridge port', { parent: 'port' }, /it is a port of the bridge br0; name the bridge: -o parent=br0/],
    ['a parent with ipvlan', { parent: 'eth2' }, /the ipvlan interface ipvl is on it/],
    ['a parent with passthru', { parent: 'eth3' }, /mode passthru takes a parent alone, and pass has it/],
  ];
  for (const [what, options, why] of refusals) {
    it(`refuses ${what}, with the reason`, async () => {
      bed.kernel.addLink({ name: 'lo', isLoopback: true });
      const bridge = bed.kernel.addLink({ name: 'br0', kind: 'bridge' });
      bed.kernel.addLink({ name: 'port', masterIndex: bridge.index });
      const lower2 = bed.kernel.addLink({ name: 'eth2' });
      bed.kernel.addLink({ name: 'ipvl', kind: 'ipvlan', lowerIndex: lower2.index });
      const lower3 = bed.kernel.addLink({ name: 'eth3' });
      const details = { kind: 'macvlan', mode: 'passthru' } as const;
      bed.kernel.addLink({ name: 'pass', kind: 'macvlan', lowerIndex: lower3.index, details });
      assert.match(await bed.failure('NetworkDriver.CreateNetwork', creation({ parent: 'eth0', ...options })), why);
      assert.deepEqual(bed.plugin.status().networks, []);
    });
  }

  it('lets several networks share a parent, and passthru share it with none', async () => {
    await create();
    await create({}, 'b'.repeat(64));
    const passthru = creation({ parent: 'eth0', mode: 'passthru' }, {}, 'c'.repeat(64));
    assert.match(await bed.failure('NetworkDriver.CreateNetwork', passthru), /passthru takes a parent alone/);
    bed.kernel.addLink({ name: 'eth1', isUp: true });
    await create({ parent: 'eth1', mode: 'passthru' }, 'd'.repeat(64));
    const bridge = creation({ parent: 'eth1' }, {}, 'f'.repeat(64));
    assert.match(await bed.failure('NetworkDriver.CreateNetwork', bridge), /passthru takes a parent alone/);
  });

  it('lets one container at a time into a passthru network', async () => {
    await create({ mode: 'passthru' });
    await join();
    const other = endpoint('f'.repeat(64), 3);
    assert.match(await bed.failure('NetworkDriver.CreateEndpoint', other), /another container has it/);
    await bed.call('NetworkDriver.DeleteEndpoint', ids);
    await bed.call('NetworkDriver.CreateEndpoint', other);
  });

  it('announces the addresses of a container that joins, until it leaves', async () => {
    await create();
    await join();
    assert.deepEqual(bed.announcedFrom, [LINK]);
    await bed.clock.advance(1000);
    await bed.call('NetworkDriver.Leave', ids);
    await bed.clock.advance(1000);
    assert.deepEqual(bed.announcedFrom, [LINK, 'eth0']);
  });

  it('explains why the kernel refuses an interface', async () => {
    await create();
    await bed.call('NetworkDriver.CreateEndpoint', endpoint());
    bed.refuse = () => 'EBUSY';
    assert.match(
      await bed.failure('NetworkDriver.Join', joining),
      /another kind of interface uses it already \(EBUSY\)/,
    );
  });

  describe('for an internal network', () => {
    const internal = { 'com.docker.network.internal': true };

    const makeDevice = async (): Promise<readonly unknown[]> => {
      await bed.call('NetworkDriver.CreateNetwork', creation({}, internal));
      await bed.clock.advance(100);
      const { kind, isUp } = bed.link('tsfi-aaaaaaaaaa');
      return [kind, isUp];
    };

    it('uses a bridge where the kernel has no dummy devices', async () => {
      bed.refuse = ({ kind }) => (kind === 'dummy' ? 'EOPNOTSUPP' : undefined);
      assert.deepEqual(await makeDevice(), ['bridge', true]);
    });

    it('keeps the kind of a device that is there, whatever the kernel has by now', async () => {
      bed.refuse = ({ kind }) => (kind === 'dummy' ? 'EOPNOTSUPP' : undefined);
      await makeDevice();
      const { index } = bed.link('tsfi-aaaaaaaaaa');
      bed.refuse = () => undefined;
      await bed.restart();
      await bed.clock.advance(100);
      assert.deepEqual([bed.link('tsfi-aaaaaaaaaa').kind, bed.link('tsfi-aaaaaaaaaa').index], ['bridge', index]);
    });

    it('leaves nothing of the question for it, and finds an answer where a crash has left it', async () => {
      bed.kernel.addLink({ name: 'tsfi-probe', kind: 'dummy' });
      bed.refuse = ({ name }) => (bed.kernel.getLink(name) === undefined ? undefined : 'EEXIST');
      assert.deepEqual(await makeDevice(), ['dummy', true]);
      assert.equal(bed.kernel.getLink('tsfi-probe'), undefined);
    });

    it('uses a device of its own, without a gateway', async () => {
      await bed.call('NetworkDriver.CreateNetwork', creation({}, internal));
      await bed.call('NetworkDriver.CreateEndpoint', endpoint());
      const joined = bed.call('NetworkDriver.Join', joining);
      await bed.advanceUntil(joined);
      const answer = await joined;
      assert.deepEqual([answer['Gateway'], answer['DisableGatewayService']], ['', true]);
      const { name, kind, isUp } =
        [...bed.kernel.links.values()].find(({ index }) => index === bed.link(LINK).lowerIndex) ?? {};
      assert.deepEqual([name, kind, isUp], ['tsfi-aaaaaaaaaa', 'dummy', true]);
      await bed.call('NetworkDriver.DeleteNetwork', ids);
      await bed.clock.advance(100);
      assert.equal(bed.kernel.getLink('tsfi-aaaaaaaaaa'), undefined);
    });

    for (const options of [{ parent: 'eth0' }, { vlan: '20' }, { 'host-access': 'true' }] as const) {
      it(`refuses -o ${Object.keys(options).join('')}`, async () => {
        const error = await bed.failure('NetworkDriver.CreateNetwork', creation(options, internal));
        assert.match(error, /together with --internal/);
      });
    }
  });

  it('gives the host access to containers that run, as long as they do', async () => {
    bed.kernel.putAddress(bed.link('eth0').index, IpAddress.parse('10.10.10.250'), 24);
    await create({ 'host-access': 'true' });
    await join();
    await bed.clock.advance(100);
    const shim = bed.link('eth0-host');
    const shown = (): string[] =>
      bed.kernel.describe().filter((line) => /^(?:route|neighbour|address) .*eth0-host/.test(line));
    assert.equal(shim.isUp, true);
    assert.equal(shown().length, 3);
    assert.equal(bed.kernel.filters.size, 2);
    assert.ok(shown().some((line) => line.includes(parseMac(MAC))));
    await bed.call('NetworkDriver.Leave', ids);
    await bed.clock.advance(100);
    assert.equal(shown().length, 1, 'the address of the host');
    await bed.call('NetworkDriver.DeleteNetwork', ids);
    await bed.clock.advance(100);
    assert.equal(bed.kernel.getLink('eth0-host'), undefined);
  });

  it('follows the addresses of the parent', async () => {
    const { index } = bed.link('eth0');
    await create({ 'host-access': 'true' });
    bed.kernel.putAddress(index, IpAddress.parse('10.10.10.250'), 24);
    await bed.clock.advance(200);
    assert.ok(bed.kernel.describe().includes('address eth0-host 10.10.10.250/32 '));
    bed.kernel.delAddress(index, IpAddress.parse('10.10.10.250'), 24);
    bed.kernel.putAddress(index, IpAddress.parse('10.10.10.251'), 24);
    await bed.clock.advance(200);
    const addresses = bed.kernel.describe().filter((line) => line.startsWith('address eth0-host'));
    assert.deepEqual(addresses, ['address eth0-host 10.10.10.251/32 ']);
  });
});
