// Why a packet was not forwarded.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tsflannel {

/// Index into the drop counters, all of which count inner packets: a super-packet as the packets it would have become,
/// a datagram as one. The order is that of DROP_REASONS in src/dataplane/tunnel.ts.
enum class DropReason : uint8_t {
  kShort,           ///< fewer bytes than an IPv4 header
  kNotIpv4,         ///< version nibble is not 4
  kBadHeader,       ///< IHL or total length contradict the packet
  kLengthMismatch,  ///< datagram and inner total length differ
  kOversize,        ///< longer than the MTU
  kTtlExpired,
  kNoRoute,          ///< no lease covers the destination
  kSourceUnknown,    ///< outer source holds no lease
  kSourceSpoofed,    ///< inner source of this host, or outside the sender's subnet
  kReceiveOverflow,  ///< the kernel discarded the datagram at the socket, see Kernel::socket_drops()
  kSendError,
  kSendBlocked,
  kTunError,
  kTunBlocked,
  kNone,  ///< not dropped; also the number of reasons
};

/// Number of drop counters.
inline constexpr size_t kDropReasonCount = static_cast<size_t>(DropReason::kNone);

/// Value of the `reason` label of the drop counter, by DropReason.
inline constexpr std::array<std::string_view, kDropReasonCount> kDropReasonNames = {
    "short",       "not-ipv4",     "bad-header",     "length-mismatch", "oversize",
    "ttl-expired", "no-route",     "source-unknown", "source-spoofed",  "receive-overflow",
    "send-error",  "send-blocked", "tun-error",      "tun-blocked",
};

}  // namespace tsflannel
