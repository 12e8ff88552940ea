#include "event_queue.h"

#include <string>

namespace tsflannel {

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
  const bool is_downgrade = event->type == TunnelEvent::Type::kDowngrade;
  object.Set("type", is_downgrade ? "downgrade" : "failed");
  if (is_downgrade) object.Set("offload", std::string(kOffloadNames[static_cast<size_t>(event->offload)]));
  object.Set("operation", event->operation);
  object.Set("errno", event->code);
  callback.Call({object});
}

}  // namespace tsflannel
