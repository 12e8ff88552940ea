// A worker's loop must not allocate, and must not make more system calls than its batches need.
#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstring>

#include "../support/allocation_count.h"
#include "path_rig.h"

namespace tsflannel::testing {
namespace {

/// Takes everything and hands over the same frames again, without remembering anything.
class BottomlessKernel final : public Kernel {
 public:
  const Bytes* frame = nullptr;  ///< from the TUN
  size_t frames = 0;             ///< how many times
  const Inbound* message = nullptr;
  size_t messages = 0;
  size_t reads = 0;
  size_t writes = 0;
  size_t sends = 0;
  size_t receives = 0;
  bool refuses_segments = false;

  ssize_t read(int, void* buffer, size_t) override {
    reads++;
    if (frames == 0) return -EAGAIN;
    frames--;
    std::memcpy(buffer, frame->data(), frame->size());
    return static_cast<ssize_t>(frame->size());
  }
  ssize_t writev(int, const iovec*, int) override {
    writes++;
    return 1;
  }
  int recvmmsg(int, mmsghdr* into, unsigned count) override {
    receives++;
    unsigned received = 0;
    for (; received < count && messages > 0; messages--, received++) {
      msghdr& header = into[received].msg_hdr;
      std::memcpy(header.msg_iov[0].iov_base, message->data.data(), message->data.size());
      into[received].msg_len = static_cast<unsigned>(message->data.size());
      static_cast<sockaddr_in*>(header.msg_name)->sin_addr.s_addr = htonl(message->outer);
      auto* control = static_cast<cmsghdr*>(header.msg_control);
      *control = {CMSG_LEN(sizeof(int)), IPPROTO_UDP, UDP_GRO};
      std::memcpy(CMSG_DATA(control), &message->segment_length, sizeof(int));
      header.msg_flags = 0;
    }
    return received == 0 ? -EAGAIN : static_cast<int>(received);
  }
  int sendmmsg(int, mmsghdr* message_list, unsigned count) override {
    sends++;
    if (refuses_segments && message_list[0].msg_hdr.msg_controllen > 0) return -EMSGSIZE;
    return static_cast<int>(count);
  }
  int poll(pollfd*, unsigned, int) override { return 0; }
  int open(const char*, int) override { return -ENOSYS; }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  int socket(int, int, int) override { return -ENOSYS; }
  int bind(int, const sockaddr*, socklen_t) override { return -ENOSYS; }
  int connect(int, const sockaddr*, socklen_t) override { return -ENOSYS; }
  int setsockopt(int, int, int, int) override { return 0; }
  int getsockopt(int, int, int) override { return 1400; }
  int getsockname(int, sockaddr*, socklen_t*) override { return -ENOSYS; }
  int bpf(int, void*, unsigned) override { return -ENOSYS; }
};

struct Rig {
  PathRig base;  // for its table and counters
  BottomlessKernel kernel;
  WorkerContext context{kernel, base.health, *base.counters, *base.peers, kTunFd, kSocketFd, true, &base.state, false};
  TunWriter tun_writer{context};
  Sender sender{context, tun_writer, base.path_mtu, kPort};
  TransmitPath transmit{context, tun_writer, sender};
  ReceivePath receive{context, tun_writer};
};

constexpr size_t kGso = 1432;
const Ip kOut = {.source = kLocal, .destination = inner_of(1)};
const Ip kIn = {.source = inner_of(1), .destination = kLocal};

Bytes super_frame() {
  const VnetHeader vnet = {kVnetNeedsChecksum, kGsoTcpV4, 40, kGso, 20, 16};
  return with_vnet(vnet, make_tcp(kOut, {}, pattern(44 * kGso)));
}

TEST("transmitting allocates nothing, and two super-packets share a system call") {
  Rig rig;
  const Bytes super = super_frame();
  const Bytes small = with_vnet({}, make_udp(kOut, {}, pattern(64)));
  rig.kernel.frame = &super;
  rig.kernel.frames = 100;
  const size_t before = allocation_count();
  while (rig.transmit.run()) {
  }
  CHECK_EQ(allocation_count(), before);
  CHECK_EQ(rig.base.counters->tx_packets.get(), 4400);
  CHECK_EQ(rig.kernel.sends, 50);

  rig.kernel.frame = &small;
  rig.kernel.frames = 640;
  rig.kernel.sends = 0;
  while (rig.transmit.run()) {
  }
  CHECK_EQ(allocation_count(), before);
  CHECK_EQ(rig.kernel.sends, 10);
}

TEST("refusals of the socket, and ICMP errors, allocate nothing") {
  Rig rig;
  const Bytes super = super_frame();
  const Bytes nowhere = with_vnet({}, make_udp({.source = kLocal, .destination = ipv4(10, 9, 9, 9)}, {}, pattern(64)));
  const size_t before = allocation_count();
  rig.kernel.refuses_segments = true;
  rig.kernel.frame = &super;
  rig.kernel.frames = 10;
  while (rig.transmit.run()) {
  }
  rig.kernel.frame = &nowhere;
  rig.kernel.frames = 100;
  while (rig.transmit.run()) {
  }
  CHECK_EQ(allocation_count(), before);
  CHECK_EQ(rig.base.counters->tx_packets.get(), 440);
  CHECK(rig.base.icmp(IcmpError::kNetUnreachable) > 0);
}

TEST("receiving allocates nothing, and bulk costs half a receive and one write for each 64 KiB") {
  Rig rig;
  Inbound bulk{.outer = outer_of(1), .data = {}, .segment_length = static_cast<int>(kGso + 40)};
  for (uint32_t i = 0; i < 44; i++) {
    const auto at = static_cast<uint32_t>(i * kGso);
    const Bytes packet = make_tcp(kIn, {.sequence = at}, pattern(kGso, at));
    bulk.data.insert(bulk.data.end(), packet.begin(), packet.end());
  }
  rig.kernel.message = &bulk;
  rig.kernel.messages = 100;
  const size_t before = allocation_count();
  while (rig.receive.run()) {
  }
  CHECK_EQ(allocation_count(), before);
  CHECK_EQ(rig.base.counters->rx_packets.get(), 4400);
  CHECK_EQ(rig.kernel.writes, 100);
  CHECK(rig.kernel.receives <= 60);
}

}  // namespace
}  // namespace tsflannel::testing
