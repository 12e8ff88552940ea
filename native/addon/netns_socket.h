// Sockets of another network namespace.
#pragma once

#include "napi_include.h"

namespace tsflannel {

/// JavaScript: openNetnsSocket(path, domain, type, protocol) gives a descriptor, closed on exec and non-blocking, or
/// throws what to_js(Error) makes.
Napi::Value open_netns_socket(const Napi::CallbackInfo& info);

}  // namespace tsflannel
