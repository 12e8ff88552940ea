import { OverlayError } from '../../errors.js';
import { isSame } from '../../ip/same.js';
import { netlinkErrno } from '../../netlink/socket.js';
import type { WireguardSpec } from '../desired.js';
import { fieldsBy, isIdentical } from '../equality.js';
import type { ObjectKey } from '../object-key.js';
import type { KernelKind } from './kind.js';
import { wireguardPeerKey } from './wireguard-peer.js';

function wireguardKey(device: string): ObjectKey {
  return `wireguard ${device}`;
}

/** Keys and ports of our WireGuard devices. There are no events about them; they go with their device. */
export const wireguardKind: KernelKind<'wireguard'> = {
  keyOf: ({ device }) => wireguardKey(device),
  isSame: fieldsBy<WireguardSpec>({ device: isIdentical, privateKey: isSame, listenPort: isIdentical }),

  /** With their peers, as the kernel tells both together. */
  async read(kernel, actual) {
    for (const [index, device] of actual.ourDevices) {
      if (actual.linkOf(index)?.kind !== 'wireguard') continue;
      const info = await kernel.getWireguard(index);
      if (info === undefined) continue;
      actual.wireguard.set(wireguardKey(device), info);
      for (const peer of info.peers) actual.wireguardPeers.set(wireguardPeerKey(device, peer.publicKey), peer);
    }
  },

  presentKeys: () => [],

  plan(planner, key, spec) {
    if (spec === undefined) return;
    const { device, privateKey, listenPort } = spec;
    const state = planner.device(device);
    if (!state.isUsable) {
      planner.block(key);
      return;
    }
    const info = state.loses === 'all' ? undefined : planner.actual.wireguard.get(key);
    if (info?.publicKey === privateKey.publicKey && info.listenPort === listenPort) return;
    const reason = info?.publicKey === undefined ? 'missing' : 'altered';
    planner.add('wireguard', { kind: 'wireguard', verb: 'set', key, reason, device, privateKey, listenPort });
  },

  carryOut(netlink, { device, privateKey, listenPort }, indexOf) {
    try {
      netlink.wireguard.set({ index: indexOf(device), privateKey, listenPort });
    } catch (error) {
      throw netlinkErrno(error) === 'EADDRINUSE' ? portTaken(device, listenPort, error) : error;
    }
    return true;
  },

  record(actual, { key, device, privateKey, listenPort }) {
    actual.wireguard.set(key, { index: actual.indexOf(device), publicKey: privateKey.publicKey, listenPort });
  },
};

function portTaken(device: string, port: number, cause: unknown): OverlayError {
  return new OverlayError('ERR_PORT_IN_USE', `cannot listen on UDP port ${port} for ${device}: EADDRINUSE`, {
    cause,
    context: { dev: device, port, errno: 'EADDRINUSE' },
    hint: `see who has it (ss -ulpn sport = :${port}, wg show), and stop that or set Backend.ListenPort or ListenPortV6`,
  });
}
