// The JavaScript object that holds the kernel path of a tunnel.
#pragma once

#include <optional>

#include "../core/kernel_path/kernel_carrier.h"
#include "napi_include.h"

namespace tsflannel {

/// Method table of the object; the JavaScript thread calls everything here. What is not detached goes with its
/// descriptors, and so with this process, unless somebody else has them.
class KernelHandle : public Napi::ObjectWrap<KernelHandle> {
 public:
  static Napi::Function define(Napi::Env env);

  /// JavaScript: new KernelPath(options). Throws what to_js(Error) makes.
  explicit KernelHandle(const Napi::CallbackInfo& info);

 private:
  Napi::Value set_routes(const Napi::CallbackInfo& info);
  Napi::Value leave_bulk(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value peer_counters(const Napi::CallbackInfo& info);
  Napi::Value map_descriptors(const Napi::CallbackInfo& info);
  Napi::Value link_descriptors(const Napi::CallbackInfo& info);
  Napi::Value is_in_place(const Napi::CallbackInfo& info);
  Napi::Value detach(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::optional<KernelCarrier> carrier_;  // nothing after detach() and close(), and if the constructor threw
};

}  // namespace tsflannel
