// Entry point of the addon: what require() gives.
#include <memory>

#include "kernel_handle.h"
#include "napi_include.h"
#include "tunnel_handle.h"

namespace tsflannel {
namespace {

/// Changes whenever src/dataplane/native.ts and this addon must change together.
constexpr uint32_t kInterfaceVersion = 5;

/// Ends the threads of tunnels that nobody closed, before the environment they report to is gone.
void close_all(AddonData* data) {
  for (const std::weak_ptr<HeldTunnel>& each : data->open) {
    if (const std::shared_ptr<HeldTunnel> held = each.lock()) held->close();
  }
  data->open.clear();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();
  env.SetInstanceData<AddonData>(data);  // deleted with the environment, after the cleanup hooks
  env.AddCleanupHook(close_all, data);
  exports.Set("interfaceVersion", kInterfaceVersion);
  exports.Set("Tunnel", TunnelHandle::define(env));
  exports.Set("KernelPath", KernelHandle::define(env));
  return exports;
}

}  // namespace
}  // namespace tsflannel

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  return tsflannel::init(env, exports);
}

NODE_API_MODULE(tsflannel, init)
