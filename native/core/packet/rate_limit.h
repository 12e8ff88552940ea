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
    // The bucket is kept as the time when it was last empty, all times shifted by what a full bucket is worth.
    const uint64_t now = now_ns + capacity_ns_;
    const uint64_t empty_at = empty_at_ > now_ns ? empty_at_ : now_ns;
    if (now < empty_at || now - empty_at < ns_per_token_) return false;
    empty_at_ = empty_at + ns_per_token_;
    return true;
  }

 private:
  static constexpr uint64_t kSecond = 1'000'000'000;

  const uint64_t ns_per_token_;
  const uint64_t capacity_ns_;
  uint64_t empty_at_ = 0;
};

}  // namespace tsflannel
