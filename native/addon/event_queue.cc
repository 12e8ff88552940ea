#include "event_queue.h"

#include <array>
#include <string>
#include <string_view>

namespace tsflannel {
namespace {

/// By TunnelEvent::Type.
constexpr std::array<std::string_view, 3> kEventNames = {"downgrade", "trial", "failed"};

}  // namespace

std::unique_ptr<EventQueue> EventQueue::create(Napi::Env env, const Napi::Function& callback) {
  std::unique_ptr<EventQueue> queue(new EventQueue());
  queue->function_ = Function::New(env, callback, "tsflannel events", kQueueLength, 1);
  if (env.IsExceptionPending()) {
    queue->is_closed_ = true;
    return nullptr;
  }
  queue->function_.Unref(env);
  return queue;
}

void EventQueue::on_event(const TunnelEvent& event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_closed_) return;
  auto copy = std::make_unique<TunnelEvent>(event);
  const napi_status status = function_.NonBlockingCall(copy.get());
  // napi_closing: the environment is going down and has given up our share of the function.
  if (status == napi_closing) is_closed_ = true;
  if (status == napi_ok) (void)copy.release();
}

void EventQueue::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_closed_) return;
  is_closed_ = true;
  function_.Release();
}

void EventQueue::call_js(Napi::Env env, Napi::Function callback, std::nullptr_t* /*context*/, TunnelEvent* event) {
  const std::unique_ptr<TunnelEvent> owned(event);
  // Both are empty when the queue is drained while the environment goes down.
  if (static_cast<napi_env>(env) == nullptr || callback.IsEmpty()) return;
  const Napi::HandleScope scope(env);
  Napi::Object object = Napi::Object::New(env);
  object.Set("type", std::string(kEventNames[static_cast<size_t>(event->type)]));
  if (event->type != TunnelEvent::Type::kFailed) {
    object.Set("offload", std::string(kOffloadNames[static_cast<size_t>(event->offload)]));
  }
  object.Set("operation", event->operation);
  object.Set("errno", event->code);
  callback.Call({object});
}

}  // namespace tsflannel
