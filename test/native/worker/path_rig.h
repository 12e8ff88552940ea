// One worker's two directions on a fake kernel, without a thread.
#pragma once

#include <memory>
#include <vector>

#include "../../../native/core/worker/icmp_sender.h"
#include "../../../native/core/worker/receive_path.h"
#include "../../../native/core/worker/sender.h"
#include "../../../native/core/worker/transmit_path.h"
#include "../../../native/core/worker/tun_writer.h"
#include "fake_kernel.h"

namespace tsflannel::testing {

inline constexpr uint16_t kPort = 8285;
inline constexpr uint16_t kMtu = 1472;
inline constexpr uint32_t kOwnTun = ipv4(10, 5, 1, 0);
inline constexpr uint32_t kOwnUnderlay = ipv4(192, 0, 2, 1);
inline constexpr uint32_t kLocal = ipv4(10, 5, 1, 2);

/// Public address of peer `n`, which holds 10.5.(100 + n).0/24.
constexpr uint32_t outer_of(unsigned n) {
  return ipv4(192, 0, 2, static_cast<uint8_t>(100 + n));
}

/// An address in the subnet of peer `n`.
constexpr uint32_t inner_of(unsigned n) {
  return ipv4(10, 5, static_cast<uint8_t>(100 + n), 2);
}

class RecordingSink final : public EventSink {
 public:
  void on_event(const TunnelEvent& event) override { events.push_back(event); }
  std::vector<TunnelEvent> events;
};

/// The packet one hop further.
Bytes hop(Bytes packet);

Bytes with_vnet(const VnetHeader& vnet, const Bytes& packet);
VnetHeader vnet_of(const Bytes& frame);
Bytes packet_of(const Bytes& frame);

struct PathRig {
  static constexpr unsigned kPeers = 4;

  explicit PathRig(VerifySource verify = VerifySource::kOuter, OffloadSet offloads = OffloadSet::all(),
                   std::vector<int> lane_fds = {kTunFd});
  ~PathRig();

  uint64_t drops(DropReason reason) const { return counters->drops[static_cast<size_t>(reason)].get(); }
  uint64_t all_drops() const;
  uint64_t icmp(IcmpError error) const { return counters->icmp_sent[static_cast<size_t>(error)].get(); }

  /// Runs transmit turns until there is nothing left to read and to send.
  void drain_tun();

  const std::vector<int> lanes;
  FakeKernel kernel;
  RecordingSink sink;
  TunnelHealth health;
  std::unique_ptr<WorkerCounters> counters = std::make_unique<WorkerCounters>();
  std::unique_ptr<PeerCounterTable> peers = std::make_unique<PeerCounterTable>();
  ForwardingState state;
  WorkerContext context;
  PathMtuProbe path_mtu;
  TunWriter tun_writer;
  IcmpSender icmp_sender;
  Sender sender;
  TransmitPath transmit;
  ReceivePath receive;

 private:
  FakeKernel& kernel_with_socket();
};

}  // namespace tsflannel::testing
