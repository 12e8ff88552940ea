// The JavaScript object that holds the kernel path of a tunnel.
#pragma once

#include <optional>
#include <utility>

#include "../core/kernel_path/kernel_carrier.h"
#include "napi_include.h"

namespace tsflannel {

/// Method table of the object; the JavaScript thread calls everything here. open() and detach() work on a thread of the
/// pool, since the kernel waits for all CPUs before it lets a program begin or end; what they work on is theirs
/// meanwhile, and the object is as if it had not been opened. What is not detached goes with its descriptors, and so with
/// this process, unless somebody else has them.
class KernelHandle : public Napi::ObjectWrap<KernelHandle> {
 public:
  static Napi::Function define(Napi::Env env);

  /// JavaScript: new KernelPath().
  explicit KernelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KernelHandle>(info) {}

  /// The end of open().
  void take(KernelCarrier carrier) { carrier_ = std::move(carrier); }

 private:
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value set_routes(const Napi::CallbackInfo& info);
  Napi::Value leave_bulk(const Napi::CallbackInfo& info);
  Napi::Value counters(const Napi::CallbackInfo& info);
  Napi::Value peer_counters(const Napi::CallbackInfo& info);
  Napi::Value map_descriptors(const Napi::CallbackInfo& info);
  Napi::Value link_descriptors(const Napi::CallbackInfo& info);
  Napi::Value is_in_place(const Napi::CallbackInfo& info);
  Napi::Value detach(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::optional<KernelCarrier> carrier_;  // nothing before open() has ended, and after detach() and close()
};

}  // namespace tsflannel
