// Packets that somebody might send who means no good: valid ones, changed where a parser looks.
#pragma once

#include "fuzz_input.h"
#include "packets.h"

namespace tsflannel::testing {

/// Where a hostile packet claims to come from and to go, and what tells it from the others.
struct HostileOrigin {
  uint32_t source = 0;
  uint32_t destination = 0;
  uint16_t serial = 0;  ///< IP ID, and start of the payload
};

/// One IPv4 packet of up to `max_payload` bytes of payload: TCP, UDP, ICMP or another protocol, with options,
/// fragments, odd TTLs and flags; and, if the input says so, damaged: truncated or too long, with a wrong version, IHL,
/// total length, header field or checksum, or two packets in one.
Bytes hostile_packet(FuzzInput& input, const HostileOrigin& origin, size_t max_payload);

}  // namespace tsflannel::testing
