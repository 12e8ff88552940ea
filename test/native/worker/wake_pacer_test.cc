#include "../../../native/core/worker/wake_pacer.h"

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr uint64_t kQuick = WakePacer::kQuickNs - 1;
constexpr uint64_t kSlow = WakePacer::kQuickNs;

using Pause = WakePacer::Pause;

/// Pauses of a worker that wakes `count` times and forwards `bytes` each time.
uint64_t pauses(uint64_t wait_ns, uint64_t bytes, int count = 100) {
  WakePacer pacer;
  uint64_t pauses = 0;
  for (int i = 0; i < count; i++) {
    pauses += pacer.pause(bytes * static_cast<uint64_t>(i)) == Pause::kNone ? 0 : 1;
    pacer.waited(wait_ns);
  }
  return pauses;
}

TEST("wake-ups in quick succession that bring little are put off from the third on") {
  CHECK_EQ(pauses(kQuick, 100), 98);
}

TEST("wake-ups in quick succession that bring bulk are put off from the second on") {
  CHECK_EQ(pauses(kQuick, 65536), 99);
}

TEST("small windows, and packets that come one by one, are never put off") {
  CHECK_EQ(pauses(kQuick, 32768), 0);
  CHECK_EQ(pauses(kSlow, 100), 0);
  CHECK_EQ(pauses(kSlow, 65536), 0);
}

TEST("a request and its answer, each followed by a gap, are never put off") {
  WakePacer pacer;
  for (uint64_t exchange = 0; exchange < 100; exchange++) {
    pacer.waited(kSlow);
    CHECK(pacer.pause(exchange * 200 + 100) == Pause::kNone);
    pacer.waited(kQuick);
    CHECK(pacer.pause(exchange * 200 + 200) == Pause::kNone);
  }
}

TEST("a gap ends the putting off") {
  WakePacer pacer;
  pacer.waited(kQuick);
  pacer.waited(kQuick);
  CHECK(pacer.pause(0) == Pause::kFixed);
  pacer.waited(kSlow);
  CHECK(pacer.pause(0) == Pause::kNone);
  pacer.waited(kQuick);
  CHECK(pacer.pause(0) == Pause::kNone);
}

TEST("what is urgent ends a pause for bulk, but not two in a row; little by little it ends none") {
  WakePacer pacer;
  uint64_t total = 0;
  const auto next_after = [&](uint64_t bytes) {
    pacer.waited(kQuick);
    return pacer.pause(total += bytes);
  };
  CHECK(next_after(65536) == Pause::kUnlessUrgent);
  pacer.paused(false);
  CHECK(next_after(65536) == Pause::kUnlessUrgent);
  pacer.paused(true);
  CHECK(next_after(65536) == Pause::kFixed);
  pacer.paused(false);
  CHECK(next_after(65536) == Pause::kUnlessUrgent);
  CHECK(next_after(100) == Pause::kFixed);
}

}  // namespace
}  // namespace tsflannel::testing
