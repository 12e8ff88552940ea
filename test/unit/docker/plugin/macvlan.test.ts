import assert from 'node:assert/strict';
import { macvlanType } from '../../../../src/docker/plugin/macvlan.js';
import type { ContainerNetwork, Endpoint, NetworkSet } from '../../../../src/docker/plugin/network.js';
import { MAX_STATIONS } from '../../../../src/netlink/filter-program.js';
import { mac } from '../../../support/builders.js';
import { containerNetwork } from '../../../support/container-network.js';

const network = (id: string, hasHostAccess: boolean): ContainerNetwork => containerNetwork(id, { hasHostAccess });

describe('macvlan with host access', () => {
  const own = network('own', true);
  const [beside, without] = [network('beside', true), network('without', false)];

  const endpoints = (networkId: string, count: number): Endpoint[] =>
    Array.from({ length: count }, (_, n) => ({
      id: `${networkId}${n}`,
      networkId,
      mac: mac(n),
      addresses: [],
      sandbox: undefined,
      isStale: false,
    }));

  const set = (...all: readonly Endpoint[][]): NetworkSet => ({ networks: [beside, without], endpoints: all.flat() });

  it('takes as many containers on a parent as the filter tells apart, those of other networks included', () => {
    macvlanType.checkEndpoint(own, set(endpoints('own', MAX_STATIONS - 2), endpoints('beside', 1)));
    assert.throws(
      () => macvlanType.checkEndpoint(own, set(endpoints('own', MAX_STATIONS - 1), endpoints('beside', 1))),
      /eth0: the filter for host access tells 819 containers apart, and so many have it/,
    );
  });

  it('does not count those without it, and takes any number of them', () => {
    macvlanType.checkEndpoint(own, set(endpoints('without', MAX_STATIONS), endpoints('own', 1)));
    macvlanType.checkEndpoint(without, set(endpoints('own', MAX_STATIONS), endpoints('without', MAX_STATIONS)));
  });
});
