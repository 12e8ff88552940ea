// ICMP errors of the tunnel.
#pragma once

#include <cstdint>

#include "../packet/icmp.h"
#include "../packet/ipv4.h"
#include "../packet/rate_limit.h"
#include "worker_context.h"

namespace tsflannel {

/// Answers packets that one worker cannot forward; its thread only.
///
/// Limits: errors are rate limited. Fragmentation needed has a limit of its own, so that a flood of what is unreachable
/// cannot make a path MTU black hole; Linux does not limit it at all (icmpv4_mask_allow()).
/// Counters: icmp_sent, icmp_limited, icmp_failed.
class IcmpSender {
 public:
  explicit IcmpSender(WorkerContext& context) : context_(context) {}

  /// Answers `offender` unless an error may not be sent about it or the rate limit holds it back.
  void answer(IcmpError error, const Ipv4View& offender, uint16_t next_hop_mtu = 0);

 private:
  // As many a second as Linux sends to one destination in as many ms (icmp_ratelimit), for a hundred of them;
  // the burst is that of icmp_msgs_burst.
  static constexpr uint32_t kPerSecond = 1000;
  static constexpr uint32_t kBurst = 50;
  // One is enough for a sender to stop, so this is as many senders; at some 2 µs each they take 2 % of a CPU.
  static constexpr uint32_t kFragmentationNeededPerSecond = 10'000;
  static constexpr uint32_t kFragmentationNeededBurst = 500;

  WorkerContext& context_;
  RateLimit limit_{kPerSecond, kBurst};
  RateLimit fragmentation_needed_limit_{kFragmentationNeededPerSecond, kFragmentationNeededBurst};
};

}  // namespace tsflannel
