// Programs of the kernel path in the kernel of this host, one packet at a time (BPF_PROG_TEST_RUN).
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "../../../native/core/kernel_path/kernel_path.h"
#include "../support/packets.h"

namespace tsflannel::testing {

/// What a program made of a packet.
struct Outcome {
  uint32_t verdict = 0;
  Bytes packet;  ///< with what stands in front of it as metadata
};

/// A packet that stands for several.
struct SuperPacket {
  uint32_t segment = 0;  ///< gso_size
  uint32_t count = 0;    ///< gso_segs
};

/// The programs with maps of their own; needs CAP_BPF and CAP_NET_ADMIN. TSFLANNEL_KERNEL_PATH names their file.
class LoadedKernelPath {
 public:
  /// Nothing, and a failed test, if the kernel refuses something.
  static std::unique_ptr<LoadedKernelPath> load(const KernelPathConfig& config,
                                                const std::vector<KernelPathRoute>& routes);

  Outcome run(KernelProgram program, const Bytes& packet, const std::optional<SuperPacket>& super = std::nullopt);
  /// The same without a look at the counters, which takes several times as long: moved() knows nothing of it.
  Outcome run_unwatched(KernelProgram program, const Bytes& packet,
                        const std::optional<SuperPacket>& super = std::nullopt);

  /// The one counter that run() has moved last, and by how many packets and bytes; kKernelCounterCount: none, or
  /// several, which fails the test.
  KernelCounter moved(KernelTraffic* by = nullptr);

  KernelPathMaps& maps() { return maps_; }

 private:
  explicit LoadedKernelPath(KernelPathMaps maps) : maps_(std::move(maps)) {}

  KernelPathMaps maps_;
  std::array<UniqueFd, kKernelProgramCount> programs_;
  std::array<KernelTraffic, kKernelCounterCount> before_{};
};

}  // namespace tsflannel::testing
