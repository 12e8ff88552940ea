#include "../../../native/core/packet/ipv4.h"

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

TEST("the header of a plain packet is read") {
  const Bytes packet = make_udp({.tos = 0xb8, .ttl = 17, .fragment = 0x4000}, {}, pattern(30));
  Ipv4View ip;
  CHECK_EQ(parse_ipv4(packet, ip), DropReason::kNone);
  CHECK_EQ(ip.header_length, 20);
  CHECK_EQ(ip.total_length, 58);
  CHECK_EQ(ip.source, ipv4(192, 0, 2, 1));
  CHECK_EQ(ip.destination, ipv4(198, 51, 100, 2));
  CHECK_EQ(ip.protocol, kProtocolUdp);
  CHECK_EQ(ip.ttl, 17);
  CHECK(ip.dont_fragment() && !ip.is_fragment());
}

TEST("packets are refused for the first reason that applies") {
  struct Case {
    const char* what;
    size_t size;
    uint8_t first;
    uint16_t total;
    DropReason reason;
    DropReason exact_reason;
  };
  constexpr auto none = DropReason::kNone;
  constexpr auto mismatch = DropReason::kLengthMismatch;
  const Case cases[] = {
      {"empty", 0, 0x45, 0, DropReason::kShort, DropReason::kShort},
      {"19 bytes", 19, 0x45, 19, DropReason::kShort, DropReason::kShort},
      {"20 bytes", 20, 0x45, 20, none, none},
      {"IPv6", 40, 0x60, 40, DropReason::kNotIpv4, DropReason::kNotIpv4},
      {"version 0", 40, 0x05, 40, DropReason::kNotIpv4, DropReason::kNotIpv4},
      {"IHL 4", 40, 0x44, 40, DropReason::kBadHeader, DropReason::kBadHeader},
      {"IHL 0", 40, 0x40, 40, DropReason::kBadHeader, DropReason::kBadHeader},
      {"IHL 15 in 60 bytes", 60, 0x4f, 60, none, none},
      {"IHL 15 in 59 bytes", 59, 0x4f, 59, DropReason::kBadHeader, DropReason::kBadHeader},
      {"total length inside the header", 40, 0x46, 23, DropReason::kBadHeader, mismatch},
      {"total length beyond the packet", 40, 0x45, 41, DropReason::kBadHeader, mismatch},
      {"bytes behind the packet", 40, 0x45, 39, none, mismatch},
      {"total length 0", 40, 0x45, 0, DropReason::kBadHeader, mismatch},
  };
  for (const Case& c : cases) {
    Bytes packet(c.size);
    if (c.size > 0) packet[0] = c.first;
    if (c.size > 3) put16(packet, 2, c.total);
    Ipv4View ip;
    CHECK_EQ_NOTE(parse_ipv4(packet, ip), c.reason, c.what);
    CHECK_EQ_NOTE(parse_ipv4_exact(packet, ip), c.exact_reason, c.what);
  }
}

TEST("fragments are told apart from whole packets, and the first from the later ones") {
  struct Case {
    uint16_t word;
    bool fragment;
    bool later;
  };
  for (const Case& c : {Case{0x0000, false, false}, Case{0x4000, false, false}, Case{0x2000, true, false},
                        Case{0x2001, true, true}, Case{0x0001, true, true}, Case{0x1fff, true, true}}) {
    Ipv4View ip;
    CHECK_EQ(parse_ipv4(make_udp({.fragment = c.word}, {}, pattern(8)), ip), DropReason::kNone);
    CHECK_EQ(ip.is_fragment(), c.fragment);
    CHECK_EQ(ip.is_later_fragment(), c.later);
  }
}

TEST("decrementing the TTL leaves a checksum that a full computation would give, for every TTL and checksum") {
  for (int ttl = 0; ttl < 256; ttl++) {
    for (uint32_t id = 0; id < 65536; id += 7) {
      Bytes packet = make_ip({.ttl = static_cast<uint8_t>(ttl), .id = static_cast<uint16_t>(id)}, 17, {});
      const Bytes before = packet;
      const bool alive = decrement_ttl(packet.data());
      CHECK_EQ(alive, ttl > 1);
      if (!alive) {
        CHECK(packet == before);
        break;
      }
      CHECK_EQ(packet[8], ttl - 1);
      Bytes expected = packet;
      fill_ip_checksum(expected);
      CHECK_EQ(get16(packet, 10), get16(expected, 10));
      if (!passing()) return;
    }
  }
}

TEST("the checksum wraps as in flannel: 0xFEFF becomes 0x0000, 0xFFFF becomes 0x0100") {
  struct Case {
    uint16_t before;
    uint16_t after;
  };
  for (const Case& c : {Case{0xfeff, 0x0000}, Case{0xffff, 0x0100}, Case{0x0000, 0x0100}, Case{0xfefe, 0xfffe},
                        Case{0xff00, 0x0001}, Case{0x1234, 0x1334}}) {
    Bytes packet = make_ip({}, 17, {});
    put16(packet, 10, c.before);
    CHECK(decrement_ttl(packet.data()));
    CHECK_EQ_NOTE(get16(packet, 10), c.after, show(c.before));
  }
}

TEST("a wrong header checksum stays wrong when the TTL is decremented") {
  for (uint32_t error = 1; error < 0xffff; error += 13) {
    Bytes packet = make_ip({}, 17, {});
    put16(packet, 10, slow_sum({}, uint32_t{get16(packet, 10)} + error));
    CHECK(decrement_ttl(packet.data()));
    CHECK(!ip_checksum_right(packet));
  }
}

TEST("every drop reason has a name of its own") {
  for (size_t i = 0; i < kDropReasonCount; i++) {
    CHECK(!kDropReasonNames[i].empty());
    for (size_t j = 0; j < i; j++) CHECK(kDropReasonNames[i] != kDropReasonNames[j]);
  }
}

}  // namespace
}  // namespace tsflannel::testing
