#include "convert.h"

#include <array>
#include <cmath>
#include <string>
#include <string_view>

namespace tsflannel {
namespace {

constexpr std::array<std::string_view, kIcmpErrorCount> kIcmpNames = {"unreachable-net", "time-exceeded",
                                                                      "frag-needed"};

bool reject(Napi::Env env, const char* key) {
  Napi::TypeError::New(env, std::string("the addon cannot take this value of ") + key).ThrowAsJavaScriptException();
  return false;
}

/// An integer of at most `max`.
bool read_number(const Napi::Object& object, const char* key, uint32_t max, uint32_t& number) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) return reject(object.Env(), key);
  const double read = value.As<Napi::Number>().DoubleValue();
  if (!(read >= 0 && read <= max) || std::floor(read) != read) return reject(object.Env(), key);
  number = static_cast<uint32_t>(read);
  return true;
}

bool read_descriptors(const Napi::Object& object, const char* key, std::vector<int>& numbers) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) return reject(object.Env(), key);
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value element = array.Get(i);
    if (!element.IsNumber()) return reject(object.Env(), key);
    numbers.push_back(element.As<Napi::Number>().Int32Value());
  }
  return true;
}

/// An array of whole rows of `row` numbers.
bool read_rows(const Napi::Object& object, const char* key, size_t row, Napi::Uint32Array& words) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray()) return reject(object.Env(), key);
  const auto typed = value.As<Napi::TypedArray>();
  if (typed.TypedArrayType() != napi_uint32_array || typed.ElementLength() % row != 0) {
    return reject(object.Env(), key);
  }
  words = value.As<Napi::Uint32Array>();
  return true;
}

template <size_t N>
Napi::Array to_array(Napi::Env env, const std::array<uint64_t, N>& values) {
  Napi::Array array = Napi::Array::New(env, N);
  for (uint32_t i = 0; i < N; i++) array.Set(i, static_cast<double>(values[i]));
  return array;
}

template <size_t N>
Napi::Object to_record(Napi::Env env, const std::array<std::string_view, N>& names,
                       const std::array<uint64_t, N>& values) {
  Napi::Object record = Napi::Object::New(env);
  for (size_t i = 0; i < N; i++) record.Set(std::string(names[i]), static_cast<double>(values[i]));
  return record;
}

}  // namespace

bool read_config(const Napi::Object& options, TunnelConfig& config) {
  const Napi::Value device = options.Get("device");
  if (!device.IsString()) return reject(options.Env(), "device");
  config.device = device.As<Napi::String>().Utf8Value();
  uint32_t port = 0;
  uint32_t disabled = 0;
  if (!read_number(options, "bindAddress", UINT32_MAX, config.bind.address)) return false;
  if (!read_number(options, "port", UINT16_MAX, port)) return false;
  if (!read_number(options, "workers", kMaxTunnelWorkers, config.workers)) return false;
  if (!read_number(options, "disabledOffloads", OffloadSet::all().bits(), disabled)) return false;
  config.bind.port = static_cast<uint16_t>(port);
  config.disabled = OffloadSet::from_bits(disabled);
  config.realtime_share = host_realtime_share();
  return read_descriptors(options, "inheritedTun", config.inherited_tun) &&
         read_descriptors(options, "inheritedSockets", config.inherited_sockets);
}

bool read_state(const Napi::Object& object, TunnelState& state) {
  uint32_t verify = 0;
  if (!read_number(object, "icmpSource", UINT32_MAX, state.icmp_source)) return false;
  if (!read_number(object, "mtu", UINT16_MAX, state.mtu)) return false;
  if (!read_number(object, "verifySource", static_cast<uint32_t>(VerifySource::kStrict), verify)) return false;
  state.verify_source = static_cast<VerifySource>(verify);
  constexpr size_t kRouteRow = 3;  // prefix, length, outer
  constexpr size_t kOwnRow = 2;    // prefix, length
  Napi::Uint32Array routes;
  Napi::Uint32Array own;
  if (!read_rows(object, "routes", kRouteRow, routes) || !read_rows(object, "own", kOwnRow, own)) return false;
  state.routes.reserve(routes.ElementLength() / kRouteRow);
  for (size_t i = 0; i < routes.ElementLength(); i += kRouteRow) {
    if (routes[i + 1] > 32) return reject(object.Env(), "routes");
    state.routes.push_back({routes[i], static_cast<uint8_t>(routes[i + 1]), routes[i + 2]});
  }
  for (size_t i = 0; i < own.ElementLength(); i += kOwnRow) {
    if (own[i + 1] > 32) return reject(object.Env(), "own");
    state.own.push_back({own[i], static_cast<uint8_t>(own[i + 1])});
  }
  return true;
}

bool read_kernel_routes(const Napi::Object& object, std::vector<KernelCarrierRoute>& routes) {
  constexpr size_t kRow = 4;  // prefix, length, outer, MTU
  Napi::Uint32Array words;
  if (!read_rows(object, "routes", kRow, words)) return false;
  routes.reserve(words.ElementLength() / kRow);
  for (size_t i = 0; i < words.ElementLength(); i += kRow) {
    if (words[i + 1] > 32) return reject(object.Env(), "routes");
    routes.push_back({words[i], static_cast<uint8_t>(words[i + 1]), words[i + 2], words[i + 3]});
  }
  return true;
}

bool read_kernel_options(const Napi::Object& options, KernelOptions& result) {
  const Napi::Value programs = options.Get("programs");
  if (!programs.IsTypedArray() || programs.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    return reject(options.Env(), "programs");
  }
  const auto bytes = programs.As<Napi::Uint8Array>();
  result.programs.assign(bytes.Data(), bytes.Data() + bytes.ByteLength());
  uint32_t port = 0;
  uint32_t receiver = 0;
  if (!read_number(options, "uplink", INT32_MAX, result.config.uplink)) return false;
  if (!read_number(options, "tun", INT32_MAX, result.config.tun)) return false;
  if (!read_number(options, "local", UINT32_MAX, result.config.local)) return false;
  if (!read_number(options, "port", UINT16_MAX, port)) return false;
  if (!read_number(options, "receiver", static_cast<uint32_t>(KernelReceiver::kTc), receiver)) return false;
  result.config.port = static_cast<uint16_t>(port);
  result.receiver = static_cast<KernelReceiver>(receiver);
  return read_kernel_routes(options, result.routes) &&
         read_descriptors(options, "inheritedMaps", result.inherited_maps) &&
         read_descriptors(options, "inheritedLinks", result.inherited_links);
}

Napi::Float64Array to_js(Napi::Env env, const std::array<KernelTraffic, kKernelCounterCount>& counters) {
  Napi::Float64Array array = Napi::Float64Array::New(env, counters.size() * 2);
  size_t at = 0;
  for (const KernelTraffic& each : counters) {
    array[at++] = static_cast<double>(each.packets);
    array[at++] = static_cast<double>(each.bytes);
  }
  return array;
}

Napi::Float64Array to_js(Napi::Env env, const std::vector<KernelCarrierPeer>& peers) {
  std::vector<OuterCounters> rows;
  rows.reserve(peers.size());
  for (const auto& [outer, traffic] : peers) {
    rows.push_back({outer, traffic.sent.packets, traffic.sent.bytes, traffic.received.packets, traffic.received.bytes});
  }
  return to_js(env, rows);
}

Napi::Object to_js(Napi::Env env, const TunnelCounters& counters) {
  Napi::Object object = Napi::Object::New(env);
  const auto set = [&object](const char* key, uint64_t value) { object.Set(key, static_cast<double>(value)); };
  set("txPackets", counters.tx_packets);
  set("txBytes", counters.tx_bytes);
  set("rxPackets", counters.rx_packets);
  set("rxBytes", counters.rx_bytes);
  set("tunReads", counters.tun_reads);
  set("tunWrites", counters.tun_writes);
  set("socketSends", counters.socket_sends);
  set("socketReceives", counters.socket_receives);
  set("icmpLimited", counters.icmp_limited);
  set("icmpFailed", counters.icmp_failed);
  object.Set("icmpSent", to_record(env, kIcmpNames, counters.icmp_sent));
  object.Set("drops", to_record(env, kDropReasonNames, counters.drops));
  object.Set("downgrades", to_record(env, kOffloadNames, counters.downgrades));
  object.Set("trials", to_record(env, kOffloadNames, counters.trials));
  object.Set("packetsPerRead", to_array(env, counters.packets_per_read));
  object.Set("packetsPerSend", to_array(env, counters.packets_per_send));
  object.Set("packetsPerWrite", to_array(env, counters.packets_per_write));
  Napi::Array seconds = Napi::Array::New(env, counters.worker_cpu_seconds.size());
  for (uint32_t i = 0; i < counters.worker_cpu_seconds.size(); i++) seconds.Set(i, counters.worker_cpu_seconds[i]);
  object.Set("workerCpuSeconds", seconds);
  return object;
}

Napi::Float64Array to_js(Napi::Env env, const std::vector<OuterCounters>& counters) {
  constexpr size_t kRow = 5;
  Napi::Float64Array array = Napi::Float64Array::New(env, counters.size() * kRow);
  size_t at = 0;
  for (const OuterCounters& each : counters) {
    array[at++] = each.outer;
    array[at++] = static_cast<double>(each.tx_packets);
    array[at++] = static_cast<double>(each.tx_bytes);
    array[at++] = static_cast<double>(each.rx_packets);
    array[at++] = static_cast<double>(each.rx_bytes);
  }
  return array;
}

Napi::Object to_js(Napi::Env env, OffloadSet offloads) {
  Napi::Object object = Napi::Object::New(env);
  for (size_t i = 0; i < kOffloadCount; i++) {
    object.Set(std::string(kOffloadNames[i]), Napi::Boolean::New(env, offloads.has(static_cast<Offload>(i))));
  }
  return object;
}

Napi::Array to_js(Napi::Env env, const std::vector<int>& numbers) {
  Napi::Array array = Napi::Array::New(env, numbers.size());
  for (uint32_t i = 0; i < numbers.size(); i++) array.Set(i, numbers[i]);
  return array;
}

Napi::Error to_js(Napi::Env env, const Error& error) {
  std::string message = std::string(error.operation) + ": errno " + std::to_string(error.code);
  if (!error.detail.empty()) message += " (" + error.detail + ")";
  Napi::Error object = Napi::Error::New(env, message);
  object.Value().Set("operation", error.operation);
  object.Value().Set("errno", error.code);
  object.Value().Set("detail", error.detail);
  return object;
}

}  // namespace tsflannel
