#include "../../../native/core/packet/rate_limit.h"

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

size_t take_all(RateLimit& limit, uint64_t now) {
  size_t taken = 0;
  while (taken < 100000 && limit.take(now)) taken++;
  return taken;
}

TEST("a bucket starts full, whatever the clock says") {
  for (const uint64_t now : {uint64_t{0}, uint64_t{1}, kSecond, ~uint64_t{0} / 2}) {
    RateLimit limit(100, 50);
    CHECK_EQ(take_all(limit, now), 50U);
    CHECK_EQ(take_all(limit, now), 0U);
  }
}

TEST("tokens come back at the rate, and not beyond the burst") {
  RateLimit limit(100, 50);
  uint64_t now = 1000 * kSecond;
  CHECK_EQ(take_all(limit, now), 50U);
  now += kSecond / 100 - 1;
  CHECK_EQ(take_all(limit, now), 0U);
  now += 1;
  CHECK_EQ(take_all(limit, now), 1U);
  now += kSecond / 10;
  CHECK_EQ(take_all(limit, now), 10U);
  now += 3600 * kSecond;
  CHECK_EQ(take_all(limit, now), 50U);
}

TEST("no window ever passes more than burst plus rate") {
  Random random;
  RateLimit limit(1000, 20);
  uint64_t now = 5 * kSecond;
  const uint64_t start = now;
  size_t taken = 0;
  for (int i = 0; i < 200000; i++) {
    now += random.below(30000);
    if (limit.take(now)) taken++;
  }
  const uint64_t allowed = 20 + (now - start) / (kSecond / 1000);
  CHECK(taken <= allowed);
  CHECK(taken + 1 >= allowed);
}

TEST("a clock that steps back earns nothing and takes nothing away for good") {
  RateLimit limit(10, 5);
  const uint64_t now = 100 * kSecond;
  CHECK_EQ(take_all(limit, now), 5U);
  CHECK_EQ(take_all(limit, now - 50 * kSecond), 0U);
  CHECK_EQ(take_all(limit, now + kSecond / 10), 1U);
}

}  // namespace
}  // namespace tsflannel::testing
