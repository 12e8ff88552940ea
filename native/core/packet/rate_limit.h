// Limits how often something happens, without a clock of its own.
#pragma once

#include <cstdint>

namespace tsflannel {

/// Token bucket. One thread.
class RateLimit {
 public:
  /// `per_second` tokens come back each second, up to `burst` (both at least 1); the bucket starts full.
  RateLimit(uint32_t per_second, uint32_t burst)
      : ns_per_token_(per_second == 0 ? kSecond : (kSecond + per_second - 1) / per_second),
        capacity_ns_(ns_per_token_ * (burst == 0 ? 1 : burst)) {}

  /// Takes a token at `now_ns` (CLOCK_MONOTONIC); false if there is none. A clock that steps back earns nothing.
  [[nodiscard]] bool take(uint64_t now_ns) {
    // The bucket is kept as the time it was empty: as many ns ago as its tokens are worth.
    const uint64_t earliest = now_ns > capacity_ns_ ? now_ns - capacity_ns_ : 0;
    const uint64_t empty_at = !started_ || empty_at_ < earliest ? earliest : empty_at_;
    started_ = true;
    empty_at_ = empty_at;
    if (now_ns < empty_at || now_ns - empty_at < ns_per_token_) return false;
    empty_at_ = empty_at + ns_per_token_;
    return true;
  }

 private:
  static constexpr uint64_t kSecond = 1'000'000'000;

  const uint64_t ns_per_token_;
  const uint64_t capacity_ns_;
  uint64_t empty_at_ = 0;
  bool started_ = false;
};

}  // namespace tsflannel
