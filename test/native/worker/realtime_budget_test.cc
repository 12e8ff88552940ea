#include "../../../native/core/worker/realtime_budget.h"

#include <vector>

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr double kDefaultShare = 0.95;

TEST("kernels before the fair server stop real-time threads where sched_rt_runtime_us says so") {
  CHECK_EQ(realtime_share("6.1.0-28-amd64", 950000, 1000000), 0.95);
  CHECK_EQ(realtime_share("6.11.11", 950000, 1000000), 0.95);
  CHECK_EQ(realtime_share("5.15.0", 500000, 1000000), 0.5);
  CHECK_EQ(realtime_share("odd", 950000, 1000000), 0.95);
  for (const char* release : {"6.12.0", "6.12.48+deb13-amd64", "6.18.44", "7.0.0-rc1", "10.1"}) {
    CHECK_EQ(realtime_share(release, 950000, 1000000), kUnlimitedShare);
  }
  CHECK_EQ(realtime_share("6.1.0", -1, 1000000), kUnlimitedShare);
  CHECK_EQ(realtime_share("6.1.0", 1000000, 1000000), kUnlimitedShare);
  CHECK_EQ(realtime_share("6.1.0", 950000, -1), kUnlimitedShare);
}

/// A thread that is looked at every 5 ms.
class Thread {
 public:
  explicit Thread(double share) : budget_(share) {}

  /// Runs with a part of the CPU for some time, and tells for how long of it the thread was real-time and on the CPU.
  double run(double part, uint64_t ms) {
    double realtime_ms = 0;
    for (uint64_t at = 0; at < ms; at += 5) {
      now_ns_ += 5 * kMs;
      cpu_ns_ += static_cast<double>(5 * kMs) * part;
      if (is_realtime) realtime_ms += 5 * part;
      is_realtime = budget_.may_be_realtime(now_ns_, static_cast<uint64_t>(cpu_ns_));
    }
    return realtime_ms;
  }

  bool is_realtime = true;

 private:
  RealtimeBudget budget_;
  uint64_t now_ns_ = 5'000'000'000;
  double cpu_ns_ = 0;
};

TEST("a thread at full load leaves real-time scheduling long before its budget is used up") {
  Thread thread(kDefaultShare);
  thread.run(0.2, 1000);
  CHECK(thread.is_realtime);
  const double used = thread.run(1, 1000);
  CHECK(!thread.is_realtime);
  CHECK(used < 250);
}

TEST("it comes back when there is room again, but not at once") {
  Thread thread(kDefaultShare);
  thread.run(1, 1000);
  thread.run(0.2, 500);
  CHECK(!thread.is_realtime);
  thread.run(0.2, 1000);
  CHECK(thread.is_realtime);
  thread.run(1, 1000);
  thread.run(0.8, 5000);
  CHECK(!thread.is_realtime);
}

TEST("whatever the load does, no second has more of it real-time than the kernel allows") {
  Random random(3);
  Thread thread(kDefaultShare);
  std::vector<double> steps(20);  // of 50 ms: the last second
  for (int i = 0; i < 20000; i++) {
    const double part = random.one_in(2) ? 1 : static_cast<double>(random.below(100)) / 100;
    steps[static_cast<size_t>(i) % steps.size()] = thread.run(part, 50);
    double used = 0;
    for (const double each : steps) used += each;
    CHECK(used < 950);
  }
}

}  // namespace
}  // namespace tsflannel::testing
