#include "kernel_handle.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <optional>
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

void expect(Napi::Env env, const Result<void>& result) {
  if (!result) to_js(env, result.error()).ThrowAsJavaScriptException();
}

class OpenWork final : public Napi::AsyncWorker {
 public:
  OpenWork(const Napi::Object& handle, KernelOptions options)
      : Napi::AsyncWorker(handle.Env(), "tsflannel open"),
        handle_(Napi::Persistent(handle)),
        options_(std::move(options)),
        // At once: the caller may close its own when it likes.
        remains_{.maps = duplicates(options_.inherited_maps), .links = duplicates(options_.inherited_links)},
        deferred_(handle.Env()) {}

  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { opened_ = open(); }

  void OnOK() override {
    if (!*opened_) return deferred_.Reject(to_js(Env(), opened_->error()).Value());
    KernelHandle::Unwrap(handle_.Value())->take(std::move(*opened_).value());
    deferred_.Resolve(Env().Undefined());
  }

 private:
  Result<KernelCarrier> open() {
    const Result<ProgramObject> object = ProgramObject::parse(std::move(options_.programs));
    if (!object) return object.error();
    return KernelCarrier::open(host_kernel(), object.value(), options_.config, options_.receiver, options_.routes,
                               std::move(remains_));
  }

  const Napi::ObjectReference handle_;
  KernelOptions options_;
  KernelCarrierRemains remains_;
  std::optional<Result<KernelCarrier>> opened_;
  const Napi::Promise::Deferred deferred_;
};

class DetachWork final : public Napi::AsyncWorker {
 public:
  DetachWork(Napi::Env env, std::optional<KernelCarrier> carrier)
      : Napi::AsyncWorker(env, "tsflannel detach"), carrier_(std::move(carrier)), deferred_(env) {}

  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    if (carrier_) detached_ = carrier_->detach();
    carrier_.reset();
  }

  void OnOK() override {
    if (!detached_) return deferred_.Reject(to_js(Env(), detached_.error()).Value());
    deferred_.Resolve(Env().Undefined());
  }

 private:
  std::optional<KernelCarrier> carrier_;
  Result<void> detached_;
  const Napi::Promise::Deferred deferred_;
};

/// @param work deletes itself when it is done
template <typename Work>
Napi::Value begin(Work* work) {
  const Napi::Promise promise = work->promise();
  work->Queue();
  return promise;
}

}  // namespace

Napi::Function KernelHandle::define(Napi::Env env) {
  return DefineClass(env, "KernelPath",
                     {
                         InstanceMethod<&KernelHandle::open>("open"),
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

Napi::Value KernelHandle::open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject()) {
    Napi::TypeError::New(env, "open needs options").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  KernelOptions options;
  if (!read_kernel_options(info[0].As<Napi::Object>(), options)) return env.Undefined();
  return begin(new OpenWork(info.This().As<Napi::Object>(), std::move(options)));
}

Napi::Value KernelHandle::set_routes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::vector<KernelCarrierRoute> routes;
  if (info.Length() < 1 || !info[0].IsObject()) {
    Napi::TypeError::New(env, "setRoutes needs routes").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  if (!read_kernel_routes(info[0].As<Napi::Object>(), routes) || !carrier_) return env.Undefined();
  expect(env, carrier_->set_routes(routes));
  return env.Undefined();
}

Napi::Value KernelHandle::leave_bulk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsNumber()) {
    Napi::TypeError::New(env, "leaveBulk needs milliseconds").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  const std::chrono::milliseconds duration(info[0].As<Napi::Number>().Uint32Value());
  if (carrier_) expect(env, carrier_->leave_bulk(duration));
  return env.Undefined();
}

Napi::Value KernelHandle::counters(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), carrier_ ? carrier_->counters() : std::array<KernelTraffic, kKernelCounterCount>{});
}

Napi::Value KernelHandle::peer_counters(const Napi::CallbackInfo& info) {
  return to_js(info.Env(), carrier_ ? carrier_->peer_counters() : std::vector<KernelCarrierPeer>{});
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
  return begin(new DetachWork(info.Env(), std::exchange(carrier_, std::nullopt)));
}

Napi::Value KernelHandle::close(const Napi::CallbackInfo& info) {
  carrier_.reset();
  return info.Env().Undefined();
}

}  // namespace tsflannel
