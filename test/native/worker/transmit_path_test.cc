#include "../../../native/core/worker/transmit_path.h"

#include <algorithm>
#include <cerrno>
#include <map>

#include "path_rig.h"

namespace tsflannel::testing {
namespace {

constexpr size_t kGso = 1432;  // TCP payload of a full packet: 1472 - 40

Ip to_peer(unsigned n, uint8_t ttl = 64) {
  return {.source = kLocal, .destination = inner_of(n), .ttl = ttl};
}

Bytes single(const Bytes& packet) {
  return with_vnet({}, packet);
}

/// A TCP super-packet, and what has to arrive.
struct Super {
  Bytes frame;
  std::vector<Bytes> expected;
};

Super super_tcp(const Ip& ip, const Tcp& tcp, size_t payload, size_t gso = kGso) {
  VnetHeader vnet;
  vnet.flags = kVnetNeedsChecksum;
  vnet.gso_type = kGsoTcpV4;
  vnet.gso_size = static_cast<uint16_t>(gso);
  vnet.csum_start = 20;
  vnet.csum_offset = 16;
  const Bytes packet = make_tcp(ip, tcp, pattern(payload, tcp.sequence));
  Super super{with_vnet(vnet, packet), *slow_segment(vnet, packet)};
  for (Bytes& each : super.expected) each = hop(each);
  return super;
}

std::vector<Bytes> data_of(const std::vector<Datagram>& sent) {
  std::vector<Bytes> all;
  for (const Datagram& each : sent) all.push_back(each.data);
  return all;
}

TEST("a super-packet leaves as the packets a NIC would have sent, in one system call") {
  PathRig rig;
  const Super super = super_tcp(to_peer(1), {.options = timestamps(1, 2)}, 40 * 1420 + 7, 1420);
  rig.kernel.tun_frames = {super.frame};
  CHECK(rig.transmit.run());
  CHECK(data_of(rig.kernel.sent) == super.expected);
  CHECK_EQ(rig.kernel.calls["sendmmsg"], 1);
  CHECK_EQ(rig.kernel.largest_send, 41);
  CHECK_EQ(rig.kernel.calls["read"], 2);  // the second says that there is no more
  for (const Datagram& each : rig.kernel.sent) {
    CHECK_EQ(each.outer, outer_of(1));
    CHECK_EQ(each.port, kPort);
    CHECK(each.has_df);
  }
  CHECK_EQ(rig.counters->tx_packets.get(), 41);
  CHECK_EQ(rig.peers->at(1).tx_packets.get(), 41);
  CHECK_EQ(rig.peers->at(0).tx_packets.get(), 0);
  CHECK(!rig.transmit.run());
}

TEST("64 KiB of full packets, more than a datagram holds, leave as two messages of one call") {
  PathRig rig;
  const Super super = super_tcp(to_peer(0), {}, 45 * kGso);
  rig.kernel.tun_frames = {super.frame};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == super.expected);
  CHECK_EQ(rig.kernel.calls["sendmmsg"], 1);
  CHECK_EQ(rig.kernel.largest_send, 44);  // 65507 / 1472
}

TEST("packets of one length to one peer share a message across reads, and a shorter one ends it") {
  PathRig rig;
  std::vector<Bytes> expected;
  for (const size_t payload : {100, 100, 100, 60, 100, 100}) {
    const Bytes packet = make_udp(to_peer(2), {}, pattern(payload));
    rig.kernel.tun_frames.push_back(single(packet));
    expected.push_back(hop(packet));
  }
  std::vector<size_t> messages;
  rig.kernel.on_send = [&messages](const mmsghdr&, size_t datagrams) {
    messages.push_back(datagrams);
    return 0;
  };
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == expected);
  CHECK(messages == (std::vector<size_t>{4, 2}));
  CHECK_EQ(rig.kernel.calls["sendmmsg"], 1);
}

TEST("packets to several peers in turn are grouped by peer") {
  PathRig rig;
  for (unsigned i = 0; i < 40; i++) {
    rig.kernel.tun_frames.push_back(single(make_udp(to_peer(i % 4), {}, pattern(64, i))));
  }
  rig.transmit.run();
  CHECK_EQ(rig.kernel.sent.size(), 40);
  CHECK_EQ(rig.kernel.calls["sendmmsg"], 1);
  CHECK_EQ(rig.kernel.largest_send, 10);
}

TEST("without UDP_SEGMENT and without batches every packet is a call of its own") {
  OffloadSet offloads = OffloadSet::all();
  offloads.remove(Offload::kUdpSegment);
  offloads.remove(Offload::kBatch);
  PathRig rig(VerifySource::kOuter, offloads);
  const Super super = super_tcp(to_peer(1), {}, 10 * kGso);
  rig.kernel.tun_frames = {super.frame};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == super.expected);
  CHECK_EQ(rig.kernel.calls["sendmmsg"], 10);
}

TEST("without IFF_VNET_HDR packets are read bare") {
  OffloadSet offloads = OffloadSet::all();
  offloads.remove(Offload::kVnetHdr);
  PathRig rig(VerifySource::kOuter, offloads);
  const Bytes packet = make_udp(to_peer(1), {}, pattern(100));
  rig.kernel.tun_frames = {packet};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == std::vector<Bytes>{hop(packet)});
}

TEST("thousands of tiny segments, more than a turn and a batch have room for, come out whole") {
  PathRig rig;
  const Super super = super_tcp(to_peer(1), {.options = timestamps(3, 4)}, 20000, 8);
  rig.kernel.tun_frames = {super.frame};
  rig.drain_tun();
  CHECK_EQ(rig.kernel.sent.size(), 2500);
  CHECK(data_of(rig.kernel.sent) == super.expected);
  CHECK_EQ(rig.kernel.largest_send, 64);  // UDP_MAX_SEGMENTS before 6.9
}

TEST("a tunnel that dies in the middle of a super-packet has counted every packet of it") {
  PathRig rig;
  const Super super = super_tcp(to_peer(0), {}, 1000 * 50, 50);
  rig.kernel.tun_frames = {super.frame};
  rig.kernel.on_send = [](const mmsghdr&, size_t) { return EBADF; };
  rig.drain_tun();
  CHECK(rig.context.has_failed);
  CHECK_EQ(rig.drops(DropReason::kSendError), 1000);
}

TEST("a tunnel that dies while the socket is full has counted every packet that waited") {
  PathRig rig;
  const Super narrow = super_tcp(to_peer(0), {}, 2 * 1400, 1400);
  rig.kernel.tun_frames = {narrow.frame};
  // Sent one by one, the first packet finds the socket dead, and the second one finds it full.
  std::deque<int> answers = {EMSGSIZE, EBADF, EAGAIN};
  rig.kernel.on_send = [&answers](const mmsghdr&, size_t) {
    const int code = answers.empty() ? 0 : answers.front();
    if (!answers.empty()) answers.pop_front();
    return code;
  };
  rig.transmit.run();
  CHECK(rig.context.has_failed);
  CHECK_EQ(rig.drops(DropReason::kSendError), 2);
  CHECK(!rig.sender.is_blocked());
}

TEST("EIO switches segmenting off for good, and the packets it hit go out once, one by one") {
  // EIO comes from a device without checksums, EOPNOTSUPP from a kernel that knows the option but not for this socket.
  for (const int refusal : {EIO, EOPNOTSUPP}) {
    PathRig rig;
    const Super first = super_tcp(to_peer(1), {}, 20 * kGso);
    const Super second = super_tcp(to_peer(1), {.sequence = 90000}, 5 * kGso);
    rig.kernel.on_send = [refusal](const mmsghdr&, size_t datagrams) { return datagrams > 1 ? refusal : 0; };
    rig.kernel.tun_frames = {first.frame};
    rig.transmit.run();
    CHECK(data_of(rig.kernel.sent) == first.expected);
    CHECK(!rig.health.offloads().has(Offload::kUdpSegment));
    CHECK_EQ(rig.sink.events.size(), 1);
    CHECK(rig.sink.events.size() == 1 && rig.sink.events[0].type == TunnelEvent::Type::kDowngrade &&
          rig.sink.events[0].offload == Offload::kUdpSegment && rig.sink.events[0].code == refusal);

    rig.kernel.sent.clear();
    rig.kernel.largest_send = 0;
    rig.kernel.on_send = nullptr;
    rig.kernel.tun_frames = {second.frame};
    rig.transmit.run();
    CHECK(data_of(rig.kernel.sent) == second.expected);
    CHECK_EQ(rig.kernel.largest_send, 1);
    CHECK_EQ(rig.sink.events.size(), 1);
    CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), 1);
    CHECK_EQ(rig.all_drops(), 0);
  }
}

TEST("a message refused in the middle of a batch is replayed in its place; those around it go out once") {
  for (const int refusal : {EIO, EINVAL, EMSGSIZE}) {
    PathRig rig;
    std::vector<Bytes> expected;
    for (unsigned n = 0; n < 3; n++) {
      const Super super = super_tcp(to_peer(n), {}, 7 * kGso + 3);
      rig.kernel.tun_frames.push_back(super.frame);
      expected.insert(expected.end(), super.expected.begin(), super.expected.end());
    }
    rig.kernel.on_send = [refusal](const mmsghdr& message, size_t datagrams) {
      const auto* to = static_cast<const sockaddr_in*>(message.msg_hdr.msg_name);
      return datagrams > 1 && ntohl(to->sin_addr.s_addr) == outer_of(1) ? refusal : 0;
    };
    rig.transmit.run();
    CHECK(data_of(rig.kernel.sent) == expected);
    CHECK_EQ(rig.counters->tx_packets.get(), 24);
    for (unsigned n = 0; n < 3; n++) CHECK_EQ(rig.peers->at(n).tx_packets.get(), 8);
    CHECK_EQ(rig.all_drops(), 0);
    CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), refusal == EMSGSIZE ? 0 : 1);
  }
}

TEST("a socket that fills up during a replay goes on with the packet it stopped at") {
  for (const int full : {EAGAIN, ENOBUFS}) {
    PathRig rig;
    const Super first = super_tcp(to_peer(1), {}, 9 * kGso + 5);
    const Super second = super_tcp(to_peer(2), {}, 4 * kGso);
    rig.kernel.tun_frames = {first.frame, second.frame};
    int singles = 0;
    rig.kernel.on_send = [&singles, full](const mmsghdr&, size_t datagrams) {
      if (datagrams > 1) return EIO;
      return ++singles % 3 == 0 ? full : 0;
    };
    rig.transmit.run();
    CHECK(rig.transmit.is_blocked());
    size_t turns = 0;
    while (rig.sender.batch().size() > 0 && turns < 100) {
      rig.transmit.run();
      turns++;
    }
    CHECK(turns > 3);
    std::vector<Bytes> expected = first.expected;
    expected.insert(expected.end(), second.expected.begin(), second.expected.end());
    CHECK(data_of(rig.kernel.sent) == expected);
    CHECK_EQ(rig.all_drops(), 0);
  }
}

TEST("EINVAL that goes away with single packets switches segmenting off") {
  PathRig rig;
  const Super super = super_tcp(to_peer(1), {}, 20 * kGso);
  rig.kernel.on_send = [](const mmsghdr&, size_t datagrams) { return datagrams > 1 ? EINVAL : 0; };
  rig.kernel.tun_frames = {super.frame};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == super.expected);
  CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), 1);
}

TEST("a peer that cannot be reached says nothing about segmenting") {
  // What routes answer: blackhole, unreachable, prohibit, and a device that is gone.
  for (const int refusal : {EINVAL, EHOSTUNREACH, EACCES, EIO}) {
    PathRig rig;
    rig.kernel.on_send = [refusal](const mmsghdr& message, size_t) {
      const auto* to = static_cast<const sockaddr_in*>(message.msg_hdr.msg_name);
      return ntohl(to->sin_addr.s_addr) == outer_of(1) ? refusal : 0;
    };
    const Super lost = super_tcp(to_peer(1), {}, 20 * kGso);
    const Super other = super_tcp(to_peer(2), {}, 20 * kGso);
    rig.kernel.tun_frames = {lost.frame, other.frame};
    rig.transmit.run();
    CHECK(data_of(rig.kernel.sent) == other.expected);
    CHECK_EQ(rig.drops(DropReason::kSendError), 20);
    CHECK(rig.health.offloads().has(Offload::kUdpSegment));
    CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), 0);
    CHECK(rig.sink.events.empty());
  }
}

TEST("a batch of which only some packets pass singly says nothing about segmenting") {
  PathRig rig;
  int singles = 0;
  rig.kernel.on_send = [&singles](const mmsghdr&, size_t datagrams) {
    return datagrams > 1 || ++singles == 3 ? EINVAL : 0;
  };
  rig.kernel.tun_frames = {super_tcp(to_peer(1), {}, 20 * kGso).frame};
  rig.transmit.run();
  CHECK_EQ(rig.kernel.sent.size(), 19);
  CHECK_EQ(rig.drops(DropReason::kSendError), 1);
  CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), 0);
}

TEST("fragmentation needed gets through however many other errors are held back") {
  PathRig rig;
  const Bytes unroutable = make_udp({.source = kLocal, .destination = ipv4(10, 5, 9, 9)}, {}, pattern(100));
  for (int i = 0; i < 5000; i++) rig.kernel.tun_frames.push_back(single(unroutable));
  rig.drain_tun();
  CHECK(rig.counters->icmp_limited.get() > 0);
  rig.kernel.on_send = [](const mmsghdr&, size_t) { return EMSGSIZE; };
  rig.kernel.tun_frames = {single(make_udp(to_peer(1), {}, pattern(1400)))};
  rig.drain_tun();
  CHECK_EQ(rig.icmp(IcmpError::kFragmentationNeeded), 1);
}

TEST("fragmentation needed is limited as well") {
  PathRig rig;
  const Bytes large = make_udp(to_peer(1), {}, pattern(kMtu));
  for (int i = 0; i < 50000; i++) rig.kernel.tun_frames.push_back(single(large));
  rig.drain_tun();
  CHECK_EQ(rig.drops(DropReason::kOversize), 50000);
  CHECK_EQ(rig.icmp(IcmpError::kFragmentationNeeded) + rig.counters->icmp_limited.get(), 50000);
  CHECK(rig.icmp(IcmpError::kFragmentationNeeded) >= 500);
  CHECK(rig.counters->icmp_limited.get() > 0);
}

TEST("an error that the kernel does not take is counted, and is no dropped packet") {
  PathRig rig;
  rig.kernel.on_answer = [] { return ENETUNREACH; };
  rig.kernel.tun_frames = {single(make_udp({.source = kLocal, .destination = ipv4(10, 5, 9, 9)}, {}, pattern(100)))};
  rig.transmit.run();
  CHECK_EQ(rig.counters->icmp_failed.get(), 1);
  CHECK_EQ(rig.icmp(IcmpError::kNetUnreachable), 0);
  CHECK_EQ(rig.all_drops(), 1);
  CHECK(!rig.context.has_failed);
}

TEST("a turn ends after so many packets for the wire, in the middle of a super-packet of tiny segments too") {
  PathRig rig;
  const Super tiny = super_tcp(to_peer(1), {}, 860 * 76, 76);
  const Bytes ping = make_udp(to_peer(2), {}, pattern(64));
  rig.kernel.tun_frames = {tiny.frame, single(ping)};
  size_t turns = 0;
  while ((!rig.kernel.tun_frames.empty() || rig.kernel.sent.size() < 861) && turns < 100) {
    const size_t before = rig.kernel.sent.size();
    CHECK(rig.transmit.run());
    CHECK(rig.kernel.sent.size() - before <= 192);
    turns++;
  }
  CHECK(turns >= 5 && turns < 10);
  std::vector<Bytes> expected = tiny.expected;
  expected.push_back(hop(ping));
  CHECK(data_of(rig.kernel.sent) == expected);
  CHECK_EQ(rig.all_drops(), 0);
}

TEST("three super-packets of full segments are one turn") {
  PathRig rig;
  for (uint32_t i = 0; i < 3; i++) {
    rig.kernel.tun_frames.push_back(super_tcp(to_peer(1), {.sequence = i * 70000}, 45 * kGso).frame);
  }
  rig.transmit.run();
  CHECK_EQ(rig.kernel.sent.size(), 135);
}

TEST("a narrow path is told to the sender of packets with DF, and does not switch segmenting off") {
  // EINVAL is what UDP_SEGMENT answered to a narrow path before 6.14, EMSGSIZE what it answers since.
  for (const int refusal : {EINVAL, EMSGSIZE}) {
    PathRig rig;
    rig.kernel.path_mtu = 1400;
    rig.kernel.on_send = [refusal](const mmsghdr& message, size_t datagrams) {
      if (datagrams > 1) return refusal;
      return FakeKernel::payload(message).size() + 28 > 1400 ? EMSGSIZE : 0;
    };
    const Super super = super_tcp(to_peer(1), {}, 10 * kGso + 100);
    rig.kernel.tun_frames = {super.frame};
    rig.transmit.run();
    CHECK_EQ(rig.kernel.sent.size(), 1);  // the short last one fits
    CHECK(rig.kernel.sent.size() == 1 && rig.kernel.sent[0].data == super.expected.back());
    CHECK_EQ(rig.drops(DropReason::kOversize), 10);
    CHECK_EQ(rig.health.downgrades(Offload::kUdpSegment), 0);
    CHECK_EQ(rig.icmp(IcmpError::kFragmentationNeeded), 10);
    CHECK_EQ(rig.kernel.answers.size(), 10);
    if (rig.kernel.answers.empty()) continue;
    CHECK_EQ(rig.kernel.answers[0].outer, kLocal);
    const Bytes icmp = rig.kernel.answers[0].data;
    CHECK_EQ(icmp[20], 3);
    CHECK_EQ(icmp[21], 4);
    CHECK_EQ(get16(icmp, 26), 1400 - 28);
    CHECK_EQ(get32(icmp, 12), kOwnTun);
    CHECK_EQ(get32(icmp, 16), kLocal);
    CHECK(Bytes(icmp.begin() + 28, icmp.begin() + 56) ==
          Bytes(super.expected[0].begin(), super.expected[0].begin() + 28));
    CHECK(ip_checksum_right(icmp));
  }
}

TEST("a narrow path of unknown width is taken for one of 576 bytes") {
  PathRig rig;
  rig.kernel.path_mtu = -ENOTCONN;
  rig.kernel.on_send = [](const mmsghdr&, size_t) { return EMSGSIZE; };
  rig.kernel.tun_frames = {single(make_udp(to_peer(1), {}, pattern(1000)))};
  rig.transmit.run();
  CHECK_EQ(rig.kernel.answers.size(), 1);
  if (!rig.kernel.answers.empty()) CHECK_EQ(get16(rig.kernel.answers[0].data, 26), 576 - 28);
}

TEST("packets without DF cross a narrow path in outer fragments, and DF is back after them") {
  PathRig rig;
  rig.kernel.options["IP_MTU_DISCOVER"] = IP_PMTUDISC_DO;
  rig.kernel.on_send = [&rig](const mmsghdr& message, size_t) {
    const bool has_df = rig.kernel.options["IP_MTU_DISCOVER"] == IP_PMTUDISC_DO;
    return has_df && FakeKernel::payload(message).size() > 1000 ? EMSGSIZE : 0;
  };
  Ip ip = to_peer(1);
  ip.fragment = 0;
  const Bytes large = make_udp(ip, {}, pattern(1200));
  const Bytes small = make_udp(ip, {}, pattern(200));
  rig.kernel.tun_frames = {single(large), single(small)};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == (std::vector<Bytes>{hop(large), hop(small)}));
  CHECK(rig.kernel.sent.size() == 2 && !rig.kernel.sent[0].has_df && rig.kernel.sent[1].has_df);
  CHECK_EQ(rig.all_drops(), 0);
  CHECK(rig.kernel.answers.empty());
}

TEST("a full socket keeps the packets in order and stops the reading until it has room again") {
  for (const int refusal : {EAGAIN, ENOBUFS}) {
    PathRig rig;
    const Super super = super_tcp(to_peer(1), {}, 20000, 8);  // many batches: it blocks in the middle of a packet
    const Bytes last = make_udp(to_peer(1), {}, pattern(50));
    rig.kernel.tun_frames = {super.frame, single(last)};
    int room = 0;  // for so many messages
    rig.kernel.on_send = [&room, refusal](const mmsghdr&, size_t) { return room-- > 0 ? 0 : refusal; };
    size_t blocked = 0;
    for (size_t turns = 0; turns < 10000 && rig.kernel.sent.size() <= super.expected.size(); turns++) {
      const bool was_blocked = rig.transmit.is_blocked();
      const size_t reads = rig.kernel.calls["read"];
      room = static_cast<int>(turns % 3);
      const bool has_progress = rig.transmit.run();
      if (!rig.transmit.is_blocked()) continue;
      if (was_blocked && !has_progress) CHECK_EQ(rig.kernel.calls["read"], reads);
      blocked++;
    }
    CHECK(blocked > 2);
    std::vector<Bytes> expected = super.expected;
    expected.push_back(hop(last));
    CHECK(data_of(rig.kernel.sent) == expected);
    CHECK_EQ(rig.all_drops(), 0);
  }
}

TEST("what has waited too long for the socket is dropped, and newer packets get their turn") {
  PathRig rig;
  rig.kernel.on_send = [](const mmsghdr&, size_t) { return EAGAIN; };
  const Super super = super_tcp(to_peer(1), {}, 45 * kGso);
  rig.kernel.tun_frames = {super.frame};
  rig.transmit.run();
  CHECK(rig.transmit.is_blocked());
  const uint64_t since = monotonic_ns();
  while (rig.transmit.is_blocked() && monotonic_ns() - since < 5'000'000'000) rig.transmit.run();
  const uint64_t waited = monotonic_ns() - since;
  CHECK(waited > Sender::kBlockedLimitNs / 2 && waited < 5'000'000'000);
  CHECK_EQ(rig.drops(DropReason::kSendBlocked), 45);
  rig.kernel.on_send = nullptr;
  const Bytes packet = make_udp(to_peer(1), {}, pattern(50));
  rig.kernel.tun_frames = {single(packet)};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == std::vector<Bytes>{hop(packet)});
}

TEST("a refusal of one message costs the others nothing") {
  PathRig rig;
  rig.kernel.on_send = [](const mmsghdr& message, size_t) {
    const auto* to = static_cast<const sockaddr_in*>(message.msg_hdr.msg_name);
    return ntohl(to->sin_addr.s_addr) == outer_of(1) ? EPERM : 0;
  };
  for (unsigned n = 0; n < 3; n++) {
    const Super super = super_tcp(to_peer(n), {}, 3 * kGso);
    rig.kernel.tun_frames.push_back(super.frame);
  }
  rig.transmit.run();
  CHECK_EQ(rig.kernel.sent.size(), 6);
  CHECK_EQ(rig.drops(DropReason::kSendError), 3);
  CHECK(rig.sink.events.empty());
}

TEST("a dead socket or TUN ends the tunnel with one event") {
  PathRig rig;
  rig.kernel.on_send = [](const mmsghdr&, size_t) { return EBADF; };
  rig.kernel.tun_frames = {super_tcp(to_peer(1), {}, 3 * kGso).frame};
  rig.transmit.run();
  CHECK(rig.context.has_failed);
  CHECK(rig.sink.events.size() == 1 && rig.sink.events[0].type == TunnelEvent::Type::kFailed &&
        rig.sink.events[0].code == EBADF);
  CHECK_EQ(rig.drops(DropReason::kSendError), 3);

  PathRig other;
  other.kernel.read_errors = {EBADFD, EBADFD};
  other.transmit.run();
  CHECK(other.context.has_failed);
  CHECK(other.sink.events.size() == 1 && other.sink.events[0].code == EBADFD);
}

TEST("a packet that the kernel cannot hand over is counted, and reading goes on") {
  PathRig rig;
  rig.kernel.read_errors = {EINVAL, EINTR};
  const Bytes packet = make_udp(to_peer(1), {}, pattern(50));
  rig.kernel.tun_frames = {single(packet)};
  rig.transmit.run();
  CHECK(data_of(rig.kernel.sent) == std::vector<Bytes>{hop(packet)});
  CHECK_EQ(rig.drops(DropReason::kTunError), 1);
}

TEST("a super-packet that is too long, expired or unroutable is dropped as the packets it stands for") {
  PathRig rig;
  VnetHeader odd;
  odd.gso_type = kGsoTcpV4;  // gso_size 0
  const Bytes tcp = make_tcp(to_peer(1), {}, pattern(3000));
  rig.kernel.tun_frames = {
      super_tcp(to_peer(1), {}, 4 * 2000, 2000).frame,
      super_tcp(to_peer(1, 1), {}, 4 * kGso).frame,
      super_tcp({.source = kLocal, .destination = ipv4(10, 5, 9, 9)}, {}, 4 * kGso).frame,
      with_vnet(odd, tcp),
      Bytes(5),
  };
  rig.transmit.run();
  CHECK(rig.kernel.sent.empty());
  CHECK_EQ(rig.drops(DropReason::kOversize), 4);
  CHECK_EQ(rig.drops(DropReason::kTtlExpired), 4);
  CHECK_EQ(rig.drops(DropReason::kNoRoute), 4);
  CHECK_EQ(rig.drops(DropReason::kBadHeader), 1);
  CHECK_EQ(rig.drops(DropReason::kShort), 1);
  CHECK_EQ(rig.icmp(IcmpError::kFragmentationNeeded), 1);
  CHECK_EQ(rig.icmp(IcmpError::kTimeExceeded), 1);
  CHECK_EQ(rig.icmp(IcmpError::kNetUnreachable), 1);
}

TEST("whatever the kernel refuses, every packet is sent once and in order or counted as dropped") {
  Random random(7);
  for (int round = 0; round < 300 && passing(); round++) {
    PathRig rig;
    std::map<uint32_t, std::vector<Bytes>> expected;  // by peer
    size_t total = 0;
    uint32_t sequence = 1;
    const size_t frames = 1 + random.below(40);
    for (size_t i = 0; i < frames; i++) {
      const auto n = static_cast<unsigned>(random.below(PathRig::kPeers));
      if (random.one_in(3)) {
        const size_t gso = 1 + random.below(kGso);
        const size_t payload = std::min<size_t>(1 + random.below(65000), gso * 300);
        const Super super = super_tcp(to_peer(n), {.sequence = sequence}, payload, gso);
        sequence += static_cast<uint32_t>(payload);
        rig.kernel.tun_frames.push_back(super.frame);
        for (const Bytes& each : super.expected) expected[outer_of(n)].push_back(each);
        total += super.expected.size();
      } else {
        // Numbered, so that no two packets are equal.
        const size_t payload = random.one_in(2) ? 100 : random.below(1400);
        Ip ip = to_peer(n);
        ip.id = static_cast<uint16_t>(i);
        ip.fragment = random.one_in(4) ? 0 : 0x4000;
        const Bytes packet = make_udp(ip, {}, pattern(payload, static_cast<uint32_t>(i)));
        rig.kernel.tun_frames.push_back(single(packet));
        expected[outer_of(n)].push_back(hop(packet));
        total++;
      }
    }
    const size_t trouble = 2 + random.below(8);
    rig.kernel.path_mtu = 1000;
    rig.kernel.on_send = [&](const mmsghdr&, size_t) {
      // It is on again in the middle of things.
      if (random.one_in(20)) rig.health.try_again(UINT64_MAX - 1);
      constexpr std::array<int, 7> kErrors = {EAGAIN, ENOBUFS, EIO, EINVAL, EMSGSIZE, EPERM, EINTR};
      return random.one_in(trouble) ? kErrors[random.below(kErrors.size())] : 0;
    };
    rig.drain_tun();
    CHECK_EQ_NOTE(rig.kernel.sent.size() + rig.all_drops(), total, "round " + show(round));
    CHECK_EQ(rig.counters->tx_packets.get(), rig.kernel.sent.size());
    // What arrived at each peer is what was sent to it, with gaps only.
    std::map<uint32_t, size_t> at;
    for (const Datagram& each : rig.kernel.sent) {
      const std::vector<Bytes>& wanted = expected[each.outer];
      size_t& next = at[each.outer];
      while (next < wanted.size() && wanted[next] != each.data) next++;
      CHECK_NOTE(next < wanted.size(), "round " + show(round));
      next++;
    }
  }
}

TEST("what is not TCP passes the TCP that waits, and both move on in each turn") {
  PathRig rig(VerifySource::kOuter, OffloadSet::all(), {kTunFd, kTcpLaneFd});
  std::vector<Bytes> tcp;
  for (uint32_t i = 0; i < 10; i++) {
    const Super super = super_tcp(to_peer(1), {.sequence = i * 57280}, 40 * kGso);
    rig.kernel.tcp_lane_frames.push_back(super.frame);
    tcp.insert(tcp.end(), super.expected.begin(), super.expected.end());
  }
  CHECK(rig.transmit.run());
  const size_t of_first_turn = rig.kernel.sent.size();
  CHECK(of_first_turn > 0 && of_first_turn < tcp.size());

  const Bytes ping = make_udp(to_peer(1), {}, pattern(64));
  for (int i = 0; i < 200; i++) rig.kernel.tun_frames.push_back(single(ping));
  CHECK(rig.transmit.run());
  CHECK(rig.kernel.sent[of_first_turn].data == hop(ping));
  std::vector<Bytes> others;
  const auto sort_out = [&] {
    others.clear();
    std::vector<Bytes> sent_tcp;
    for (const Datagram& each : rig.kernel.sent) (each.data == hop(ping) ? others : sent_tcp).push_back(each.data);
    return sent_tcp;
  };
  const size_t tcp_after_two = sort_out().size();
  CHECK(tcp_after_two > of_first_turn);
  CHECK(!others.empty() && others.size() < 200);

  rig.drain_tun();
  CHECK(sort_out() == tcp);
  CHECK_EQ(others.size(), 200);
}

}  // namespace
}  // namespace tsflannel::testing
