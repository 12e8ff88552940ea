#include "kernel_handle.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "convert.h"

namespace tsflannel {
namespace {

/// The caller's stay the caller's.
std::vector<UniqueFd> duplicates(const std::vector<int>& numbers) {
  std::vector<UniqueFd> copies;
  for (const int number : numbers) {
    UniqueFd copy(fcntl(number, F_DUPFD_CLOEXEC, 0));
    if (copy) copies.push_back(std::move(copy));
  }
  return copies;
}

template <typename T>
bool expect(Napi::Env env, const Result<T>& result) {
  if (result) return true;
  to_js(env, result.error()).ThrowAsJavaScriptException();
  return false;
}

}  // namespace

Napi::Function KernelHandle::define(Napi::Env env) {
  return DefineClass(env, "KernelPath",
                     {
                         InstanceMethod<&KernelHandle::set_routes>("setRoutes"),
                         InstanceMethod<&KernelHandle::leave_bulk>("leaveBulk"),
                         InstanceMethod<&KernelHandle::counters>("counters"),
                         InstanceMethod<&KernelHandle::peer_counters>("peerCounters"),
                         InstanceMethod<&KernelHandle::map_descriptors>("mapDescriptors"),
                         InstanceMethod<&KernelHandle::link_descriptors>("linkDescriptors"),
                         InstanceMethod<&KernelHandle::is_in_place>("isInPlace"),
                         InstanceMethod<&KernelHandle::detach>("detach"),
                         InstanceMethod<&KernelHandle::close>("close"),
                     });
}

KernelHandle::KernelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KernelHandle>(info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject()) {
    Napi::TypeError::New(env, "KernelPath needs options").ThrowAsJavaScriptException();
    return;
  }
  KernelOptions options;
  if (!read_kernel_options(info[0].As<Napi::Object>(), options)) return;
  const Result<ProgramObject> object = ProgramObject::parse(std::move(options.programs));
  if (!expect(env, object)) return;
  KernelCarrierRemains remains{.maps = duplicates(options.inherited_maps),
                               .links = duplicates(options.inherited_links)};
  Result<KernelCarrier> carrier = KernelCarrier::open(host_kernel(), object.value(), options.config, options.receiver,
                                                      options.routes, std::move(remains));
  if (expect(env, carrier)) carrier_ = std::move(carrier).value();
}

Napi::Value KernelHandle::set_routes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::vector<KernelCarrierRoute> routes;
  if (info.Length() < 1 || !info[0].IsObject()) {
    Napi::TypeError::New(env, "setRoutes needs routes").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  if (!read_kernel_routes(info[0].As<Napi::Object>(), routes) || !carrier_) return env.Undefined();
  (void)expect(env, carrier_->set_routes(routes));
  return env.Undefined();
}

Napi::Value KernelHandle::leave_bulk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsNumber()) {
    Napi::TypeError::New(env, "leaveBulk needs milliseconds").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  const std::chrono::milliseconds duration(info[0].As<Napi::Number>().Uint32Value());
  if (carrier_) (void)expect(env, carrier_->leave_bulk(duration));
  return env.Undefined();
}

Napi::Value KernelHandle::counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto counters = carrier_ ? carrier_->counters() : std::array<KernelTraffic, kKernelCounterCount>{};
  if (!expect(env, counters)) return env.Undefined();
  return to_js(env, counters.value());
}

Napi::Value KernelHandle::peer_counters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto peers = carrier_ ? carrier_->peer_counters() : std::vector<KernelCarrierPeer>{};
  if (!expect(env, peers)) return env.Undefined();
  return to_js(env, peers.value());
}

Napi::Value KernelHandle::map_descriptors(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), carrier_ ? carrier_->map_descriptors() : std::vector<int>{});
}

Napi::Value KernelHandle::link_descriptors(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), carrier_ ? carrier_->link_descriptors() : std::vector<int>{});
}

Napi::Value KernelHandle::is_in_place(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), carrier_ && carrier_->is_in_place());
}

Napi::Value KernelHandle::detach(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!carrier_) return env.Undefined();
  const Result<void> detached = carrier_->detach();
  carrier_.reset();
  (void)expect(env, detached);
  return env.Undefined();
}

Napi::Value KernelHandle::close(const Napi::CallbackInfo& info) {
  carrier_.reset();
  return info.Env().Undefined();
}

}  // namespace tsflannel
