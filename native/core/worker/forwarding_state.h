// What the workers forward by.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../peers/peer_table.h"

namespace tsflannel {

/// How strictly the sender of a datagram is checked; VerifySource in src/reconcile/desired.ts.
enum class VerifySource : uint8_t {
  kOff,
  kOuter,   ///< the outer source must be the public address of a peer
  kStrict,  ///< and the inner source must lie in a subnet of that peer
};

/// Peers and settings, taken over as one. Immutable once published; any number of threads reads it.
struct ForwardingState {
  std::unique_ptr<const PeerTable> table;
  std::vector<uint32_t> counter_slots;  ///< by peer
  uint64_t generation = 0;
  uint32_t icmp_source = 0;  ///< address as a number
  uint16_t mtu = 0;          ///< bytes of the largest inner packet
  VerifySource verify_source = VerifySource::kOuter;
};

}  // namespace tsflannel
