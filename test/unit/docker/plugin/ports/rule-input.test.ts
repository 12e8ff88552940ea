import assert from 'node:assert/strict';
import type { NetworkSet } from '../../../../../src/docker/plugin/network.js';
import { loopbackState } from '../../../../../src/docker/plugin/ports/loopback.js';
import { ruleInput } from '../../../../../src/docker/plugin/ports/rule-input.js';
import { ip, mac, net } from '../../../../support/builders.js';
import { containerNetwork } from '../../../../support/container-network.js';
import { FakeKernel } from '../../../../support/fake-kernel.js';

const subnets = [{ subnet: net('198.51.100.0/25'), gateway: undefined, auxiliary: [], pool: undefined }];
const port = {
  protocol: 'tcp',
  hostAddress: undefined,
  hostPort: 8080,
  address: ip('198.51.100.2'),
  port: 80,
} as const;
const endpoint = {
  id: 'e1',
  networkId: 'web',
  mac: mac(1),
  addresses: [],
  sandbox: '/n',
  isStale: false,
  ports: [port],
};

const SET: NetworkSet = {
  networks: [
    containerNetwork('web', { type: 'bridge', parent: 'tsfb-web', subnets, ipv6Firewall: 'open' }),
    containerNetwork('web2', { type: 'bridge', parent: 'tsfb-web', subnets, isIccAllowed: false }),
    containerNetwork('in', { type: 'overlay', parent: 'tsfb-in', isInternal: true }),
    containerNetwork('lan', { subnets }),
  ],
  endpoints: [endpoint, { ...endpoint, id: 'e2', networkId: 'lan' }, { ...endpoint, id: 'e3', sandbox: undefined }],
};

describe('what rules of container networks are computed from', () => {
  it('is the routed networks, one for each bridge with the stricter options, and ports of containers that run', () => {
    const facts = { overlay: [net('198.18.0.0/16')], routed: [net('10.30.0.0/16')], hosts: [ip('192.0.2.2')] };
    const { networks, ports, overlay, routed, hosts } = ruleInput(SET, [], facts);
    assert.deepEqual(
      networks.map(({ bridge, isInternal, isIccAllowed, ipv6Firewall }) => [
        bridge,
        isInternal,
        isIccAllowed,
        ipv6Firewall,
      ]),
      [
        ['tsfb-web', false, false, 'closed'],
        ['tsfb-in', true, true, 'closed'],
      ],
    );
    assert.deepEqual(ports, [port]);
    assert.deepEqual({ overlay, routed, hosts }, facts);
  });

  it("tells Docker's bridges by their names", () => {
    const kernel = new FakeKernel();
    const names = ['docker0', 'docker_gwbridge', 'br-0123456789ab', 'br-lan', 'tsfb-web'];
    for (const name of names) kernel.addLink({ name, kind: 'bridge' });
    kernel.addLink({ name: 'br-ffffffffffff', kind: 'dummy' });
    const { dockerBridges } = ruleInput(SET, [...kernel.links.values()], { overlay: [], routed: [], hosts: [] });
    assert.deepEqual(dockerBridges, ['docker0', 'docker_gwbridge', 'br-0123456789ab']);
  });
});

describe('loopbackState', () => {
  it('lets the host call containers from 127.0.0.1, not those of internal networks, as long as others are kept out', () => {
    const wanted = [{ path: 'net/ipv4/conf/tsfb-web/route_localnet', value: '1' }];
    assert.deepEqual(loopbackState(SET, true), { sysctls: wanted });
    assert.deepEqual(loopbackState(SET, false), { sysctls: [] });
  });
});
