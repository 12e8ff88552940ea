#include "../../../native/core/worker/wake_pacer.h"

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr uint64_t kQuick = WakePacer::kQuickNs - 1;
constexpr uint64_t kSlow = WakePacer::kQuickNs;

/// Pauses of a worker that wakes `count` times and forwards `bytes` each time.
uint64_t pauses(uint64_t wait_ns, uint64_t bytes, int count = 100) {
  WakePacer pacer;
  uint64_t pauses = 0;
  for (int i = 0; i < count; i++) {
    pauses += pacer.pause_ns(bytes * static_cast<uint64_t>(i)) > 0 ? 1 : 0;
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
    CHECK_EQ(pacer.pause_ns(exchange * 200 + 100), 0);
    pacer.waited(kQuick);
    CHECK_EQ(pacer.pause_ns(exchange * 200 + 200), 0);
  }
}

TEST("a gap ends the putting off") {
  WakePacer pacer;
  pacer.waited(kQuick);
  pacer.waited(kQuick);
  CHECK_EQ(pacer.pause_ns(0), WakePacer::kPauseNs);
  pacer.waited(kSlow);
  CHECK_EQ(pacer.pause_ns(0), 0);
  pacer.waited(kQuick);
  CHECK_EQ(pacer.pause_ns(0), 0);
}

}  // namespace
}  // namespace tsflannel::testing
