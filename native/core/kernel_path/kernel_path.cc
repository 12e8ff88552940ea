#include "kernel_path.h"

#include <fcntl.h>
#include <linux/bpf.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "../base/bpf.h"
#include "../base/bytes.h"

namespace tsflannel {
namespace {

struct ProgramKind {
  const char* section;
  bpf_prog_type type;
};

/// By KernelProgram.
constexpr std::array<ProgramKind, kKernelProgramCount> kKinds = {{
    {"send", BPF_PROG_TYPE_SCHED_CLS},
    {"receive_xdp", BPF_PROG_TYPE_XDP},
    {"deliver", BPF_PROG_TYPE_SCHED_CLS},
    {"receive_tc", BPF_PROG_TYPE_SCHED_CLS},
}};

constexpr size_t kNameBytes = 16;  // BPF_OBJ_NAME_LEN
constexpr size_t kLogBytes =
    65536;  // of the verifier; what does not fit is cut off at the front (Linux 6.4) or the end
constexpr size_t kShownOfLog = 300;

uint64_t pointer(const void* data) {
  return reinterpret_cast<uint64_t>(data);
}

/// What the programs call the maps of KernelPathMaps, in their order.
constexpr std::array<const char*, kKernelMapCount> kMapSymbols = {"routes", "flows", "tunnel", "counters",
                                                                  "peer_counters"};

struct MapKind {
  const char* name;
  bpf_map_type type;
  uint32_t key_bytes;
  uint32_t value_bytes;
  uint32_t flags;
};

/// Likewise.
constexpr std::array<MapKind, kKernelMapCount> kMapKinds = {{
    {"routes_" KERNEL_PATH_LAYOUT, BPF_MAP_TYPE_LPM_TRIE, sizeof(KernelRouteKey), sizeof(KernelRoute),
     BPF_F_NO_PREALLOC},
    {"flows_" KERNEL_PATH_LAYOUT, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(KernelFlow), 0},
    {"tunnel_" KERNEL_PATH_LAYOUT, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(KernelTunnelState), 0},
    {"counters_" KERNEL_PATH_LAYOUT, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(KernelTraffic), BPF_F_MMAPABLE},
    {"peer_counters_" KERNEL_PATH_LAYOUT, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(KernelPeerTraffic),
     BPF_F_MMAPABLE},
}};

Result<UniqueFd> create_map(Kernel& kernel, const MapKind& kind, uint32_t entries) {
  bpf_attr attributes{};
  attributes.map_type = kind.type;
  attributes.key_size = kind.key_bytes;
  attributes.value_size = kind.value_bytes;
  attributes.max_entries = entries;
  attributes.map_flags = kind.flags;
  std::strncpy(attributes.map_name, kind.name, kNameBytes - 1);
  const int map = kernel.bpf(BPF_MAP_CREATE, &attributes, sizeof attributes);
  if (map < 0)
    return Error{"BPF_MAP_CREATE", -map, std::string(kind.name) + ", " + std::to_string(entries) + " entries"};
  return UniqueFd(map);
}

/// What the kernel says of a map; of no type if that is none.
bpf_map_info info_of(Kernel& kernel, const UniqueFd& map) {
  bpf_map_info info{};
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<uint32_t>(map.get());
  attributes.info.info_len = sizeof info;
  attributes.info.info = pointer(&info);
  if (kernel.bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes, sizeof attributes) < 0) return {};
  return info;
}

bool is_of(const bpf_map_info& info, const MapKind& kind) {
  return info.type == kind.type && info.key_size == kind.key_bytes && info.value_size == kind.value_bytes &&
         std::strncmp(static_cast<const char*>(info.name), kind.name, kNameBytes) == 0;
}

/// One more than the highest number that a CPU can ever have.
Result<size_t> possible_cpus(Kernel& kernel) {
  constexpr const char* path = "/sys/devices/system/cpu/possible";
  const UniqueFd file(kernel.open(path, O_RDONLY | O_CLOEXEC));
  if (!file) return Error{"open", ENOENT, path};
  std::array<char, 256> text{};
  const ssize_t size = kernel.read(file.get(), text.data(), text.size() - 1);
  // "0", "0-3" or "0,2-5": the last number counts.
  const std::string_view list(text.data(), size > 0 ? static_cast<size_t>(size) : 0);
  const size_t end = list.find_last_of("0123456789");
  if (end == std::string_view::npos) return Error{"read", EINVAL, path};
  const size_t before = list.find_last_not_of("0123456789", end);
  size_t last = 0;
  for (size_t at = before == std::string_view::npos ? 0 : before + 1; at <= end; at++) {
    last = last * 10 + static_cast<size_t>(list[at] - '0');
  }
  return last + 1;
}

std::string show(uint32_t prefix, uint8_t length) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {
    text += std::to_string((prefix >> shift) & 0xff) + (shift > 0 ? "." : "/");
  }
  return text + std::to_string(length);
}

bool same(const KernelRoute& a, const KernelRoute& b) {
  return a.outer == b.outer && a.slot == b.slot && a.mtu == b.mtu;
}

static_assert(size_t{kKernelCounterCount} <= size_t{kKernelCounters});

/// @param counted by programs, at the same time
void add(KernelTraffic& sum, KernelTraffic& counted) {
  sum.packets += std::atomic_ref(counted.packets).load(std::memory_order_relaxed);
  sum.bytes += std::atomic_ref(counted.bytes).load(std::memory_order_relaxed);
}

void reset(KernelTraffic& counted) {
  std::atomic_ref(counted.packets).store(0, std::memory_order_relaxed);
  std::atomic_ref(counted.bytes).store(0, std::memory_order_relaxed);
}

/// What the verifier said last, without its statistics, on one line.
std::string end_of_log(std::string_view log) {
  if (const size_t statistics = log.rfind("\nprocessed "); statistics != std::string_view::npos) {
    log = log.substr(0, statistics);
  }
  log = log.substr(log.size() - std::min(log.size(), kShownOfLog));
  std::string line(log);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

}  // namespace

Result<KernelPathMaps> KernelPathMaps::create(Kernel& kernel, uint32_t routes) {
  KernelPathMaps maps(kernel);
  const Result<size_t> possible = possible_cpus(kernel);
  if (!possible) return possible.error();
  const auto cpus = static_cast<uint32_t>(possible.value());
  const std::array<uint32_t, kKernelMapCount> entries = {routes, kKernelFlows, 1, cpus * kKernelCounters,
                                                         cpus * kKernelPeers};
  for (size_t i = 0; i < entries.size(); i++) {
    Result<UniqueFd> created = create_map(kernel, kMapKinds.at(i), entries.at(i));
    if (!created) return created.error();
    *maps.places().at(i) = std::move(created).value();
  }
  const Result<void> mapped = maps.map_counters(cpus);
  if (!mapped) return mapped.error();
  return maps;
}

Result<KernelPathMaps> KernelPathMaps::adopt(Kernel& kernel, std::vector<UniqueFd> descriptors) {
  KernelPathMaps maps(kernel);
  const Result<size_t> cpus = possible_cpus(kernel);
  if (!cpus) return cpus.error();
  for (UniqueFd& each : descriptors) {
    const bpf_map_info info = info_of(kernel, each);
    size_t kind = 0;
    while (kind < kMapKinds.size() && !is_of(info, kMapKinds.at(kind))) kind++;
    if (kind < kMapKinds.size()) *maps.places().at(kind) = std::move(each);
  }
  for (const UniqueFd* map : maps.places()) {
    if (!map->valid()) return Error{"adopt maps", ENOENT, std::to_string(descriptors.size()) + " descriptors"};
  }
  const Result<void> mapped = maps.map_counters(cpus.value());
  if (!mapped) return mapped.error();
  const Result<void> read = maps.read_routes();
  if (!read) return read.error();
  return maps;
}

Result<void> KernelPathMaps::map_counters(size_t cpus) {
  Result<MapMemory<KernelTraffic>> counters = MapMemory<KernelTraffic>::of(counters_, cpus * kKernelCounters);
  if (!counters) return counters.error();
  Result<MapMemory<KernelPeerTraffic>> peers = MapMemory<KernelPeerTraffic>::of(peer_counters_, cpus * kKernelPeers);
  if (!peers) return peers.error();
  counter_values_ = std::move(counters).value();
  peer_counter_values_ = std::move(peers).value();
  return {};
}

/// Takes what is in the map for what this process put there.
Result<void> KernelPathMaps::read_routes() {
  KernelRouteKey key{};
  KernelRoute value{};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(routes_.get());
  for (bool is_first = true;; is_first = false) {
    KernelRouteKey next{};
    attributes.key = is_first ? 0 : pointer(&key);
    attributes.next_key = pointer(&next);
    const int ended = kernel_->bpf(BPF_MAP_GET_NEXT_KEY, &attributes, sizeof attributes);
    if (ended == -ENOENT) return {};
    if (ended < 0) return Error{"BPF_MAP_GET_NEXT_KEY", -ended, "routes"};
    key = next;
    attributes.key = pointer(&key);
    attributes.value = pointer(&value);
    const int failed = kernel_->bpf(BPF_MAP_LOOKUP_ELEM, &attributes, sizeof attributes);
    if (failed < 0) return Error{"BPF_MAP_LOOKUP_ELEM", -failed, "routes"};
    in_kernel_[{swap_be32(key.prefix), static_cast<uint8_t>(key.prefix_length)}] = value;
  }
}

Result<void> KernelPathMaps::set_routes(std::span<const KernelPathRoute> routes) {
  std::map<std::pair<uint32_t, uint8_t>, KernelRoute> wanted;
  for (const KernelPathRoute& each : routes) {
    const uint32_t mask = each.length == 0 ? 0 : ~uint32_t{0} << (32 - std::min<uint8_t>(each.length, 32));
    if (each.length > 32 || (each.prefix & ~mask) != 0) {
      return Error{"set kernel routes", EINVAL, show(each.prefix, each.length) + ": not a prefix"};
    }
    if (each.outer != 0 && each.slot >= kKernelPeers) {
      return Error{"set kernel routes", E2BIG, show(each.prefix, each.length) + ": counters of peers are full"};
    }
    wanted[{each.prefix, each.length}] = {swap_be32(each.outer), each.slot, each.mtu};
  }
  const auto call = [this](int command, uint32_t prefix, uint8_t length, const KernelRoute* value) {
    const KernelRouteKey key{.prefix_length = length, .prefix = swap_be32(prefix)};
    bpf_attr attributes{};
    attributes.map_fd = static_cast<uint32_t>(routes_.get());
    attributes.key = pointer(&key);
    attributes.value = pointer(value);
    return kernel_->bpf(command, &attributes, sizeof attributes);
  };
  for (const auto& [subnet, route] : wanted) {
    const auto present = in_kernel_.find(subnet);
    if (present != in_kernel_.end() && same(present->second, route)) continue;
    const int failed = call(BPF_MAP_UPDATE_ELEM, subnet.first, subnet.second, &route);
    if (failed < 0) return Error{"BPF_MAP_UPDATE_ELEM", -failed, show(subnet.first, subnet.second)};
    in_kernel_[subnet] = route;
  }
  for (auto each = in_kernel_.begin(); each != in_kernel_.end();) {
    if (wanted.contains(each->first)) {
      ++each;
      continue;
    }
    const int failed = call(BPF_MAP_DELETE_ELEM, each->first.first, each->first.second, nullptr);
    if (failed < 0 && failed != -ENOENT) {
      return Error{"BPF_MAP_DELETE_ELEM", -failed, show(each->first.first, each->first.second)};
    }
    each = in_kernel_.erase(each);
  }
  return {};
}

Result<void> KernelPathMaps::leave_bulk_until(uint64_t nanoseconds) const {
  constexpr uint32_t only = 0;
  const KernelTunnelState value{.bulk_until = nanoseconds};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(tunnel_.get());
  attributes.key = pointer(&only);
  attributes.value = pointer(&value);
  const int failed = kernel_->bpf(BPF_MAP_UPDATE_ELEM, &attributes, sizeof attributes);
  if (failed < 0) return Error{"BPF_MAP_UPDATE_ELEM", -failed, "tunnel"};
  return {};
}

std::array<KernelTraffic, kKernelCounterCount> KernelPathMaps::counters() const {
  std::array<KernelTraffic, kKernelCounterCount> sums{};
  const std::span<KernelTraffic> values = counter_values_.values();
  for (size_t at = 0; at < values.size(); at += kKernelCounters) {
    for (size_t counter = 0; counter < sums.size(); counter++) add(sums.at(counter), values[at + counter]);
  }
  return sums;
}

KernelPeerTraffic KernelPathMaps::peer_counters(uint32_t slot) const {
  KernelPeerTraffic sum{};
  const std::span<KernelPeerTraffic> values = peer_counter_values_.values();
  for (size_t at = slot; at < values.size(); at += kKernelPeers) {
    add(sum.sent, values[at].sent);
    add(sum.received, values[at].received);
  }
  return sum;
}

void KernelPathMaps::reset_peer_counters(uint32_t slot) const {
  const std::span<KernelPeerTraffic> values = peer_counter_values_.values();
  for (size_t at = slot; at < values.size(); at += kKernelPeers) {
    reset(values[at].sent);
    reset(values[at].received);
  }
}

std::map<uint32_t, uint32_t> KernelPathMaps::slots() const {
  std::map<uint32_t, uint32_t> slots;
  for (const auto& [subnet, route] : in_kernel_) {
    if (route.outer != 0) slots[swap_be32(route.outer)] = route.slot;
  }
  return slots;
}

std::array<int, kKernelMapCount> KernelPathMaps::descriptors() const {
  return {routes_.get(), flows_.get(), tunnel_.get(), counters_.get(), peer_counters_.get()};
}

std::array<ProgramSymbol, kKernelMapCount> KernelPathMaps::symbols() const {
  const auto map = [](std::string_view name, const UniqueFd& fd) {
    return ProgramSymbol{name, ProgramSymbol::Kind::kMap, static_cast<uint32_t>(fd.get())};
  };
  return {map(kMapSymbols[0], routes_), map(kMapSymbols[1], flows_), map(kMapSymbols[2], tunnel_),
          map(kMapSymbols[3], counters_), map(kMapSymbols[4], peer_counters_)};
}

Result<UniqueFd> load_kernel_program(Kernel& kernel, const ProgramObject& object, KernelProgram program,
                                     const KernelPathMaps& maps, const KernelPathConfig& config) {
  const ProgramKind& kind = kKinds.at(static_cast<size_t>(program));
  const auto [routes, flows, tunnel, counters, peer_counters] = maps.symbols();
  const std::array<ProgramSymbol, 9> symbols = {{
      routes,
      flows,
      tunnel,
      counters,
      peer_counters,
      {.name = "uplink", .value = config.uplink},
      {.name = "tun", .value = config.tun},
      {.name = "local", .value = swap_be32(config.local)},
      {.name = "port", .value = swap_be16(config.port)},
  }};
  const Result<std::vector<bpf_insn>> instructions = object.link(kind.section, symbols);
  if (!instructions) return instructions.error();
  bpf_attr attributes{};
  attributes.prog_type = kind.type;
  attributes.insns = pointer(instructions.value().data());
  attributes.insn_cnt = static_cast<uint32_t>(instructions.value().size());
  // No helper asks for the GPL; the field must not be empty.
  attributes.license = pointer("Apache-2.0");
  std::strncpy(attributes.prog_name, kind.section, kNameBytes - 1);
  const int loaded = load_program(kernel, attributes);
  if (loaded >= 0) return UniqueFd(loaded);
  // Once more for the reason: writing the log down takes the verifier many times as long.
  std::vector<char> log(kLogBytes);
  attributes.log_level = 1;
  attributes.log_size = static_cast<uint32_t>(log.size());
  attributes.log_buf = pointer(log.data());
  const UniqueFd unexpected(load_program(kernel, attributes));
  return Error{"BPF_PROG_LOAD", -loaded, std::string(kind.section) + ": " + end_of_log(log.data())};
}

}  // namespace tsflannel
