#include "../../../native/core/worker/receive_path.h"

#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "path_rig.h"

namespace tsflannel::testing {
namespace {

Ip from_peer(unsigned n, uint8_t ttl = 63) {
  return {.source = inner_of(n), .destination = kLocal, .ttl = ttl};
}

/// Consecutive TCP segments as one UDP_GRO receive brings them.
std::vector<Bytes> tcp_stream(const Ip& ip, size_t count, size_t length, uint32_t sequence = 1000) {
  std::vector<Bytes> packets;
  for (size_t i = 0; i < count; i++) {
    Ip each = ip;
    each.id = static_cast<uint16_t>(ip.id + i);
    const auto at = static_cast<uint32_t>(sequence + i * length);
    packets.push_back(make_tcp(each, {.sequence = at}, pattern(length, at)));
  }
  return packets;
}

Inbound bulk(unsigned n, const std::vector<Bytes>& packets) {
  Inbound inbound{.outer = outer_of(n), .data = {}, .segment_length = static_cast<int>(packets.at(0).size())};
  for (const Bytes& each : packets) inbound.data.insert(inbound.data.end(), each.begin(), each.end());
  return inbound;
}

/// The packets that a written frame stands for.
std::vector<Bytes> unfold(const Bytes& frame) {
  const VnetHeader vnet = vnet_of(frame);
  const Bytes packet = packet_of(frame);
  if (vnet.gso_type == kGsoNone) return {packet};
  return slow_segment(vnet, packet).value_or(std::vector<Bytes>{});
}

std::vector<Bytes> unfold(const std::vector<Bytes>& frames) {
  std::vector<Bytes> all;
  for (const Bytes& frame : frames) {
    for (Bytes& each : unfold(frame)) all.push_back(std::move(each));
  }
  return all;
}

std::vector<Bytes> hops(std::vector<Bytes> packets) {
  for (Bytes& each : packets) each = hop(each);
  return packets;
}

TEST("bulk from a peer reaches the TUN in one write") {
  PathRig rig;
  const std::vector<Bytes> packets = tcp_stream(from_peer(1), 40, 1432);
  rig.kernel.inbound = {bulk(1, packets)};
  CHECK(rig.receive.run());
  CHECK_EQ(rig.kernel.calls["writev"], 1);
  CHECK_EQ(rig.kernel.calls["recvmmsg"], 1);
  CHECK(unfold(rig.kernel.written) == hops(packets));
  CHECK_EQ(rig.counters->rx_packets.get(), 40);
  CHECK_EQ(rig.counters->rx_bytes.get(), 40 * 1472);
  CHECK_EQ(rig.peers->at(1).rx_packets.get(), 40);
  CHECK_EQ(rig.peers->at(1).rx_bytes.get(), 40 * 1472);
  CHECK(!rig.receive.run());
}

TEST("datagrams that came one by one are joined as well") {
  PathRig rig;
  const std::vector<Bytes> packets = tcp_stream(from_peer(1), 20, 500);
  for (const Bytes& each : packets) rig.kernel.inbound.push_back({outer_of(1), each, 0});
  rig.receive.run();
  CHECK_EQ(rig.kernel.calls["writev"], 1);
  CHECK(unfold(rig.kernel.written) == hops(packets));
}

TEST("an error of a merged write switches merging of that protocol off, and each packet is written once") {
  for (const bool is_tcp : {true, false}) {
    PathRig rig;
    std::vector<Bytes> packets;
    if (is_tcp) {
      packets = tcp_stream(from_peer(1), 30, 1000);
    } else {
      for (uint32_t i = 0; i < 30; i++) packets.push_back(make_udp(from_peer(1), {}, pattern(1000, i)));
    }
    rig.kernel.on_write = [](const Bytes& frame) { return vnet_of(frame).gso_type != kGsoNone ? EINVAL : 0; };
    rig.kernel.inbound = {bulk(1, packets)};
    rig.receive.run();
    CHECK_EQ(rig.kernel.written.size(), 30);
    CHECK(unfold(rig.kernel.written) == hops(packets));
    const Offload off = is_tcp ? Offload::kTcpMerge : Offload::kUdpMerge;
    const Offload on = is_tcp ? Offload::kUdpMerge : Offload::kTcpMerge;
    CHECK(!rig.health.offloads().has(off));
    CHECK(rig.health.offloads().has(on));
    CHECK(rig.sink.events.size() == 1 && rig.sink.events[0].offload == off && rig.sink.events[0].code == EINVAL);

    const size_t calls = rig.kernel.calls["writev"];
    rig.kernel.inbound = {bulk(1, packets)};
    rig.receive.run();
    CHECK_EQ(rig.kernel.calls["writev"], calls + 30);
    CHECK_EQ(rig.health.downgrades(off), 1);
    CHECK_EQ(rig.counters->rx_packets.get(), 60);
    CHECK_EQ(rig.all_drops(), 0);
  }
}

TEST("all merged packets of the batch in which merging failed are written singly, each in its place") {
  PathRig rig;
  std::vector<Bytes> expected;
  for (unsigned n = 0; n < 3; n++) {
    const std::vector<Bytes> packets = tcp_stream(from_peer(n), 8, 900);
    rig.kernel.inbound.push_back(bulk(n, packets));
    for (const Bytes& each : hops(packets)) expected.push_back(each);
  }
  rig.kernel.on_write = [](const Bytes& frame) { return vnet_of(frame).gso_type != kGsoNone ? EINVAL : 0; };
  rig.receive.run();
  // Each as it came, not as a merged packet that was cut again.
  std::vector<Bytes> written;
  for (const Bytes& frame : rig.kernel.written) {
    CHECK_EQ(vnet_of(frame).flags, 0);
    written.push_back(packet_of(frame));
  }
  CHECK(written == expected);
  CHECK_EQ(rig.health.downgrades(Offload::kTcpMerge), 1);
  CHECK_EQ(rig.sink.events.size(), 1);
  CHECK_EQ(rig.counters->rx_packets.get(), 24);
  CHECK_EQ(rig.all_drops(), 0);
}

TEST("a packet with a bad inner checksum reaches the TUN as it came, so that the kernel counts and drops it") {
  PathRig rig;
  std::vector<Bytes> packets = tcp_stream(from_peer(1), 9, 700);
  packets[4].back() ^= 0x01;
  rig.kernel.inbound = {bulk(1, packets)};
  rig.receive.run();
  CHECK_EQ(rig.kernel.written.size(), 3);
  const std::vector<Bytes> expected = hops(packets);
  CHECK(unfold(rig.kernel.written) == expected);
  if (rig.kernel.written.size() == 3) {
    CHECK(packet_of(rig.kernel.written[1]) == expected[4]);
    CHECK_EQ(vnet_of(rig.kernel.written[1]).flags, 0);
  }
}

TEST("a refusal that is not about merging is no reason to stop merging") {
  PathRig rig;
  rig.kernel.on_write = [](const Bytes&) { return EIO; };  // the device is down
  rig.kernel.inbound = {bulk(1, tcp_stream(from_peer(1), 30, 1000))};
  rig.receive.run();
  CHECK_EQ(rig.drops(DropReason::kTunError), 30);
  CHECK_EQ(rig.counters->rx_packets.get(), 0);
  CHECK(rig.health.offloads().has(Offload::kTcpMerge));
  CHECK(rig.sink.events.empty());
}

TEST("a full device is waited for a little, then packets are dropped") {
  PathRig rig;
  int refusals = 2;
  rig.kernel.on_write = [&refusals](const Bytes&) { return refusals-- > 0 ? EAGAIN : 0; };
  rig.kernel.inbound = {{outer_of(1), make_udp(from_peer(1), {}, pattern(10)), 0}};
  rig.receive.run();
  CHECK_EQ(rig.kernel.written.size(), 1);
  CHECK_EQ(rig.all_drops(), 0);

  refusals = 1000;
  rig.kernel.inbound = {bulk(1, tcp_stream(from_peer(1), 30, 1000))};
  rig.receive.run();
  CHECK_EQ(rig.kernel.written.size(), 1);
  CHECK_EQ(rig.drops(DropReason::kTunBlocked), 30);
  CHECK_EQ(refusals, 1000 - 3);
}

TEST("interrupted writes do not use up the patience with a full device") {
  PathRig rig;
  std::deque<int> answers = {EINTR, EINTR, EINTR, EAGAIN, EAGAIN, 0};
  rig.kernel.on_write = [&answers](const Bytes&) {
    const int code = answers.front();
    answers.pop_front();
    return code;
  };
  rig.kernel.inbound = {{outer_of(1), make_udp(from_peer(1), {}, pattern(10)), 0}};
  rig.receive.run();
  CHECK_EQ(rig.kernel.written.size(), 1);
  CHECK_EQ(rig.all_drops(), 0);
}

TEST("a dead TUN or socket ends the tunnel with one event") {
  PathRig rig;
  rig.kernel.on_write = [](const Bytes&) { return EBADFD; };
  rig.kernel.inbound = {{outer_of(1), make_udp(from_peer(1), {}, pattern(10)), 0},
                        {outer_of(1), make_udp(from_peer(1), {}, pattern(20)), 0}};
  rig.receive.run();
  CHECK(rig.context.has_failed);
  CHECK(rig.sink.events.size() == 1 && rig.sink.events[0].type == TunnelEvent::Type::kFailed);
}

TEST("a turn ends when the other direction has waited long enough") {
  PathRig rig;
  for (int i = 0; i < 1000; i++)
    rig.kernel.inbound.push_back({outer_of(1), make_udp(from_peer(1), {}, pattern(10)), 0});
  CHECK(rig.receive.run());
  CHECK(rig.kernel.inbound.size() >= 1000 - 100);

  PathRig large;
  for (int i = 0; i < 100; i++) large.kernel.inbound.push_back(bulk(1, tcp_stream(from_peer(1), 44, 1432)));
  CHECK(large.receive.run());
  CHECK(large.kernel.inbound.size() >= 100 - 40);
  while (large.receive.run()) {
  }
  CHECK_EQ(large.counters->rx_packets.get(), 4400);
}

TEST("every kind of bad datagram is dropped with its reason") {
  struct Case {
    DropReason reason;
    Bytes data;
  };
  const Bytes good = make_udp(from_peer(1), {}, pattern(100));
  Bytes short_of_one = good;
  short_of_one.pop_back();
  Bytes one_too_many = good;
  one_too_many.push_back(0);
  Bytes ipv6 = good;
  ipv6[0] = 0x60;
  Bytes bad_header = good;
  bad_header[0] = 0x44;
  const std::vector<Case> cases = {
      {DropReason::kShort, {}},
      {DropReason::kShort, Bytes(19, 0x45)},
      {DropReason::kNotIpv4, ipv6},
      {DropReason::kBadHeader, bad_header},
      {DropReason::kLengthMismatch, short_of_one},
      {DropReason::kLengthMismatch, one_too_many},
      {DropReason::kTtlExpired, make_udp(from_peer(1, 1), {}, pattern(10))},
  };
  for (const Case& each : cases) {
    PathRig rig;
    rig.kernel.inbound = {{outer_of(1), each.data, 0}, {outer_of(1), good, 0}};
    rig.receive.run();
    CHECK_EQ_NOTE(rig.drops(each.reason), 1, kDropReasonNames[static_cast<size_t>(each.reason)]);
    CHECK_EQ(rig.all_drops(), 1);
    CHECK(unfold(rig.kernel.written) == std::vector<Bytes>{hop(good)});
  }
}

TEST("a packet longer than the MTU of the TUN reaches the kernel, which knows what to do with it") {
  for (const size_t payload : {size_t{kMtu - 27}, size_t{8900}, size_t{65507 - 28}}) {
    PathRig rig;
    const Bytes large = make_udp(from_peer(1), {}, pattern(payload));
    rig.kernel.inbound = {{outer_of(1), large, 0}};
    rig.receive.run();
    CHECK(unfold(rig.kernel.written) == std::vector<Bytes>{hop(large)});
    CHECK_EQ(rig.all_drops(), 0);
  }
}

TEST("a source of this host is taken from nobody, unless sources are not checked") {
  // The TUN's own address, the bridge's, a container's, the underlay's; and beside them.
  for (const uint32_t source : {kOwnTun, kOwnTun + 1, kLocal, kOwnTun + 255, kOwnUnderlay}) {
    for (const VerifySource verify : {VerifySource::kOff, VerifySource::kOuter, VerifySource::kStrict}) {
      PathRig rig(verify);
      rig.kernel.inbound = {bulk(1, tcp_stream({.source = source, .destination = kLocal}, 3, 100))};
      rig.receive.run();
      const bool passes = verify == VerifySource::kOff;
      CHECK_EQ(unfold(rig.kernel.written).size(), passes ? 3 : 0);
      CHECK_EQ(rig.drops(DropReason::kSourceSpoofed), passes ? 0 : 3);
      CHECK_EQ(rig.all_drops(), passes ? 0 : 3);
      CHECK_EQ(rig.peers->at(1).rx_packets.get(), passes ? 3 : 0);
    }
  }
  for (const uint32_t source : {kOwnTun - 1, kOwnTun + 256, kOwnUnderlay + 1, kOwnUnderlay - 1}) {
    PathRig rig(VerifySource::kOuter);
    rig.kernel.inbound = {bulk(1, tcp_stream({.source = source, .destination = kLocal}, 3, 100))};
    rig.receive.run();
    CHECK_EQ(unfold(rig.kernel.written).size(), 3);
  }
}

TEST("a turn ends after so many datagrams, however many a message brings") {
  PathRig rig;
  for (int i = 0; i < 100; i++) rig.kernel.inbound.push_back(bulk(1, tcp_stream(from_peer(1), 64, 1)));
  size_t turns = 0;
  for (uint64_t before = 0; rig.receive.run(); before = rig.counters->rx_packets.get()) {
    // The first call does not know yet what the messages bring.
    if (turns++ > 0) CHECK(rig.counters->rx_packets.get() - before <= 512);
  }
  CHECK(turns > 5);
  CHECK_EQ(rig.counters->rx_packets.get(), 6400);
}

TEST("senders are checked as strictly as asked") {
  struct Case {
    VerifySource verify;
    uint32_t outer;
    unsigned inner;
    DropReason reason;
  };
  const uint32_t stranger = ipv4(203, 0, 113, 9);
  const std::array<Case, 8> cases = {{
      {VerifySource::kOff, stranger, 1, DropReason::kNone},
      {VerifySource::kOff, outer_of(2), 1, DropReason::kNone},
      {VerifySource::kOuter, stranger, 1, DropReason::kSourceUnknown},
      {VerifySource::kOuter, outer_of(2), 1, DropReason::kNone},
      {VerifySource::kOuter, outer_of(1), 1, DropReason::kNone},
      {VerifySource::kStrict, stranger, 1, DropReason::kSourceUnknown},
      {VerifySource::kStrict, outer_of(2), 1, DropReason::kSourceSpoofed},
      {VerifySource::kStrict, outer_of(1), 1, DropReason::kNone},
  }};
  for (const Case& each : cases) {
    PathRig rig(each.verify);
    Inbound inbound = bulk(0, tcp_stream(from_peer(each.inner), 3, 100));
    inbound.outer = each.outer;
    rig.kernel.inbound = {inbound};
    rig.receive.run();
    const bool passes = each.reason == DropReason::kNone;
    CHECK_EQ(unfold(rig.kernel.written).size(), passes ? 3 : 0);
    if (!passes) CHECK_EQ(rig.drops(each.reason), 3);
    CHECK_EQ(rig.all_drops(), passes ? 0 : 3);
  }
}

TEST("whatever arrives and whatever the TUN refuses, each good packet is written once and in its flow's order") {
  Random random(11);
  for (int round = 0; round < 200 && passing(); round++) {
    PathRig rig;
    size_t good = 0;
    uint16_t serial = 0;
    std::vector<Bytes> expected;
    const size_t messages = 1 + random.below(60);
    for (size_t i = 0; i < messages; i++) {
      const auto n = static_cast<unsigned>(random.below(PathRig::kPeers));
      Ip ip = from_peer(n);
      ip.id = serial;
      std::vector<Bytes> packets;
      if (random.one_in(2)) {
        packets = tcp_stream(ip, 1 + random.below(20), 1 + random.below(1400), random.word());
      } else {
        packets = {make_udp(ip, {.checksum = !random.one_in(3)}, pattern(random.below(1000), serial))};
      }
      serial = static_cast<uint16_t>(serial + packets.size());
      if (random.one_in(8)) {
        Bytes& victim = packets[0];
        victim[2] ^= 0x01;  // total length
        rig.kernel.inbound.push_back({outer_of(n), victim, 0});
        continue;
      }
      good += packets.size();
      for (const Bytes& each : packets) expected.push_back(hop(each));
      rig.kernel.inbound.push_back(bulk(n, packets));
    }
    const size_t trouble = 3 + random.below(10);
    rig.kernel.on_write = [&](const Bytes& frame) {
      if (!random.one_in(trouble)) return 0;
      constexpr std::array<int, 4> kErrors = {EINVAL, EIO, EAGAIN, EINTR};
      const int code = kErrors[random.below(kErrors.size())];
      return code == EINVAL && vnet_of(frame).gso_type == kGsoNone ? 0 : code;
    };
    while (rig.receive.run()) {
    }
    const std::vector<Bytes> written = unfold(rig.kernel.written);
    const uint64_t lost = rig.drops(DropReason::kTunError) + rig.drops(DropReason::kTunBlocked);
    CHECK_EQ_NOTE(written.size() + lost, good, "round " + show(round));
    CHECK_EQ(rig.counters->rx_packets.get(), written.size());
    // Within a flow, here a peer and a protocol, what is written is what was sent, with gaps only: nothing invented,
    // nothing twice, nothing overtakes. Merging may renumber packets with DF: leave the ID out.
    const auto by_flow = [](const std::vector<Bytes>& packets) {
      std::map<std::pair<uint32_t, uint8_t>, std::vector<Bytes>> flows;
      for (Bytes packet : packets) {
        put16(packet, 4, 0);
        fill_ip_checksum(packet);
        flows[{get32(packet, 12), packet[9]}].push_back(std::move(packet));
      }
      return flows;
    };
    auto sent = by_flow(expected);
    for (const auto& [flow, packets] : by_flow(written)) {
      const std::vector<Bytes>& wanted = sent[flow];
      size_t next = 0;
      for (const Bytes& packet : packets) {
        while (next < wanted.size() && wanted[next] != packet) next++;
        CHECK_NOTE(next < wanted.size(), "round " + show(round));
        next++;
      }
    }
  }
}

}  // namespace
}  // namespace tsflannel::testing
