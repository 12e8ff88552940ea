#include "path_rig.h"

#include <cstring>
#include <utility>

namespace tsflannel::testing {

Bytes hop(Bytes packet) {
  packet[8]--;
  fill_ip_checksum(packet);
  return packet;
}

Bytes with_vnet(const VnetHeader& vnet, const Bytes& packet) {
  Bytes frame(sizeof vnet);
  std::memcpy(frame.data(), &vnet, sizeof vnet);
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

VnetHeader vnet_of(const Bytes& frame) {
  VnetHeader vnet;
  std::memcpy(&vnet, frame.data(), sizeof vnet);
  return vnet;
}

Bytes packet_of(const Bytes& frame) {
  return {frame.begin() + kVnetHeaderSize, frame.end()};
}

PathRig::PathRig(VerifySource verify, OffloadSet offloads, std::vector<int> lane_fds)
    : lanes(std::move(lane_fds)),
      health(offloads, sink),
      context{kernel, health, *counters, *peers, lanes, kSocketFd, kIcmpFd, offloads.has(Offload::kVnetHdr)},
      path_mtu(PathMtuProbe::open(kernel_with_socket(), 0).value()),
      tun_writer(context),
      icmp_sender(context),
      sender(context, icmp_sender, path_mtu, kPort),
      transmit(context, icmp_sender, sender),
      receive(context, tun_writer) {
  std::vector<Peer> all;
  std::vector<PeerEntry> entries;
  for (unsigned n = 0; n < kPeers; n++) {
    all.push_back({outer_of(n)});
    entries.push_back({inner_of(n) & 0xffffff00, 24, n});
    state.counter_slots.push_back(n);
    peers->ensure(n);
  }
  state.table = std::move(PeerTable::build(entries, all, 1)).value();
  state.icmp_source = kOwnTun;
  state.mtu = kMtu;
  state.verify_source = verify;
  state.own = {{kOwnTun, 0xffffff00}, {kOwnUnderlay, 0xffffffff}};
  context.state = &state;
}

PathRig::~PathRig() = default;

uint64_t PathRig::all_drops() const {
  uint64_t total = 0;
  for (const Counter& each : counters->drops) total += each.get();
  return total;
}

void PathRig::drain_tun() {
  while (transmit.run() || !kernel.tun_frames.empty() || !kernel.tcp_lane_frames.empty() || sender.batch().size() > 0) {
  }
}

FakeKernel& PathRig::kernel_with_socket() {
  // A descriptor that is open nowhere: closing it does no harm.
  kernel.next_fd = 1 << 20;
  return kernel;
}

}  // namespace tsflannel::testing
