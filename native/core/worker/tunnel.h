// A TUN device, its sockets and the workers between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "../base/kernel.h"
#include "../base/offload.h"
#include "../base/packet_cpus.h"
#include "../base/result.h"
#include "../base/unique_fd.h"
#include "../peers/peer_table.h"
#include "../tun/tun_device.h"
#include "../udp/icmp_socket.h"
#include "../udp/udp_socket.h"
#include "events.h"
#include "forwarding_state.h"
#include "worker.h"

namespace tsflannel {

/// A subnet and the public address of the peer that holds it.
struct Route {
  uint32_t prefix = 0;  ///< network address as a number
  uint8_t length = 0;   ///< 0…32
  uint32_t outer = 0;   ///< address as a number
};

/// A subnet, or an address as one of length 32.
struct Subnet {
  uint32_t prefix = 0;  ///< network address as a number
  uint8_t length = 0;   ///< 0…32
};

/// What can change while packets flow.
struct TunnelState {
  std::vector<Route> routes;
  std::vector<Subnet> own = {};  ///< inner sources that only this host uses
  uint32_t icmp_source = 0;
  uint32_t mtu = 0;  ///< kIpv4MinHeader…kMaxUdpPayload
  VerifySource verify_source = VerifySource::kOuter;
};

/// What is fixed for the life of a tunnel.
struct TunnelConfig {
  std::string device;
  Endpoint bind = {};
  unsigned workers = 0;  ///< 0 chooses, see choose_workers()
  OffloadSet disabled = {};
  std::vector<int> inherited_tun = {};  ///< taken over (and closed if they do not fit)
  std::vector<int> inherited_sockets = {};
  double realtime_share = kUnlimitedShare;  ///< see realtime_share()
};

/// More queues than a TUN of any use has (the kernel takes 256), and more threads than there is work for.
inline constexpr unsigned kMaxTunnelWorkers = 64;
static_assert(kMaxTunnelWorkers <= PacketCpus::kMaxWorkers);

/// Workers for a host with so many CPUs: one below 4, since more would fight for the cores with what they serve; else
/// one for every two, up to 4.
[[nodiscard]] unsigned choose_workers(unsigned cpus);

/// Totals of all workers.
struct TunnelCounters {
  uint64_t tx_packets = 0;
  uint64_t tx_bytes = 0;
  uint64_t rx_packets = 0;
  uint64_t rx_bytes = 0;
  uint64_t tun_reads = 0;
  uint64_t tun_writes = 0;
  uint64_t socket_sends = 0;
  uint64_t socket_receives = 0;
  uint64_t icmp_limited = 0;
  uint64_t icmp_failed = 0;
  std::array<uint64_t, kIcmpErrorCount> icmp_sent{};
  std::array<uint64_t, kDropReasonCount> drops{};
  std::array<uint64_t, kOffloadCount> downgrades{};
  std::array<uint64_t, kOffloadCount> trials{};
  std::array<uint64_t, kBatchBuckets> packets_per_read{};
  std::array<uint64_t, kBatchBuckets> packets_per_send{};
  std::array<uint64_t, kBatchBuckets> packets_per_write{};
  std::vector<double> worker_cpu_seconds;
};

/// Totals of one public address.
struct OuterCounters {
  uint32_t outer = 0;
  uint64_t tx_packets = 0;
  uint64_t tx_bytes = 0;
  uint64_t rx_packets = 0;
  uint64_t rx_bytes = 0;
};

/// The data plane of one tunnel.
///
/// API: open(), update() with whole tables, counters, close().
/// Threads: one control thread calls everything here, except close(), which may run on another one while the control
/// thread calls nothing else. The workers are threads of their own and see a new table between two batches.
/// Limits: an old table lives until the first update() after every worker has left it; leaving takes one turn, a few
/// ms. Errors: open() and update() return them; later trouble goes to the event sink.
class Tunnel {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Tunnel>> open(Kernel& kernel, EventSink& sink, const TunnelConfig& config,
                                                            const TunnelState& state);
  Tunnel(const Tunnel&) = delete;
  Tunnel& operator=(const Tunnel&) = delete;
  ~Tunnel() { close(); }

  /// Replaces peers and settings, and returns the generation the workers will report once they have adopted them.
  [[nodiscard]] Result<uint64_t> update(const TunnelState& state);

  /// The generation that every worker has adopted.
  [[nodiscard]] uint64_t generation() const;

  [[nodiscard]] const std::string& device() const { return device_.name; }
  [[nodiscard]] OffloadSet offloads() const { return health_.offloads(); }
  [[nodiscard]] size_t worker_count() const { return workers_.size(); }
  [[nodiscard]] TunnelCounters counters();
  /// Of the peers in the latest table.
  [[nodiscard]] std::vector<OuterCounters> peer_counters();
  /// Numbers of the descriptors, which stay owned by the tunnel; empty after close().
  [[nodiscard]] std::vector<int> tun_descriptors() const { return numbers_of(device_.queues); }
  [[nodiscard]] std::vector<int> socket_descriptors() const { return numbers_of(sockets_); }

  /// Ends the workers and closes the descriptors, which removes the device. Idempotent; the counters stay.
  void close();

 private:
  Tunnel(Kernel& kernel, EventSink& sink, TunDevice device, UdpSockets sockets, UniqueFd icmp_socket,
         std::optional<PacketCpus> cpus, OffloadSet offloads);

  [[nodiscard]] Result<std::unique_ptr<const ForwardingState>> build(const TunnelState& state);
  [[nodiscard]] Result<uint32_t> slot_for(uint32_t outer);
  void release_unused_slots(const PeerTable& table);
  void reclaim();
  void read_overflow();
  [[nodiscard]] static std::vector<int> numbers_of(const std::vector<UniqueFd>& fds);

  struct FreeSlot {
    uint32_t slot;
    uint64_t generation;  // first one that does not name it any more
  };

  // Control thread, all of it; the workers read *published_.
  Kernel& kernel_;
  TunDevice device_;
  std::vector<UniqueFd> sockets_;
  UniqueFd icmp_socket_;
  std::optional<PacketCpus> cpus_;         // where the kernel lets programs tell
  std::vector<uint32_t> overflow_before_;  // by socket: what the kernel said last
  uint64_t overflow_ = 0;                  // datagrams lost at all sockets since they were opened
  TunnelHealth health_;                    // any thread
  uint64_t next_generation_ = 1;
  std::unique_ptr<const ForwardingState> current_;
  std::vector<std::unique_ptr<const ForwardingState>> retired_;  // oldest first
  std::atomic<const ForwardingState*> published_{nullptr};
  std::unordered_map<uint32_t, uint32_t> slots_;  // by outer address
  std::vector<FreeSlot> free_slots_;
  uint32_t slot_count_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace tsflannel
