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
  kOuter,   ///< the outer source must be the public address of a peer, the inner source none of this host
  kStrict,  ///< and the inner source must lie in a subnet of that peer
};

/// Addresses that begin alike.
struct AddressRange {
  uint32_t prefix = 0;  ///< network address as a number
  uint32_t mask = 0;

  [[nodiscard]] bool contains(uint32_t address) const { return ((address ^ prefix) & mask) == 0; }
};

/// Peers and settings, taken over as one. Immutable once published; any number of threads reads it.
struct ForwardingState {
  std::unique_ptr<const PeerTable> table;
  std::vector<uint32_t> counter_slots;  ///< by peer
  std::vector<AddressRange> own;        ///< inner sources that only this host uses; a handful
  uint64_t generation = 0;
  uint32_t icmp_source = 0;  ///< address as a number
  uint16_t mtu = 0;          ///< bytes of the largest inner packet
  VerifySource verify_source = VerifySource::kOuter;

  [[nodiscard]] bool is_own(uint32_t address) const {
    for (const AddressRange& range : own) {
      if (range.contains(address)) return true;
    }
    return false;
  }
};

}  // namespace tsflannel
