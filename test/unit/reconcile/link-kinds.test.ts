import assert from 'node:assert/strict';
import type { LinkInfo } from '../../../src/netlink/link.js';
import type { LinkSpec } from '../../../src/reconcile/desired.js';
import {
  changesTo,
  hasFixedAttributes,
  isFlannelsKind,
  isSameLinkSpec,
  newLink,
} from '../../../src/reconcile/kinds/links/table.js';
import { FakeKernel, detailsOf } from '../../support/fake-kernel.js';
import { LINK_CHANGES } from '../../support/link-changes.js';

/** What can be changed on a device that is there; another one has to be made for the rest. */
const IN_PLACE: Readonly<Record<string, readonly string[]>> = {
  vxlan: ['mtu', 'mac', 'learning'],
  macvlan: ['mtu', 'mac'],
  bridge: ['mtu', 'mac'],
  tun: ['mtu', 'txQueueLength'],
};
const DEFAULTS = { defaultVxlanPort: 8472 };
const SAMPLES = Object.values(LINK_CHANGES) as readonly (readonly [
  LinkSpec,
  Readonly<Record<string, readonly unknown[]>>,
])[];

/** The device as the kernel describes it. */
function deviceOf(spec: LinkSpec): LinkInfo {
  const details = spec.kind === 'tun' || spec.kind === 'veth' ? undefined : detailsOf(spec);
  return new FakeKernel().addLink({ ...spec, details });
}

describe('kinds of devices', () => {
  for (const [spec, values] of SAMPLES) {
    it(`see that a ${spec.kind} is as it was asked for`, () => {
      const device = deviceOf(spec);
      assert.equal(hasFixedAttributes(spec, device, DEFAULTS), true);
      assert.deepEqual(changesTo(spec, device, DEFAULTS), []);
      assert.equal(isSameLinkSpec(spec, { ...spec }), true);
      assert.equal(isSameLinkSpec(spec, { ...spec, name: 'another' }), false);
      for (const [another] of SAMPLES)
        assert.equal(isSameLinkSpec(spec, { ...another, name: spec.name }), another === spec);
    });

    const fields = Object.entries(values).filter(([field]) => field !== 'kind' && field !== 'name');
    for (const [field, others] of fields) {
      it(`see that another ${field} is wanted of a ${spec.kind}, and how to get there`, () => {
        const isChanged = (IN_PLACE[spec.kind] ?? ['mtu']).includes(field);
        for (const other of others.filter((value) => value !== undefined)) {
          const wanted = { ...spec, [field]: other };
          assert.equal(isSameLinkSpec(spec, wanted), false);
          assert.equal(hasFixedAttributes(wanted, deviceOf(spec), DEFAULTS), isChanged);
          const changes = changesTo(wanted, deviceOf(spec), DEFAULTS);
          assert.deepEqual(
            changes.map(({ aspect, losesNeighbours }) => [aspect, losesNeighbours]),
            isChanged ? [[field, field === 'mac']] : [],
          );
        }
      });
    }
  }

  it('take no device of another kind for one that has attributes of its own', () => {
    const { vxlan, ipip, macvlan, ipvlan, vlan, dummy } = LINK_CHANGES;
    for (const [spec] of [vxlan, ipip, macvlan, ipvlan, vlan]) {
      assert.equal(hasFixedAttributes(spec, deviceOf(dummy[0]), DEFAULTS), false);
    }
  });

  it('make those of VXLAN and IPIP without a queue, and those of IPIP without TTL and path MTU discovery, as flannel', () => {
    const [vxlan, ipip] = [newLink(LINK_CHANGES.vxlan[0]), newLink(LINK_CHANGES.ipip[0])];
    assert.ok(vxlan.kind === 'vxlan' && ipip.kind === 'ipip');
    assert.equal(vxlan.txQueueLength, 0);
    assert.deepEqual([ipip.txQueueLength, ipip.ttl, ipip.pmtuDiscovery], [0, 0, false]);
  });

  it('know which of them flannel makes, and those of nobody else', () => {
    assert.deepEqual([...Object.keys(LINK_CHANGES), 'gre', 'toString', ''].filter(isFlannelsKind).sort(), [
      'ipip',
      'tun',
      'vxlan',
      'wireguard',
    ]);
  });
});
