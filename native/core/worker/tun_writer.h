// Writing to the TUN: merged packets from peers, and ICMP errors of our own.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "../offload/coalescer.h"
#include "../packet/icmp.h"
#include "../packet/ipv4.h"
#include "../packet/rate_limit.h"
#include "worker_context.h"

namespace tsflannel {

/// One worker's way into the TUN; its thread only.
class TunWriter {
 public:
  explicit TunWriter(WorkerContext& context) : context_(context) {}

  /// Writes all items of a finished batch and empties it.
  ///
  /// If the kernel refuses a merged packet (EINVAL), merging of that protocol is switched off and the packets it was
  /// made of are written one by one: none is lost, none is written twice.
  void write(Coalescer& coalescer);

  /// Answers `offender` unless an error may not be sent about it or the rate limit holds it back.
  void answer(IcmpError error, const Ipv4View& offender, uint16_t next_hop_mtu = 0);

 private:
  // As many a second as Linux sends to one destination in as many ms (icmp_ratelimit), for a hundred of them;
  // the burst is that of icmp_msgs_burst.
  static constexpr uint32_t kIcmpPerSecond = 1000;
  static constexpr uint32_t kIcmpBurst = 50;

  /// 0 or -errno; EAGAIN after waiting as long as packets of the other direction can stand.
  int write_parts(std::span<const iovec> parts);
  void write_originals(Coalescer& coalescer, size_t item);
  void count(int result, size_t packets, size_t bytes);

  WorkerContext& context_;
  RateLimit icmp_limit_{kIcmpPerSecond, kIcmpBurst};
};

}  // namespace tsflannel
