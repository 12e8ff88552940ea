// Between JavaScript values and those of the core. Addresses are numbers in host order on both sides.
#pragma once

#include "../core/worker/tunnel.h"
#include "napi_include.h"

namespace tsflannel {

// The readers leave a TypeError pending and return false if the value does not have the expected form.

[[nodiscard]] bool read_config(const Napi::Object& options, TunnelConfig& config);
[[nodiscard]] bool read_state(const Napi::Object& object, TunnelState& state);

/// As TunnelCounters in src/dataplane/tunnel.ts.
[[nodiscard]] Napi::Object to_js(Napi::Env env, const TunnelCounters& counters);
/// Rows of outer address, txPackets, txBytes, rxPackets, rxBytes, one after the other.
[[nodiscard]] Napi::Float64Array to_js(Napi::Env env, const std::vector<OuterCounters>& counters);
/// As OffloadState in src/dataplane/tunnel.ts.
[[nodiscard]] Napi::Object to_js(Napi::Env env, OffloadSet offloads);
[[nodiscard]] Napi::Array to_js(Napi::Env env, const std::vector<int>& numbers);

/// A JavaScript Error with `operation`, `errno` (a number) and `detail`.
[[nodiscard]] Napi::Error to_js(Napi::Env env, const Error& error);

}  // namespace tsflannel
