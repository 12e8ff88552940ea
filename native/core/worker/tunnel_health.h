// What the kernel lets a tunnel use, and whether it still works.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "../base/offload.h"
#include "events.h"

namespace tsflannel {

/// Offloads in use by all workers of a tunnel, and its health. Any thread; a lock is taken once per change.
///
/// What the kernel refused rests and is tried again: the cause may have been a device or a driver that has gone. A
/// refusal soon after a trial doubles the rest, so that an offload which never works costs some packets an hour.
class TunnelHealth {
 public:
  TunnelHealth(OffloadSet offloads, EventSink& sink) : offloads_(offloads.bits()), sink_(sink) {}

  [[nodiscard]] OffloadSet offloads() const { return OffloadSet::from_bits(offloads_.load(std::memory_order_relaxed)); }
  [[nodiscard]] uint64_t downgrades(Offload offload) const { return state_of(offload).downgrades.load(kRelaxed); }
  [[nodiscard]] uint64_t trials(Offload offload) const { return state_of(offload).trials.load(kRelaxed); }

  /// Switches an offload off for all workers until try_again(); the first to ask counts and tells.
  /// @param now_ns CLOCK_MONOTONIC
  void downgrade(Offload offload, const char* operation, int code, uint64_t now_ns) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!offloads().has(offload)) return;
      offloads_.fetch_and(~OffloadSet::bit(offload), kRelaxed);
      State& state = states_[static_cast<size_t>(offload)];
      state.downgrades.fetch_add(1, kRelaxed);
      const bool is_again = state.rest_ns != 0 && now_ns - state.due_ns < state.rest_ns;
      state.rest_ns = is_again ? std::min(state.rest_ns * 2, kLongestRestNs) : kShortestRestNs;
      state.due_ns = now_ns + state.rest_ns;
      next_due_ns_.store(std::min(next_due_ns_.load(kRelaxed), state.due_ns), kRelaxed);
    }
    sink_.on_event({TunnelEvent::Type::kDowngrade, offload, operation, code});
  }

  /// Whether an offload rests, so that try_again() will have something to do.
  [[nodiscard]] bool is_resting() const { return next_due_ns_.load(kRelaxed) != kNever; }

  /// Switches on again what has rested long enough.
  void try_again(uint64_t now_ns) {
    if (now_ns < next_due_ns_.load(kRelaxed)) return;
    OffloadSet tried;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      uint64_t next = kNever;
      for (size_t i = 0; i < kOffloadCount; i++) {
        const auto offload = static_cast<Offload>(i);
        State& state = states_[i];
        if (state.rest_ns == 0 || offloads().has(offload)) continue;
        if (now_ns < state.due_ns) {
          next = std::min(next, state.due_ns);
          continue;
        }
        offloads_.fetch_or(OffloadSet::bit(offload), kRelaxed);
        state.trials.fetch_add(1, kRelaxed);
        state.due_ns = now_ns;
        tried.add(offload);
      }
      next_due_ns_.store(next, kRelaxed);
    }
    for (size_t i = 0; i < kOffloadCount; i++) {
      const auto offload = static_cast<Offload>(i);
      if (tried.has(offload)) sink_.on_event({TunnelEvent::Type::kTrial, offload, "", 0});
    }
  }

  /// Reports a dead descriptor, once.
  void fail(const char* operation, int code) {
    if (has_failed_.exchange(true, kRelaxed)) return;
    sink_.on_event({TunnelEvent::Type::kFailed, {}, operation, code});
  }

  /// A route that is being replaced is back within seconds, a driver that is being replaced within minutes.
  static constexpr uint64_t kShortestRestNs = 120'000'000'000;
  static constexpr uint64_t kLongestRestNs = 32 * kShortestRestNs;

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr uint64_t kNever = UINT64_MAX;

  struct State {
    std::atomic<uint64_t> downgrades{0};
    std::atomic<uint64_t> trials{0};
    uint64_t rest_ns = 0;  // under mutex_; how long it rests or has rested, 0: the kernel has never refused it
    uint64_t due_ns = 0;   // under mutex_; when it is or was switched on again
  };

  [[nodiscard]] const State& state_of(Offload offload) const { return states_[static_cast<size_t>(offload)]; }

  std::atomic<uint32_t> offloads_;  // changed under mutex_
  std::mutex mutex_;
  std::array<State, kOffloadCount> states_;
  std::atomic<uint64_t> next_due_ns_{kNever};  // changed under mutex_
  std::atomic<bool> has_failed_{false};
  EventSink& sink_;
};

}  // namespace tsflannel
