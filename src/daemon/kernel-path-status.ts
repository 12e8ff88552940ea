import type { OverlayResult } from '../backend/overlay-state.js';
import type { KernelPath } from '../dataplane/kernel-path.js';
import type { Tunnel } from '../dataplane/tunnel.js';
import { announcesKernelPath } from '../lease/kernel-announcement.js';
import { type Lease, backendOf } from '../lease/lease.js';
import type { KernelPathStatus, PeerCarrier } from '../observe/kernel-path-status.js';

/** Null where the kernel is not to carry anything. */
export function describeKernelPath(path: KernelPath | undefined): KernelPathStatus | null {
  if (path === undefined) return null;
  const { state } = path;
  const counters = path.counters() ?? null;
  if (state === undefined) return { isActive: false, receiver: null, refused: null, counters };
  if (state.isActive) return { isActive: true, receiver: state.receiver, refused: null, counters };
  const { isActive, ...refused } = state;
  return { isActive, receiver: null, refused, counters };
}

/** Tells which way packets for a peer leave; null where the kernel is to carry nothing, or another backend does. */
export function peerCarriers(
  tunnels: readonly Tunnel[],
  overlay: OverlayResult | undefined,
): (peer: Lease) => PeerCarrier | null {
  const paths = tunnels.flatMap(({ kernelPath }) => kernelPath ?? []);
  if (paths.length === 0) return () => null;
  const isActive = paths.some(({ state }) => state?.isActive);
  const sent = new Set(
    (overlay?.base.tunnels ?? []).flatMap(({ peers }) =>
      peers.flatMap(({ publicIp, isKernelPeer = false }) => (isKernelPeer ? [publicIp.toString()] : [])),
    ),
  );
  return ({ attributes }) => {
    if (backendOf(attributes) !== 'udp') return null;
    if (!announcesKernelPath(attributes)) return { carrier: 'tunnel', because: 'not-announced' };
    if (!isActive) return { carrier: 'tunnel', because: 'refused' };
    return sent.has(attributes.publicIp.toString())
      ? { carrier: 'kernel' }
      : { carrier: 'tunnel', because: 'off-link' };
  };
}
