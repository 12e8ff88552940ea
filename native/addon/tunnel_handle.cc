#include "tunnel_handle.h"

#include <algorithm>
#include <string>
#include <utility>

#include "../core/base/kernel.h"
#include "convert.h"

namespace tsflannel {
namespace {

/// Closes a tunnel on a thread of the pool: removing the device takes the kernel some tens of ms.
class CloseWork final : public Napi::AsyncWorker {
 public:
  CloseWork(Napi::Env env, std::shared_ptr<HeldTunnel> held)
      : Napi::AsyncWorker(env, "tsflannel close"), held_(std::move(held)), deferred_(env) {}

  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { held_->close(); }
  void OnOK() override { deferred_.Resolve(Env().Undefined()); }

 private:
  const std::shared_ptr<HeldTunnel> held_;
  const Napi::Promise::Deferred deferred_;
};

}  // namespace

Napi::Function TunnelHandle::define(Napi::Env env) {
  return DefineClass(env, "Tunnel",
                     {
                         InstanceMethod<&TunnelHandle::update>("update"),
                         InstanceMethod<&TunnelHandle::generation>("generation"),
                         InstanceMethod<&TunnelHandle::device>("device"),
                         InstanceMethod<&TunnelHandle::offloads>("offloads"),
                         InstanceMethod<&TunnelHandle::workers>("workers"),
                         InstanceMethod<&TunnelHandle::counters>("counters"),
                         InstanceMethod<&TunnelHandle::peer_counters>("peerCounters"),
                         InstanceMethod<&TunnelHandle::tun_descriptors>("tunDescriptors"),
                         InstanceMethod<&TunnelHandle::socket_descriptors>("socketDescriptors"),
                         InstanceMethod<&TunnelHandle::close>("close"),
                     });
}

TunnelHandle::TunnelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TunnelHandle>(info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsObject() || !info[1].IsFunction()) {
    Napi::TypeError::New(env, "Tunnel needs options and an event callback").ThrowAsJavaScriptException();
    return;
  }
  const auto options = info[0].As<Napi::Object>();
  TunnelConfig config;
  TunnelState state;
  if (!read_config(options, config) || !read_state(options, state)) return;
  std::unique_ptr<EventQueue> events = EventQueue::create(env, info[1].As<Napi::Function>());
  if (events == nullptr) return;
  Result<std::unique_ptr<Tunnel>> tunnel = Tunnel::open(host_kernel(), *events, config, state);
  if (!tunnel) {
    to_js(env, tunnel.error()).ThrowAsJavaScriptException();
    return;
  }
  held_ = std::make_shared<HeldTunnel>(std::move(events), std::move(tunnel).value());
  auto& open = env.GetInstanceData<AddonData>()->open;
  std::erase_if(open, [](const std::weak_ptr<HeldTunnel>& each) { return each.expired(); });
  open.push_back(held_);
}

Napi::Value TunnelHandle::update(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  TunnelState state;
  if (info.Length() < 1 || !info[0].IsObject()) {
    Napi::TypeError::New(env, "update needs a state").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  if (!read_state(info[0].As<Napi::Object>(), state)) return env.Undefined();
  const Result<uint64_t> updated = held_->with_tunnel([&state](Tunnel& tunnel) { return tunnel.update(state); });
  if (!updated) {
    to_js(env, updated.error()).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return Napi::Number::New(env, static_cast<double>(updated.value()));
}

Napi::Value TunnelHandle::generation(const Napi::CallbackInfo& info) {
  const uint64_t adopted = held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.generation(); });
  return Napi::Number::New(info.Env(), static_cast<double>(adopted));
}

Napi::Value TunnelHandle::device(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.device(); }));
}

Napi::Value TunnelHandle::offloads(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.offloads(); }));
}

Napi::Value TunnelHandle::workers(const Napi::CallbackInfo& info) {
  const size_t count = held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.worker_count(); });
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

Napi::Value TunnelHandle::counters(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), held_->with_tunnel([](Tunnel& tunnel) { return tunnel.counters(); }));
}

Napi::Value TunnelHandle::peer_counters(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), held_->with_tunnel([](Tunnel& tunnel) { return tunnel.peer_counters(); }));
}

Napi::Value TunnelHandle::tun_descriptors(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.tun_descriptors(); }));
}

Napi::Value TunnelHandle::socket_descriptors(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), held_->with_tunnel([](const Tunnel& tunnel) { return tunnel.socket_descriptors(); }));
}

Napi::Value TunnelHandle::close(const Napi::CallbackInfo& info) {
  auto* work = new CloseWork(info.Env(), held_);  // deletes itself when it is done
  const Napi::Promise promise = work->promise();
  work->Queue();
  return promise;
}

}  // namespace tsflannel
