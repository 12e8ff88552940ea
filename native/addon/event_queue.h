// From worker threads to a JavaScript function.
#pragma once

#include <memory>
#include <mutex>

#include "../core/worker/events.h"
#include "napi_include.h"

namespace tsflannel {

/// Hands events to a JavaScript callback through a bounded queue; what does not fit is lost, and that cannot happen
/// before as many changes as the queue holds came in one turn of the event loop.
///
/// Threads: on_event() on any thread; create() and close() on the JavaScript thread. Does not keep the process alive.
class EventQueue final : public EventSink {
 public:
  /// @returns null with an exception pending if the environment refuses
  [[nodiscard]] static std::unique_ptr<EventQueue> create(Napi::Env env, const Napi::Function& callback);
  ~EventQueue() override { close(); }

  void on_event(const TunnelEvent& event) override;

  /// Lets the callback go. Call it after the workers have ended. Idempotent.
  void close();

 private:
  static void call_js(Napi::Env env, Napi::Function callback, std::nullptr_t* context, TunnelEvent* event);
  using Function = Napi::TypedThreadSafeFunction<std::nullptr_t, TunnelEvent, call_js>;

  static constexpr size_t kQueueLength = 64;

  EventQueue() = default;

  std::mutex mutex_;        // taken once per event, that is once per change, never per packet
  Function function_;       // under mutex_
  bool is_closed_ = false;  // under mutex_; once true, function_ may be gone and must not be touched
};

}  // namespace tsflannel
