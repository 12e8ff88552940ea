// Which queue of the TUN a worker reads next.
#pragma once

#include <cstddef>

#include "../tun/flow_steering.h"

namespace tsflannel {

/// Some lanes of a worker, one bit each.
using LaneSet = unsigned;
inline constexpr LaneSet kAllLanes = (1U << kLanesPerWorker) - 1;

/// Takes turns among the lanes of a worker, by packets and bytes: no lane waits for more than one visit to the other,
/// however much lies in that one. Each turn begins with the first lane. A lane that was found dry is not asked again
/// in the same turn. One thread.
class LaneSchedule {
 public:
  /// What one lane may bring before it is the other one's turn; half a turn of the worker, so that both get their
  /// share.
  struct Visit {
    size_t packets;
    size_t bytes;
  };

  /// @param lanes 1 or kLanesPerWorker
  LaneSchedule(size_t lanes, Visit longest) : lanes_(lanes), longest_(longest) {}

  /// @param looked_at the lanes worth reading
  void begin_turn(LaneSet looked_at) {
    wet_ = looked_at & ((1U << lanes_) - 1);
    visit((wet_ & 1) != 0 ? 0 : 1);
  }

  /// Whether there is nothing left to read in this turn.
  [[nodiscard]] bool is_dry() const { return wet_ == 0; }

  /// The lane to read from; not when is_dry().
  [[nodiscard]] size_t lane() const { return lane_; }

  /// The lane had nothing.
  void ran_dry() {
    wet_ &= ~(1U << lane_);
    visit_next();
  }

  /// The lane brought something that stands for so many packets.
  void took(size_t packets, size_t bytes) {
    visit_.packets += packets;
    visit_.bytes += bytes;
    if (visit_.packets >= longest_.packets || visit_.bytes >= longest_.bytes) visit_next();
  }

 private:
  void visit(size_t lane) {
    lane_ = lane;
    visit_ = {};
  }

  void visit_next() {
    const size_t next = (lane_ + 1) % lanes_;
    visit((wet_ >> next & 1) != 0 ? next : lane_);
  }

  const size_t lanes_;
  const Visit longest_;
  size_t lane_ = 0;
  Visit visit_{};
  LaneSet wet_ = 0;  // lanes that may still bring something in this turn
};

static_assert(kLanesPerWorker == 2, "with more, those behind the first must go on where the last turn stopped");

}  // namespace tsflannel
