// The programs of the kernel path and their maps, in the kernel.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../base/kernel.h"
#include "../base/map_memory.h"
#include "../base/result.h"
#include "../base/unique_fd.h"
#include "layout.h"
#include "program_object.h"

namespace tsflannel {

/// What each does is told in native/bpf/kernel_path.c.
enum class KernelProgram : uint8_t { kSend, kReceiveXdp, kDeliver, kReceiveTc };

inline constexpr size_t kKernelProgramCount = 4;
inline constexpr size_t kKernelMapCount = 5;

/// What is written into the programs. When some of it changes, programs are loaded anew and take the place of the old
/// ones (Attachment::exchange()), so that no packet meets half of a change.
struct KernelPathConfig {
  uint32_t uplink = 0;  ///< index of the device that carries the tunnel's datagrams
  uint32_t tun = 0;     ///< index of the tunnel's device
  uint32_t local = 0;   ///< this host's public address, as a number
  uint16_t port = 0;
};

/// A subnet and who holds it.
struct KernelPathRoute {
  uint32_t prefix = 0;  ///< network address as a number
  uint8_t length = 0;   ///< 0…32
  uint32_t outer = 0;   ///< public address of the peer, as a number; 0: a subnet of this host's own
  uint32_t slot = 0;    ///< of the peer's counters
  uint32_t mtu = 0;     ///< bytes of the largest inner packet for the peer; 0: send nothing to it
};

/// The maps that the programs of one tunnel share. They live until the last of their programs and descriptors is gone.
///
/// Threads: one. Limits: as many routes as create() was told, ENOSPC beyond; slots below kKernelPeers, else E2BIG.
class KernelPathMaps {
 public:
  [[nodiscard]] static Result<KernelPathMaps> create(Kernel& kernel, uint32_t routes);

  /// Those that another process left, with their routes and counts. ENOENT if they are none of this layout.
  [[nodiscard]] static Result<KernelPathMaps> adopt(Kernel& kernel, std::vector<UniqueFd> descriptors);

  /// Makes the routes what is given: of equal prefixes, the last one counts. What changes is exchanged entry by entry,
  /// each at once; what is new or different goes first, so that a narrower subnet is not uncovered meanwhile. After an
  /// error, what had been done stays, and the next call goes on from there.
  [[nodiscard]] Result<void> set_routes(std::span<const KernelPathRoute> routes);

  /// See KernelTunnelState in layout.h.
  [[nodiscard]] Result<void> leave_bulk_until(uint64_t nanoseconds) const;

  /// By KernelCounter, the sums of all CPUs.
  [[nodiscard]] std::array<KernelTraffic, kKernelCounterCount> counters() const;
  /// @param slot below kKernelPeers
  [[nodiscard]] KernelPeerTraffic peer_counters(uint32_t slot) const;
  /// Begins at 0 again.
  void reset_peer_counters(uint32_t slot) const;

  /// By public address: the slots that the routes in the kernel name.
  [[nodiscard]] std::map<uint32_t, uint32_t> slots() const;
  [[nodiscard]] std::array<ProgramSymbol, kKernelMapCount> symbols() const;
  /// Numbers of the descriptors, which stay owned by this object.
  [[nodiscard]] std::array<int, kKernelMapCount> descriptors() const;

 private:
  explicit KernelPathMaps(Kernel& kernel) : kernel_(&kernel) {}

  [[nodiscard]] std::array<UniqueFd*, kKernelMapCount> places() {
    return {&routes_, &flows_, &tunnel_, &counters_, &peer_counters_};
  }
  [[nodiscard]] Result<void> read_routes();
  /// Makes what is counted on so many CPUs readable.
  [[nodiscard]] Result<void> map_counters(size_t cpus);

  Kernel* kernel_;
  UniqueFd routes_;
  UniqueFd flows_;
  UniqueFd tunnel_;
  UniqueFd counters_;
  UniqueFd peer_counters_;
  MapMemory<KernelTraffic> counter_values_;
  MapMemory<KernelPeerTraffic> peer_counter_values_;
  std::map<std::pair<uint32_t, uint8_t>, KernelRoute> in_kernel_;  // by prefix and length
};

/// Loads a program. The error of a program that the kernel refuses ends with what its verifier said last.
[[nodiscard]] Result<UniqueFd> load_kernel_program(Kernel& kernel, const ProgramObject& object, KernelProgram program,
                                                   const KernelPathMaps& maps, const KernelPathConfig& config);

}  // namespace tsflannel
