#include "packet_cpus.h"

#include <utility>

#include "bpf.h"

namespace tsflannel {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);

}  // namespace

Result<PacketCpus> PacketCpus::create(Kernel& kernel) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = sizeof(uint32_t);
  attributes.value_size = kMaxWorkers * sizeof(uint32_t);
  attributes.max_entries = 1;
  attributes.map_flags = BPF_F_MMAPABLE;
  const int created = kernel.bpf(BPF_MAP_CREATE, &attributes, sizeof attributes);
  if (created < 0) return Error{"BPF_MAP_CREATE", -created, ""};
  UniqueFd map(created);
  Result<Memory> memory = Memory::of(map, kMaxWorkers);
  if (!memory) return memory.error();
  return PacketCpus(std::move(map), std::move(memory).value());
}

std::array<bpf_insn, 4> PacketCpus::record(size_t worker) const {
  constexpr auto kCpu = BPF_REG_0;
  constexpr auto kPlace = BPF_REG_1;
  const auto offset = static_cast<int32_t>(worker * sizeof(uint32_t));
  return {{
      instruction(BPF_JMP | BPF_CALL, 0, 0, BPF_FUNC_get_smp_processor_id),
      // Two for one: an address in the map, and the offset.
      instruction(BPF_LD | BPF_DW, kPlace, BPF_PSEUDO_MAP_VALUE, map_.get()),
      instruction(0, 0, 0, offset),
      instruction(BPF_STX | BPF_MEM | BPF_W, kPlace, kCpu, 0),
  }};
}

}  // namespace tsflannel
