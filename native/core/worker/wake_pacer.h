// Keeps a stream of packets from waking the worker for each of them.
#pragma once

#include <cstdint>

namespace tsflannel {

/// Interrupt moderation for a thread: when packets came as soon as the worker waited for them, the next wake-up is put
/// off a little, so that it brings more. That pays at both ends: small packets (a real-time thread preempts their
/// sender after each of them) and bulk (a wake-up across CPUs costs as much as forwarding 10 KB). What lies between, a
/// small window or a request that the other side waits for, is left alone. One thread.
class WakePacer {
 public:
  enum class Pause : uint8_t {
    kNone,
    kFixed,
    kUnlessUrgent,  ///< ended by packets that do not belong to the bulk
  };

  /// What to do before waiting for packets, for kPauseNs.
  /// @param total_bytes forwarded so far
  [[nodiscard]] Pause pause(uint64_t total_bytes) {
    const uint64_t bytes = total_bytes - bytes_before_;
    bytes_before_ = total_bytes;
    if (bytes >= kBulkBytes && quick_waits_ > 0) return was_cut_short_ ? Pause::kFixed : Pause::kUnlessUrgent;
    // A request and its answer follow each other quickly as well, but then nothing comes for a while.
    return bytes < kLittleBytes && quick_waits_ >= kStreamWaits ? Pause::kFixed : Pause::kNone;
  }

  /// Tells whether urgent packets ended the pause. The next one is fixed: they can be a stream themselves.
  void paused(bool was_cut_short) { was_cut_short_ = was_cut_short; }

  /// Tells how long it took until packets came.
  void waited(uint64_t ns) { quick_waits_ = ns < kQuickNs ? quick_waits_ + 1 : 0; }

  /// The delay that a packet can see at most: less than an idle round trip takes, and what NICs wait by default. Longer
  /// ones forward bulk for less CPU still, but halve what a window of 256 KiB carries.
  static constexpr uint64_t kPauseNs = 100'000;
  /// Shorter than the gap that a single exchange of request and answer leaves, which takes two wake-ups across CPUs.
  static constexpr uint64_t kQuickNs = 30'000;

 private:
  static constexpr uint64_t kLittleBytes = 16 * 1024;
  static constexpr uint64_t kBulkBytes = 64 * 1024;
  static constexpr uint32_t kStreamWaits = 2;

  uint64_t bytes_before_ = 0;
  uint32_t quick_waits_ = 0;  // in a row
  bool was_cut_short_ = false;
};

}  // namespace tsflannel
