#include "../../../native/core/worker/tunnel_health.h"

#include <cerrno>
#include <vector>

#include "../support/harness.h"

namespace tsflannel::testing {
namespace {

class Sink final : public EventSink {
 public:
  void on_event(const TunnelEvent& event) override { events.push_back(event); }
  std::vector<TunnelEvent> events;
};

constexpr uint64_t kStart = 1'000'000'000'000;
constexpr uint64_t kShortest = TunnelHealth::kShortestRestNs;
constexpr uint64_t kLongest = TunnelHealth::kLongestRestNs;

TEST("what the kernel refused is used again when it has rested, and not before") {
  Sink sink;
  TunnelHealth health(OffloadSet::all(), sink);
  CHECK(!health.is_resting());
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, kStart);
  CHECK(health.is_resting());
  CHECK(!health.offloads().has(Offload::kUdpSegment));
  health.try_again(kStart + kShortest - 1);
  CHECK(!health.offloads().has(Offload::kUdpSegment));
  health.try_again(kStart + kShortest);
  CHECK(health.offloads().has(Offload::kUdpSegment));
  CHECK(!health.is_resting());
  CHECK_EQ(health.downgrades(Offload::kUdpSegment), 1);
  CHECK_EQ(health.trials(Offload::kUdpSegment), 1);
  CHECK_EQ(sink.events.size(), 2);
  CHECK(sink.events[1].type == TunnelEvent::Type::kTrial && sink.events[1].offload == Offload::kUdpSegment);
}

TEST("an offload that never works is tried ever more seldom, up to a limit") {
  Sink sink;
  TunnelHealth health(OffloadSet::all(), sink);
  uint64_t now = kStart;
  uint64_t rest = kShortest;
  for (int i = 0; i < 12; i++) {
    health.downgrade(Offload::kTcpMerge, "writev", EINVAL, now);
    health.try_again(now + rest - 1);
    CHECK(!health.offloads().has(Offload::kTcpMerge));
    now += rest;
    health.try_again(now);
    CHECK(health.offloads().has(Offload::kTcpMerge));
    now += 1000;
    rest = std::min(rest * 2, kLongest);
  }
  CHECK_EQ(rest, kLongest);
}

TEST("an offload that worked for as long as it had rested begins anew") {
  Sink sink;
  TunnelHealth health(OffloadSet::all(), sink);
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, kStart);
  health.try_again(kStart + kShortest);
  const uint64_t later = kStart + 3 * kShortest;
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, later);
  health.try_again(later + kShortest);
  CHECK(health.offloads().has(Offload::kUdpSegment));
}

TEST("each offload rests by itself, and one that was never in use is not tried") {
  Sink sink;
  OffloadSet offloads = OffloadSet::all();
  offloads.remove(Offload::kUdpMerge);
  TunnelHealth health(offloads, sink);
  health.downgrade(Offload::kUdpMerge, "writev", EINVAL, kStart);
  CHECK(sink.events.empty());
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, kStart);
  health.downgrade(Offload::kTcpMerge, "writev", EINVAL, kStart + 10);
  health.try_again(kStart + kShortest);
  CHECK(health.offloads().has(Offload::kUdpSegment));
  CHECK(!health.offloads().has(Offload::kTcpMerge));
  CHECK(health.is_resting());
  health.try_again(kStart + kShortest + 10);
  CHECK(health.offloads().has(Offload::kTcpMerge));
  CHECK(!health.offloads().has(Offload::kUdpMerge));
}

TEST("workers that meet the same refusal count it once") {
  Sink sink;
  TunnelHealth health(OffloadSet::all(), sink);
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, kStart);
  health.downgrade(Offload::kUdpSegment, "sendmmsg", EIO, kStart + 1);
  CHECK_EQ(health.downgrades(Offload::kUdpSegment), 1);
  CHECK_EQ(sink.events.size(), 1);
}

}  // namespace
}  // namespace tsflannel::testing
