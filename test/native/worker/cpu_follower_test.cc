#include "../../../native/core/worker/cpu_follower.h"

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

constexpr unsigned kHere = 3;
constexpr unsigned kThere = 5;
constexpr unsigned kElsewhere = 6;

/// Lets datagrams from a CPU wake a thread so often, each wake-up with so many packets.
/// @returns after how many of them the thread is to move; 0: never
unsigned wakes_until_move(CpuFollower& follower, unsigned wakes, unsigned from, uint64_t packets = 1) {
  for (unsigned i = 1; i <= wakes; i++) {
    const std::optional<unsigned> wanted = follower.woke(from, kHere);
    if (wanted) {
      CHECK_EQ(*wanted, from);
      return i;
    }
    (void)follower.brought(packets);
  }
  return 0;
}

TEST("lone packets from another CPU bring the thread there") {
  CpuFollower follower;
  CHECK_EQ(wakes_until_move(follower, 1000, kThere), CpuFollower::kWakes);
}

TEST("lone packets from the own CPU keep it") {
  CpuFollower follower;
  CHECK_EQ(wakes_until_move(follower, 1000, kHere), 0);
}

TEST("packets that come on changing CPUs leave the thread alone, as one of its own between them does") {
  for (const unsigned between : {kElsewhere, kHere}) {
    CpuFollower follower;
    for (int i = 0; i < 100; i++) {
      CHECK_EQ(wakes_until_move(follower, CpuFollower::kWakes - 1, kThere), 0);
      CHECK_EQ(wakes_until_move(follower, 1, between), 0);
    }
  }
}

TEST("wake-ups with more than a few packets leave the thread alone") {
  CpuFollower follower;
  CHECK_EQ(wakes_until_move(follower, 1000, kThere, CpuFollower::kFewPackets + 1), 0);
  CHECK_EQ(wakes_until_move(follower, 1000, kThere, CpuFollower::kFewPackets), CpuFollower::kWakes);
}

TEST("a thread that moved is free again with the first wake-up that brings more than a few packets, and only then") {
  CpuFollower follower;
  CHECK(!follower.brought(CpuFollower::kFewPackets + 1));
  CHECK(wakes_until_move(follower, 1000, kThere) > 0);
  CHECK(!follower.brought(0));
  CHECK(!follower.brought(CpuFollower::kFewPackets));
  CHECK(follower.brought(CpuFollower::kFewPackets + 1));
  CHECK(!follower.brought(CpuFollower::kFewPackets + 1));
}

}  // namespace
}  // namespace tsflannel::testing
