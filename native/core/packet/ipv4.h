// Reading IPv4 headers (RFC 791) and decrementing the TTL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "../base/bytes.h"
#include "checksum.h"
#include "drop_reason.h"

namespace tsflannel {

inline constexpr size_t kIpv4MinHeader = 20;
inline constexpr size_t kIpv4MaxHeader = 60;     // IHL 15
inline constexpr size_t kIpv4MaxPacket = 65535;  // total length has 16 bits

inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;

// Byte offsets inside the header.
inline constexpr size_t kIpv4Tos = 1;
inline constexpr size_t kIpv4TotalLength = 2;
inline constexpr size_t kIpv4Id = 4;
inline constexpr size_t kIpv4Fragment = 6;
inline constexpr size_t kIpv4Ttl = 8;
inline constexpr size_t kIpv4Protocol = 9;
inline constexpr size_t kIpv4Checksum = 10;
inline constexpr size_t kIpv4Source = 12;
inline constexpr size_t kIpv4Destination = 16;

// Bits of the word at kIpv4Fragment.
inline constexpr uint16_t kIpv4DontFragment = 0x4000;
inline constexpr uint16_t kIpv4MoreFragments = 0x2000;
inline constexpr uint16_t kIpv4FragmentOffset = 0x1fff;

/// A checked IPv4 header: `header_length` and `total_length` lie inside `data`, which the view does not own.
struct Ipv4View {
  const uint8_t* data = nullptr;
  uint16_t header_length = 0;  ///< bytes, 20…60, options included
  uint16_t total_length = 0;   ///< bytes, header_length…65535; never more than the packet, possibly less
  uint32_t source = 0;         ///< as a number
  uint32_t destination = 0;    ///< as a number
  uint16_t fragment = 0;       ///< flags and fragment offset
  uint8_t ttl = 0;
  uint8_t protocol = 0;

  /// One of several fragments, the first included.
  [[nodiscard]] bool is_fragment() const { return (fragment & (kIpv4MoreFragments | kIpv4FragmentOffset)) != 0; }
  [[nodiscard]] bool is_later_fragment() const { return (fragment & kIpv4FragmentOffset) != 0; }
  [[nodiscard]] bool dont_fragment() const { return (fragment & kIpv4DontFragment) != 0; }
};

/// Reads the header at the start of `packet` into `view`.
///
/// Returns kNone, kShort (fewer than 20 bytes), kNotIpv4, or kBadHeader: the header does not fit into the packet or
/// into its own total length, or the total length exceeds the packet. Bytes after the total length are accepted, see
/// parse_ipv4_exact(). The header checksum is not verified: the receiving stack does that (flannel does not either).
[[nodiscard]] inline DropReason parse_ipv4(std::span<const uint8_t> packet, Ipv4View& view) {
  if (packet.size() < kIpv4MinHeader) return DropReason::kShort;
  const uint8_t* data = packet.data();
  if ((data[0] >> 4) != 4) return DropReason::kNotIpv4;
  const auto header_length = static_cast<uint16_t>((data[0] & 0x0f) * 4);
  const uint16_t total_length = load_be16(data + kIpv4TotalLength);
  if (header_length < kIpv4MinHeader || total_length < header_length || total_length > packet.size()) {
    return DropReason::kBadHeader;
  }
  view.data = data;
  view.header_length = header_length;
  view.total_length = total_length;
  view.source = load_be32(data + kIpv4Source);
  view.destination = load_be32(data + kIpv4Destination);
  view.fragment = load_be16(data + kIpv4Fragment);
  view.ttl = data[kIpv4Ttl];
  view.protocol = data[kIpv4Protocol];
  return DropReason::kNone;
}

/// As parse_ipv4() for a datagram from a peer, which holds exactly one packet: kLengthMismatch if the datagram is
/// longer or shorter than the total length.
[[nodiscard]] inline DropReason parse_ipv4_exact(std::span<const uint8_t> packet, Ipv4View& view) {
  if (packet.size() >= kIpv4MinHeader && (packet[0] >> 4) == 4 &&
      load_be16(packet.data() + kIpv4TotalLength) != packet.size()) {
    return DropReason::kLengthMismatch;
  }
  return parse_ipv4(packet, view);
}

/// Takes one off the TTL of the header at `header` (20 bytes or more) and adjusts its checksum; false if the packet
/// must be dropped because its TTL is used up, and then nothing is changed.
///
/// A wrong checksum stays wrong, so the receiving stack still finds it. The result for the two values around the wrap
/// is that of flannel (proxy_amd64.c) and of the kernel's ip_decrease_ttl(): 0xFEFF → 0x0000, 0xFFFF → 0x0100.
/// Deviation: flannel sends TTL 0 on as 255; here it is expired.
[[nodiscard]] inline bool decrement_ttl(uint8_t* header) {
  if (header[kIpv4Ttl] <= 1) return false;
  header[kIpv4Ttl] = static_cast<uint8_t>(header[kIpv4Ttl] - 1);
  const uint32_t sum = uint32_t{load_be16(header + kIpv4Checksum)} + 0x0100;
  store_be16(header + kIpv4Checksum, static_cast<uint16_t>(sum + (sum >= 0xffff ? 1 : 0)));
  return true;
}

}  // namespace tsflannel
