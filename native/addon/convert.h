// Between JavaScript values and those of the core. Addresses are numbers in host order on both sides.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "../core/kernel_path/kernel_carrier.h"
#include "../core/worker/tunnel.h"
#include "napi_include.h"

namespace tsflannel {

/// What a KernelPath is made of.
struct KernelOptions {
  std::vector<uint8_t> programs;  ///< an object file
  KernelPathConfig config;
  KernelReceiver receiver = KernelReceiver::kXdp;
  std::vector<KernelCarrierRoute> routes;
  std::vector<int> inherited_maps;
  std::vector<int> inherited_links;
};

// The readers leave a TypeError pending and return false if the value does not have the expected form.

[[nodiscard]] bool read_config(const Napi::Object& options, TunnelConfig& config);
[[nodiscard]] bool read_state(const Napi::Object& object, TunnelState& state);
[[nodiscard]] bool read_kernel_options(const Napi::Object& options, KernelOptions& result);
[[nodiscard]] bool read_kernel_routes(const Napi::Object& object, std::vector<KernelCarrierRoute>& routes);

/// As TunnelCounters in src/dataplane/tunnel.ts.
[[nodiscard]] Napi::Object to_js(Napi::Env env, const TunnelCounters& counters);
/// Rows of outer address, txPackets, txBytes, rxPackets, rxBytes, one after the other.
[[nodiscard]] Napi::Float64Array to_js(Napi::Env env, const std::vector<OuterCounters>& counters);
/// Packets and bytes of each KernelCounter, one after the other.
[[nodiscard]] Napi::Float64Array to_js(Napi::Env env, const std::array<KernelTraffic, kKernelCounterCount>& counters);
/// Rows as of OuterCounters.
[[nodiscard]] Napi::Float64Array to_js(Napi::Env env, const std::vector<KernelCarrierPeer>& peers);
/// As OffloadState in src/dataplane/tunnel.ts.
[[nodiscard]] Napi::Object to_js(Napi::Env env, OffloadSet offloads);
[[nodiscard]] Napi::Array to_js(Napi::Env env, const std::vector<int>& numbers);

/// A JavaScript Error with `operation`, `errno` (a number) and `detail`.
[[nodiscard]] Napi::Error to_js(Napi::Env env, const Error& error);

}  // namespace tsflannel
