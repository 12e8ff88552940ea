import type { Prefix } from '../../ip/prefix.js';
import { isSame } from '../../ip/same.js';
import type { WireguardPublicKey } from '../../ip/wireguard-key.js';
import type { WireguardEndpoint, WireguardPeerInfo } from '../../netlink/wireguard.js';
import type { ActualState } from '../actual.js';
import type { WireguardPeerSpec } from '../desired.js';
import { fieldsBy, isIdentical, listsBy } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';

/** Key of the peer with that public key on a device. */
export function wireguardPeerKey(device: string, publicKey: WireguardPublicKey): ObjectKey {
  return `wireguard-peer ${device} ${publicKey}`;
}

const isSameEndpoint = fieldsBy<WireguardEndpoint>({ address: isSame, port: isIdentical });

/** Whether the kernel treats the peer as specified, wherever it looks for it. */
function isSetTo(info: WireguardPeerInfo, { presharedKey, keepaliveSeconds, allowedIps }: WireguardPeerSpec): boolean {
  return (
    isSame(info.presharedKey, presharedKey) &&
    info.keepaliveSeconds === keepaliveSeconds &&
    isSameSet(info.allowedIps, allowedIps)
  );
}

/** The kernel has an order of its own. */
function isSameSet(a: readonly Prefix[], b: readonly Prefix[]): boolean {
  return a.length === b.length && a.every((prefix) => b.some((other) => prefix.equals(other)));
}

/** Whether the kernel was told to look for the peer there; of what an earlier process told it nothing is left but where it looks. */
function isLookedForAt(
  endpoint: WireguardEndpoint,
  key: ObjectKey,
  info: WireguardPeerInfo,
  actual: ActualState,
): boolean {
  const set = actual.setEndpoints.get(key);
  const known = set?.index === info.index ? set : info.endpoint;
  return known !== undefined && isSameEndpoint(known, endpoint);
}

/** Peers of our WireGuard devices. There are no events about them. */
export const wireguardPeerKind: KernelKind<'wireguard-peer'> = {
  keyOf: ({ device, publicKey }) => wireguardPeerKey(device, publicKey),
  isSame: fieldsBy<WireguardPeerSpec>({
    device: isIdentical,
    publicKey: isIdentical,
    presharedKey: isSame,
    endpoint: isSameEndpoint,
    keepaliveSeconds: isIdentical,
    allowedIps: listsBy(isSame),
  }),

  /** They were read with their devices; what was set on devices that are gone is of no interest. */
  read(_kernel, { ourDevices, setEndpoints }) {
    for (const [key, { index }] of setEndpoints) if (!ourDevices.has(index)) setEndpoints.delete(key);
    return Promise.resolve();
  },

  presentKeys: ({ wireguardPeers }) => wireguardPeers.keys(),

  plan(planner, key, spec) {
    const { actual } = planner;
    const info = actual.wireguardPeers.get(key);
    if (spec === undefined) {
      const device = info === undefined ? undefined : planner.deviceToClear(info.index);
      if (info === undefined || device === undefined) return;
      const common = { kind: 'wireguard-peer', verb: 'del', reason: 'unexpected' } as const;
      planner.add('removeWireguardPeers', { ...common, key, device, publicKey: info.publicKey });
      return;
    }
    const { device } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    const isThere = info !== undefined && state.loses !== 'all';
    const setsEndpoint = !isThere || !isLookedForAt(spec.endpoint, key, info, actual);
    if (isThere && !setsEndpoint && isSetTo(info, spec)) return;
    const reason = isThere ? 'altered' : 'missing';
    const common = { kind: 'wireguard-peer', verb: 'replace' } as const;
    planner.add('wireguardPeers', { ...common, key, reason, device, peer: spec, setsEndpoint });
  },

  carryOut(netlink, operation, indexOf) {
    const index = indexOf(operation.device);
    if (operation.verb === 'del') {
      netlink.wireguard.delPeer({ index, publicKey: operation.publicKey });
    } else {
      const { peer, setsEndpoint } = operation;
      netlink.wireguard.replacePeer({ ...peer, index, endpoint: setsEndpoint ? peer.endpoint : undefined });
    }
    return true;
  },

  record(actual, operation) {
    const { key, device } = operation;
    if (operation.verb === 'del') {
      actual.wireguardPeers.delete(key);
      actual.setEndpoints.delete(key);
      return;
    }
    const { peer, setsEndpoint } = operation;
    const { publicKey, presharedKey, endpoint, keepaliveSeconds, allowedIps } = peer;
    const index = actual.indexOf(device);
    const before = actual.wireguardPeers.get(key);
    actual.wireguardPeers.set(key, {
      ...(before ?? { lastHandshakeMs: undefined, rxBytes: 0, txBytes: 0 }),
      index,
      publicKey,
      presharedKey,
      endpoint: setsEndpoint ? endpoint : before?.endpoint,
      keepaliveSeconds,
      allowedIps,
    });
    if (setsEndpoint) actual.setEndpoints.set(key, { ...endpoint, index });
  },
};
