#include "../../../native/core/offload/segmenter.h"

#include <algorithm>
#include <iterator>

#include "../support/packets.h"

namespace tsflannel::testing {
namespace {

VnetHeader tcp_header(uint16_t gso_size, uint16_t ip_length = 20) {
  return {kVnetNeedsChecksum, kGsoTcpV4, static_cast<uint16_t>(ip_length + 20), gso_size, ip_length, 16};
}

VnetHeader udp_header(uint16_t gso_size, uint16_t ip_length = 20) {
  return {kVnetNeedsChecksum, kGsoUdpL4, static_cast<uint16_t>(ip_length + 8), gso_size, ip_length, 6};
}

// What the wire sees of a super-packet, and that the shape announced for UDP_SEGMENT is kept.
std::vector<Bytes> segments_of(const Segmenter& segmenter) {
  Bytes headers(segmenter.count() * segmenter.header_length());
  std::vector<iovec> iovecs(segmenter.count() * 2);
  const size_t used = segmenter.emit(0, segmenter.count(), headers.data(), iovecs.data());
  CHECK_EQ(used, segmenter.count() * segmenter.iovecs_per_segment());
  std::vector<Bytes> segments;
  for (size_t i = 0; i < segmenter.count(); i++) {
    const size_t per = segmenter.iovecs_per_segment();
    segments.push_back(gather(std::span(iovecs).subspan(i * per, per)));
    const bool last = i + 1 == segmenter.count();
    CHECK_EQ(segments.back().size(), last ? segmenter.last_length() : segmenter.segment_length());
  }
  CHECK(segmenter.last_length() <= segmenter.segment_length());
  return segments;
}

size_t count_of(const VnetHeader& vnet, const Bytes& packet) {
  Ipv4View ip;
  CHECK_EQ(parse_ipv4(packet, ip), DropReason::kNone);
  return count_segments(vnet, packet, ip);
}

void check_against_reference(const VnetHeader& vnet, const Bytes& packet) {
  const auto expected = slow_segment(vnet, packet);
  CHECK(expected.has_value());
  Bytes memory = packet;
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(vnet, memory), SegmentStatus::kOk);
  if (!expected || !passing()) return;
  const std::vector<Bytes> got = segments_of(segmenter);
  CHECK_EQ(got.size(), expected->size());
  CHECK_EQ(count_of(vnet, packet), expected->size());
  for (size_t i = 0; i < std::min(got.size(), expected->size()); i++) {
    if (got[i] == (*expected)[i]) continue;
    CHECK_NOTE(false, "segment " + show(i) + " of " + show(packet.size()) + " bytes at " + show(vnet.gso_size) +
                          ": got " + hex(got[i]) + ", expected " + hex((*expected)[i]));
    return;
  }
}

TEST("TCP: every payload length up to 3000 gives the reference's segments at several sizes") {
  for (size_t length = 0; length <= 3000 && passing(); length++) {
    const Bytes packet = make_tcp({.id = 0xfffe}, {.sequence = 0xffffff00, .flags = 0xd9}, pattern(length));
    for (const uint16_t size : {uint16_t{100}, uint16_t{536}, uint16_t{1432}}) {
      check_against_reference(tcp_header(size), packet);
    }
  }
}

TEST("TCP: every gso size up to 1500 gives the reference's segments") {
  const Bytes packet = make_tcp({}, {.flags = 0x99, .options = timestamps(7, 8)}, pattern(4321));
  for (uint16_t size = 1; size <= 1500 && passing(); size++) check_against_reference(tcp_header(size), packet);
}

TEST("UDP: every payload length up to 3000 gives the reference's segments at several sizes") {
  for (size_t length = 0; length <= 3000 && passing(); length++) {
    const Bytes packet = make_udp({.id = 0xffff, .fragment = 0}, {}, pattern(length));
    for (const uint16_t size : {uint16_t{1}, uint16_t{100}, uint16_t{1200}}) {
      if (size == 1 && length > 300) continue;
      check_against_reference(udp_header(size), packet);
    }
  }
}

TEST("packets up to 65535 bytes with random options, sizes and flags give the reference's segments") {
  Random random;
  for (int round = 0; round < 250 && passing(); round++) {
    const Bytes ip_options(random.one_in(2) ? random.below(11) * 4 : 0, 1);
    const Bytes tcp_options(random.below(11) * 4, 1);
    const bool tcp = random.one_in(2);
    const size_t headers = 20 + ip_options.size() + (tcp ? 20 + tcp_options.size() : 8);
    const size_t payload = round < 10 ? 65535 - headers : random.below(65536 - headers);
    const auto size = static_cast<uint16_t>(1 + random.below(random.one_in(4) ? 65535 : 2000));
    const Ip ip = {.source = random.word(),
                   .tos = random.byte(),
                   .ttl = random.byte(),
                   .id = static_cast<uint16_t>(random.word()),
                   .fragment = static_cast<uint16_t>(random.one_in(2) ? 0x4000 : 0),
                   .options = ip_options};
    const auto ip_length = static_cast<uint16_t>(20 + ip_options.size());
    if (tcp) {
      const Tcp header = {.sequence = random.word(),
                          .ack = random.word(),
                          .flags = random.byte(),
                          .reserved = static_cast<uint8_t>(random.below(16)),
                          .window = static_cast<uint16_t>(random.word()),
                          .urgent = static_cast<uint16_t>(random.word()),
                          .options = tcp_options};
      VnetHeader vnet = tcp_header(size, ip_length);
      if (random.one_in(2)) vnet.gso_type |= kGsoEcn;
      check_against_reference(vnet, make_tcp(ip, header, pattern(payload, random.word())));
    } else {
      check_against_reference(udp_header(size, ip_length), make_udp(ip, {}, pattern(payload, random.word())));
    }
  }
}

TEST("segments can be emitted in parts, again and one by one") {
  Bytes packet = make_tcp({}, {.flags = 0x18, .options = timestamps(1, 2)}, pattern(10000));
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(tcp_header(1000), packet), SegmentStatus::kOk);
  CHECK_EQ(segmenter.count(), 10U);
  const std::vector<Bytes> whole = segments_of(segmenter);
  for (size_t step = 1; step <= 10; step++) {
    std::vector<Bytes> parts;
    for (size_t first = 0; first < 10; first += step) {
      const size_t n = std::min(step, 10 - first);
      Bytes headers(n * segmenter.header_length());
      std::vector<iovec> iovecs(2 * n);
      CHECK_EQ(segmenter.emit(first, n, headers.data(), iovecs.data()), 2 * n);
      for (size_t i = 0; i < n; i++) parts.push_back(gather(std::span(iovecs).subspan(2 * i, 2)));
    }
    CHECK(parts == whole);
  }
  for (size_t i = 10; i-- > 0;) {
    Bytes header(segmenter.header_length());
    const Segment segment = segmenter.segment(i, header.data());
    Bytes bytes(segment.header.begin(), segment.header.end());
    bytes.insert(bytes.end(), segment.payload.begin(), segment.payload.end());
    CHECK(bytes == whole[i]);
  }
}

TEST("the payload is not copied") {
  Bytes packet = make_tcp({}, {}, pattern(5000));
  const Bytes before = packet;
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(tcp_header(1448), packet), SegmentStatus::kOk);
  Bytes headers(segmenter.count() * segmenter.header_length());
  std::vector<iovec> iovecs(segmenter.count() * 2);
  segmenter.emit(0, segmenter.count(), headers.data(), iovecs.data());
  for (size_t i = 0; i < segmenter.count(); i++) {
    CHECK(iovecs[2 * i].iov_base == headers.data() + i * segmenter.header_length());
    CHECK(iovecs[2 * i + 1].iov_base == packet.data() + 40 + i * 1448);
  }
  CHECK(packet == before);
}

TEST("FIN and PSH are on the last segment only, CWR on the first only, ECE on all") {
  Bytes packet = make_tcp({}, {.flags = 0x10 | 0x01 | 0x08 | 0x80 | 0x40}, pattern(300));
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(tcp_header(100), packet), SegmentStatus::kOk);
  const std::vector<Bytes> segments = segments_of(segmenter);
  CHECK_EQ(segments.size(), 3U);
  CHECK_EQ(segments[0][33], 0x10 | 0x80 | 0x40);
  CHECK_EQ(segments[1][33], 0x10 | 0x40);
  CHECK_EQ(segments[2][33], 0x10 | 0x01 | 0x08 | 0x40);
}

TEST("the IP ID counts up and wraps, the sequence number wraps") {
  Bytes packet = make_tcp({.id = 0xffff}, {.sequence = 0xffffffff}, pattern(300));
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(tcp_header(100), packet), SegmentStatus::kOk);
  const std::vector<Bytes> segments = segments_of(segmenter);
  CHECK_EQ(get16(segments[0], 4), 0xffff);
  CHECK_EQ(get16(segments[1], 4), 0);
  CHECK_EQ(get16(segments[2], 4), 1);
  CHECK_EQ(get32(segments[1], 24), 99U);
}

// A payload whose last two bytes make the checksum of `packet` come out as 0 before it is replaced by 0xffff.
Bytes with_zero_checksum(Bytes packet) {
  put16(packet, packet.size() - 2, 0);
  put16(packet, 26, 0);
  put16(packet, packet.size() - 2, static_cast<uint16_t>(~slow_l4_sum(packet)));
  CHECK_EQ(slow_l4_sum(packet), 0xffff);
  fill_l4_checksum(packet);
  return packet;
}

TEST("UDP: length and total length of each segment are its own, the shorter last one's too") {
  Bytes packet = make_udp({}, {}, pattern(250));
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(udp_header(100), packet), SegmentStatus::kOk);
  const std::vector<Bytes> segments = segments_of(segmenter);
  CHECK_EQ(segments.size(), 3U);
  for (size_t i = 0; i < segments.size(); i++) {
    const size_t payload = i == 2 ? 50 : 100;
    CHECK_EQ(segments[i].size(), 28 + payload);
    CHECK_EQ(get16(segments[i], 2), 28 + payload);
    CHECK_EQ(get16(segments[i], 24), 8 + payload);
    CHECK(ip_checksum_right(segments[i]) && l4_checksum_right(segments[i]) && get16(segments[i], 26) != 0);
  }
}

TEST("UDP: a segment whose checksum comes out as 0 is sent with 0xffff") {
  const Bytes first = with_zero_checksum(make_udp({}, {}, pattern(100)));
  Bytes packet = make_udp({}, {}, Bytes(first.begin() + 28, first.end()));
  const Bytes second = pattern(100, 500);
  packet.insert(packet.end(), second.begin(), second.end());
  put16(packet, 2, 228);
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(udp_header(100), packet), SegmentStatus::kOk);
  CHECK_EQ(get16(segments_of(segmenter)[0], 26), 0xffff);
}

TEST("UDP: without NEEDS_CSUM a zero checksum stays zero in every segment, with it zero is just a sum") {
  Bytes packet = make_udp({}, {.checksum = false}, pattern(250));
  VnetHeader vnet = udp_header(100);
  check_against_reference(vnet, packet);
  vnet.flags = 0;
  check_against_reference(vnet, packet);
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin(vnet, packet), SegmentStatus::kOk);
  for (const Bytes& segment : segments_of(segmenter)) CHECK_EQ(get16(segment, 26), 0);
}

TEST("no super-packet: the checksum is finished in place from the sum in the field, for every length") {
  for (size_t length = 0; length <= 1600 && passing(); length++) {
    for (const bool tcp : {true, false}) {
      const Bytes expected = tcp ? make_tcp({}, {}, pattern(length)) : make_udp({}, {}, pattern(length));
      Bytes packet = expected;
      const uint16_t offset = tcp ? 16 : 6;
      Bytes pseudo(expected.begin() + 12, expected.begin() + 20);
      pseudo.insert(pseudo.end(), {0, expected[9], 0, 0});
      put16(pseudo, 10, static_cast<uint16_t>(expected.size() - 20));
      put16(packet, 20U + offset, slow_sum(pseudo));
      Segmenter segmenter;
      CHECK_EQ(segmenter.begin({kVnetNeedsChecksum, kGsoNone, 0, 0, 20, offset}, packet), SegmentStatus::kOk);
      CHECK_EQ(segmenter.count(), 1U);
      CHECK_EQ(segmenter.header_length(), 0U);
      CHECK_EQ_NOTE(hex(packet), hex(expected), show(length));
      CHECK(segments_of(segmenter)[0] == expected);
    }
  }
}

TEST("no super-packet: a UDP checksum that comes out as 0 is sent as 0xffff, a TCP checksum stays 0") {
  Bytes udp = with_zero_checksum(make_udp({}, {}, pattern(60)));
  const Bytes expected = udp;
  put16(udp, 26, 0);
  put16(udp, 26, static_cast<uint16_t>(slow_l4_sum(udp) - slow_sum(std::span(udp).subspan(20))));
  put16(udp, 26, slow_sum({}, get16(udp, 26) + 0U));
  Bytes pseudo(udp.begin() + 12, udp.begin() + 20);
  pseudo.insert(pseudo.end(), {0, 17, 0, 68});
  put16(udp, 26, slow_sum(pseudo));
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin({kVnetNeedsChecksum, kGsoNone, 0, 0, 20, 6}, udp), SegmentStatus::kOk);
  CHECK_EQ(get16(udp, 26), 0xffff);
  CHECK(udp == expected);
}

TEST("no super-packet: 0xffff for 0 is UDP's alone, and its checksum field's") {
  struct Case {
    uint8_t protocol;
    uint16_t offset;
    uint16_t checksum;
  };
  constexpr uint8_t kDccp = 33;  // has its checksum where UDP has it (RFC 4340 section 5.1), and a 0 is a 0
  for (const Case& c : {Case{kProtocolUdp, 6, 0xffff}, Case{kProtocolUdp, 8, 0}, Case{kDccp, 6, 0}}) {
    Bytes packet = make_ip({}, c.protocol, Bytes(40, 0));
    put16(packet, 20U + c.offset, 0xffff);
    Segmenter segmenter;
    CHECK_EQ(segmenter.begin({kVnetNeedsChecksum, kGsoNone, 0, 0, 20, c.offset}, packet), SegmentStatus::kOk);
    CHECK_EQ_NOTE(get16(packet, 20U + c.offset), c.checksum, show(c.protocol) + " at " + show(c.offset));
  }
}

TEST("no super-packet and no NEEDS_CSUM: not a byte is changed, and bytes behind the packet are left out") {
  Bytes packet = make_udp({}, {.checksum = false}, pattern(77));
  const Bytes before = packet;
  Segmenter segmenter;
  CHECK_EQ(segmenter.begin({}, packet), SegmentStatus::kOk);
  CHECK(packet == before);
  CHECK(segments_of(segmenter)[0] == before);
  packet.resize(packet.size() + 5, 0xee);
  CHECK_EQ(segmenter.begin({}, packet), SegmentStatus::kOk);
  CHECK(segments_of(segmenter)[0] == before);
}

TEST("a super-packet of one segment is completed in place and sent as it is") {
  for (const size_t length : {size_t{0}, size_t{1}, size_t{99}, size_t{100}}) {
    const Bytes tcp = make_tcp({}, {.flags = 0x99}, pattern(length));
    Bytes packet = tcp;
    put16(packet, 36, 0xbeef);
    Segmenter segmenter;
    CHECK_EQ(segmenter.begin(tcp_header(100), packet), SegmentStatus::kOk);
    CHECK_EQ(segmenter.count(), 1U);
    CHECK_EQ(segmenter.header_length(), 0U);
    CHECK(segments_of(segmenter)[0] == tcp);
    const Bytes udp = make_udp({}, {}, pattern(length));
    packet = udp;
    put16(packet, 26, 0xbeef);
    CHECK_EQ(segmenter.begin(udp_header(100), packet), SegmentStatus::kOk);
    CHECK(segments_of(segmenter)[0] == udp);
  }
}

TEST("hdr_len is not believed") {
  const Bytes packet = make_tcp({}, {.options = timestamps(1, 2)}, pattern(3000));
  for (const uint16_t claimed : {uint16_t{0}, uint16_t{1}, uint16_t{40}, uint16_t{65535}}) {
    VnetHeader vnet = tcp_header(1000);
    vnet.header_length = claimed;
    check_against_reference(vnet, packet);
  }
}

TEST("the checksum fields of the vnet header are not believed for a super-packet") {
  VnetHeader vnet = tcp_header(1000);
  vnet.csum_start = 65535;
  vnet.csum_offset = 65535;
  check_against_reference(vnet, make_tcp({}, {}, pattern(3000)));
}

TEST("what cannot be cut is refused with its reason and left unchanged") {
  struct Case {
    const char* what;
    VnetHeader vnet;
    Bytes packet;
    SegmentStatus status;
  };
  const Bytes tcp = make_tcp({}, {}, pattern(300));
  const Bytes udp = make_udp({}, {}, pattern(300));
  const auto changed = [](Bytes packet, size_t at, uint8_t value) {
    packet.at(at) = value;
    return packet;
  };
  const auto longer = [](Bytes packet) {
    packet.push_back(0);
    return packet;
  };
  const auto cut = [](Bytes packet, size_t length) {
    packet.resize(length);
    put16(packet, 2, static_cast<uint16_t>(length));
    return packet;
  };
  const VnetHeader ufo = {kVnetNeedsChecksum, 3, 28, 100, 20, 6};
  const VnetHeader tcp6 = {kVnetNeedsChecksum, 4, 60, 100, 40, 16};
  const VnetHeader udp_ecn = {kVnetNeedsChecksum, kGsoUdpL4 | kGsoEcn, 28, 100, 20, 6};
  const VnetHeader none_ecn = {kVnetNeedsChecksum, kGsoEcn, 28, 100, 20, 6};
  const auto none = [](uint16_t start, uint16_t offset) {
    return VnetHeader{kVnetNeedsChecksum, kGsoNone, 0, 0, start, offset};
  };
  const Case cases[] = {
      {"empty", {}, {}, SegmentStatus::kBadIpv4},
      {"19 bytes", {}, cut(tcp, 19), SegmentStatus::kBadIpv4},
      {"IPv6", tcp_header(100), changed(tcp, 0, 0x65), SegmentStatus::kBadIpv4},
      {"IHL 4", tcp_header(100), changed(tcp, 0, 0x44), SegmentStatus::kBadIpv4},
      {"total length beyond the packet", {}, changed(tcp, 2, 0xff), SegmentStatus::kBadIpv4},
      {"bytes behind a super-packet", tcp_header(100), longer(tcp), SegmentStatus::kBadIpv4},
      {"MF", tcp_header(100), make_tcp({.fragment = 0x2000}, {}, pattern(300)), SegmentStatus::kFragment},
      {"offset", udp_header(100), make_udp({.fragment = 1}, {}, pattern(300)), SegmentStatus::kFragment},
      {"TCP type, UDP packet", tcp_header(100), udp, SegmentStatus::kWrongProtocol},
      {"UDP type, TCP packet", udp_header(100), tcp, SegmentStatus::kWrongProtocol},
      {"UFO", ufo, udp, SegmentStatus::kBadGsoType},
      {"TCPv6", tcp6, tcp, SegmentStatus::kBadGsoType},
      {"USO with ECN", udp_ecn, udp, SegmentStatus::kBadGsoType},
      {"ECN alone", none_ecn, tcp, SegmentStatus::kBadGsoType},
      {"size 0", tcp_header(0), tcp, SegmentStatus::kBadGsoSize},
      {"TCP header cut", tcp_header(100), cut(tcp, 39), SegmentStatus::kBadL4Header},
      {"TCP data offset 4", tcp_header(100), changed(tcp, 32, 0x40), SegmentStatus::kBadL4Header},
      {"TCP options beyond the packet", tcp_header(100), cut(changed(tcp, 32, 0xf0), 79), SegmentStatus::kBadL4Header},
      {"UDP header cut", udp_header(100), cut(udp, 27), SegmentStatus::kBadL4Header},
      {"csum_start in the IP header", none(19, 17), tcp, SegmentStatus::kBadChecksumField},
      {"checksum field at the end", none(20, 299), tcp, SegmentStatus::kOk},
      {"checksum field over the end", none(20, 319), tcp, SegmentStatus::kBadChecksumField},
      {"csum_start behind the packet", none(65535, 65535), tcp, SegmentStatus::kBadChecksumField},
  };
  for (const Case& c : cases) {
    Bytes packet = c.packet;
    Segmenter segmenter;
    CHECK_EQ_NOTE(segmenter.begin(c.vnet, packet), c.status, c.what);
    if (c.status != SegmentStatus::kOk) CHECK_NOTE(packet == c.packet, c.what);
    Ipv4View ip;
    if (parse_ipv4(c.packet, ip) == DropReason::kNone) CHECK_EQ_NOTE(count_segments(c.vnet, c.packet, ip), 1, c.what);
  }
}

TEST("a packet after a super-packet goes as it is") {
  Segmenter segmenter;
  Bytes super = make_tcp({}, {}, pattern(300));
  CHECK_EQ(segmenter.begin(tcp_header(100), super), SegmentStatus::kOk);
  CHECK_EQ(segmenter.count(), 3U);
  Bytes single = make_udp({}, {}, pattern(70));
  CHECK_EQ(segmenter.begin({}, single), SegmentStatus::kOk);
  CHECK_EQ(segmenter.count(), 1U);
  CHECK_EQ(segmenter.header_length(), 0U);
  CHECK(segments_of(segmenter) == std::vector<Bytes>{single});
}

TEST("a segmenter takes another packet after one it refused") {
  Segmenter segmenter;
  Bytes bad = make_tcp({}, {}, pattern(300));
  CHECK_EQ(segmenter.begin(udp_header(100), bad), SegmentStatus::kWrongProtocol);
  Bytes good = make_udp({}, {}, pattern(300));
  const auto expected = slow_segment(udp_header(100), good);
  CHECK_EQ(segmenter.begin(udp_header(100), good), SegmentStatus::kOk);
  CHECK(segments_of(segmenter) == *expected);
}

}  // namespace
}  // namespace tsflannel::testing
