// Keeps a stream of small packets from waking the worker for each of them.
#pragma once

#include <cstdint>

namespace tsflannel {

/// Interrupt moderation for a thread: when wake-ups follow each other closely and each brings little, the next one is
/// put off a little, so that it brings more. A real-time thread needs it, since it preempts the sender of the packets
/// after each of them: small packets went from 54–149 to 201–299 thousand a second. Bulk and the ping-pong of requests
/// and answers are left alone. One thread.
class WakePacer {
 public:
  /// How long to sleep before waiting for packets, in ns; 0 for not at all.
  /// @param total_bytes forwarded so far
  [[nodiscard]] uint64_t pause_ns(uint64_t total_bytes) {
    const bool was_little = total_bytes - bytes_before_ < kLittleBytes;
    bytes_before_ = total_bytes;
    return was_little && quick_waits_ >= kQuickWaits ? kPauseNs : 0;
  }

  /// Tells how long it took until packets came.
  void waited(uint64_t ns) { quick_waits_ = ns < kQuickNs ? quick_waits_ + 1 : 0; }

  /// The delay that a packet can see at most; half of what a round trip takes anyway.
  static constexpr uint64_t kPauseNs = 60'000;
  /// Shorter than the gap that a single exchange of request and answer leaves, which takes two wake-ups across CPUs.
  static constexpr uint64_t kQuickNs = 30'000;

 private:
  static constexpr uint64_t kLittleBytes = 16 * 1024;
  static constexpr uint32_t kQuickWaits = 2;

  uint64_t bytes_before_ = 0;
  uint32_t quick_waits_ = 0;
};

}  // namespace tsflannel
