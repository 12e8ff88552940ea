// How much of a CPU a real-time thread may use before the kernel stops it.
#pragma once

#include <cstdint>
#include <string_view>

namespace tsflannel {

/// No limit, as a share of a CPU.
inline constexpr double kUnlimitedShare = 1;

/// The share of a CPU that the kernel leaves to real-time threads (sched_rt_runtime_us / sched_rt_period_us).
///
/// From 6.12 on nothing is taken away: ordinary threads that starve are served by the fair server instead
/// (5f6bd380c7bd, "sched/rt: Remove default bandwidth control").
/// @param release as uname(2) tells it, such as "6.1.0-28-amd64"
/// @param runtime_us, period_us as in /proc/sys/kernel; a negative runtime means no limit
[[nodiscard]] double realtime_share(std::string_view release, int64_t runtime_us, int64_t period_us);

/// realtime_share() of this host; unlimited where it cannot be read.
[[nodiscard]] double host_realtime_share();

/// Decides when a thread has to leave real-time scheduling, so that the kernel never stops it: at full load that would
/// be for 50 ms of each second, in which nothing is forwarded although the CPU is free. Pure; one thread.
///
/// CPU time is compared with the clock over windows of 100 ms. A window of more than nine tenths of the share ends
/// real-time scheduling for at least a second and until there is room again. With one window at full load and all
/// others below the limit, a second has at most 870 ms of the 950 that the kernel allows by default.
class RealtimeBudget {
 public:
  /// @param share as from realtime_share()
  explicit RealtimeBudget(double share) : share_(share) {}

  [[nodiscard]] bool is_limited() const { return share_ < kUnlimitedShare; }

  /// Whether the thread may be real-time from now on.
  /// @param now_ns CLOCK_MONOTONIC
  /// @param cpu_ns CPU time the thread has used so far
  [[nodiscard]] bool may_be_realtime(uint64_t now_ns, uint64_t cpu_ns) {
    if (now_ns - window_began_ns_ < kWindowNs) return may_be_realtime_;
    const double used = static_cast<double>(cpu_ns - cpu_before_ns_) / static_cast<double>(now_ns - window_began_ns_);
    window_began_ns_ = now_ns;
    cpu_before_ns_ = cpu_ns;
    if (used > kLeaveAt * share_) {
      may_be_realtime_ = false;
      left_ns_ = now_ns;
    } else if (used < kReturnAt * share_ && now_ns - left_ns_ >= kShortestLeaveNs) {
      may_be_realtime_ = true;
    }
    return may_be_realtime_;
  }

  static constexpr uint64_t kWindowNs = 100'000'000;
  static constexpr uint64_t kShortestLeaveNs = 1'000'000'000;

 private:
  static constexpr double kLeaveAt = 0.9;
  static constexpr double kReturnAt = 0.7;

  const double share_;
  uint64_t window_began_ns_ = 0;
  uint64_t cpu_before_ns_ = 0;
  uint64_t left_ns_ = 0;
  bool may_be_realtime_ = true;
};

}  // namespace tsflannel
