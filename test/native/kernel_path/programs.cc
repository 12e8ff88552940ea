// The kernel path against the native core: what its programs take, the core must forward, byte for byte, and they must
// take everything that is plain. With a kernel; test/host/kernel-path.test.ts runs it.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "../../../native/core/packet/ipv4.h"
#include "../worker/path_rig.h"
#include "compiled.h"
#include "test_run.h"

namespace tsflannel::testing {
namespace {

constexpr size_t kEthernetBytes = 14;
constexpr size_t kOuterBytes = 28;
constexpr uint32_t kLeft = static_cast<uint32_t>(TC_ACT_UNSPEC);
constexpr int kCases = 20'000;
constexpr uint8_t kProtocolGre = 47;
constexpr size_t kSuperBytes = 3000;  // a test run takes less than a page
// A test run takes what it is given for a frame and looks for its type in bytes 12 and 13, where the packets of a TUN
// have the upper half of their source: this one reads as IPv4.
constexpr uint32_t kTestSource = ipv4(8, 0, 4, 2);
/// The peer that does not decapsulate in its kernel.
constexpr unsigned kStockPeer = 3;

/// The state of a PathRig.
std::vector<KernelPathRoute> routes() {
  std::vector<KernelPathRoute> all = {{.prefix = kOwnTun, .length = 24}, {.prefix = kOwnUnderlay, .length = 32}};
  for (unsigned n = 0; n < PathRig::kPeers; n++) {
    const uint32_t mtu = n == kStockPeer ? 0 : kMtu;
    all.push_back({.prefix = inner_of(n) & 0xffffff00, .length = 24, .outer = outer_of(n), .slot = n, .mtu = mtu});
  }
  return all;
}

std::unique_ptr<LoadedKernelPath> load() {
  return LoadedKernelPath::load({.uplink = 1, .tun = 1, .local = kOwnUnderlay, .port = kPort}, routes());
}

Bytes random_payload(Random& random, size_t limit) {
  return pattern(random.below(limit + 1), random.word());
}

/// Mostly sound packets, of any kind.
Bytes random_packet(Random& random, Ip ip) {
  ip.tos = random.byte();
  ip.ttl = random.one_in(4) ? static_cast<uint8_t>(random.below(3)) : random.byte();
  ip.id = static_cast<uint16_t>(random.word());
  ip.fragment = 0;
  if (random.one_in(2)) ip.fragment = kIpv4DontFragment;
  if (random.one_in(8)) ip.fragment = static_cast<uint16_t>(random.word());
  if (random.one_in(8)) ip.options.assign(4 * (1 + random.below(10)), 1);
  const size_t limit = random.one_in(2) ? 200 : kMtu;
  switch (random.below(4)) {
    case 0:
      return make_udp(ip, {.checksum = !random.one_in(2)}, random_payload(random, limit));
    case 1:
      return make_ip(ip, kProtocolIcmp, random_payload(random, limit));
    case 2:
      return make_ip(ip, random.one_in(2) ? kProtocolGre : random.byte(), random_payload(random, limit));
    default:
      return make_tcp(ip, {.options = random.one_in(2) ? timestamps(1, 2) : Bytes{}}, random_payload(random, limit));
  }
}

/// Checksum values around the wrap are where two implementations of the TTL's decrement would differ.
void set_odd_checksum(Random& random, Bytes& packet) {
  constexpr std::array<uint16_t, 6> kValues = {0x0000, 0x00ff, 0xfeff, 0xff00, 0xfffe, 0xffff};
  put16(packet, 10, kValues.at(random.below(kValues.size())));
}

bool is_plain(const Bytes& packet) {
  return packet.size() >= 20 && packet[0] == 0x45 && (get16(packet, 6) & 0x3fff) == 0;
}

/// Whether the payload is protected without an outer checksum.
bool has_own_checksum(const Bytes& packet) {
  if (packet[9] == kProtocolUdp) return packet.size() >= 28 && get16(packet, 26) != 0;
  return packet[9] == kProtocolTcp || packet[9] == kProtocolIcmp;
}

/// What `send` has to do, by the letter.
KernelCounter expected_of_send(const Bytes& packet) {
  if (!is_plain(packet) || get16(packet, 2) != packet.size()) return kSendNotPlain;
  const uint32_t destination = get32(packet, 16);
  for (unsigned n = 0; n < PathRig::kPeers; n++) {
    if ((destination ^ inner_of(n)) >> 8 != 0) continue;
    if (n == kStockPeer) return kSendNoPeer;
    if (packet[8] <= 1) return kSendTtl;
    if (!has_own_checksum(packet)) return kSendUnprotected;
    return packet.size() > kMtu ? kSendOversize : kSent;
  }
  return kSendNoRoute;
}

/// The headers around an inner packet.
Bytes encapsulated(uint32_t source, uint32_t destination, const Bytes& inner) {
  Bytes udp(8);
  put16(udp, 0, kPort);
  put16(udp, 2, kPort);
  put16(udp, 4, static_cast<uint16_t>(inner.size() + 8));
  udp.insert(udp.end(), inner.begin(), inner.end());
  return make_ip({.source = source, .destination = destination, .id = 0}, kProtocolUdp, udp);
}

Bytes framed(const Bytes& packet) {
  Bytes frame(kEthernetBytes);
  put16(frame, 12, 0x0800);
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

TEST("what is sent is what the native core sends, and the rest is left as it was") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  Random random;
  std::array<int, kKernelCounterCount> seen{};
  for (int i = 0; i < kCases && passing(); i++) {
    const unsigned peer = static_cast<unsigned>(random.below(PathRig::kPeers));
    Ip ip = {.source = kTestSource, .destination = inner_of(peer) + static_cast<uint32_t>(random.below(100))};
    if (random.one_in(10)) ip.destination = random.word();
    Bytes packet = random_packet(random, ip);
    if (random.one_in(4)) set_odd_checksum(random, packet);
    if (random.one_in(10)) packet[random.below(12)] = random.byte();
    if (random.one_in(20)) packet.resize(packet.size() + 1 + random.below(8));
    if (random.one_in(20)) packet.resize(std::max<size_t>(34, random.below(packet.size() + 1)));
    if (packet.size() < 34) continue;  // a frame with half an IPv4 header has no test run

    PathRig rig;
    rig.kernel.tun_frames = {with_vnet({}, packet)};
    rig.drain_tun();
    const Outcome outcome = kernel_path->run(KernelProgram::kSend, packet);
    const KernelCounter expected = expected_of_send(packet);
    KernelTraffic by{};
    CHECK_EQ_NOTE(kernel_path->moved(&by), expected, hex(packet));
    CHECK_EQ(by.packets, 1);
    CHECK_EQ(by.bytes, packet.size());
    seen.at(expected)++;
    if (expected != kSent) {
      CHECK_EQ_NOTE(outcome.verdict, kLeft, hex(packet));
      CHECK_NOTE(outcome.packet == packet, hex(packet));
      continue;
    }
    CHECK_EQ_NOTE(outcome.verdict, TC_ACT_REDIRECT, hex(packet));
    CHECK_EQ_NOTE(rig.kernel.sent.size(), 1, hex(packet));
    if (rig.kernel.sent.size() != 1) continue;
    const Datagram& native = rig.kernel.sent.front();
    CHECK(native.has_df && native.port == kPort);
    const Bytes wire = framed(encapsulated(kOwnUnderlay, native.outer, native.data));
    CHECK_NOTE(outcome.packet == wire, hex(outcome.packet) + " instead of " + hex(wire));
  }
  for (const KernelCounter each :
       {kSent, kSendNotPlain, kSendNoRoute, kSendNoPeer, kSendTtl, kSendUnprotected, kSendOversize}) {
    CHECK_NOTE(seen.at(each) > kCases / 1000, show(each) + " was tried only " + show(seen.at(each)) + " times");
  }
}

TEST("a super-packet is sent whole if its segments fit, and the kernel itself knows what it is") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Ip ip = {.source = kTestSource, .destination = inner_of(0)};
  const Bytes tcp = make_tcp(ip, {.options = timestamps(1, 2)}, pattern(kSuperBytes));
  const Bytes udp = make_udp(ip, {}, pattern(kSuperBytes));
  const Bytes other = make_ip(ip, kProtocolGre, pattern(kSuperBytes));
  struct Row {
    const Bytes& packet;
    uint32_t segment;
    KernelCounter expected;
  };
  // A test run cannot say what kind of super-packet it is, so the kernel refuses what the program would send.
  const std::array<Row, 5> rows = {{
      {tcp, kMtu - 52, kSendRefused},
      {tcp, kMtu - 51, kSendOversize},
      {udp, kMtu - 28, kSendRefused},
      {udp, kMtu - 27, kSendOversize},
      {other, 1000, kSendUnprotected},
  }};
  for (const Row& row : rows) {
    const Outcome outcome = kernel_path->run(KernelProgram::kSend, row.packet, SuperPacket{row.segment, 6});
    KernelTraffic by{};
    CHECK_EQ_NOTE(kernel_path->moved(&by), row.expected, show(row.segment));
    CHECK_EQ(by.packets, 6);
    CHECK_EQ(outcome.verdict, kLeft);
    CHECK(outcome.packet == row.packet);
  }
}

/// What the receiving programs have to do with a frame, by the letter; kKernelCounterCount: nothing.
KernelCounter expected_of_receive(const Bytes& frame) {
  if (frame.size() < kEthernetBytes + kOuterBytes + 20 || get16(frame, 12) != 0x0800) return kKernelCounterCount;
  const Bytes outer(frame.begin() + kEthernetBytes, frame.end());
  if (!is_plain(outer) || outer[9] != kProtocolUdp || get32(outer, 16) != kOwnUnderlay || get16(outer, 22) != kPort) {
    return kKernelCounterCount;
  }
  if (get16(outer, 26) != 0) return kReceiveTunnel;
  const Bytes inner(outer.begin() + kOuterBytes, outer.end());
  if (!is_plain(inner) || !ip_checksum_right(outer)) return kReceiveNotPlain;
  if (get16(outer, 2) != outer.size() || get16(outer, 24) != outer.size() - 20 || get16(inner, 2) != inner.size()) {
    return kReceiveLength;
  }
  if (inner[8] <= 1) return kReceiveTtl;
  for (unsigned n = 0; n < PathRig::kPeers; n++) {
    if ((get32(inner, 12) ^ inner_of(n)) >> 8 == 0) return get32(outer, 12) == outer_of(n) ? kReceived : kReceiveSource;
  }
  return kReceiveSource;
}

/// A datagram of flannel's, with one thing or another wrong.
Bytes random_frame(Random& random) {
  const unsigned peer = static_cast<unsigned>(random.below(PathRig::kPeers));
  Ip ip = {.source = inner_of(peer) + static_cast<uint32_t>(random.below(100)), .destination = kLocal};
  if (random.one_in(10)) ip.source = random.one_in(2) ? random.word() : kLocal;
  Bytes inner = random_packet(random, ip);
  if (random.one_in(4)) set_odd_checksum(random, inner);
  if (random.one_in(10)) inner[random.below(inner.size())] = random.byte();
  if (random.one_in(20)) inner.resize(random.below(inner.size()));
  if (random.one_in(20)) inner.insert(inner.end(), inner.begin(), inner.end());
  uint32_t outer = outer_of(peer);
  if (random.one_in(10)) outer = random.one_in(2) ? random.word() : outer_of((peer + 1) % PathRig::kPeers);
  Bytes packet = encapsulated(outer, random.one_in(20) ? random.word() : kOwnUnderlay, inner);
  if (random.one_in(4)) fill_l4_checksum(packet);
  if (random.one_in(10)) packet[random.below(kOuterBytes)] = random.byte();
  if (random.one_in(2)) fill_ip_checksum(packet);
  if (random.one_in(20)) packet.resize(packet.size() + random.below(8));
  Bytes frame = framed(packet);
  if (random.one_in(40)) frame[12 + random.below(2)] = random.byte();
  return frame;
}

/// What the native core writes to the TUN for the datagram in a frame whose outer headers are sound.
std::vector<Bytes> native_receive(const Bytes& frame) {
  PathRig rig(VerifySource::kStrict);
  const auto payload = frame.begin() + kEthernetBytes + kOuterBytes;
  rig.kernel.inbound = {{.outer = get32(frame, kEthernetBytes + 12), .data = {payload, frame.end()}}};
  rig.receive.run();
  std::vector<Bytes> packets;
  for (const Bytes& written : rig.kernel.written) packets.push_back(packet_of(written));
  return packets;
}

struct Receiver {
  KernelProgram program;
  uint32_t taken;
  uint32_t left;
  Bytes mark;  ///< in front of what is taken
};

void compare_receiver(const Receiver& receiver) {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  Random random;
  std::array<int, kKernelCounterCount + 1> seen{};
  for (int i = 0; i < kCases && passing(); i++) {
    const Bytes frame = random_frame(random);
    if (frame.size() < kEthernetBytes + 20) continue;
    const Outcome outcome = kernel_path->run(receiver.program, frame);
    const KernelCounter expected = expected_of_receive(frame);
    KernelTraffic by{};
    CHECK_EQ_NOTE(kernel_path->moved(&by), expected, hex(frame));
    seen.at(expected)++;
    if (expected != kReceived) {
      CHECK_EQ_NOTE(outcome.verdict, receiver.left, hex(frame));
      CHECK_NOTE(outcome.packet == frame, hex(frame));
      continue;
    }
    CHECK_EQ_NOTE(outcome.verdict, receiver.taken, hex(frame));
    CHECK_EQ(by.packets, 1);
    CHECK_EQ(by.bytes, frame.size() - kEthernetBytes - kOuterBytes);
    const std::vector<Bytes> native = native_receive(frame);
    CHECK_EQ_NOTE(native.size(), 1, hex(frame));
    if (native.size() != 1) continue;
    Bytes wanted = receiver.mark;
    const Bytes delivered = framed(native.front());
    wanted.insert(wanted.end(), delivered.begin(), delivered.end());
    CHECK_NOTE(outcome.packet == wanted, hex(outcome.packet) + " instead of " + hex(wanted));
  }
  for (const KernelCounter each : {kReceived, kReceiveTunnel, kReceiveNotPlain, kReceiveLength, kReceiveSource,
                                   kReceiveTtl, kKernelCounterCount}) {
    CHECK_NOTE(seen.at(each) > kCases / 1000, show(each) + " was tried only " + show(seen.at(each)) + " times");
  }
}

TEST("what XDP takes is what the native core delivers, marked, and the rest is left as it was") {
  compare_receiver(
      {.program = KernelProgram::kReceiveXdp, .taken = XDP_PASS, .left = XDP_PASS, .mark = {0x75, 0x61, 0x70, 0x6b}});
}

TEST("what tc takes is what the native core delivers, and the rest is left as it was") {
  compare_receiver({.program = KernelProgram::kReceiveTc, .taken = TC_ACT_REDIRECT, .left = kLeft, .mark = {}});
}

TEST("what no peer could have sent, the native core does not deliver either") {
  Random random(1);
  for (int i = 0; i < kCases && passing(); i++) {
    const Bytes frame = random_frame(random);
    const KernelCounter expected = expected_of_receive(frame);
    if (expected != kReceiveSource && expected != kReceiveTtl) continue;
    CHECK_NOTE(native_receive(frame).empty(), hex(frame));
  }
}

TEST("a super-packet with an outer checksum stands for several datagrams of a tunnel, and is left") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes inner = make_tcp({.source = inner_of(0), .destination = kLocal}, {}, pattern(kSuperBytes));
  Bytes packet = encapsulated(outer_of(0), kOwnUnderlay, inner);
  const auto run = [&kernel_path, &packet] {
    return kernel_path->run(KernelProgram::kReceiveTc, framed(packet), SuperPacket{1000, 8}).verdict;
  };
  // Without one it is a single packet; that the kernel refuses it is that of a test run, see above.
  CHECK_EQ(run(), kLeft);
  CHECK_EQ(kernel_path->moved(), kReceiveRefused);
  fill_l4_checksum(packet);
  CHECK_EQ(run(), kLeft);
  KernelTraffic by{};
  CHECK_EQ(kernel_path->moved(&by), kReceiveTunnel);
  CHECK_EQ(by.packets, 8);
}

/// Sends a packet again and again. @return whether the programs leave it by then
bool stream(LoadedKernelPath& kernel_path, const Bytes& packet, std::optional<SuperPacket> super = std::nullopt) {
  constexpr int kTries = 100;  // on a machine that does other things, too, few packets may fall into a window
  constexpr int kPackets = 300;
  for (int i = 0; i < kTries; i++) {
    for (int sent = 0; sent < kPackets; sent++) kernel_path.run(KernelProgram::kSend, packet, super);
    if (kernel_path.moved() == kSendBulk) return true;
  }
  return false;
}

TEST("of flows, those that stream are left, as long as they do, and others are not") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  CHECK(kernel_path->maps().leave_bulk_until(UINT64_MAX).ok());
  const Ip ip = {.source = kTestSource, .destination = inner_of(0)};
  const auto udp = [&ip](uint16_t port) { return make_udp(ip, {.source_port = port}, pattern(100)); };
  CHECK(stream(*kernel_path, udp(1000)));
  const auto once = [&kernel_path](const Bytes& packet) {
    kernel_path->run(KernelProgram::kSend, packet);
    return kernel_path->moved();
  };
  CHECK_EQ(once(udp(1001)), kSent);
  CHECK_EQ(once(make_udp({.source = kTestSource, .destination = inner_of(1)}, {.source_port = 1000}, pattern(100))),
           kSent);
  CHECK_EQ(once(udp(1000)), kSendBulk);
  const auto start = std::chrono::steady_clock::now();
  KernelCounter later = kSendBulk;
  while (later == kSendBulk && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    later = once(udp(1000));
  }
  CHECK_EQ(later, kSent);
}

TEST("segments of super-packets make a flow one that streams, and single ones do not") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  CHECK(kernel_path->maps().leave_bulk_until(UINT64_MAX).ok());
  const Ip ip = {.source = kTestSource, .destination = inner_of(0)};
  const Bytes bulk = make_tcp(ip, {.source_port = 1000}, pattern(kSuperBytes));
  CHECK(stream(*kernel_path, bulk, SuperPacket{1000, 40}));
  kernel_path->run(KernelProgram::kSend, make_tcp(ip, {.source_port = 1000}, pattern(100)));
  CHECK_EQ(kernel_path->moved(), kSendBulk);
  CHECK(!stream(*kernel_path, make_tcp(ip, {.source_port = 2000}, pattern(100))));
}

TEST("nothing is left for its flow while no tunnel says that it takes that") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes packet = make_udp({.source = kTestSource, .destination = inner_of(0)}, {}, pattern(100));
  CHECK(!stream(*kernel_path, packet));
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto in = [&now](auto duration) {
    return static_cast<uint64_t>(std::chrono::nanoseconds(now + duration).count());
  };
  CHECK(kernel_path->maps().leave_bulk_until(in(std::chrono::hours(1))).ok());
  CHECK(stream(*kernel_path, packet));
  CHECK(kernel_path->maps().leave_bulk_until(in(std::chrono::seconds(-1))).ok());
  CHECK(!stream(*kernel_path, packet));
}

TEST("a frame for another host is not received") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes inner = make_tcp({.source = inner_of(0), .destination = kLocal}, {}, pattern(100));
  Bytes frame = framed(encapsulated(outer_of(0), kOwnUnderlay, inner));
  frame[5] = 1;  // the device of a test run is loopback, whose address is zero
  CHECK_EQ(kernel_path->run(KernelProgram::kReceiveTc, frame).verdict, kLeft);
  CHECK_EQ(kernel_path->moved(), kKernelCounterCount);
}

TEST("what stands in front of a frame is not taken for a mark") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes frame = framed(make_tcp({.source = inner_of(0), .destination = kLocal}, {}, pattern(100)));
  const Outcome outcome = kernel_path->run(KernelProgram::kDeliver, frame);
  CHECK_EQ(outcome.verdict, kLeft);
  CHECK(outcome.packet == frame);
}

TEST("peers have counters of their own") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes out = make_tcp({.source = kTestSource, .destination = inner_of(1)}, {}, pattern(100));
  const Bytes in = make_tcp({.source = inner_of(2), .destination = kLocal}, {}, pattern(200));
  kernel_path->run(KernelProgram::kSend, out);
  for (const auto program : {KernelProgram::kReceiveXdp, KernelProgram::kReceiveTc}) {
    kernel_path->run(program, framed(encapsulated(outer_of(2), kOwnUnderlay, in)));
  }
  const KernelPeerTraffic sent = kernel_path->maps().peer_counters(1);
  CHECK_EQ(sent.sent.packets, 1);
  CHECK_EQ(sent.sent.bytes, out.size());
  CHECK_EQ(sent.received.packets, 0);
  const KernelPeerTraffic received = kernel_path->maps().peer_counters(2);
  CHECK_EQ(received.sent.packets, 0);
  CHECK_EQ(received.received.packets, 2);
  CHECK_EQ(received.received.bytes, 2 * in.size());
}

TEST("what is counted on any CPU and in any slot is in its sum, until that slot begins anew") {
  cpu_set_t before{};
  CHECK_EQ(host_kernel().get_affinity(before), 0);
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  std::vector<KernelPathRoute> last = routes();
  for (KernelPathRoute& each : last) {
    if (each.outer != 0) each.slot = kKernelPeers - 1 - each.slot;
  }
  CHECK(kernel_path->maps().set_routes(last).ok());
  uint64_t cpus = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &before)) continue;
    cpu_set_t one{};
    CPU_SET(cpu, &one);
    CHECK_EQ(host_kernel().set_affinity(one), 0);
    cpus++;
    for (const unsigned peer : {0U, 1U, 1U}) {
      const Bytes out = make_tcp({.source = kTestSource, .destination = inner_of(peer)}, {}, {});
      CHECK_EQ(kernel_path->run_unwatched(KernelProgram::kSend, out).verdict, TC_ACT_REDIRECT);
    }
  }
  CHECK_EQ(host_kernel().set_affinity(before), 0);
  CHECK_EQ(kernel_path->maps().counters().at(kSent).packets, 3 * cpus);
  const auto sent = [&kernel_path](uint32_t slot) { return kernel_path->maps().peer_counters(slot).sent.packets; };
  CHECK_EQ(sent(kKernelPeers - 1), cpus);
  CHECK_EQ(sent(kKernelPeers - 2), 2 * cpus);
  CHECK_EQ(sent(0), 0);
  kernel_path->maps().reset_peer_counters(kKernelPeers - 1);
  CHECK_EQ(sent(kKernelPeers - 1), 0);
  CHECK_EQ(sent(kKernelPeers - 2), 2 * cpus);
}

TEST("routes are what they were last set to, and the narrowest counts") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Bytes packet = make_tcp({.source = kTestSource, .destination = ipv4(10, 9, 1, 2)}, {}, {});
  const KernelPathRoute wide = {
      .prefix = ipv4(10, 9, 0, 0), .length = 16, .outer = outer_of(0), .slot = 0, .mtu = 1400};
  const KernelPathRoute narrow = {
      .prefix = ipv4(10, 9, 1, 0), .length = 24, .outer = outer_of(1), .slot = 1, .mtu = 1400};
  const KernelPathRoute own = {.prefix = ipv4(10, 9, 1, 0), .length = 24};
  const auto send_with = [&](const std::vector<KernelPathRoute>& table) {
    CHECK(kernel_path->maps().set_routes(table).ok());
    const Outcome outcome = kernel_path->run(KernelProgram::kSend, packet);
    return outcome.verdict == kLeft ? 0 : get32(outcome.packet, kEthernetBytes + 16);
  };
  CHECK_EQ(send_with({wide, narrow}), outer_of(1));
  CHECK_EQ(send_with({wide}), outer_of(0));
  CHECK_EQ(send_with({wide, own}), 0);
  CHECK_EQ(kernel_path->moved(), kSendNoRoute);
  KernelPathRoute moved = narrow;
  moved.outer = outer_of(2);
  CHECK_EQ(send_with({moved}), outer_of(2));
  CHECK_EQ(send_with({}), 0);
}

TEST("a full table and a full set of counters say so, and what was there stays") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  const Result<void> slots = kernel_path->maps().set_routes(std::vector<KernelPathRoute>{
      {.prefix = inner_of(0) & 0xffffff00, .length = 24, .outer = outer_of(0), .slot = kKernelPeers}});
  CHECK(!slots.ok());
  CHECK_EQ(slots.error().code, E2BIG);
  std::vector<KernelPathRoute> many = routes();
  for (uint32_t i = 0; i < 1024; i++) many.push_back({.prefix = ipv4(10, 200, 0, 0) + i, .length = 32});
  const Result<void> entries = kernel_path->maps().set_routes(many);
  CHECK(!entries.ok());
  CHECK_EQ(entries.error().code, ENOSPC);
  const Bytes packet = make_tcp({.source = kTestSource, .destination = inner_of(0)}, {}, {});
  CHECK_EQ(kernel_path->run(KernelProgram::kSend, packet).verdict, TC_ACT_REDIRECT);
  CHECK(kernel_path->maps().set_routes(routes()).ok());
}

TEST("a refused program says what the verifier has against it") {
  const auto kernel_path = load();
  if (kernel_path == nullptr) return;
  Bytes file = kernel_path_file();
  const std::array<ProgramSymbol, 2> symbols = {{{.name = "tun"}, {.name = "counters"}}};
  const std::vector<bpf_insn> program = ProgramObject::parse(file).value().link("deliver", symbols).value();
  const auto* bytes = reinterpret_cast<const uint8_t*>(program.data());
  // With zeroes for all symbols it is what the file has.
  const auto place = std::search(file.begin(), file.end(), bytes, bytes + program.size() * sizeof(bpf_insn));
  CHECK(place != file.end());
  if (place == file.end()) return;
  *place = 0xff;
  const Result<UniqueFd> refused = load_kernel_program(host_kernel(), ProgramObject::parse(file).value(),
                                                       KernelProgram::kDeliver, kernel_path->maps(), {});
  CHECK(!refused.ok());
  CHECK_EQ(refused.error().code, EINVAL);
  CHECK_NOTE(refused.error().detail.starts_with("deliver: ") && refused.error().detail.find("ff") != std::string::npos,
             refused.error().detail);
}

}  // namespace
}  // namespace tsflannel::testing
