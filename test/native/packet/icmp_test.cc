#include "../../../native/core/packet/icmp.h"

#include <algorithm>
#include <memory>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

constexpr uint32_t kTunAddress = ipv4(203, 0, 113, 0);

constexpr IcmpError kAll[] = {IcmpError::kNetUnreachable, IcmpError::kTimeExceeded, IcmpError::kFragmentationNeeded};

Ipv4View view_of(const Bytes& packet) {
  Ipv4View ip;
  CHECK_EQ(parse_ipv4(packet, ip), DropReason::kNone);
  return ip;
}

Bytes build(IcmpError error, const Bytes& offender, uint16_t mtu = 0) {
  Bytes out(kIcmpMaxError, 0xee);
  const size_t length = build_icmp_error(std::span<uint8_t, kIcmpMaxError>(out.data(), kIcmpMaxError), error,
                                         kTunAddress, view_of(offender), mtu);
  CHECK(length <= kIcmpMaxError);
  for (size_t i = length; i < out.size(); i++) CHECK_EQ(out[i], 0xee);
  out.resize(length);
  return out;
}

Bytes make_icmp(const Ip& ip, uint8_t type) {
  return make_ip(ip, 1, {type, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4});
}

void check_frame(const Bytes& error, uint8_t type, uint8_t code, uint8_t ttl, const Bytes& offender, size_t quoted) {
  CHECK_EQ(error.size(), 20 + 8 + quoted);
  CHECK_EQ(error[0], 0x45);
  CHECK_EQ(error[1], 0);
  CHECK_EQ(get16(error, 2), error.size());
  CHECK_EQ(get32(error, 4), 0U);  // id 0, no DF, no fragment
  CHECK_EQ(error[8], ttl);
  CHECK_EQ(error[9], 1);
  CHECK(ip_checksum_right(error));
  CHECK_EQ(get32(error, 12), kTunAddress);
  CHECK_EQ(get32(error, 16), get32(offender, 12));
  CHECK_EQ(error[20], type);
  CHECK_EQ(error[21], code);
  CHECK_EQ(slow_sum(std::span(error).subspan(20)), 0xffff);
  CHECK(std::equal(error.begin() + 28, error.end(), offender.begin()));
}

TEST("net unreachable is flannel's: 56 bytes, TTL 8, id 0, unused 0, from the TUN's address") {
  const Bytes offender = make_udp({}, {}, pattern(100));
  const Bytes error = build(IcmpError::kNetUnreachable, offender);
  CHECK_EQ(error.size(), 56U);
  check_frame(error, 3, 0, 8, offender, 28);
  CHECK_EQ(get32(error, 24), 0U);
}

TEST("options are quoted whole, for every header length") {
  for (size_t words = 0; words <= 10; words++) {
    const Bytes offender = make_udp({.options = Bytes(words * 4, 1)}, {}, pattern(100));
    check_frame(build(IcmpError::kNetUnreachable, offender), 3, 0, 8, offender, 28 + words * 4);
  }
}

TEST("the quotation ends with the offender: flannel reads on past packets with less than 8 bytes of payload") {
  for (size_t payload = 0; payload <= 9; payload++) {
    const Bytes offender = make_ip({}, 47, pattern(payload));
    // Exactly as much memory as the packet has, for the sanitizer.
    const auto exact = std::make_unique<uint8_t[]>(offender.size());
    std::copy(offender.begin(), offender.end(), exact.get());
    Ipv4View ip;
    CHECK_EQ(parse_ipv4({exact.get(), offender.size()}, ip), DropReason::kNone);
    Bytes out(kIcmpMaxError);
    const size_t length = build_icmp_error(std::span<uint8_t, kIcmpMaxError>(out.data(), kIcmpMaxError),
                                           IcmpError::kNetUnreachable, kTunAddress, ip);
    out.resize(length);
    check_frame(out, 3, 0, 8, offender, 20 + std::min<size_t>(payload, 8));
  }
}

TEST("bytes behind the offender's total length are not quoted") {
  Bytes offender = make_ip({}, 47, pattern(3));
  const size_t length = offender.size();
  offender.resize(length + 50, 0xaa);
  check_frame(build(IcmpError::kNetUnreachable, offender), 3, 0, 8, offender, length);
}

TEST("time exceeded is type 11 code 0") {
  const Bytes offender = make_tcp({.ttl = 1}, {}, pattern(40));
  const Bytes error = build(IcmpError::kTimeExceeded, offender);
  check_frame(error, 11, 0, 64, offender, 28);
  CHECK_EQ(get32(error, 24), 0U);
}

TEST("fragmentation needed carries the next-hop MTU in its second word (RFC 1191)") {
  const Bytes offender = make_tcp({}, {}, pattern(1400));
  for (const uint16_t mtu : {uint16_t{68}, uint16_t{1280}, uint16_t{1472}, uint16_t{65535}}) {
    const Bytes error = build(IcmpError::kFragmentationNeeded, offender, mtu);
    check_frame(error, 3, 4, 64, offender, 28);
    CHECK_EQ(get32(error, 24), uint32_t{mtu});
  }
}

TEST("an error is sent about ordinary packets") {
  for (const IcmpError error : kAll) {
    CHECK(may_send_icmp_error(error, view_of(make_udp({}, {}, pattern(10)))));
    CHECK(may_send_icmp_error(error, view_of(make_tcp({}, {.flags = 2}, {}))));
    CHECK(may_send_icmp_error(error, view_of(make_ip({}, 132, pattern(10)))));
    CHECK(may_send_icmp_error(error, view_of(make_ip({}, 17, {}))));
  }
}

TEST("an error is sent about ICMP queries only, never about errors or unknown types (RFC 1122 section 3.2.2)") {
  for (int type = 0; type < 256; type++) {
    const bool query = type == 0 || type == 8 || (type >= 13 && type <= 18) || type == 42 || type == 43;
    for (const IcmpError error : kAll) {
      CHECK_EQ_NOTE(may_send_icmp_error(error, view_of(make_icmp({}, static_cast<uint8_t>(type)))), query, show(type));
    }
  }
  CHECK(!may_send_icmp_error(IcmpError::kNetUnreachable, view_of(make_ip({}, 1, {}))));
}

TEST("an error is sent about the first fragment only") {
  for (const IcmpError error : kAll) {
    CHECK(may_send_icmp_error(error, view_of(make_udp({.fragment = 0x2000}, {}, pattern(16)))));
    CHECK(!may_send_icmp_error(error, view_of(make_udp({.fragment = 0x2001}, {}, pattern(16)))));
    CHECK(!may_send_icmp_error(error, view_of(make_udp({.fragment = 0x0100}, {}, pattern(16)))));
  }
}

TEST("no error to or about addresses that are not a single host (RFC 1812 section 4.3.2.7)") {
  struct Case {
    uint32_t address;
    bool as_source;
    bool as_destination;
  };
  const Case cases[] = {
      {ipv4(192, 0, 2, 9), true, true},         {ipv4(0, 0, 0, 0), false, false},
      {ipv4(0, 1, 2, 3), false, false},         {ipv4(127, 0, 0, 1), false, true},
      {ipv4(223, 255, 255, 255), true, true},   {ipv4(224, 0, 0, 1), false, false},
      {ipv4(239, 255, 255, 255), false, false}, {ipv4(240, 0, 0, 1), false, false},
      {ipv4(255, 255, 255, 255), false, false},
  };
  for (const Case& c : cases) {
    for (const IcmpError error : kAll) {
      CHECK_EQ(may_send_icmp_error(error, view_of(make_udp({.source = c.address}, {}, pattern(9)))), c.as_source);
      CHECK_EQ(may_send_icmp_error(error, view_of(make_udp({.destination = c.address}, {}, pattern(9)))),
               c.as_destination);
    }
  }
}

TEST("net unreachable is not sent about a header full of options, as in flannel; the others are") {
  const Bytes full = make_udp({.options = Bytes(40, 1)}, {}, pattern(16));
  const Bytes nearly = make_udp({.options = Bytes(36, 1)}, {}, pattern(16));
  CHECK(!may_send_icmp_error(IcmpError::kNetUnreachable, view_of(full)));
  CHECK(may_send_icmp_error(IcmpError::kNetUnreachable, view_of(nearly)));
  CHECK(may_send_icmp_error(IcmpError::kTimeExceeded, view_of(full)));
  CHECK(may_send_icmp_error(IcmpError::kFragmentationNeeded, view_of(full)));
}

}  // namespace
}  // namespace tsflannel::testing
