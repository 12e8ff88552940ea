// What the programs of the kernel path (native/bpf) share with the process that loads them: the entries of their maps.
// C and C++; addresses are in network order, as packets have them.
#pragma once

#include <linux/types.h>

/// Ends the names of the maps, and goes up with every change of what follows: maps of another version are left alone.
#define KERNEL_PATH_LAYOUT "3"

/// Key of the map `routes` (BPF_MAP_TYPE_LPM_TRIE): a subnet.
struct KernelRouteKey {
  __u32 prefix_length;  ///< 0…32
  __u32 prefix;
};

/// Value of the map `routes`: who holds the subnet.
struct KernelRoute {
  __u32 outer;  ///< public address of the peer; 0: nobody, which takes this host's own subnets out of a wider one
  __u32 slot;   ///< of the map `peer_counters`
  __u32 mtu;    ///< bytes of the largest inner packet for this peer; 0: it does not decapsulate in its kernel
};

/// Entries of the map `flows`, by a hash of addresses and ports. Flows with an entry in common are taken for one, so that
/// a small one goes the way of the large one beside it.
enum { kKernelFlowBits = 14, kKernelFlows = 1 << kKernelFlowBits };

/// Value of the map `flows`: what is known of a flow that leaves. Times are those of CLOCK_MONOTONIC, in nanoseconds.
struct KernelFlow {
  __u64 window;      ///< begin of the window that is counted
  __u64 bulk_until;  ///< the tunnel carries it until then
  __u64 streamed;    ///< packets in the window that did not wait for an answer
};

/// Value of the only entry of the map `tunnel`.
struct KernelTunnelState {
  __u64 bulk_until;  ///< until then it carries flows that stream; 0: the programs take them as well
};

/// `SO_MARK` of what asks whether the tunnel works: programs that took it would answer for it. A packet from another
/// network namespace has no mark.
enum { kKernelProbeMark = 0x66c };

/// Key of the map `counters`: what became of packets that the programs looked at. Nothing is dropped but what is told
/// so here: the rest of what a program does not take goes on to the native tunnel, which has the last word about it.
enum KernelCounter {
  kSent,
  kSendNotPlain,     ///< left: not IPv4, options, a fragment, or lengths that contradict each other
  kSendProbe,        ///< left: a question to the tunnel
  kSendNoRoute,      ///< left: nobody has the destination
  kSendNoPeer,       ///< left: the peer does not decapsulate in its kernel
  kSendTtl,          ///< left: the TTL is used up
  kSendUnprotected,  ///< left: only an outer checksum would protect the payload, and the programs compute none
  kSendOversize,     ///< left: larger than the peer's MTU, or too large for an outer header
  kSendBulk,         ///< left: of a flow that the tunnel carries better
  kSendRefused,      ///< left: the kernel does not add headers to a packet of this kind
  kSendFailed,       ///< dropped: there was no memory for the headers
  kReceived,
  kReceiveNotPlain,   ///< left: options or a fragment, outside or inside, a wrong outer header checksum, not IPv4
  kReceiveTunnel,     ///< left: a tunnel sent it, which has an outer checksum
  kReceiveLength,     ///< left: lengths differ
  kReceiveSource,     ///< left: the outer source does not hold the subnet of the inner one
  kReceiveTtl,        ///< left: the TTL is used up
  kReceiveRefused,    ///< left: the driver has no room for the mark, or the kernel does not remove the headers
  kReceiveFailed,     ///< dropped: half changed
  kReceiveOtherHost,  ///< dropped: came in a frame for another host, which only a promiscuous device shows
  kKernelCounterCount,
};

/// Entries of the maps `counters` and `peer_counters` for each CPU, so that no two write the same line of memory: the one
/// of a counter, or a slot, is behind so many for each CPU of a lower number. Not maps of the per-CPU kind, which the
/// kernel allocates entry by entry, and which are read by a call for each.
enum { kKernelCounters = 32, kKernelPeers = 8192 };

/// Value of the map `counters`. Inner packets and their bytes; a super-packet counts as those it stands for.
struct KernelTraffic {
  __u64 packets;
  __u64 bytes;
};

/// Value of the map `peer_counters`.
struct KernelPeerTraffic {
  struct KernelTraffic sent;
  struct KernelTraffic received;
};
