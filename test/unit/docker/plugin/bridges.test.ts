import assert from 'node:assert/strict';
import { bridgeStates } from '../../../../src/docker/plugin/bridges.js';
import type { HostFacts } from '../../../../src/docker/plugin/host-access.js';
import type { ContainerNetwork, Endpoint } from '../../../../src/docker/plugin/network.js';
import { networkType } from '../../../../src/docker/plugin/network-types.js';
import { type DesiredState, mergeStates } from '../../../../src/reconcile/desired.js';
import { ip, mac, net } from '../../../support/builders.js';
import { containerNetwork } from '../../../support/container-network.js';
import { FakeKernel } from '../../../support/fake-kernel.js';

const DEVICE = 'tsfb-a';

function network(change: Partial<ContainerNetwork> = {}): ContainerNetwork {
  const subnets = [
    { subnet: net('10.10.10.0/24'), gateway: ip('10.10.10.1'), auxiliary: [], pool: undefined },
    { subnet: net('fd00:10::/64'), gateway: ip('fd00:10::1'), auxiliary: [], pool: undefined },
  ];
  return containerNetwork('a', { type: 'bridge', mode: '', parent: DEVICE, subnets, ...change });
}

function endpoint(n: number, change: Partial<Endpoint> = {}): Endpoint {
  const addresses = [
    { address: ip(`10.10.10.${n}`), length: 24 },
    { address: ip(`fd00:10::${n}`), length: 128 },
  ];
  return { id: `e${n}`, networkId: 'a', mac: mac(n), addresses, sandbox: '/run/netns/x', isStale: false, ...change };
}

describe('the bridge of a routed network', () => {
  let kernel: FakeKernel;
  let overlayMtu: number | undefined;

  beforeEach(() => {
    kernel = new FakeKernel();
    kernel.addLink({ name: 'eth0', mtu: 1400 });
    overlayMtu = 1350;
  });

  const stateOf = (networks: readonly ContainerNetwork[], endpoints: readonly Endpoint[] = []): DesiredState => {
    const facts: HostFacts = {
      links: [...kernel.links.values()],
      addresses: [],
      defaultParent: 'eth0',
      overlayMtu,
      identity: 'host',
      mark: 'tsflannel:test:docker',
    };
    return mergeStates(bridgeStates({ networks, endpoints }, facts));
  };

  const addresses = (change: Partial<ContainerNetwork>): readonly string[] =>
    stateOf([network(change)]).addresses.map(({ address, length }) => `${address.toString()}/${length}`);

  const mtus = (change: Partial<ContainerNetwork>): readonly number[] =>
    stateOf([network(change)], [endpoint(2)]).links.map(({ mtu }) => mtu);

  it('is none for networks that lie on an interface', () => {
    assert.deepEqual(stateOf([containerNetwork('a')]), mergeStates([]));
  });

  it('is one for all networks of the host that share it, with the containers of all', () => {
    const { links, routes } = stateOf(
      [network(), network({ id: 'b' })],
      [endpoint(2), endpoint(3, { networkId: 'b' }), endpoint(4, { networkId: 'c' })],
    );
    assert.deepEqual(
      links.map(({ name }) => name),
      [DEVICE],
    );
    assert.deepEqual(
      routes.map(({ destination, device }) => `${destination.toString()} ${device ?? ''}`),
      ['10.10.10.2/32', 'fd00:10::2/128', '10.10.10.3/32', 'fd00:10::3/128'].map((each) => `${each} ${DEVICE}`),
    );
  });

  it('keeps its MAC address, which containers remember, and has another one on each host', () => {
    const macOf = (links: DesiredState['links']): unknown => links.map((link) => 'mac' in link && link.mac);
    const [first, again] = [stateOf([network()]), stateOf([network()])];
    assert.deepEqual(macOf(first.links), macOf(again.links));
    const facts = { links: [], addresses: [], defaultParent: 'eth0', overlayMtu, mark: '' };
    const other = mergeStates(bridgeStates({ networks: [network()], endpoints: [] }, { ...facts, identity: 'other' }));
    assert.notDeepEqual(macOf(first.links), macOf(other.links));
  });

  const gateways: readonly (readonly [what: string, change: Partial<ContainerNetwork>, expected: readonly string[]])[] =
    [
      ['those of the network', {}, ['10.10.10.1/24', 'fd00:10::1/64', 'fe80::1/64']],
      ['those of every host', { addressing: 'host' }, ['169.254.1.1/32', 'fe80::1/64']],
      ['no way out for an internal one', { isInternal: true }, ['fe80::1/64']],
      ['but a next hop within it', { isInternal: true, addressing: 'host' }, ['169.254.1.1/32', 'fe80::1/64']],
    ];
  for (const [what, change, expected] of gateways) {
    it(`has as addresses ${what}: ${expected.join(' ')}`, () => assert.deepEqual(addresses(change), expected));
  }

  it('has addresses of the families of the network alone', () => {
    const [subnet4, subnet6] = network().subnets;
    assert.ok(subnet4 && subnet6);
    assert.deepEqual(addresses({ subnets: [subnet4] }), ['10.10.10.1/24']);
    assert.deepEqual(addresses({ subnets: [subnet6] }), ['fd00:10::1/64', 'fe80::1/64']);
  });

  it('answers ARP requests for other hosts where containers ask for them, at once', () => {
    const sysctls = (change: Partial<ContainerNetwork>): Readonly<Record<string, string>> =>
      Object.fromEntries(stateOf([network(change)]).sysctls.map(({ path, value }) => [path, value]));
    const own = sysctls({});
    assert.equal(own[`net/ipv4/conf/${DEVICE}/proxy_arp`], '1');
    assert.equal(own[`net/ipv4/neigh/${DEVICE}/proxy_delay`], '0');
    assert.equal(own[`net/ipv4/conf/${DEVICE}/forwarding`], '1');
    assert.equal(own[`net/ipv6/conf/${DEVICE}/accept_ra`], '0');
    assert.equal(sysctls({ addressing: 'host' })[`net/ipv4/conf/${DEVICE}/proxy_arp`], undefined);
  });

  it('has the host forward IPv6 where a network has it, and keep its default route before', () => {
    const [subnet4, subnet6] = network().subnets;
    assert.ok(subnet4 && subnet6);
    const sysctls = (subnets: ContainerNetwork['subnets']): readonly string[] =>
      stateOf([network({ subnets })]).sysctls.map(({ path, value }) => `${path}=${value}`);
    assert.ok(!sysctls([subnet4]).includes('net/ipv6/conf/all/forwarding=1'));
    assert.deepEqual(sysctls([subnet4, subnet6]).slice(-2), [
      'net/ipv6/conf/eth0/accept_ra=2',
      'net/ipv6/conf/all/forwarding=1',
    ]);
  });

  it('knows the MAC address of every container that runs', () => {
    const { neighbours } = stateOf([network()], [endpoint(2), endpoint(3, { sandbox: undefined })]);
    assert.deepEqual(
      neighbours.map(({ device, address, mac: own }) => `${device} ${address.toString()} ${own}`),
      [`${DEVICE} 10.10.10.2 ${mac(2)}`, `${DEVICE} fd00:10::2 ${mac(2)}`],
    );
  });

  it('lets a container call a port of its host that leads to itself', () => {
    kernel.addLink({ name: 'tsfve2', kind: 'veth' });
    const ports = [
      { protocol: 'tcp', hostAddress: undefined, hostPort: 8080, address: ip('10.10.10.2'), port: 80 } as const,
    ];
    const { ports: made } = stateOf([network()], [endpoint(2, { ports })]);
    assert.deepEqual(made, [{ device: 'tsfve2', bridge: DEVICE, isIsolated: false, isHairpin: true }]);
  });

  for (const isIccAllowed of [true, false]) {
    it(`has the interfaces that are there as ports, ${isIccAllowed ? 'not isolated' : 'isolated'}`, () => {
      kernel.addLink({ name: 'tsfve2', kind: 'veth' });
      kernel.addLink({ name: 'tsfve4', kind: 'dummy' });
      const { ports, links } = stateOf([network({ isIccAllowed })], [endpoint(2), endpoint(3), endpoint(4)]);
      assert.deepEqual(ports, [{ device: 'tsfve2', bridge: DEVICE, isIsolated: !isIccAllowed, isHairpin: false }]);
      assert.deepEqual(
        links.map(({ kind, name }) => `${kind} ${name}`),
        [`bridge ${DEVICE}`, 'veth tsfve2'],
      );
    });
  }

  const sizes: readonly (readonly [what: string, change: Partial<ContainerNetwork>, mtu: number])[] = [
    ['that of the interface', {}, 1400],
    ['what was asked for', { mtu: 9000 }, 9000],
    ['that of the overlay', { type: 'overlay' }, 1350],
    ['less, if that was asked for', { type: 'overlay', mtu: 1300 }, 1300],
    ['no more than the overlay carries', { type: 'overlay', mtu: 9000 }, 1350],
  ];
  for (const [what, change, mtu] of sizes) {
    it(`has as MTU ${what}`, () => {
      kernel.addLink({ name: 'tsfve2', kind: 'veth' });
      assert.deepEqual(mtus(change), [mtu, mtu]);
    });
  }

  it('keeps the MTU that it has while nobody knows the overlay’s, and begins with one that every path carries', () => {
    overlayMtu = undefined;
    assert.deepEqual(mtus({ type: 'overlay' }), [1280]);
    kernel.addLink({ name: DEVICE, kind: 'bridge', mtu: 1450 });
    assert.deepEqual(mtus({ type: 'overlay' }), [1450]);
  });
});

describe('what containers of a routed network are told', () => {
  const told = (change: Partial<ContainerNetwork>): readonly string[] => {
    const own = network(change);
    const { gateways, routes } = networkType(own.type).routing(own);
    return [
      ...routes.map(({ destination, gateway }) => `${destination.toString()} ${gateway?.toString() ?? 'on link'}`),
      ...gateways.map((gateway) => `default ${gateway.toString()}`),
    ];
  };

  const cases: readonly (readonly [what: string, change: Partial<ContainerNetwork>, expected: readonly string[]])[] = [
    ['with addresses of the subnet', {}, ['fe80::1/128 on link', 'default 10.10.10.1', 'default fe80::1']],
    [
      'with addresses of the host',
      { addressing: 'host' },
      ['169.254.1.1/32 on link', 'fe80::1/128 on link', 'default 169.254.1.1', 'default fe80::1'],
    ],
    ['that is internal', { isInternal: true }, ['fe80::1/128 on link', 'fd00:10::/64 fe80::1']],
    [
      'that is internal, with addresses of the host',
      { isInternal: true, type: 'overlay', addressing: 'host' },
      ['169.254.1.1/32 on link', '10.10.10.0/24 169.254.1.1', 'fe80::1/128 on link', 'fd00:10::/64 fe80::1'],
    ],
  ];
  for (const [what, change, expected] of cases) {
    it(`${what} is ${expected.join(', ')}`, () => assert.deepEqual(told(change), expected));
  }

  it('are addresses as long as what is on the link', () => {
    const lengths = (change: Partial<ContainerNetwork>): readonly number[] => {
      const own = network(change);
      return own.subnets.map(({ subnet }) => networkType(own.type).addressLength(own, subnet));
    };
    assert.deepEqual(lengths({}), [24, 128]);
    assert.deepEqual(lengths({ addressing: 'host' }), [32, 128]);
  });
});
