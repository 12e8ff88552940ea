// The kernel path of one tunnel: its programs at their devices and what they share.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "../base/kernel.h"
#include "../base/result.h"
#include "../base/unique_fd.h"
#include "attachment.h"
#include "kernel_path.h"
#include "layout.h"
#include "program_object.h"

namespace tsflannel {

/// What takes datagrams off the uplink; see native/bpf/kernel_path.c.
enum class KernelReceiver : uint8_t { kXdp, kTc };

/// A subnet and who holds it.
struct KernelCarrierRoute {
  uint32_t prefix = 0;  ///< network address as a number
  uint8_t length = 0;   ///< 0…32
  uint32_t outer = 0;   ///< public address of the peer, as a number; 0: a subnet of this host's own
  uint32_t mtu = 0;     ///< bytes of the largest inner packet for the peer; 0: send nothing to it
};

/// What came with the descriptors that another process of the same service left.
struct KernelCarrierRemains {
  std::vector<UniqueFd> maps;
  std::vector<UniqueFd> links;
};

/// Totals of one public address.
struct KernelCarrierPeer {
  uint32_t outer = 0;
  KernelPeerTraffic traffic{};
};

/// Carries what is plain between a TUN and the uplink without a thread.
///
/// API: open(), set_routes() with whole tables, counters, detach(). Whoever has descriptors() keeps everything going
/// when this process ends, and hands it to the next one's open().
/// Threads: one. Limits: kKernelRoutes subnets, ENOSPC beyond; kKernelPeers peers with counters of their own, further
/// ones share the last. Errors: open() attaches all or nothing.
class KernelCarrier {
 public:
  /// Takes over what fits of `remains`, with programs loaded anew in the place of those that hang there, and lets go of
  /// the rest.
  /// Errors: those of load_kernel_program() and Attachment::attach().
  [[nodiscard]] static Result<KernelCarrier> open(Kernel& kernel, const ProgramObject& object,
                                                  const KernelPathConfig& config, KernelReceiver receiver,
                                                  std::span<const KernelCarrierRoute> routes,
                                                  KernelCarrierRemains remains);

  [[nodiscard]] Result<void> set_routes(std::span<const KernelCarrierRoute> routes);

  /// Has the programs leave flows that stream to the tunnel for so long, unless it is told again: a tunnel whose process
  /// hangs or ends must not keep them. 0: they take these flows, too, as they do until they are told otherwise.
  [[nodiscard]] Result<void> leave_bulk(std::chrono::milliseconds duration) const;

  [[nodiscard]] std::array<KernelTraffic, kKernelCounterCount> counters() const { return maps_.counters(); }
  /// Of the peers in the latest table.
  [[nodiscard]] std::vector<KernelCarrierPeer> peer_counters() const;

  /// Numbers of descriptors, which stay owned by this object.
  [[nodiscard]] std::vector<int> map_descriptors() const;
  [[nodiscard]] std::vector<int> link_descriptors() const;

  /// Whether every program is still where it was attached; see Attachment::is_in_place().
  [[nodiscard]] bool is_in_place() const;

  /// Removes the programs, whoever else has the descriptors.
  [[nodiscard]] Result<void> detach();

 private:
  KernelCarrier(Kernel& kernel, const KernelPathConfig& config, KernelReceiver receiver, KernelPathMaps maps)
      : kernel_(&kernel), config_(config), receiver_(receiver), maps_(std::move(maps)), slots_(maps_.slots()) {}

  [[nodiscard]] Result<void> attach(const ProgramObject& object, std::vector<Attachment> former);
  void assign_slots(std::span<const KernelCarrierRoute> routes);

  Kernel* kernel_;
  KernelPathConfig config_;
  KernelReceiver receiver_;
  KernelPathMaps maps_;
  std::map<uint32_t, uint32_t> slots_;  // by public address
  std::vector<Attachment> attachments_;
};

inline constexpr uint32_t kKernelRoutes = 65'536;

}  // namespace tsflannel
