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

/// A subnet or an address of this host.
struct SlowPrefix {
  uint32_t prefix = 0;
  uint8_t length = 0;
};

/// What a tunnel forwards by.
struct SlowState {
  std::vector<SlowRoute> routes = {};
  std::vector<SlowPrefix> own = {};
  uint32_t icmp_source = 0;
  uint16_t mtu = 0;
  VerifySource verify = VerifySource::kOuter;
};

/// What becomes of what was read from the TUN: `packets` go to `outer`, or so many `dropped` are counted under
/// `reason`, and `answer` goes back unless the rate limit holds it or the kernel does not take it.
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

/// Whether an offload is in use: one that the kernel refuses rests for 2 minutes; refused again before it has worked
/// for as long as it rested, it rests twice as long, up to 64 minutes.
class SlowOffload {
 public:
  explicit SlowOffload(bool is_on = true) : is_on_(is_on) {}

  void refused(uint64_t now_ns);
  void time_passed(uint64_t now_ns);

  [[nodiscard]] bool is_on() const { return is_on_; }
  [[nodiscard]] uint64_t downgrades() const { return downgrades_; }
  [[nodiscard]] uint64_t trials() const { return trials_; }

 private:
  bool is_on_;
  uint64_t downgrades_ = 0;
  uint64_t trials_ = 0;
  uint64_t refused_at_ns_ = 0;
  uint64_t tried_at_ns_ = 0;
  uint64_t minutes_ = 0;
};

}  // namespace tsflannel::testing
