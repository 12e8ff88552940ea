// Kernel features that make the tunnel fast; each can be missing, forced off, or fail at run time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tsflannel {

/// The order is that of OFFLOADS in src/dataplane/tunnel.ts, which explains each.
enum class Offload : uint8_t { kVnetHdr, kTso, kUso, kUdpSegment, kUdpGro, kTcpMerge, kUdpMerge, kBatch };

inline constexpr size_t kOffloadCount = 8;

/// Names as in OFFLOADS, by Offload.
inline constexpr std::array<std::string_view, kOffloadCount> kOffloadNames = {
    "vnetHdr", "tso", "uso", "udpSegment", "udpGro", "tcpMerge", "udpMerge", "batch",
};

/// A set of offloads.
class OffloadSet {
 public:
  constexpr OffloadSet() = default;
  /// @param bits as from bits()
  static constexpr OffloadSet from_bits(uint32_t bits) {
    OffloadSet set;
    set.bits_ = bits;
    return set;
  }
  static constexpr OffloadSet all() { return from_bits((1U << kOffloadCount) - 1); }

  [[nodiscard]] constexpr bool has(Offload offload) const { return (bits_ & bit(offload)) != 0; }
  constexpr void add(Offload offload) { bits_ |= bit(offload); }
  constexpr void remove(Offload offload) { bits_ &= ~bit(offload); }
  constexpr void set(Offload offload, bool is_member) { is_member ? add(offload) : remove(offload); }
  [[nodiscard]] constexpr OffloadSet without(OffloadSet other) const { return from_bits(bits_ & ~other.bits_); }
  [[nodiscard]] constexpr uint32_t bits() const { return bits_; }

  static constexpr uint32_t bit(Offload offload) { return 1U << static_cast<unsigned>(offload); }

 private:
  uint32_t bits_ = 0;
};

}  // namespace tsflannel
