#include "segmenter.h"

#include <algorithm>
#include <cstring>

#include "../packet/checksum.h"
#include "l4.h"

namespace tsflannel {
namespace {

// The usual lengths as constants, so that the copy becomes a few vector moves instead of a call.
void copy_header(uint8_t* to, const uint8_t* from, size_t length) {
  if (length == 52) {  // TCP with timestamps
    std::memcpy(to, from, 52);
  } else if (length == 40) {  // TCP
    std::memcpy(to, from, 40);
  } else if (length == 28) {  // UDP
    std::memcpy(to, from, 28);
  } else {
    std::memcpy(to, from, length);
  }
}

iovec to_iovec(const uint8_t* data, size_t length) {
  return {const_cast<uint8_t*>(data), length};
}

}  // namespace

size_t count_segments(const VnetHeader& vnet, std::span<const uint8_t> packet, const Ipv4View& ip) {
  const bool is_tcp = (vnet.gso_type & ~kGsoEcn) == kGsoTcpV4 && ip.protocol == kProtocolTcp;
  const bool is_udp = vnet.gso_type == kGsoUdpL4 && ip.protocol == kProtocolUdp;
  if ((!is_tcp && !is_udp) || vnet.gso_size == 0 || ip.is_fragment() || ip.total_length != packet.size()) return 1;
  const size_t l4_length = size_t{ip.total_length} - ip.header_length;
  size_t l4_header_length = kUdpHeader;
  if (is_tcp) {
    if (l4_length < kTcpMinHeader) return 1;
    l4_header_length = static_cast<size_t>(ip.data[ip.header_length + kTcpOffset] >> 4) * 4;
    if (l4_header_length < kTcpMinHeader) return 1;
  }
  if (l4_length <= l4_header_length) return 1;
  return (l4_length - l4_header_length + vnet.gso_size - 1) / vnet.gso_size;
}

SegmentStatus Segmenter::begin(const VnetHeader& vnet, std::span<uint8_t> packet) {
  Ipv4View ip;
  if (parse_ipv4(packet, ip) != DropReason::kNone) return SegmentStatus::kBadIpv4;
  return begin(vnet, packet, ip);
}

SegmentStatus Segmenter::begin(const VnetHeader& vnet, std::span<uint8_t> packet, const Ipv4View& ip) {
  packet_ = packet.data();
  packet_length_ = ip.total_length;
  ip_header_length_ = ip.header_length;
  if (vnet.gso_type == kGsoNone) [[likely]] {
    return begin_single(vnet, ip);
  }
  // A super-packet is made by the kernel to the byte; anything behind its total length means that we misread it.
  if (ip.total_length != packet.size()) return SegmentStatus::kBadIpv4;
  if (ip.is_fragment()) return SegmentStatus::kFragment;
  if (vnet.gso_size == 0) return SegmentStatus::kBadGsoSize;
  if ((vnet.gso_type & ~kGsoEcn) == kGsoTcpV4) return begin_tcp(vnet, ip);
  if (vnet.gso_type == kGsoUdpL4) return begin_udp(vnet, ip);
  return SegmentStatus::kBadGsoType;
}

SegmentStatus Segmenter::begin_single(const VnetHeader& vnet, const Ipv4View& ip) {
  if ((vnet.flags & kVnetNeedsChecksum) != 0) {
    const size_t start = vnet.csum_start;
    const size_t field = start + vnet.csum_offset;
    if (start < ip.header_length || field + 2 > ip.total_length) return SegmentStatus::kBadChecksumField;
    // The field holds the pseudo header's sum already (Documentation/networking/checksum-offloads.rst).
    const uint64_t sum = sum_bytes(packet_ + start, packet_length_ - start);
    const bool is_udp = ip.protocol == kProtocolUdp && vnet.csum_offset == kUdpChecksum;
    store_be16(packet_ + field, is_udp ? finish_udp_checksum(sum) : finish_checksum(sum));
  }
  count_ = 1;
  header_length_ = 0;
  segment_length_ = packet_length_;
  last_length_ = packet_length_;
  return SegmentStatus::kOk;
}

SegmentStatus Segmenter::begin_tcp(const VnetHeader& vnet, const Ipv4View& ip) {
  if (ip.protocol != kProtocolTcp) return SegmentStatus::kWrongProtocol;
  const size_t l4_length = packet_length_ - ip_header_length_;
  if (l4_length < kTcpMinHeader) return SegmentStatus::kBadL4Header;
  const uint8_t* tcp = packet_ + ip_header_length_;
  const size_t tcp_header_length = static_cast<size_t>(tcp[kTcpOffset] >> 4) * 4;
  if (tcp_header_length < kTcpMinHeader || tcp_header_length > l4_length) return SegmentStatus::kBadL4Header;

  is_tcp_ = true;
  sequence_ = load_be32(tcp + kTcpSequence);
  tcp_flags_ = load_be16(tcp + kTcpOffset);
  // Everything that all segments share: pseudo header but its length, ports, ack, window, urgent pointer, options.
  l4_sum_ = pseudo_header_sum(ip.source, ip.destination, kProtocolTcp, 0) + load_be32(tcp + kPorts) +
            load_be32(tcp + kTcpAck) + load_be16(tcp + kTcpWindow) + load_be16(tcp + kTcpUrgent);
  l4_sum_ = add_sums(l4_sum_, sum_words(tcp + kTcpMinHeader, (tcp_header_length - kTcpMinHeader) / 4));
  plan(ip, tcp_header_length, vnet.gso_size);
  return SegmentStatus::kOk;
}

SegmentStatus Segmenter::begin_udp(const VnetHeader& vnet, const Ipv4View& ip) {
  if (ip.protocol != kProtocolUdp) return SegmentStatus::kWrongProtocol;
  if (packet_length_ - ip_header_length_ < kUdpHeader) return SegmentStatus::kBadL4Header;
  const uint8_t* udp = packet_ + ip_header_length_;

  is_tcp_ = false;
  // Without NEEDS_CSUM a zero field means that the sender wants no checksum; with it, zero is a pseudo header's sum.
  has_checksum_ = (vnet.flags & kVnetNeedsChecksum) != 0 || load_raw16(udp + kUdpChecksum) != 0;
  l4_sum_ = pseudo_header_sum(ip.source, ip.destination, kProtocolUdp, 0) + load_be32(udp + kPorts);
  plan(ip, kUdpHeader, vnet.gso_size);
  return SegmentStatus::kOk;
}

void Segmenter::plan(const Ipv4View& ip, size_t l4_header_length, uint16_t gso_size) {
  header_length_ = ip_header_length_ + l4_header_length;
  gso_size_ = gso_size;
  id_ = load_be16(packet_ + kIpv4Id);
  // The header without total length, id and checksum.
  ip_sum_ =
      uint64_t{load_be16(packet_)} + ip.fragment + load_be16(packet_ + kIpv4Ttl) + sum_words(packet_ + kIpv4Source, 2);
  ip_sum_ = add_sums(ip_sum_, sum_words(packet_ + kIpv4MinHeader, (ip_header_length_ - kIpv4MinHeader) / 4));

  const size_t payload = packet_length_ - header_length_;
  if (payload > gso_size_) {
    count_ = (payload + gso_size_ - 1) / gso_size_;
    segment_length_ = header_length_ + gso_size_;
    last_length_ = header_length_ + payload - (count_ - 1) * gso_size_;
    return;
  }
  count_ = 1;
  segment_length_ = packet_length_;
  last_length_ = packet_length_;
  write_fields(0, packet_, payload);
  header_length_ = 0;
}

void Segmenter::write_fields(size_t index, uint8_t* header, size_t payload_length) const {
  const auto total_length = static_cast<uint16_t>(header_length_ + payload_length);
  const auto l4_length = static_cast<uint16_t>(total_length - ip_header_length_);
  // One more per segment, as inet_gso_segment() does.
  const auto id = static_cast<uint16_t>(id_ + index);
  store_be16(header + kIpv4TotalLength, total_length);
  store_be16(header + kIpv4Id, id);
  store_be16(header + kIpv4Checksum, finish_checksum(add_sums(ip_sum_, uint64_t{total_length} + id)));

  const uint8_t* payload = packet_ + header_length_ + index * gso_size_;
  uint8_t* l4 = header + ip_header_length_;
  if (is_tcp_) {
    // As tcp_gso_segment(): FIN and PSH belong to the last byte, CWR to the first.
    uint16_t flags = tcp_flags_;
    if (index + 1 != count_) flags &= static_cast<uint16_t>(~(kTcpFin | kTcpPsh));
    if (index != 0) flags &= static_cast<uint16_t>(~kTcpCwr);
    const uint32_t sequence = sequence_ + static_cast<uint32_t>(index * gso_size_);
    store_be32(l4 + kTcpSequence, sequence);
    store_be16(l4 + kTcpOffset, flags);
    const uint64_t sum = add_sums(l4_sum_, uint64_t{l4_length} + flags + sequence);
    store_be16(l4 + kTcpChecksum, finish_checksum(sum_bytes(payload, payload_length, sum)));
    return;
  }
  store_be16(l4 + kUdpLength, l4_length);
  // The length counts twice: in the pseudo header and in the header.
  const uint64_t sum = l4_sum_ + uint64_t{l4_length} * 2;
  store_be16(l4 + kUdpChecksum, has_checksum_ ? finish_udp_checksum(sum_bytes(payload, payload_length, sum)) : 0);
}

size_t Segmenter::emit(size_t first, size_t n, uint8_t* headers, iovec* iovecs) const {
  if (header_length_ == 0) {
    if (n == 0) return 0;
    iovecs[0] = to_iovec(packet_, packet_length_);
    return 1;
  }
  for (size_t i = 0; i < n; i++) {
    const Segment next = segment(first + i, headers + i * header_length_);
    iovecs[2 * i] = to_iovec(next.header.data(), next.header.size());
    iovecs[2 * i + 1] = to_iovec(next.payload.data(), next.payload.size());
  }
  return 2 * n;
}

Segment Segmenter::segment(size_t index, uint8_t* header) const {
  if (header_length_ == 0) return {{}, {packet_, packet_length_}};
  const size_t payload_length = (index + 1 == count_ ? last_length_ : segment_length_) - header_length_;
  copy_header(header, packet_, header_length_);
  write_fields(index, header, payload_length);
  return {{header, header_length_}, {packet_ + header_length_ + index * gso_size_, payload_length}};
}

}  // namespace tsflannel
