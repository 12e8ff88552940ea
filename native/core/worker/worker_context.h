// What the two directions of a worker share.
#pragma once

#include <cstdint>
#include <ctime>
#include <span>

#include "../base/kernel.h"
#include "counters.h"
#include "forwarding_state.h"
#include "tunnel_health.h"

namespace tsflannel {

/// Belongs to one worker; only its thread uses it.
struct WorkerContext {
  Kernel& kernel;
  TunnelHealth& health;
  WorkerCounters& counters;
  PeerCounterTable& peer_counters;
  const std::span<const int> lanes;  ///< queues of the TUN that packets come from, at least one; owned by the tunnel
  const int socket;                  ///< owned by the tunnel
  const int icmp_socket;             ///< likewise, see open_icmp_socket()
  const bool has_vnet_header;
  const ForwardingState* state = nullptr;  ///< changes between two batches only
  bool has_failed = false;                 ///< the TUN or the socket is dead: forward nothing more

  /// The queue that packets are written to.
  [[nodiscard]] int tun() const { return lanes.front(); }

  /// Takes the tunnel out of service after an error that no later packet can escape.
  void fail(const char* operation, int code) {
    has_failed = true;
    health.fail(operation, code);
  }
};

/// CLOCK_MONOTONIC in ns.
[[nodiscard]] inline uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

/// Whether the descriptor itself is of no more use: closed, or the device behind it is gone (a TUN answers EBADFD).
[[nodiscard]] bool is_dead_descriptor(int code);

}  // namespace tsflannel
