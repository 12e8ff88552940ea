// On which CPU packets come.
#pragma once

#include <linux/bpf.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernel.h"
#include "map_memory.h"
#include "result.h"
#include "unique_fd.h"

namespace tsflannel {

/// The CPU that the latest packet for each worker was on, written by programs in the kernel and read from shared memory.
///
/// API: create(), record() for programs, latest().
/// Threads: latest() and record() on any.
/// Errors: create() returns them; eBPF or shared maps (Linux 5.5) may be missing, or CAP_BPF.
class PacketCpus {
 public:
  /// Workers there is room for.
  static constexpr size_t kMaxWorkers = 64;

  [[nodiscard]] static Result<PacketCpus> create(Kernel& kernel);

  /// The CPU of the latest packet that a program recorded for a worker; 0 before the first.
  [[nodiscard]] unsigned latest(size_t worker) const {
    return memory_.values()[worker].load(std::memory_order_relaxed);
  }

  /// Instructions that record the CPU they run on for a worker, below kMaxWorkers.
  [[nodiscard]] std::array<bpf_insn, 4> record(size_t worker) const;

 private:
  using Memory = MapMemory<std::atomic<uint32_t>>;

  PacketCpus(UniqueFd map, Memory memory) : map_(std::move(map)), memory_(std::move(memory)) {}

  UniqueFd map_;  // programs refer to it as long as they are loaded
  Memory memory_;
};

}  // namespace tsflannel
