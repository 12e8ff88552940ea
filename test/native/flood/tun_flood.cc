// Puts hostile packets and super-packets into the queue of a tunnel's device, as a local process may that has
// CAP_NET_RAW, and says what has to become of each.
//
//   tun_flood DEVICE PACKETS MTU DESTINATION SUBNET PEER SOURCE
//
//   DEVICE       the tunnel's device, in this network namespace
//   PACKETS      how many to hand over; a super-packet counts as one
//   MTU          of the device
//   DESTINATION  inner destination of most, inside SUBNET, a /24 that PEER holds; the others go where nobody has a
//                lease
//   SOURCE       inner source
//
// Prints one line of JSON: {"sent":N,"forwarded":N,"drops":{REASON:N,…}}, where `forwarded` counts what super-packets
// are cut into. The packets depend on TSFLANNEL_SEED alone.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "../support/fuzz_input.h"
#include "../support/hostile_packets.h"
#include "../support/slow_forwarding.h"

using namespace tsflannel;
using namespace tsflannel::testing;

namespace {

// Packets that may wait in the device's queue, which holds at least 500.
constexpr uint64_t kWindow = 200;

[[noreturn]] void fail(const std::string& operation) {
  std::fprintf(stderr, "tun_flood: cannot %s: %s\n", operation.c_str(), std::strerror(errno));
  std::exit(1);
}

uint32_t address_of(const char* text) {
  in_addr address{};
  if (inet_pton(AF_INET, text, &address) != 1) {
    errno = EINVAL;
    fail("read the address " + std::string(text));
  }
  return ntohl(address.s_addr);
}

/// Packets that left the device's queue, read or dropped.
uint64_t left_queue(const std::string& device) {
  uint64_t total = 0;
  for (const char* name : {"tx_packets", "tx_dropped"}) {
    uint64_t value = 0;
    if (!(std::ifstream("/sys/class/net/" + device + "/statistics/" + name) >> value)) fail("read the statistics");
    total += value;
  }
  return total;
}

Bytes framed(const VnetHeader& vnet, const Bytes& packet) {
  Bytes frame(kVnetHeaderSize);
  std::memcpy(frame.data(), &vnet, kVnetHeaderSize);
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

/// A super-packet with small segments, options, and flags that only the first or the last segment may keep.
Bytes super(FuzzInput& input, const Ip& ip) {
  const bool is_tcp = !input.one_in(4);
  const size_t gso_size = 8 + input.word() % 1400U;
  const size_t most = std::min<size_t>(is_tcp ? 60'000 : 64 * gso_size, 60'000);
  const Bytes payload = pattern(gso_size + 1 + input.word() % (most - gso_size), ip.id);
  VnetHeader vnet;
  vnet.flags = kVnetNeedsChecksum;
  vnet.gso_size = static_cast<uint16_t>(gso_size);
  vnet.csum_start = 20;
  if (!is_tcp) {
    vnet.gso_type = kGsoUdpL4;
    vnet.header_length = 28;
    vnet.csum_offset = 6;
    return framed(vnet, make_udp(ip, {}, payload));
  }
  constexpr std::array<uint8_t, 5> kFlags = {0x10, 0x18, 0x19, 0x50, 0xd8};  // ACK with PSH, FIN, ECE and CWR
  Tcp tcp{.sequence = uint32_t{ip.id} << 16, .flags = kFlags[input.below(kFlags.size())]};
  if (input.one_in(2)) tcp.options = timestamps(input.byte(), 1);
  vnet.gso_type = static_cast<uint8_t>(kGsoTcpV4 | ((tcp.flags & 0x80) != 0 ? kGsoEcn : 0));
  vnet.header_length = static_cast<uint16_t>(40 + tcp.options.size());
  vnet.csum_offset = 16;
  return framed(vnet, make_tcp(ip, tcp, payload));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(stderr, "usage: see the head of tun_flood.cc\n");
    return 2;
  }
  const std::string device = argv[1];
  const uint64_t wanted = std::strtoull(argv[2], nullptr, 10);
  const auto mtu = static_cast<uint16_t>(std::atoi(argv[3]));
  const uint32_t destination = address_of(argv[4]);
  const uint32_t source = address_of(argv[7]);
  const SlowState state{.routes = {{address_of(argv[5]), 24, address_of(argv[6])}}, .mtu = mtu};

  const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("open a packet socket");
  const int on = 1;
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0) fail("set PACKET_VNET_HDR");
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(ETH_P_IP);
  to.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));

  Random random;
  const uint64_t before = left_queue(device);
  uint64_t sent = 0;
  uint64_t forwarded = 0;
  std::array<uint64_t, kDropReasonCount> drops{};
  for (uint16_t serial = 1; sent < wanted; serial++) {
    std::array<uint8_t, 64> noise;
    for (uint8_t& each : noise) each = random.byte();
    FuzzInput input(noise.data(), noise.size());
    const uint32_t target = input.one_in(16) ? ipv4(10, 5, 250, 9) : destination;
    Bytes frame;
    if (input.one_in(4)) {
      frame = super(input, {.source = source, .destination = target, .id = serial});
    } else {
      Bytes packet = hostile_packet(input, {source, target, serial}, 1400);
      if (packet.size() > mtu) packet.resize(mtu);
      if (packet.empty()) continue;
      frame = framed({}, packet);
    }
    while (sent % kWindow == 0 && left_queue(device) < before + sent) std::this_thread::yield();
    if (sendto(fd, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) fail("send");
    const SlowTransmit fate = slow_transmit(state, frame);
    sent++;
    forwarded += fate.packets.size();
    if (fate.reason != DropReason::kNone) drops[static_cast<size_t>(fate.reason)] += fate.dropped;
  }

  std::ostringstream reasons;
  for (size_t i = 0; i < kDropReasonCount; i++) {
    if (drops[i] == 0) continue;
    reasons << (reasons.tellp() == 0 ? "" : ",") << '"' << kDropReasonNames[i] << "\":" << drops[i];
  }
  std::printf("{\"sent\":%" PRIu64 ",\"forwarded\":%" PRIu64 ",\"drops\":{%s}}\n", sent, forwarded,
              reasons.str().c_str());
  return 0;
}
