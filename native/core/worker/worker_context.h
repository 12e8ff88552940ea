// What the two directions of a worker share.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <span>

#include "../base/kernel.h"
#include "../base/offload.h"
#include "counters.h"
#include "events.h"
#include "forwarding_state.h"

namespace tsflannel {

/// Offloads in use by all workers of a tunnel, and its health. Any thread.
class TunnelHealth {
 public:
  TunnelHealth(OffloadSet offloads, EventSink& sink) : offloads_(offloads.bits()), sink_(sink) {}

  [[nodiscard]] OffloadSet offloads() const { return OffloadSet::from_bits(offloads_.load(std::memory_order_relaxed)); }
  [[nodiscard]] uint64_t downgrades(Offload offload) const {
    return downgrades_[static_cast<size_t>(offload)].load(std::memory_order_relaxed);
  }

  /// Switches an offload off for all workers; the first to ask counts and tells.
  void downgrade(Offload offload, const char* operation, int code) {
    const uint32_t bit = OffloadSet::bit(offload);
    if ((offloads_.fetch_and(~bit, std::memory_order_relaxed) & bit) == 0) return;
    downgrades_[static_cast<size_t>(offload)].fetch_add(1, std::memory_order_relaxed);
    sink_.on_event({TunnelEvent::Type::kDowngrade, offload, operation, code});
  }

  /// Reports a dead descriptor, once.
  void fail(const char* operation, int code) {
    if (has_failed_.exchange(true, std::memory_order_relaxed)) return;
    sink_.on_event({TunnelEvent::Type::kFailed, {}, operation, code});
  }

 private:
  std::atomic<uint32_t> offloads_;
  std::array<std::atomic<uint64_t>, kOffloadCount> downgrades_{};
  std::atomic<bool> has_failed_{false};
  EventSink& sink_;
};

/// Belongs to one worker; only its thread uses it.
struct WorkerContext {
  Kernel& kernel;
  TunnelHealth& health;
  WorkerCounters& counters;
  PeerCounterTable& peer_counters;
  const std::span<const int> lanes;  ///< queues of the TUN that packets come from, at least one; owned by the tunnel
  const int socket;                  ///< owned by the tunnel
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
