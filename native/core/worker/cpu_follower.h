// Which CPU a worker's thread should be on.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

namespace tsflannel {

/// Brings a real-time thread to the CPU that lone packets come on: the scheduler leaves such a thread where it ran last,
/// and a wake-up across CPUs takes longer than forwarding the packet. In bulk the two work side by side, so then the
/// thread stays. One thread.
class CpuFollower {
 public:
  /// Asked when datagrams have woken the thread, before it looks at them: an answer to them leaves from the new CPU then,
  /// and two hosts on one machine do not change places for ever.
  /// @param from CPU they came on
  /// @param on CPU of this thread
  /// @returns the CPU to move to
  [[nodiscard]] std::optional<unsigned> woke(unsigned from, unsigned on) {
    if (from == on || from != wanted_) in_a_row_ = 0;
    wanted_ = from;
    if (from == on || ++in_a_row_ < kWakes) return std::nullopt;
    in_a_row_ = 0;
    is_bound_ = true;
    return from;
  }

  /// Tells how many packets a wake-up brought, in both directions.
  /// @returns whether the thread should be free again to go where the scheduler wants it
  [[nodiscard]] bool brought(uint64_t packets) {
    if (packets <= kFewPackets) return false;
    in_a_row_ = 0;
    return std::exchange(is_bound_, false);
  }

  /// A request and its answer.
  static constexpr uint64_t kFewPackets = 2;
  /// Wake-ups with few packets from one other CPU, in a row, that a move takes: it costs as much as some of them.
  static constexpr unsigned kWakes = 16;

 private:
  unsigned wanted_ = 0;
  unsigned in_a_row_ = 0;
  bool is_bound_ = false;
};

}  // namespace tsflannel
