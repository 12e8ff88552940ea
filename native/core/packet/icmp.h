// ICMP errors (RFC 792) about packets that the tunnel cannot forward.
//
// Kept from flannel (proxy_amd64.c): destination unreachable / network has TTL 8, TOS 0, no DF, is sent from the TUN's
// address, and quotes the IP header with its options and 8 bytes more; none is sent about later fragments, nor about a
// packet with the full 40 bytes of options.
//
// Deviations from flannel, all on purpose:
// - The id is 0 in here, which makes the kernel choose one (raw(7)); flannel's is 0.
// - An offender that is ICMP is answered unless it is an ICMP error itself (RFC 1122 section 3.2.2): flannel answers no
//   ICMP at all, so that a ping into nowhere just times out.
// - No answer about a destination that is multicast, broadcast or zero, or to a source that is not a single host
//   (RFC 1812 section 4.3.2.7): flannel answers.
// - The quotation ends where the offender ends: flannel reads past a packet with less than 8 bytes of payload.
// - An ICMP offender of a type that is no query is treated as an error: it may be one that this list does not know.
// - Time exceeded (11/0) and fragmentation needed (3/4 with the next-hop MTU, RFC 1191) exist, with TTL 64. The option
//   limit above does not apply to them, since a lost 3/4 makes a path MTU black hole; for the same reason, and because
//   the wire format cannot fragment, 3/4 may be sent about a packet without DF (Linux lowers its path MTU either way).
// - The caller limits the rate (rate_limit.h): flannel has no limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ipv4.h"

namespace tsflannel {

/// Errors the tunnel can send.
enum class IcmpError : uint8_t {
  kNetUnreachable,       ///< type 3 code 0
  kTimeExceeded,         ///< type 11 code 0
  kFragmentationNeeded,  ///< type 3 code 4
};

/// Number of values of IcmpError.
inline constexpr size_t kIcmpErrorCount = 3;

/// Bytes of the longest ICMP error: IP header, ICMP header, quoted IP header with all options, 8 bytes of its payload.
inline constexpr size_t kIcmpMaxError = kIpv4MinHeader + 8 + kIpv4MaxHeader + 8;

/// Whether `error` may be sent about `offender`.
[[nodiscard]] bool may_send_icmp_error(IcmpError error, const Ipv4View& offender);

/// Writes the whole IPv4 packet of an error about `offender`, to the offender's source, and returns its length.
///
/// `out` must have kIcmpMaxError bytes. `source` is the TUN's address, as a number. `next_hop_mtu` is used by
/// kFragmentationNeeded only. The offender is quoted as it is in memory: build the error before changing the packet.
[[nodiscard]] size_t build_icmp_error(std::span<uint8_t, kIcmpMaxError> out, IcmpError error, uint32_t source,
                                      const Ipv4View& offender, uint16_t next_hop_mtu = 0);

}  // namespace tsflannel
