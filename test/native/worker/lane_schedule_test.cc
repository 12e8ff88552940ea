#include "../../../native/core/worker/lane_schedule.h"

#include <vector>

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr LaneSchedule::Visit kLongest = {.packets = 4, .bytes = 1000};

/// Lanes that packets of `bytes` each lie in come up in this order in a turn that may read `reads` times.
std::vector<size_t> turn(LaneSchedule& schedule, std::vector<size_t> packets, size_t bytes, size_t reads = 100,
                         LaneSet looked_at = kAllLanes) {
  std::vector<size_t> order;
  schedule.begin_turn(looked_at);
  while (!schedule.is_dry() && order.size() < reads) {
    const size_t lane = schedule.lane();
    order.push_back(lane);
    if (packets[lane] == 0) {
      schedule.ran_dry();
    } else {
      packets[lane]--;
      schedule.took(1, bytes);
    }
  }
  return order;
}

TEST("a turn begins with the first lane, and ends when each was found dry once") {
  LaneSchedule schedule(2, kLongest);
  CHECK(turn(schedule, {0, 0}, 1) == (std::vector<size_t>{0, 1}));
  CHECK(turn(schedule, {1, 1}, 1) == (std::vector<size_t>{0, 0, 1, 1}));
  CHECK(turn(schedule, {0, 6}, 1) == (std::vector<size_t>{0, 1, 1, 1, 1, 1, 1, 1}));
}

TEST("a full lane makes way for the other after so many packets, or so many bytes") {
  LaneSchedule schedule(2, kLongest);
  CHECK(turn(schedule, {100, 100}, 1, 12) == (std::vector<size_t>{0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0}));
  CHECK(turn(schedule, {100, 100}, 600, 6) == (std::vector<size_t>{0, 0, 1, 1, 0, 0}));
  CHECK(turn(schedule, {100, 1}, 5000, 6) == (std::vector<size_t>{0, 1, 0, 1, 0, 0}));
}

TEST("a cut off turn is forgotten by the next") {
  LaneSchedule schedule(2, kLongest);
  CHECK(turn(schedule, {0, 100}, 1, 3) == (std::vector<size_t>{0, 1, 1}));
  CHECK(turn(schedule, {100, 100}, 1, 5) == (std::vector<size_t>{0, 0, 0, 0, 1}));
}

TEST("lanes that are not worth reading are left alone") {
  LaneSchedule schedule(2, kLongest);
  CHECK(turn(schedule, {9, 9}, 1, 100, 0).empty());
  CHECK(turn(schedule, {9, 2}, 1, 100, 0b10) == (std::vector<size_t>{1, 1, 1}));
  CHECK(turn(schedule, {1, 9}, 1, 100, 0b01) == (std::vector<size_t>{0, 0}));
}

TEST("a single lane is read until it is dry") {
  LaneSchedule schedule(1, kLongest);
  CHECK(turn(schedule, {9}, 600) == std::vector<size_t>(10, 0));
}

TEST("what stands for many packets counts as all of them") {
  LaneSchedule schedule(2, kLongest);
  schedule.begin_turn(kAllLanes);
  CHECK_EQ(schedule.lane(), 0);
  schedule.took(4, 100);
  CHECK_EQ(schedule.lane(), 1);
  schedule.took(3, 100);
  CHECK_EQ(schedule.lane(), 1);
}

}  // namespace
}  // namespace tsflannel::testing
