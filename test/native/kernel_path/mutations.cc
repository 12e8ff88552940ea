// Datagrams of somebody who means no good, at the programs that receive: what these take, the native core delivers, byte
// for byte, and the rest is left as it was. TSFLANNEL_FLOOD_DATAGRAMS says how many; test/host/kernel-path-hostile.test.ts
// runs it.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "../support/fuzz_input.h"
#include "../support/hostile_packets.h"
#include "../worker/path_rig.h"
#include "test_run.h"

namespace tsflannel::testing {
namespace {

constexpr size_t kEthernetBytes = 14;
constexpr size_t kIpBytes = 20;
constexpr size_t kOuterBytes = 28;
constexpr size_t kDefaultDatagrams = 300'000;
constexpr size_t kMaxInnerBytes = 3000;  // a test run takes less than a page
constexpr uint32_t kLeft = static_cast<uint32_t>(TC_ACT_UNSPEC);
constexpr uint8_t kVlanTag[] = {0x81, 0x00, 0x00, 0x05};

size_t datagrams() {
  const char* text = std::getenv("TSFLANNEL_FLOOD_DATAGRAMS");
  return text == nullptr ? kDefaultDatagrams : std::strtoull(text, nullptr, 10);
}

/// The state of a PathRig.
std::vector<KernelPathRoute> routes() {
  std::vector<KernelPathRoute> all = {{.prefix = kOwnTun, .length = 24}, {.prefix = kOwnUnderlay, .length = 32}};
  for (unsigned n = 0; n < PathRig::kPeers; n++) {
    all.push_back({.prefix = inner_of(n) & 0xffffff00, .length = 24, .outer = outer_of(n), .slot = n, .mtu = kMtu});
  }
  return all;
}

/// A header that can be read, at the start of `packet`.
bool has_ip_header(const Bytes& packet) {
  return packet.size() >= kIpBytes && packet[0] >> 4 == 4 && (packet[0] & 15) >= 5 &&
         packet.size() >= (packet[0] & 15) * 4U;
}

void insert(Bytes& data, size_t at, const Bytes& more) {
  data.insert(data.begin() + static_cast<std::ptrdiff_t>(at), more.begin(), more.end());
}

/// Changes something of the headers in front of the inner packet, or of the frame's end.
void damage(Random& random, Bytes& frame) {
  constexpr size_t ip = kEthernetBytes;
  constexpr size_t udp = ip + kIpBytes;
  const auto near = [&random](uint16_t value) { return static_cast<uint16_t>(value + random.below(65) - 32); };
  const std::array<uint32_t, 6> addresses = {ipv4(203, 0, 113, 5), kOwnUnderlay, kLocal, outer_of(1), 0, random.word()};
  switch (random.below(14)) {
    case 0:  // sources are what an attacker changes first
    case 1:
      return put32(frame, ip + 12, addresses.at(random.below(addresses.size())));
    case 2:
      return put32(frame, ip + 16, addresses.at(random.below(addresses.size())));
    case 3:
      return put16(frame, ip + 2, near(get16(frame, ip + 2)));
    case 4:
      return put16(frame, udp + 4, near(get16(frame, udp + 4)));
    case 5:
      return put16(frame, ip + 6, static_cast<uint16_t>(random.word()));
    case 6: {  // options
      const size_t words = 1 + random.below(10);
      frame[ip] = static_cast<uint8_t>(0x45 + words);
      put16(frame, ip + 2, static_cast<uint16_t>(get16(frame, ip + 2) + 4 * words));
      return insert(frame, udp, Bytes(4 * words, 1));
    }
    case 7:
      return put16(frame, udp + 2 * random.below(2), random.one_in(2) ? kPort : near(kPort));
    case 8:
      return put16(frame, udp + 6, static_cast<uint16_t>(random.word()));
    case 9:
      return frame.resize(std::max(udp, random.below(frame.size() + 1)));
    case 10:  // as a link does that has a shortest frame
      return frame.resize(frame.size() + 1 + random.below(60));
    case 11:
      return insert(frame, 12, {std::begin(kVlanTag), std::end(kVlanTag)});
    case 12: {
      for (size_t at = ip + random.below(60); at < frame.size(); at++) frame[at] = random.byte();
      return;
    }
    default:
      // Not the addresses: a frame for another host is another matter.
      frame[12 + random.below(std::min<size_t>(frame.size() - 12, 80))] = random.byte();
  }
}

/// A datagram of flannel's around a hostile packet, and every other time not even that.
Bytes hostile_frame(Random& random, uint16_t serial) {
  std::array<uint8_t, 64> noise;
  for (uint8_t& each : noise) each = random.byte();
  FuzzInput input(noise.data(), noise.size());
  const auto peer = static_cast<unsigned>(random.below(PathRig::kPeers));
  const std::array<uint32_t, 5> forged = {inner_of((peer + 1) % PathRig::kPeers), kLocal, kOwnUnderlay,
                                          ipv4(127, 0, 0, 1), random.word()};
  const uint32_t source = random.one_in(8) ? forged.at(random.below(forged.size())) : inner_of(peer);
  Bytes inner = hostile_packet(input, {source, kLocal, serial}, random.one_in(16) ? kMaxInnerBytes : 100);
  inner.resize(std::min(inner.size(), kMaxInnerBytes));
  Bytes udp(8);
  put16(udp, 0, kPort);
  put16(udp, 2, kPort);
  put16(udp, 4, static_cast<uint16_t>(inner.size() + 8));
  udp.insert(udp.end(), inner.begin(), inner.end());
  Bytes packet = make_ip({.source = outer_of(peer), .destination = kOwnUnderlay, .id = 0}, 17, udp);
  if (random.one_in(4)) fill_l4_checksum(packet);
  Bytes frame(kEthernetBytes);
  put16(frame, 12, 0x0800);
  frame.insert(frame.end(), packet.begin(), packet.end());
  if (random.one_in(2)) return frame;
  for (size_t left = 1 + random.below(3); left > 0 && frame.size() >= kEthernetBytes + kOuterBytes; left--) {
    damage(random, frame);
  }
  // Most of the time as if it had been meant.
  Bytes outer(frame.begin() + kEthernetBytes, frame.end());
  if (!random.one_in(4) && has_ip_header(outer)) {
    fill_ip_checksum(outer);
    std::copy(outer.begin(), outer.end(), frame.begin() + kEthernetBytes);
  }
  return frame;
}

/// Whether an inner packet needs no checksum around it.
bool has_own_checksum(const Bytes& inner) {
  if (inner.size() < kIpBytes) return false;
  if (inner[9] == 17) return inner.size() >= kOuterBytes && get16(inner, 26) != 0;
  return inner[9] == 6 || inner[9] == 1;
}

/// What the tunnel's socket is given of a frame (RFC 791, RFC 768), but that a wrong UDP checksum does no harm where
/// there is another one inside.
std::optional<Inbound> at_socket(const Bytes& frame) {
  if (frame.size() < kEthernetBytes || get16(frame, 12) != 0x0800) return std::nullopt;
  const Bytes packet(frame.begin() + kEthernetBytes, frame.end());
  if (!has_ip_header(packet) || !ip_checksum_right(packet)) return std::nullopt;
  const size_t header = (packet[0] & 15) * 4U;
  const size_t total = get16(packet, 2);
  if (total > packet.size() || total < header + 8) return std::nullopt;
  if ((get16(packet, 6) & 0x3fff) != 0 || packet[9] != 17 || get32(packet, 16) != kOwnUnderlay) return std::nullopt;
  const size_t length = get16(packet, header + 4);
  if (get16(packet, header + 2) != kPort || length < 8 || length > total - header) return std::nullopt;
  const auto start = packet.begin() + static_cast<std::ptrdiff_t>(header);
  const Bytes inner(start + 8, start + static_cast<std::ptrdiff_t>(length));
  const Bytes datagram(packet.begin(), start + static_cast<std::ptrdiff_t>(length));
  if (!l4_checksum_right(datagram) && !has_own_checksum(inner)) return std::nullopt;
  return Inbound{.outer = get32(packet, 12), .data = inner};
}

/// Whether the kernel path is for it, if the native core delivers it.
bool is_plain(const Bytes& frame, const Bytes& inner) {
  constexpr size_t checksum = kEthernetBytes + 26;
  if (frame[kEthernetBytes] != 0x45 || get16(frame, checksum) != 0) return false;
  if (frame.size() != kEthernetBytes + kOuterBytes + inner.size()) return false;
  return inner[0] == 0x45 && (get16(inner, 6) & 0x3fff) == 0 && get16(inner, 2) == inner.size() &&
         has_own_checksum(inner);
}

struct Receiver {
  KernelProgram program;
  uint32_t taken;
  uint32_t left;
  Bytes mark;  ///< in front of what is taken
};

class Comparison {
 public:
  explicit Comparison(LoadedKernelPath& kernel_path) : kernel_path_(kernel_path) {}

  void compare(const Bytes& frame) {
    const std::optional<Inbound> inbound = at_socket(frame);
    const std::vector<Bytes> native = inbound ? delivered_by_core(*inbound) : std::vector<Bytes>{};
    const bool is_wanted = native.size() == 1 && is_plain(frame, inbound->data);
    for (const Receiver& receiver : receivers_) {
      const Outcome outcome = kernel_path_.run_unwatched(receiver.program, frame);
      if (outcome.packet == frame) {
        CHECK_EQ_NOTE(outcome.verdict, receiver.left, hex(frame));
        CHECK_NOTE(!is_wanted, hex(frame));
        left_++;
        continue;
      }
      CHECK_EQ_NOTE(outcome.verdict, receiver.taken, hex(frame));
      CHECK_EQ_NOTE(native.size(), 1, hex(frame));
      if (native.size() != 1) return;
      Bytes wanted = receiver.mark;
      wanted.insert(wanted.end(), frame.begin(), frame.begin() + kEthernetBytes);
      wanted.insert(wanted.end(), native.front().begin(), native.front().end());
      CHECK_NOTE(outcome.packet == wanted, hex(outcome.packet) + " instead of " + hex(wanted));
      taken_++;
      bytes_ += native.front().size();
    }
  }

  /// Both kinds of outcome were there, and each that was taken has been counted once, for its peer.
  void check_counters() {
    CHECK_NOTE(taken_ > left_ / 10 && left_ > taken_ / 10, show(taken_) + " taken, " + show(left_) + " left");
    const auto counters = kernel_path_.maps().counters();
    CHECK_EQ(counters.at(kReceived).packets, taken_);
    CHECK_EQ(counters.at(kReceived).bytes, bytes_);
    uint64_t by_peer = 0;
    for (unsigned n = 0; n < PathRig::kPeers; n++) {
      by_peer += kernel_path_.maps().peer_counters(n).received.packets;
    }
    CHECK_EQ(by_peer, taken_);
    for (const KernelCounter each : {kReceiveNotPlain, kReceiveLength, kReceiveSource, kReceiveTtl, kReceiveTunnel}) {
      CHECK_NOTE(counters.at(each).packets > left_ / 1000, show(each) + ": " + show(counters.at(each).packets));
    }
    CHECK_EQ(counters.at(kReceiveFailed).packets, 0);
  }

 private:
  std::vector<Bytes> delivered_by_core(const Inbound& inbound) {
    rig_.kernel.written.clear();
    rig_.kernel.inbound = {inbound};
    rig_.receive.run();
    std::vector<Bytes> packets;
    for (const Bytes& written : rig_.kernel.written) packets.push_back(packet_of(written));
    return packets;
  }

  LoadedKernelPath& kernel_path_;
  PathRig rig_{VerifySource::kStrict};
  const std::array<Receiver, 2> receivers_ = {
      {{KernelProgram::kReceiveXdp, XDP_PASS, XDP_PASS, {0x75, 0x61, 0x70, 0x6b}},
       {KernelProgram::kReceiveTc, TC_ACT_REDIRECT, kLeft, {}}}};
  uint64_t taken_ = 0;
  uint64_t left_ = 0;
  uint64_t bytes_ = 0;
};

TEST("of hostile datagrams, those are taken that the native core delivers, and the rest is left as it was") {
  const auto kernel_path =
      LoadedKernelPath::load({.uplink = 1, .tun = 1, .local = kOwnUnderlay, .port = kPort}, routes());
  if (kernel_path == nullptr) return;
  Random random;
  Comparison comparison(*kernel_path);
  const size_t count = datagrams();
  for (size_t i = 0; i < count && passing(); i++) {
    const Bytes frame = hostile_frame(random, static_cast<uint16_t>(i));
    // A frame with half an IPv4 header has no test run.
    if (frame.size() >= kEthernetBytes + kIpBytes) comparison.compare(frame);
  }
  comparison.check_counters();
}

}  // namespace
}  // namespace tsflannel::testing
