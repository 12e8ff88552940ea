// A worker's loop must not allocate, and must not make more system calls than its batches need.
#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstring>

#include "../support/allocation_count.h"
#include "pair_kernel.h"

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
  int segments_refusal = 0;  ///< errno for messages of several datagrams; 0: none
  int merged_refusal = 0;    ///< errno for merged packets; 0: none

  ssize_t read(int, void* buffer, size_t) override {
    reads++;
    if (frames == 0) return -EAGAIN;
    frames--;
    std::memcpy(buffer, frame->data(), frame->size());
    return static_cast<ssize_t>(frame->size());
  }
  ssize_t writev(int, const iovec*, int count) override {
    writes++;
    if (merged_refusal != 0 && count > 2) return -merged_refusal;
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
    if (segments_refusal != 0 && message_list[0].msg_hdr.msg_controllen > 0) return -segments_refusal;
    return static_cast<int>(count);
  }
  int poll(pollfd*, unsigned, int64_t) override { return 0; }
  int open(const char*, int) override { return -ENOSYS; }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  int socket(int, int, int) override { return -ENOSYS; }
  int bind(int, const sockaddr*, socklen_t) override { return -ENOSYS; }
  int connect(int, const sockaddr*, socklen_t) override { return -ENOSYS; }
  int setsockopt(int, int, int, int) override { return 0; }
  int getsockopt(int, int, int) override { return 1400; }
  int getsockname(int, sockaddr*, socklen_t*) override { return -ENOSYS; }
  int bpf(int, void*, unsigned) override { return -ENOSYS; }
  int64_t socket_drops(int) override { return 0; }
  int set_scheduler(int, int) override { return -EPERM; }
  unsigned current_cpu() override { return 0; }
  int get_affinity(cpu_set_t&) override { return -EINVAL; }
  int set_affinity(const cpu_set_t&) override { return -EINVAL; }
  uint64_t thread_cpu_ns() override { return 0; }
};

struct Rig {
  explicit Rig(OffloadSet offloads = OffloadSet::all()) : base(VerifySource::kStrict, offloads) {
    base.sink.events.reserve(16);  // what the sink keeps is the test's own
  }

  PathRig base;  // for its table and counters
  BottomlessKernel kernel;
  WorkerContext context{kernel,      base.health, *base.counters, *base.peers,
                        base.lanes,  kSocketFd,   kIcmpFd,        base.context.has_vnet_header,
                        &base.state, false};
  TunWriter tun_writer{context};
  IcmpSender icmp{context};
  Sender sender{context, icmp, base.path_mtu, kPort};
  TransmitPath transmit{context, icmp, sender};
  ReceivePath receive{context, tun_writer};
};

constexpr size_t kGso = 1432;
const Ip kOut = {.source = kLocal, .destination = inner_of(1)};
const Ip kIn = {.source = inner_of(1), .destination = kLocal};

Bytes super_frame() {
  const VnetHeader vnet = {kVnetNeedsChecksum, kGsoTcpV4, 40, kGso, 20, 16};
  return with_vnet(vnet, make_tcp(kOut, {}, pattern(44 * kGso)));
}

Bytes uso_frame() {
  const VnetHeader vnet = {kVnetNeedsChecksum, kGsoUdpL4, 28, kGso, 20, 6};
  return with_vnet(vnet, make_udp(kOut, {}, pattern(40 * kGso)));
}

/// One UDP_GRO receive of 40 packets, TCP or UDP.
Inbound bulk(bool is_tcp) {
  Inbound bulk{.outer = outer_of(1), .data = {}, .segment_length = static_cast<int>(kGso + (is_tcp ? 40 : 28))};
  for (uint32_t i = 0; i < 40; i++) {
    const auto at = static_cast<uint32_t>(i * kGso);
    const Bytes packet =
        is_tcp ? make_tcp(kIn, {.sequence = at}, pattern(kGso, at)) : make_udp(kIn, {}, pattern(kGso, at));
    bulk.data.insert(bulk.data.end(), packet.begin(), packet.end());
  }
  return bulk;
}

/// All offloads, none, each one missing, and each one alone.
std::vector<OffloadSet> offload_sets() {
  std::vector<OffloadSet> sets = {OffloadSet::all(), OffloadSet()};
  for (size_t i = 0; i < kOffloadCount; i++) {
    const OffloadSet one = OffloadSet::from_bits(1U << i);
    sets.push_back(one);
    sets.push_back(OffloadSet::all().without(one));
  }
  return sets;
}

TEST("thousands of packets in both directions allocate nothing, with each offload on and off, refused and not") {
  for (const OffloadSet offloads : offload_sets()) {
    for (const int refusal : {0, EIO, EINVAL, EMSGSIZE}) {
      Rig rig(offloads);
      rig.kernel.segments_refusal = refusal;
      rig.kernel.merged_refusal = refusal;
      const bool has_vnet = offloads.has(Offload::kVnetHdr);
      const VnetHeader none;
      const Bytes tcp = make_tcp(kOut, {}, pattern(kGso));
      const Bytes udp = make_udp(kOut, {}, pattern(100));
      // Without vnet headers the kernel cuts super-packets itself.
      const std::vector<Bytes> out =
          has_vnet ? std::vector<Bytes>{super_frame(), uso_frame(), with_vnet(none, tcp), with_vnet(none, udp)}
                   : std::vector<Bytes>{tcp, udp};
      std::vector<Inbound> in = {bulk(true), bulk(false), {.outer = outer_of(1), .data = make_tcp(kIn, {}, {})}};
      if (!offloads.has(Offload::kUdpGro)) in = {{outer_of(1), make_tcp(kIn, {}, pattern(kGso)), 0}};

      const size_t before = allocation_count();
      for (int round = 0; round < 3; round++) {
        for (const Bytes& frame : out) {
          rig.kernel.frame = &frame;
          rig.kernel.frames = frame.size() > 2000 ? 10 : 300;
          while (rig.transmit.run()) {
          }
        }
        for (const Inbound& message : in) {
          rig.kernel.message = &message;
          rig.kernel.messages = message.data.size() > 2000 ? 10 : 300;
          while (rig.receive.run()) {
          }
        }
      }
      const size_t after = allocation_count();
      const std::string note = "offloads " + show(offloads.bits()) + ", errno " + show(refusal);
      CHECK_EQ_NOTE(after, before, note);
      CHECK_NOTE(rig.base.counters->tx_packets.get() >= 1800, note);
      CHECK_NOTE(rig.base.counters->rx_packets.get() + rig.base.all_drops() >= 900, note);
    }
  }
}

TEST("a running tunnel allocates nothing, whatever its number of workers") {
  for (const unsigned workers : {1U, 2U, 4U}) {
    TunnelRig rig(workers);
    const Bytes out = outbound(0);
    const Bytes in = inbound_from(0);
    size_t sent_out = 0;
    size_t sent_in = 0;
    size_t got_out = 0;
    size_t got_in = 0;
    const auto exchange = [&](size_t packets) {
      const size_t goal_out = sent_out + packets;
      const size_t goal_in = sent_in + packets;
      const uint64_t end_ns = monotonic_ns() + 20'000'000'000;
      while ((got_out < goal_out || got_in < goal_in) && monotonic_ns() < end_ns) {
        for (unsigned worker = 0; worker < workers; worker++) {
          if (sent_out < goal_out) sent_out += rig.to_tun(out, worker) ? 1 : 0;
        }
        if (sent_in < goal_in) sent_in += rig.to_socket(in) ? 1 : 0;
        for (const UniqueFd& end : rig.kernel.far_socket) got_out += TunnelRig::drain(end.get());
        for (const UniqueFd& end : rig.kernel.far_tun) got_in += TunnelRig::drain(end.get());
      }
      return got_out == goal_out && got_in == goal_in;
    };
    CHECK(exchange(10));  // the threads have started
    const size_t before = allocation_count();
    const bool has_all = exchange(5000);
    CHECK_EQ(allocation_count(), before);
    CHECK(has_all);
  }
}

TEST("transmitting allocates nothing, and the super-packets of a turn share a system call") {
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
  CHECK_EQ(rig.kernel.sends, 34);  // three to a turn

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
  rig.kernel.segments_refusal = EMSGSIZE;
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
  const Inbound tcp = bulk(true);
  rig.kernel.message = &tcp;
  rig.kernel.messages = 100;
  const size_t before = allocation_count();
  while (rig.receive.run()) {
  }
  CHECK_EQ(allocation_count(), before);
  CHECK_EQ(rig.base.counters->rx_packets.get(), 4000);
  CHECK_EQ(rig.kernel.writes, 100);
  CHECK(rig.kernel.receives <= 60);
}

}  // namespace
}  // namespace tsflannel::testing
