// What the tunnel must do with each packet, by the letter and one packet at a time. Nothing here uses the code under
// test but its names.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "../../../native/core/packet/drop_reason.h"
#include "../../../native/core/packet/icmp.h"
#include "../../../native/core/worker/forwarding_state.h"
#include "packets.h"

namespace tsflannel::testing {

/// A subnet and the public address of the host that holds it.
struct SlowRoute {
  uint32_t prefix = 0;
  uint8_t length = 0;
  uint32_t outer = 0;
};

/// What a tunnel forwards by.
struct SlowState {
  std::vector<SlowRoute> routes;
  uint32_t icmp_source = 0;
  uint16_t mtu = 0;
  VerifySource verify = VerifySource::kOuter;
};

/// What becomes of what was read from the TUN: `packets` go to `outer`, or `dropped` are counted under `reason`, and
/// `answer` goes back unless the rate limit holds it.
struct SlowTransmit {
  DropReason reason = DropReason::kNone;
  size_t dropped = 0;
  std::optional<Bytes> answer;
  uint32_t outer = 0;
  std::vector<Bytes> packets;
};

/// The packet one hop further (RFC 1624 equation 3: a wrong checksum stays wrong).
Bytes slow_hop(Bytes packet);

/// The ICMP error about a packet with a sound IPv4 header, if one may be sent.
std::optional<Bytes> slow_icmp(IcmpError error, const SlowState& state, const Bytes& offender, uint16_t mtu = 0);

/// @param frame with its vnet header
SlowTransmit slow_transmit(const SlowState& state, const Bytes& frame);

/// Why a datagram from `outer` is not written to the TUN; kNone: its slow_hop() is.
DropReason slow_receive(const SlowState& state, uint32_t outer, const Bytes& datagram);

}  // namespace tsflannel::testing
