import assert from 'node:assert/strict';
import { type HostFacts, hostAccessStates, shimNameOf } from '../../../../src/docker/plugin/host-access.js';
import type { ContainerNetwork, Endpoint } from '../../../../src/docker/plugin/network.js';
import { mergeStates } from '../../../../src/reconcile/desired.js';
import { ip, mac, net } from '../../../support/builders.js';
import { containerNetwork } from '../../../support/container-network.js';
import { FakeKernel } from '../../../support/fake-kernel.js';

function network(id: string, change: Partial<ContainerNetwork> = {}): ContainerNetwork {
  const subnets = [{ subnet: net('10.10.10.0/24'), gateway: undefined, auxiliary: [], pool: undefined }];
  return containerNetwork(id, { hasHostAccess: true, subnets, ...change });
}

function endpoint(n: number, networkId: string): Endpoint {
  const addresses = [{ address: ip(`10.10.10.${n}`), length: 24 }];
  return { id: `e${n}`, networkId, mac: mac(n), addresses, sandbox: '/run/netns/x', isStale: false };
}

describe('host access', () => {
  let kernel: FakeKernel;

  beforeEach(() => {
    kernel = new FakeKernel();
    kernel.addLink({ name: 'eth0', mtu: 9000 });
    kernel.addLink({ name: 'eth1' });
    kernel.putAddress(2, ip('192.0.2.11'), 24);
  });

  const stateOf = (
    networks: readonly ContainerNetwork[],
    endpoints: readonly Endpoint[],
  ): ReturnType<typeof mergeStates> => {
    const facts: HostFacts = {
      links: [...kernel.links.values()],
      addresses: [...kernel.addresses.values()],
      defaultParent: 'eth1',
      overlayMtu: undefined,
      identity: 'host',
      mark: 'tsflannel:test:docker',
    };
    return mergeStates(hostAccessStates({ networks, endpoints }, facts));
  };

  const addresses = (): string[] =>
    stateOf([network('a')], []).addresses.map(({ address, length }) => `${String(address)}/${length}`);

  it('is one shim for all networks on a parent, as large as that', () => {
    const { links } = stateOf([network('a'), network('b')], []);
    assert.deepEqual(
      links.map(({ name, mtu }) => [name, mtu]),
      [['eth0-host', 9000]],
    );
  });

  it('is for the containers that run, of the networks that want it', () => {
    const networks = [network('a'), network('b', { hasHostAccess: false }), network('c', { parent: 'eth1' })];
    const { routes, neighbours, filters } = stateOf(networks, [
      endpoint(2, 'a'),
      { ...endpoint(3, 'a'), sandbox: undefined },
      endpoint(4, 'b'),
      endpoint(5, 'c'),
    ]);
    assert.deepEqual(
      routes.map(({ destination, device }) => `${destination.toString()} ${device ?? ''}`),
      ['10.10.10.2/32 eth0-host', '10.10.10.5/32 eth1-host'],
    );
    assert.deepEqual(
      neighbours.map((each) => each.mac),
      [mac(2), mac(5)],
    );
    const [ingress, egress] = filters.filter(({ device }) => device === 'eth0-host');
    assert.deepEqual([ingress?.stations, egress?.stations], [[mac(2)], [mac(2)]]);
  });

  it('takes the addresses of the parent, link-local ones excepted', () => {
    for (const [address, length] of [
      ['10.10.10.250', 24],
      ['fe80::1', 64],
      ['2001:db8::1', 64],
    ] as const) {
      kernel.putAddress(1, ip(address), length);
    }
    assert.deepEqual(addresses(), ['10.10.10.250/32', '2001:db8::1/128']);
  });

  it('takes those by which the host is known otherwise for a parent without any', () => {
    assert.deepEqual(addresses(), ['192.0.2.11/32']);
  });

  it('is nothing as long as the parent is not there', () => {
    kernel.delLink(1);
    assert.deepEqual(stateOf([network('a')], [endpoint(2, 'a')]), mergeStates([]));
  });

  it('has a name that the kernel takes, another one for each parent', () => {
    const names = ['eth0', 'enp0s31f6.4094a', 'enp0s31f6.4094b'].map(shimNameOf);
    assert.ok(names.every((name) => name.length <= 15));
    assert.equal(new Set(names).size, 3);
  });
});
