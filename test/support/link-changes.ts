import type { LinkKinds } from '../../src/reconcile/desired.js';
import { ip, mac, vxlanLink } from './builders.js';

/** An object, and other values for each of its fields. */
export type Changes<T> = readonly [T, { readonly [F in keyof T]-?: readonly T[F][] }];

/** A device of each kind, and what else could be wanted of it. */
export const LINK_CHANGES: { readonly [K in keyof LinkKinds]: Changes<LinkKinds[K]> } = {
  vxlan: [
    vxlanLink(),
    {
      kind: [],
      name: ['flannel.2'],
      mtu: [1400],
      mac: [mac(9)],
      vni: [2],
      underlayIndex: [7],
      local: [ip('192.0.2.9')],
      port: [4789],
      learning: [true],
      gbp: [true],
    },
  ],
  ipip: [
    { kind: 'ipip', name: 'flannel.ipip', mtu: 1480, local: ip('192.0.2.1') },
    { kind: [], name: ['other'], mtu: [1400], local: [ip('192.0.2.9')] },
  ],
  wireguard: [
    { kind: 'wireguard', name: 'flannel-wg', mtu: 1420 },
    { kind: [], name: ['other'], mtu: [1400] },
  ],
  macvlan: [
    { kind: 'macvlan', name: 'eth0-host', mtu: 1500, mac: mac(1), lowerIndex: 2, mode: 'bridge' },
    { kind: [], name: ['other'], mtu: [1400], mac: [mac(9)], lowerIndex: [3], mode: [] },
  ],
  ipvlan: [
    { kind: 'ipvlan', name: 'eth0-host', mtu: 1500, lowerIndex: 2, mode: 'l2', flag: 'bridge' },
    { kind: [], name: ['other'], mtu: [1400], lowerIndex: [3], mode: ['l3', 'l3s'], flag: [] },
  ],
  vlan: [
    { kind: 'vlan', name: 'eth0.20', mtu: 1500, lowerIndex: 2, id: 20 },
    { kind: [], name: ['other'], mtu: [1400], lowerIndex: [3], id: [21] },
  ],
  dummy: [
    { kind: 'dummy', name: 'tsfi-1', mtu: 1500 },
    { kind: [], name: ['other'], mtu: [1400] },
  ],
  bridge: [
    { kind: 'bridge', name: 'tsfi-1', mtu: 1500, mac: mac(1) },
    { kind: [], name: ['other'], mtu: [1400], mac: [mac(9), undefined] },
  ],
  veth: [
    { kind: 'veth', name: 'tsfv1', mtu: 1500 },
    { kind: [], name: ['other'], mtu: [1400] },
  ],
  tun: [
    { kind: 'tun', name: 'flannel0', mtu: 1472, txQueueLength: 500 },
    { kind: [], name: ['flannel1'], mtu: [1400], txQueueLength: [1000] },
  ],
};
